"""Volume + model -> probability of tumour for each voxel, batch by batch."""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from .. import devices, memory
from ..data.patients import SEQUENCES
from ..errors import DeviceError, EngineError, ImageError, LggSegError, reason
from ..model.background import subtract_background
from ..model.geometry import Rectangle
from ..model.neighbours import IntArray, input_channels, with_neighbours
from ..model.preprocess import back_to_grid, crop_and_resample, intensity_stats_of, measure, normalise_each
from ..model.windows import AIR, window_around
from . import coarse, transfer
from .engines import make_engine

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import Tensor

    from ..model.checkpoint import Model
    from ..model.preprocess import Preparation
    from ..options import SegmentOptions

#: Largest absolute logit that is plausible. Those of trained networks are below 100, because float32
#: probabilities are 0 or 1 beyond; where a layer overflows, bf16 arithmetic may end in huge finite values.
_LARGEST_LOGIT = 1000.0

Probability = npt.NDArray[np.float32]
T = TypeVar("T")


@dataclass(frozen=True)
class SlicesDone:
    """Progress: ``done`` of ``total`` slices of the volume are finished."""

    done: int
    total: int


@dataclass(frozen=True)
class Notice:
    """A message for the user, in one sentence; the computation continues."""

    text: str


Event = SlicesDone | Notice


@dataclass(frozen=True)
class _Pass:
    """One pass over a volume: which region of each slice is computed, and at which size."""

    volume: npt.NDArray[np.generic]
    #: For each requested slice, the indices of itself and its neighbours in the volume.
    around: IntArray
    preparation: Preparation
    size: int
    #: Initial batch size.
    batch: int
    #: Slices that are finished already.
    done: int = 0
    #: The result of a coarse pass before this one.
    coarse_result: coarse.CoarseProbability | None = None


