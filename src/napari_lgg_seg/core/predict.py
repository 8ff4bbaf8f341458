"""Volume + model -> probability of tumour for each voxel, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from . import devices
from .errors import DeviceError, ImageError
from .neighbours import IntArray, with_neighbours
from .patients import SEQUENCES
from .preprocess import back_to_grid, crop_and_resample, measure, normalise

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from .checkpoint import Model
    from .preprocess import Preparation

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


class Predictor:
    """A model made ready for one device; use it for as many volumes as you like.

    Parameters
    ----------
    model : Model
        From :func:`napari_lgg_seg.core.checkpoint.load_model`; it is copied, not changed.
    device : str
        "auto", "cuda", "mps" or "cpu".
    batch_size : int, optional
        Slices at once; chosen from the device's memory by default.
    tta : bool
        Test-time augmentation: average the answers for each slice and its mirror image.

    Raises
    ------
    DeviceError
        If the device is not present.
    """

    def __init__(
        self, model: Model, device: str = "auto", batch_size: int | None = None, *, tta: bool = False
    ) -> None:
        self.card = model.card
        self._tta = tta
        self._model = model
        self._batch_size = batch_size
        self._move_to(devices.choose_device(device))

    def _move_to(self, device: torch.device) -> None:
        import torch

        self.device = device
        self._dtype = devices.inference_dtype(device)
        network = fold_batch_norm(self._model.network)
        try:
            self._network = network.to(device=device, dtype=self._dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        except RuntimeError as error:
            raise devices.failure(device, error) from error

    def predict(
        self, volume: npt.NDArray[np.generic], slices: Sequence[int] | None = None
    ) -> Generator[Event, None, Probability]:
        """Probability of tumour for each voxel of a volume.

        Parameters
        ----------
        volume : ndarray
            Shape (z, y, x, 3), channels as in :data:`napari_lgg_seg.core.patients.SEQUENCES`; any
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
        done = 0
        yield SlicesDone(0, total)
        try:
            batch = self._batch_size or devices.automatic_batch_size(
                self.device, self.card.preprocess.working_size
            )
        except RuntimeError as error:  # the device does not answer
            batch, notice = self._recover(error, 1)
            yield notice
        while done < total:
            part = around[done : done + batch]
            try:
                probability[done : done + batch] = self._predict_batch(volume, part, preparation)
            except (RuntimeError, MemoryError) as error:
                batch, notice = self._recover(error, len(part))
                yield notice
                continue
            done += len(part)
            yield SlicesDone(done, total)
        return probability

    def _predict_batch(
        self, volume: npt.NDArray[np.generic], around: IntArray, preparation: Preparation
    ) -> Probability:
        """Of slices that are given with their neighbours, as indices of the volume's: (m, 2n + 1)."""
        import torch

        # Each slice that is seen is prepared once, however many others it is a neighbour of.
        needed, places = np.unique(around, return_inverse=True)
        with torch.inference_mode():
            raw = crop_and_resample(volume[needed], preparation.box, self.card.preprocess.working_size)
            if self.device.type == "cuda":
                raw = raw.pin_memory()
            x = normalise(raw.to(self.device, non_blocking=True), preparation)
            seen = torch.from_numpy(places.reshape(around.shape)).to(self.device)
            x = x.to(self._dtype)[seen].flatten(1, 2).contiguous(memory_format=torch.channels_last)
            values = self._probability(x)
            height, width = volume.shape[1:3]
            result: Probability = back_to_grid(values, preparation.box, (height, width)).cpu().numpy()
            return result

    def _probability(self, x: Tensor) -> Tensor:
        import torch

        values: Tensor = torch.sigmoid(self._network(x)[:, 0].float())
        if self._tta:
            mirrored = torch.sigmoid(self._network(x.flip(-1))[:, 0].float()).flip(-1)
            values = (values + mirrored) / 2
        return values

    def _recover(self, error: BaseException, batch: int) -> tuple[int, Notice]:
        """After a failure: half the batch, then the CPU; anything else becomes a DeviceError."""
        device = self.device
        if not devices.is_out_of_memory(error):
            raise devices.failure(device, error) from error
        devices.free_memory(device)
        if batch > 1:
            return batch // 2, Notice(
                f"Out of memory: going on with {batch // 2} instead of {batch} slices at once."
            )
        if device.type == "cpu":
            raise DeviceError(
                "There is not enough memory for a single slice; close other programs and try again."
            ) from error
        self._move_to(devices.choose_device("cpu"))
        devices.free_memory(device)
        return 1, Notice(f"{device.type.upper()} is out of memory: going on with the CPU.")


def drain(work: Generator[Event, None, T], show: Callable[[Event], None] | None = None) -> T:
    """Run a prediction to its end, passing its events on; returns its result."""
    while True:
        try:
            event = next(work)
        except StopIteration as stop:
            result: T = stop.value
            return result
        if show is not None:
            show(event)


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """A copy in eval mode whose batch normalisations are part of the convolutions before them."""
    from torch import nn
    from torch.nn.utils.fusion import fuse_conv_bn_weights

    folded = deepcopy(network).eval()
    for block in [m for m in folded.modules() if isinstance(m, nn.Sequential)]:
        for index, (conv, norm) in enumerate(pairwise(block)):
            if isinstance(norm, nn.BatchNorm2d) and isinstance(conv, nn.Conv2d | nn.ConvTranspose2d):
                assert norm.running_mean is not None
                assert norm.running_var is not None
                conv.weight, conv.bias = fuse_conv_bn_weights(
                    conv.weight,
                    conv.bias,
                    norm.running_mean,
                    norm.running_var,
                    norm.eps,
                    norm.weight,
                    norm.bias,
                    transpose=isinstance(conv, nn.ConvTranspose2d),
                )
                block[index + 1] = nn.Identity()
    return folded


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
            volume = np.nan_to_num(volume.astype(np.float32), nan=0, posinf=0, neginf=0)
        volume = np.clip(volume, -1e37, 1e37)  # sums and differences of such values stay finite
        lowest = volume.min(axis=(0, 1, 2))
        volume = volume - np.minimum(lowest, 0)
    return volume
