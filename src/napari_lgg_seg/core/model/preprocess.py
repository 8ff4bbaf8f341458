"""Preprocessing: from a patient's volume to the network's input, and from its output back to the grid.

Everything is measured per volume, not per slice: a square box around the head, and for each sequence a
clipping value and the mean and standard deviation of the head voxels. torch is imported on first use.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from annotated_types import Ge, Gt, Le, Lt

from .background import Volume
from .geometry import Box, Rectangle
from .windows import head_extents

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

#: Where the percentile is measured at which intensities are clipped: in the head, so that it does not depend
#: on the field of view, or in the whole volume, as for the models of version 0.1.0.
Normalisation = Literal["head", "volume"]
_FIRST_NORMALISATION: Normalisation = "volume"


@dataclass(frozen=True)
class PreprocessOptions:
    """How volumes are normalised; part of the model card, since the weights depend on it.

    Attributes
    ----------
    working_size : int
        Side of the network's square input slices, in pixels.
    clip_percentile : float
        Intensities of a sequence are clipped at this percentile, 0 to 100.
    head_threshold : float
        A voxel belongs to the head if the mean of its sequences, each divided by its clipping value,
        exceeds this.
    margin : int
        Margin around the head on each side, in pixels of the original grid.
    normalisation : str
        Which voxels ``clip_percentile`` is measured on: those of the "head", or of the whole "volume".
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}  # an option that is unknown would be ignored

    working_size: Annotated[int, Ge(8), Le(4096)] = 192
    clip_percentile: Annotated[float, Gt(0), Le(100)] = 99.5
    head_threshold: Annotated[float, Ge(0), Lt(1)] = 0.1
    margin: Annotated[int, Ge(0), Le(4096)] = 2
    normalisation: Normalisation = "head"


def with_normalisation(values: Mapping[str, Any]) -> dict[str, Any]:
    """Options as saved in a model card or training state; those of version 0.1.0 lack a normalisation."""
    return {"normalisation": _FIRST_NORMALISATION, **values}


@dataclass(frozen=True)
class Preparation:
    """What :func:`measure` found in one volume.

    Attributes
    ----------
    box : Box
        Square around the head over all slices, on the original grid.
    extents : tuple of Rectangle or None
        Bounding rectangle of the head in each slice, on the original grid; None for slices without head.
    clip, mean, sd : tuple of float
        Clipping value, mean and standard deviation of each sequence, in intensities above the background.
    """

    box: Box
    extents: tuple[Rectangle | None, ...]
    clip: tuple[float, ...]
    mean: tuple[float, ...]
    sd: tuple[float, ...]


def measure(volume: Volume, options: PreprocessOptions) -> Preparation:
    """Locate the head in a volume and measure its intensities.

    Parameters
    ----------
    volume : ndarray
        Shape (z, y, x, c), from :func:`.background.subtract_background`.
    options : PreprocessOptions
        From the model card.

    Returns
    -------
    Preparation
        For a volume without contrast, the box is the whole image and the standard deviation the clipping
        value (or 1).
    """
    # Every second pixel in each direction is enough for the box and the intensity statistics.
    step = 2 if min(volume.shape[1:3]) >= 64 else 1
    sparse = np.asarray(volume[:, ::step, ::step], np.float32)
    clip = np.array([_percentile(sparse[..., c], options.clip_percentile) for c in range(sparse.shape[-1])])
    # Summed sequence by sequence, to save memory.
    relative = np.zeros(sparse.shape[:-1], np.float32)
    for c, limit in enumerate(np.where(clip > 0, clip, 1).astype(np.float32)):
        relative += sparse[..., c] / limit
    relative /= len(clip)
    head = relative > options.head_threshold
    del relative
    if not head.any():
        head[:] = True
    mean, sd = [], []
    for c in range(len(clip)):
        values = sparse[..., c][head]
        if options.normalisation == "head":
            clip[c] = np.percentile(values, options.clip_percentile)
        limit = clip[c]
        values = np.minimum(values, limit)
        mean.append(float(values.mean(dtype=np.float64)))
        spread = float(values.std(dtype=np.float64))
        # Without contrast, the standard deviation is rounding error; the clipping value sets the scale.
        sd.append(spread if spread > 1e-6 * limit else float(limit) or 1.0)
    box = _head_box(head, step, volume.shape[1:3], options.margin)
    return Preparation(
        box,
        head_extents(head, step, box),
        tuple(float(v) for v in clip),
        tuple(mean),
        tuple(sd),
    )