class Predictor:
    """A model prepared for one device; it can be used for any number of volumes.

    Parameters
    ----------
    model : Model
        From :func:`napari_lgg_seg.core.model.checkpoint.load_model`; it is copied, not changed.
    device : str
        "auto", "cuda", "mps" or "cpu".
    batch_size : int, optional
        Slices per batch; by default chosen from the device's memory.
    tta : bool
        Test-time augmentation: average the results for each slice and its mirror image.
    engine : str
        One of :data:`napari_lgg_seg.core.devices.ENGINE_CHOICES`.
    coarse_to_fine : bool
        Compute only candidate regions at full resolution, see :mod:`.coarse`. Everything is computed at
        full resolution if the model has no coarse threshold, or for a few slices.
    whole_slices : bool
        Do not skip slices without head or air around the head; for benchmarks.

    Attributes
    ----------
    device : torch.device
        Where the network runs; changes to the CPU if the device runs out of memory.
    coarse_to_fine : bool
        Whether coarse-to-fine inference is used.
    engine : Engine
        What runs the network; changes to PyTorch if another engine fails.

    Raises
    ------
    DeviceError
        If the device is not available, or the engine not installed or not for this device.
    """

    def __init__(
        self,
        model: Model,
        device: str = "auto",
        batch_size: int | None = None,
        *,
        tta: bool = False,
        engine: str = "auto",
        coarse_to_fine: bool = False,
        whole_slices: bool = False,
    ) -> None:
        self.card = model.card
        self._tta, self._whole_slices = tta, whole_slices
        self.coarse_to_fine = coarse_to_fine and model.card.coarse_threshold is not None and not whole_slices
        self._model = model
        self._batch_size = batch_size
        self._chosen_engine = engine
        self._notices: list[Notice] = []
        self._move_to(devices.choose_device(device, engine))

    @property
    def model_file(self) -> Path:
        """The file that the model was loaded from."""
        return self._model.path

    def _move_to(self, device: torch.device) -> None:
        self.device = device
        name = devices.choose_engine(self._chosen_engine, device)
        try:
            self._use(name)
        except EngineError as error:
            self._notices.append(self._use_torch(error))

    def _use(self, engine: str) -> None:
        card = self.card
        channels = input_channels(card.sequences, card.neighbouring_slices)
        try:
            self._transfer = transfer.transfer_to(self.device)
            self.engine = make_engine(engine, self._model.network, channels, self.device, card)
        except LggSegError:
            raise
        except Exception as error:
            raise devices.failure(self.device, error) from error

    def _use_torch(self, error: EngineError) -> Notice:
        """Fall back to PyTorch after another engine failed."""
        self._chosen_engine = "torch"
        self._use("torch")
        return Notice(f"{error}: continuing with PyTorch.")

    @property
    def runs_on(self) -> str:
        """Display name of device and engine, for instance ``CPU (OpenVINO)``."""
        device = devices.describe_device(self.device)
        name = self.engine.name
        return device if name == "torch" else f"{device} ({devices.ENGINE_NAMES[name]})"

    def predict(
        self, volume: npt.NDArray[np.generic], slices: Sequence[int] | None = None
    ) -> Generator[Event, None, Probability]:
        """Probability of tumour for each voxel of a volume.

        Parameters
        ----------
        volume : ndarray
            Shape (z, y, x, 3), channels as in :data:`napari_lgg_seg.core.data.patients.SEQUENCES`; any real
            dtype and range, since intensities are normalised per volume.
        slices : sequence of int, optional
            Indices of the slices to compute; by default all. Normalisation and neighbouring slices always
            use the whole volume.

        Yields
        ------
        SlicesDone or Notice
            After each batch. Close the generator to cancel.

        Returns
        -------
        ndarray of float32
            Shape (z, y, x), 0 to 1, on the grid of ``volume``; with ``slices``, one z per entry.

        Raises
        ------
        ImageError
            If the volume has another shape or does not consist of real numbers.
        DeviceError
            If the device fails or computes values that are not finite or implausibly large, or if there is
            not enough memory for a single slice.
        """
        try:
            volume = subtract_background(_select_sequences(volume, self.card.sequences))
            preparation = measure(volume, self.card.preprocess)
        except MemoryError as error:
            raise ImageError("The image is too large for this machine's memory; crop it first.") from error
        wanted = np.arange(len(volume))[slice(None) if slices is None else list(slices)]
        around = with_neighbours(wanted, len(volume), self.card.neighbouring_slices)
        total = len(wanted)
        probability: Probability = np.zeros((total, *volume.shape[1:3]), np.float32)
        # Slices without head hold no tumour and stay 0.
        todo = [i for i, z in enumerate(wanted) if self._whole_slices or preparation.extents[z] is not None]
        yield SlicesDone(0, total)
        batch = (yield from self._initial_batch_size()) if todo else 1
        current = _Pass(volume, around, preparation, self.card.preprocess.working_size, batch)
        if self.coarse_to_fine and slices is None and len(todo) >= coarse.MIN_SLICES:
            current, todo = yield from self._coarse_pass(current, todo, probability)
        yield from self._compute(current, todo, probability)
        if current.coarse_result is not None:
            current.coarse_result.rescale()
        yield from self._take_notices()
        if current.done + len(todo) < total:
            yield SlicesDone(total, total)
        return probability

    def _coarse_pass(
        self, full: _Pass, todo: list[int], probability: Probability
    ) -> Generator[Event, None, tuple[_Pass, list[int]]]:
        """Fill in the coarse result; returns the pass at full resolution that remains, and its slices."""
        threshold = self.card.coarse_threshold
        assert threshold is not None
        computed, preparation = coarse.coarse_slices(todo), full.preparation
        size = coarse.coarse_size(full.size, self._multiple)
        # At half resolution, four times as many slices fit into a batch.
        for event in self._compute(
            dataclasses.replace(full, size=size, batch=4 * full.batch), computed, probability
        ):
            yield SlicesDone(0, len(probability)) if isinstance(event, SlicesDone) else event
        coarse.fill_skipped_slices(probability, todo, computed)
        regions = coarse.refine_regions(
            probability, threshold, todo, preparation.extents, preparation.box, full.size
        )
        merged = coarse.CoarseProbability(probability, threshold)
        left = [z for z in todo if regions[z] is not None]
        done = len(probability) - len(left)
        preparation = dataclasses.replace(preparation, extents=regions)
        if done:
            yield SlicesDone(done, len(probability))
        return dataclasses.replace(full, preparation=preparation, done=done, coarse_result=merged), left

    def _compute(
        self, current: _Pass, todo: list[int], probability: Probability
    ) -> Generator[Event, None, None]:
        """Fill in the probability of slices, batch by batch, one batch ahead if the device supports it."""
        batch = current.batch
        done = started = 0
        pending: deque[tuple[list[int], Callable[[], Tensor]]] = deque()
        while done < len(todo):
            yield from self._take_notices()
            part = todo[started : started + batch]
            try:
                if part:
                    pending.append((part, self._start_batch(current, part)))
                    started += len(part)
                    if started < len(todo) and len(pending) <= self._transfer.ahead:
                        continue
                part, result = pending[0]
                found = self._checked(result().numpy())
            except Exception as error:  # noqa: BLE001 - whatever the engine's library raises
                batch, notice = self._recover(error, batch, len(part))
                # Pending batches may be lost as well: compute them again.
                pending.clear()
                started = done
                yield notice
                continue
            for z, plane in zip(part, found, strict=True):
                if current.coarse_result is not None:
                    current.coarse_result.merge(z, plane)
                else:
                    probability[z] = plane
            pending.popleft()
            done += len(part)
            yield SlicesDone(current.done + done, len(probability))

    def _initial_batch_size(self) -> Generator[Event, None, int]:
        try:
            return self._batch_size or devices.automatic_batch_size(
                self.device, self.card.preprocess.working_size
            )
        except RuntimeError as error:  # the device does not respond
            batch, notice = self._recover(error, 1, 1)
            yield notice
            return batch

    def _take_notices(self) -> list[Notice]:
        """Notices since the last call, for instance that an engine could not be used."""
        taken, self._notices = self._notices, []
        return taken

    def _start_batch(self, current: _Pass, part: list[int]) -> Callable[[], Tensor]:
        """Start computing some slices; the returned function waits for their probability, (m, y, x)."""
        import torch

        volume, preparation, around = current.volume, current.preparation, current.around[part]
        # Prepare each slice once, even if it is a neighbour of several others.
        needed, places = np.unique(around, return_inverse=True)
        box, size, transfer = preparation.box, current.size, self._transfer
        window = self._window([preparation.extents[z] for z in needed], current)
        with torch.inference_mode():
            raw = window.cut(crop_and_resample(volume[needed], box, size, transfer.send_raw))
            x = normalise_each(transfer.send(raw), transfer.send(intensity_stats_of(preparation)))
            stacked = transfer.send(torch.from_numpy(places.reshape(around.shape)))
            values = window.put_back(self._probability(x[stacked].flatten(1, 2)), size)
            height, width = volume.shape[1:3]
            return transfer.fetch(back_to_grid(values, box, (height, width)))

    def _window(self, extents: Sequence[Rectangle | None], current: _Pass) -> Rectangle:
        """The region of resampled slices that the network computes."""
        if self._whole_slices:
            return Rectangle(0, current.size, 0, current.size)
        air = AIR * current.size // self.card.preprocess.working_size
        return window_around(extents, current.preparation.box, current.size, self._multiple, air)

    @property
    def _multiple(self) -> int:
        """Factor by which the network downsamples a slice."""
        from ..model.networks import NETWORKS

        return NETWORKS[self.card.architecture].multiple

    def _probability(self, x: Tensor) -> Tensor:
        values = self._sigmoid(x)
        if self._tta:
            values = (values + self._sigmoid(x.flip(-1)).flip(-1)) / 2
        return values

    def _sigmoid(self, x: Tensor) -> Tensor:
        """The network's probability; NaN where its output is not plausible, for :meth:`_checked`."""
        logits = self.engine.logits(x)
        return logits.masked_fill(logits.abs() > _LARGEST_LOGIT, math.nan).sigmoid()

    def _checked(self, found: Probability) -> Probability:
        """Refuse a batch's probability if the network's output was not finite or implausibly large."""
        if np.isfinite(found).all():
            return found
        name, wrong = self.engine.name, "computed values that are not finite or too large"
        if name != "torch":
            raise EngineError(f"{devices.ENGINE_NAMES[name]} {wrong}")
        raise DeviceError(
            f"{devices.describe_device(self.device)} {wrong} with the model {self.model_file}; "
            "choose another device or model."
        )

    def _recover(self, error: Exception, batch: int, computed: int) -> tuple[int, Notice]:
        """After a failure: try PyTorch, half of the slices computed, then the CPU; else raise the error."""
        device, name = self.device, self.engine.name
        if isinstance(error, LggSegError) and not isinstance(error, EngineError):
            raise error
        if not memory.is_out_of_memory(error):
            if name != "torch" and not isinstance(error, EngineError):
                error = EngineError(f"{devices.ENGINE_NAMES[name]} failed ({reason(error)})")
            if isinstance(error, EngineError):
                return batch, self._use_torch(error)
            raise devices.failure(device, error) from error
        memory.reclaim_memory(device)
        if computed > 1:
            return computed // 2, Notice(
                f"Out of memory: continuing with {computed // 2} instead of {computed} slices per batch."
            )
        if device.type == "cpu":
            raise DeviceError(
                "There is not enough memory for a single slice; close other programs and try again."
            ) from error
        self._move_to(devices.choose_device("cpu"))
        memory.reclaim_memory(device)
        return 1, Notice(f"{device.type.upper()} is out of memory: continuing on the CPU.")


