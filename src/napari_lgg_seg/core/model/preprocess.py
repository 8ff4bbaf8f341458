"""A patient's volume -> what the network sees, and the way back to the patient's own grid.

Per volume, never per slice: a square box around the head, and for each sequence a clipping value,
mean and standard deviation over the voxels of the head. torch is imported when slices are resampled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .geometry import Box, Extent
from .windows import head_extents

if TYPE_CHECKING:
    from torch import Tensor

Volume = npt.NDArray[np.generic]


@dataclass(frozen=True)
class PreprocessOptions:
    """How volumes are normalised; stored with every model, since weights depend on it.

    Attributes
    ----------
    working_size : int
        Side, in pixels, of the square slices that the network sees.
    clip_percentile : float
        Values above this percentile of a sequence are cut to it.
    head_threshold : float
        A voxel belongs to the head where the sequences, each divided by its clipping value,
        average to more than this.
    margin : int
        Pixels kept around the head on each side.
    """

    working_size: int = 192
    clip_percentile: float = 99.5
    head_threshold: float = 0.1
    margin: int = 2


@dataclass(frozen=True)
class Preparation:
    """What was measured on one volume.

    Attributes
    ----------
    box : Box
        Around the head in all slices.
    extents : tuple of Extent or None
        Where the head lies in each slice; None where there is none.
    clip, mean, sd : tuple of float
        Of each sequence.
    """

    box: Box
    extents: tuple[Extent | None, ...]
    clip: tuple[float, ...]
    mean: tuple[float, ...]
    sd: tuple[float, ...]


def measure(volume: Volume, options: PreprocessOptions) -> Preparation:
    """Box and intensity figures of a volume.

    Parameters
    ----------
    volume : ndarray
        Shape (z, y, x, c), finite and not negative; any real dtype.
    options : PreprocessOptions
        As stored with the model.

    Returns
    -------
    Preparation
        Of a volume without contrast: the whole picture, with the clipping value (or 1) as deviation.
    """
    # Every second pixel each way is enough for a box and for figures over the whole head.
    step = 2 if min(volume.shape[1:3]) >= 64 else 1
    sparse = np.asarray(volume[:, ::step, ::step], np.float32)
    clip = np.array([_percentile(sparse[..., c], options.clip_percentile) for c in range(sparse.shape[-1])])
    # One sequence after the other takes less memory.
    relative = np.zeros(sparse.shape[:-1], np.float32)
    for c, limit in enumerate(np.where(clip > 0, clip, 1).astype(np.float32)):
        relative += sparse[..., c] / limit
    relative /= len(clip)
    head = relative > options.head_threshold
    del relative
    if not head.any():
        head[:] = True
    mean, sd = [], []
    for c, limit in enumerate(clip):
        values = np.minimum(sparse[..., c][head], limit)
        mean.append(float(values.mean(dtype=np.float64)))
        spread = float(values.std(dtype=np.float64))
        # Equal floats have a spread by rounding; without contrast the clipping value sets the scale.
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
    """The square around the rows and columns that hold more than stray voxels of the head."""
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
    """Cut the box out of each slice and bring it to the working size.

    Parameters
    ----------
    slices : ndarray
        Shape (n, y, x, c), raw intensities.
    box : Box
        From :func:`measure`.
    size : int
        Working size in pixels.
    send : callable, optional
        Brings what was cut out to the device that resamples it; the CPU by default.

    Returns
    -------
    Tensor
        Shape (n, c, size, size), float32, still raw intensities.
    """
    import torch

    _, height, width, _ = slices.shape
    top, left = max(box.top, 0), max(box.left, 0)
    bottom, right = min(box.top + box.side, height), min(box.left + box.side, width)
    # Bytes stay bytes until they are there: a quarter of what there is to copy.
    dtype = np.uint8 if slices.dtype == np.uint8 else np.float32
    inside = torch.from_numpy(np.ascontiguousarray(slices[:, top:bottom, left:right], dtype))
    square = (send(inside) if send is not None else inside).float().permute(0, 3, 1, 2)
    square = torch.nn.functional.pad(
        square,
        (left - box.left, box.left + box.side - right, top - box.top, box.top + box.side - bottom),
    )
    return resample(square, size)


def normalise(slices: Tensor, preparation: Preparation) -> Tensor:
    """Clip and z-score raw slices of one volume, (n, c, h, w), sequence by sequence."""
    return normalise_each(slices, intensity_stats_of(preparation).to(slices))


def intensity_stats_of(preparation: Preparation) -> Tensor:
    """Clip, mean and sd of a volume's sequences, shape (1, 3, c), for :func:`normalise_each`."""
    import torch

    return torch.tensor([[preparation.clip, preparation.mean, preparation.sd]])


def normalise_each(slices: Tensor, intensity_stats: Tensor) -> Tensor:
    """Clip and z-score raw slices, each with figures of its own.

    Parameters
    ----------
    slices : Tensor
        Shape (n, c, h, w), raw intensities.
    figures : Tensor
        Shape (n, 3, c) or (1, 3, c): clip, mean and sd of each slice's volume.
    """
    import torch

    clip, mean, sd = intensity_stats[..., None, None].unbind(1)
    return (torch.minimum(slices, clip) - mean) / sd


def back_to_grid(values: Tensor, box: Box, grid: tuple[int, int]) -> Tensor:
    """The way back: slices of the working size, (n, size, size), on the original grid, (n, y, x).

    Outside the box the result is 0.
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
    """Square slices, (n, c, side, side), at another side: linear, smoothed first if made smaller."""
    from torch.nn.functional import interpolate

    if slices.shape[-1] == size:
        return slices
    return interpolate(
        slices, size=(size, size), mode="bilinear", align_corners=False, antialias=slices.shape[-1] > size
    )