def _percentile(values: npt.NDArray[np.float32], percentile: float) -> float:
    return float(np.percentile(values[:: max(1, len(values) // 32)], percentile))


def _head_box(head: npt.NDArray[np.bool_], step: int, grid: tuple[int, ...], margin: int) -> Box:
    """The square around the rows and columns that contain more than stray head voxels."""
    spans = []
    for axis, length in ((2, grid[0]), (1, grid[1])):
        counts = head.sum(axis=(0, axis))
        inside = np.flatnonzero(counts > min(0.2 * head.shape[0], counts.max() - 1))
        start = max(int(inside[0]) * step - margin, 0)
        stop = min((int(inside[-1]) + 1) * step + margin, length)
        spans.append((start, stop))
    (top, bottom), (left, right) = spans
    side = max(bottom - top, right - left)
    return Box((top + bottom - side) // 2, (left + right - side) // 2, side)


def crop_and_resample(
    slices: Volume, box: Box, size: int, send: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Crop slices to the box and resample them to the working size.

    Parameters
    ----------
    slices : ndarray
        Shape (n, y, x, c), intensities above the background.
    box : Box
        From :func:`measure`.
    size : int
        Working size in pixels.
    send : callable, optional
        Moves the cropped tensor to the device that resamples it; the CPU by default.

    Returns
    -------
    Tensor
        Shape (n, c, size, size), float32, intensities above the background.
    """
    import torch

    _, height, width, _ = slices.shape
    top, left = max(box.top, 0), max(box.left, 0)
    bottom, right = min(box.top + box.side, height), min(box.left + box.side, width)
    # uint8 is converted on the device: a quarter of the data to transfer.
    dtype = np.uint8 if slices.dtype == np.uint8 else np.float32
    inside = torch.from_numpy(np.ascontiguousarray(slices[:, top:bottom, left:right], dtype))
    square = (send(inside) if send is not None else inside).float().permute(0, 3, 1, 2)
    square = torch.nn.functional.pad(
        square,
        (left - box.left, box.left + box.side - right, top - box.top, box.top + box.side - bottom),
    )
    return resample(square, size)


def normalise(slices: Tensor, preparation: Preparation) -> Tensor:
    """Clip and z-score slices of one volume, shape (n, c, h, w), sequence by sequence."""
    return normalise_each(slices, intensity_stats_of(preparation).to(slices))


def intensity_stats_of(preparation: Preparation) -> Tensor:
    """Clipping value, mean and sd of a volume's sequences, shape (1, 3, c), for :func:`normalise_each`."""
    import torch

    return torch.tensor([[preparation.clip, preparation.mean, preparation.sd]])


def normalise_each(slices: Tensor, intensity_stats: Tensor) -> Tensor:
    """Clip and z-score slices of different volumes.

    Parameters
    ----------
    slices : Tensor
        Shape (n, c, h, w), intensities above the background.
    intensity_stats : Tensor
        Shape (n, 3, c) or (1, 3, c): clipping value, mean and sd of each slice's volume.

    Returns
    -------
    Tensor
        Shape (n, c, h, w).
    """
    import torch

    clip, mean, sd = intensity_stats[..., None, None].unbind(1)
    return (torch.minimum(slices, clip) - mean) / sd


def back_to_grid(values: Tensor, box: Box, grid: tuple[int, int]) -> Tensor:
    """Resample slices of the working size back to the original grid.

    Parameters
    ----------
    values : Tensor
        Shape (n, size, size), floating point.
    box : Box
        From :func:`measure`.
    grid : tuple of int
        Height and width of the original slices, (y, x).

    Returns
    -------
    Tensor
        Shape (n, y, x), 0 outside the box.
    """
    import torch

    square = resample(values[:, None], box.side)[:, 0]
    result = torch.zeros((len(values), *grid), dtype=values.dtype, device=values.device)
    top, left = max(box.top, 0), max(box.left, 0)
    bottom, right = min(box.top + box.side, grid[0]), min(box.left + box.side, grid[1])
    result[:, top:bottom, left:right] = square[
        :, top - box.top : bottom - box.top, left - box.left : right - box.left
    ]
    return result


def resample(slices: Tensor, size: int) -> Tensor:
    """Resample square slices, (n, c, side, side), to (n, c, size, size): bilinear, antialiased if smaller."""
    from torch.nn.functional import interpolate

    if slices.shape[-1] == size:
        return slices
    return interpolate(
        slices, size=(size, size), mode="bilinear", align_corners=False, antialias=slices.shape[-1] > size
    )