def predictor_for(model: Model, options: SegmentOptions) -> Predictor:
    """A predictor with a user's options."""
    return Predictor(
        model,
        options.device,
        options.batch_size,
        tta=options.tta,
        engine=options.engine,
        coarse_to_fine=model.card.uses_coarse_to_fine(options),
    )


def run_to_end(steps: Generator[Event, None, T], show: Callable[[Event], None] | None = None) -> T:
    """Run a prediction to its end, passing its events to ``show``; returns its result."""
    while True:
        try:
            event = next(steps)
        except StopIteration as stop:
            result: T = stop.value
            return result
        if show is not None:
            show(event)


def _select_sequences(volume: npt.NDArray[np.generic], sequences: tuple[str, ...]) -> npt.NDArray[np.generic]:
    """Check a volume and select the model's sequences."""
    if volume.ndim != 4 or volume.shape[-1] != len(SEQUENCES) or 0 in volume.shape:
        raise ImageError(
            f"An image of shape {volume.shape} cannot be segmented; it must be slices x height x width x 3."
        )
    if volume.dtype.kind not in "buif":
        raise ImageError(f"An image of {volume.dtype} cannot be segmented; convert it to real numbers.")
    if sequences != SEQUENCES:
        volume = volume[..., [SEQUENCES.index(s) for s in sequences]]
    return volume
