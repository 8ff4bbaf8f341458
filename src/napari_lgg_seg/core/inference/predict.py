"""Volume + model -> probability of tumour for each voxel, batch by batch."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from .. import devices, memory
from ..data.patients import SEQUENCES
from ..errors import DeviceError, EngineError, ImageError
from ..model.geometry import Rectangle
from ..model.neighbours import IntArray, input_channels, with_neighbours
from ..model.preprocess import back_to_grid, crop_and_resample, intensity_stats_of, measure, normalise_each
from ..model.windows import AIR, window_around
from . import coarse, transfer
from .engines import make_engine

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ..model.checkpoint import Model
    from ..model.preprocess import Preparation
    from ..options import SegmentOptions

Probability = npt.NDArray[np.float32]
T = TypeVar("T")


@dataclass(frozen=True)
class SlicesDone:
    """Progress: this many slices of the volume are finished."""

    done: int
    total: int


@dataclass(frozen=True)
class Notice:
    """Something the user should know, in one sentence; the work goes on."""

    text: str


Event = SlicesDone | Notice


@dataclass(frozen=True)
class _Look:
    """How a volume is looked at: which part of each slice, at which size."""

    volume: npt.NDArray[np.generic]
    #: Of each slice that is asked for, itself and its neighbours in the volume.
    around: IntArray
    preparation: Preparation
    size: int
    #: Slices at once to begin with.
    batch: int
    #: Slices that need no look any more.
    done: int = 0
    #: What an earlier, quick look found.
    earlier: coarse.Remainder | None = None


class Predictor:
    """A model made ready for one device; use it for as many volumes as you like.

    Parameters
    ----------
    model : Model
        From :func:`napari_lgg_seg.core.model.checkpoint.load_model`; it is copied, not changed.
    device : str
        "auto", "cuda", "mps" or "cpu".
    batch_size : int, optional
        Slices at once; chosen from the device's memory by default.
    tta : bool
        Test-time augmentation: average the answers for each slice and its mirror image.
    engine : str
        One of :data:`napari_lgg_seg.core.devices.ENGINE_CHOICES`.
    coarse_to_fine : bool
        Look closely only where a quick look finds a chance of tumour: see :mod:`.quick_look`. With a model
        that has no limit for it, and of a few slices, everything is looked at closely all the same.
    whole_slices : bool
        Let the network see slices without head and the air around heads, too: to measure what that is worth.

    Attributes
    ----------
    device : torch.device
        Where the network runs; another one after it had too little memory.
    coarse_to_fine : bool
        Whether there are quick looks.
    engine : Engine
        What computes the network; another one after it failed.

    Raises
    ------
    DeviceError
        If the device is not present, or the engine not installed or not for the device.
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
        self._wanted_engine = engine
        self._notices: list[Notice] = []
        self._move_to(devices.choose_device(device, engine))

    def _move_to(self, device: torch.device) -> None:
        self.device = device
        name = devices.choose_engine(self._wanted_engine, device)
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
        except RuntimeError as error:
            raise devices.failure(self.device, error) from error

    def _use_torch(self, error: EngineError) -> Notice:
        """After another engine failed."""
        self._wanted_engine = "torch"
        self._use("torch")
        return Notice(f"{error}: going on with PyTorch.")

    @property
    def runs_on(self) -> str:
        """Device and engine for people, for instance ``CPU (OpenVINO)``."""
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
            Shape (z, y, x, 3), channels as in :data:`napari_lgg_seg.core.data.patients.SEQUENCES`; any
            real dtype and range, since intensities are normalised per volume.
        slices : sequence of int, optional
            Indices of the slices to compute; all of them by default. Intensities are normalised over
            the whole volume, and neighbours are taken from it, all the same.

        Yields
        ------
        SlicesDone or Notice
            After each batch. Close the generator to cancel.

        Returns
        -------
        ndarray of float32
            Shape (z, y, x), 0 to 1, on the grid of ``volume``; z counts ``slices`` if given.

        Raises
        ------
        ImageError
            If the volume has another shape or is not made of real numbers.
        DeviceError
            If the device fails, or if there is not enough memory for a single slice.
        """
        try:
            volume = _as_network_input(volume, self.card.sequences)
            preparation = measure(volume, self.card.preprocess)
        except MemoryError as error:
            raise ImageError("The image is too large for this machine's memory; crop it first.") from error
        wanted = np.arange(len(volume))[slice(None) if slices is None else list(slices)]
        around = with_neighbours(wanted, len(volume), self.card.neighbouring_slices)
        total = len(wanted)
        probability: Probability = np.zeros((total, *volume.shape[1:3]), np.float32)
        # Where there is no head there is no tumour: those slices keep 0.
        todo = [i for i, z in enumerate(wanted) if self._whole_slices or preparation.extents[z] is not None]
        yield SlicesDone(0, total)
        batch = (yield from self._first_batch()) if todo else 1
        look = _Look(volume, around, preparation, self.card.preprocess.working_size, batch)
        if self.coarse_to_fine and slices is None and len(todo) >= coarse.FEWEST:
            look, todo = yield from self._look_quickly(look, todo, probability)
        yield from self._compute(look, todo, probability)
        if look.earlier is not None:
            look.earlier.level()
        yield from self._take_notices()
        if look.done + len(todo) < total:
            yield SlicesDone(total, total)
        return probability

    def _look_quickly(
        self, look: _Look, todo: list[int], probability: Probability
    ) -> Generator[Event, None, tuple[_Look, list[int]]]:
        """Fill in what a quick look at all slices gives; returns what is left to be looked at, and how."""
        limit = self.card.coarse_threshold
        assert limit is not None
        looked, preparation = coarse.coarse_slices(todo), look.preparation
        size = coarse.coarse_size(look.size, self._multiple)
        quick = dataclasses.replace(look, size=size, batch=4 * look.batch)  # of a quarter of the size
        for event in self._compute(quick, looked, probability):
            yield SlicesDone(0, len(probability)) if isinstance(event, SlicesDone) else event
        coarse.fill_between(probability, todo, looked)
        extents = coarse.refine_regions(
            probability, limit, todo, preparation.extents, preparation.box, look.size
        )
        # What a quick look finds is no more than a reason for a closer one.
        earlier = coarse.Remainder(probability, limit)
        left = [z for z in todo if extents[z] is not None]
        preparation = dataclasses.replace(preparation, extents=extents)
        done = len(probability) - len(left)
        closely = dataclasses.replace(look, preparation=preparation, done=done, earlier=earlier)
        if closely.done:
            yield SlicesDone(closely.done, len(probability))
        return closely, left

    def _compute(
        self, look: _Look, todo: list[int], probability: Probability
    ) -> Generator[Event, None, None]:
        """Fill in the probability of some slices, batch by batch; where the device allows it, one ahead."""
        batch = look.batch
        done = begun = 0
        under_way: deque[tuple[list[int], Callable[[], Tensor]]] = deque()
        while done < len(todo):
            yield from self._take_notices()
            part = todo[begun : begun + batch]
            try:
                if part:
                    under_way.append((part, self._begin_batch(look, part)))
                    begun += len(part)
                    if begun < len(todo) and len(under_way) <= self._transfer.ahead:
                        continue
                part, result = under_way[0]
                found = result().numpy()
            except (RuntimeError, MemoryError, EngineError) as error:
                batch, notice = self._recover(error, batch if isinstance(error, EngineError) else len(part))
                # What is under way may be lost as well: it is computed again.
                under_way.clear()
                begun = done
                yield notice
                continue
            for z, plane in zip(part, found, strict=True):
                if look.earlier is not None:
                    look.earlier.replace(z, plane)
                else:
                    probability[z] = plane
            under_way.popleft()
            done += len(part)
            yield SlicesDone(look.done + done, len(probability))

    def _first_batch(self) -> Generator[Event, None, int]:
        """How many slices at once to begin with."""
        try:
            return self._batch_size or devices.automatic_batch_size(
                self.device, self.card.preprocess.working_size
            )
        except RuntimeError as error:  # the device does not answer
            batch, notice = self._recover(error, 1)
            yield notice
            return batch

    def _take_notices(self) -> list[Notice]:
        """What is to be told since the last volume or batch: that an engine could not be used."""
        taken, self._notices = self._notices, []
        return taken

    def _begin_batch(self, look: _Look, part: list[int]) -> Callable[[], Tensor]:
        """Of some of the slices that are asked for; returns what waits for their probability, (m, y, x)."""
        import torch

        volume, preparation, around = look.volume, look.preparation, look.around[part]
        # Each slice that is seen is prepared once, however many others it is a neighbour of.
        needed, places = np.unique(around, return_inverse=True)
        box, size, transfer = preparation.box, look.size, self._transfer
        window = self._window([preparation.extents[z] for z in needed], look)
        with torch.inference_mode():
            raw = window.cut(crop_and_resample(volume[needed], box, size, transfer.send_raw))
            x = normalise_each(transfer.send(raw), transfer.send(intensity_stats_of(preparation)))
            seen = transfer.send(torch.from_numpy(places.reshape(around.shape)))
            values = window.put_back(self._probability(x[seen].flatten(1, 2)), size)
            height, width = volume.shape[1:3]
            return transfer.fetch(back_to_grid(values, box, (height, width)))

    def _window(self, extents: Sequence[Rectangle | None], look: _Look) -> Rectangle:
        """What the network sees of resampled slices."""
        if self._whole_slices:
            return Rectangle(0, look.size, 0, look.size)
        air = AIR * look.size // self.card.preprocess.working_size
        return window_around(extents, look.preparation.box, look.size, self._multiple, air)

    @property
    def _multiple(self) -> int:
        """By what the network divides the size of a slice."""
        from ..model.networks import NETWORKS

        return NETWORKS[self.card.architecture].multiple

    def _probability(self, x: Tensor) -> Tensor:
        import torch

        values = torch.sigmoid(self.engine.logits(x))
        if self._tta:
            mirrored = torch.sigmoid(self.engine.logits(x.flip(-1))).flip(-1)
            values = (values + mirrored) / 2
        return values

    def _recover(self, error: BaseException, batch: int) -> tuple[int, Notice]:
        """After a failure: PyTorch, half the batch, then the CPU; anything else becomes a DeviceError."""
        device = self.device
        if isinstance(error, EngineError):
            return batch, self._use_torch(error)
        if not memory.is_out_of_memory(error):
            raise devices.failure(device, error) from error
        memory.reclaim_memory(device)
        if batch > 1:
            return batch // 2, Notice(
                f"Out of memory: going on with {batch // 2} instead of {batch} slices at once."
            )
        if device.type == "cpu":
            raise DeviceError(
                "There is not enough memory for a single slice; close other programs and try again."
            ) from error
        self._move_to(devices.choose_device("cpu"))
        memory.reclaim_memory(device)
        return 1, Notice(f"{device.type.upper()} is out of memory: going on with the CPU.")


def predictor_for(model: Model, options: SegmentOptions) -> Predictor:
    """A predictor as a user's options ask for it."""
    return Predictor(
        model,
        options.device,
        options.batch_size,
        tta=options.tta,
        engine=options.engine,
        coarse_to_fine=model.card.uses_coarse_to_fine(options),
    )


def run_to_end(work: Generator[Event, None, T], show: Callable[[Event], None] | None = None) -> T:
    """Run a prediction to its end, passing its events on; returns its result."""
    while True:
        try:
            event = next(work)
        except StopIteration as stop:
            result: T = stop.value
            return result
        if show is not None:
            show(event)


def _as_network_input(volume: npt.NDArray[np.generic], sequences: tuple[str, ...]) -> npt.NDArray[np.generic]:
    """Check a volume and take the model's sequences from it, finite and not negative."""
    if volume.ndim != 4 or volume.shape[-1] != len(SEQUENCES) or 0 in volume.shape:
        raise ImageError(
            f"An image of shape {volume.shape} cannot be segmented; it must be slices x height x width x 3."
        )
    if volume.dtype.kind not in "buif":
        raise ImageError(f"An image of {volume.dtype} cannot be segmented; convert it to real numbers.")
    if sequences != SEQUENCES:
        volume = volume[..., [SEQUENCES.index(s) for s in sequences]]
    if volume.dtype.kind in "if":
        with np.errstate(over="ignore"):
            numbers = volume.astype(np.float32)  # one copy, that the rest is done in
        np.nan_to_num(numbers, copy=False, nan=0, posinf=0, neginf=0)
        np.clip(numbers, -1e37, 1e37, out=numbers)  # sums and differences of such values stay finite
        numbers -= np.minimum(numbers.min(axis=(0, 1, 2)), 0)
        volume = numbers
    return volume
