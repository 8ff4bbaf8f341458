"""Crop slices to the head before they go through the network, and skip slices that show only air.

The networks are fully convolutional: a window of a slice gives the same result as the whole slice, except
near its border. Windows are aligned with the grid of the coarsest level, so that pooling sees the same pixel
groups, and slices are resampled before they are cropped.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .geometry import Rectangle

if TYPE_CHECKING:
    from .geometry import Box

#: Air kept around the head on each side, in pixels of the working size. With 16, labels pass the agreement
#: test against whole slices (``benchmarks/agreement.py``); with 8 they do not.
AIR = 16

#: Window sides are multiples of this many pixels. OpenVINO compiles the network anew for each input size,
#: which takes as long as half a slice: 8 is slower for some patients, 32 for all.
_STEP = 16

#: Rows and columns with at most this many head voxels (of every second voxel) count as air.
_STRAY = 2


def head_extents(head: npt.NDArray[np.bool_], step: int, box: Box) -> tuple[Rectangle | None, ...]:
    """Bounding rectangle of the head in each slice, clipped to the volume's box.

    Parameters
    ----------
    head : ndarray of bool
        Shape (z, y, x): head voxels, sampled at every ``step``-th row and column.
    step : int
        Sampling distance in pixels.
    box : Box
        The box around the head over all slices, which ignores stray voxels.

    Returns
    -------
    tuple of Rectangle or None
        One for each slice, in pixels of the original grid; None for slices without head.
    """
    found = [_extent(plane, step) if plane.any() else None for plane in head]
    whole = Rectangle(box.top, box.top + box.side, box.left, box.left + box.side)
    return tuple(extent.within(whole) if extent is not None else None for extent in found)


def _extent(plane: npt.NDArray[np.bool_], step: int) -> Rectangle:
    spans = []
    for axis in (1, 0):
        counts = plane.sum(axis=axis)
        inside = np.flatnonzero(counts > min(_STRAY, counts.max() - 1))
        spans += [int(inside[0]) * step, (int(inside[-1]) + 1) * step]
    return Rectangle(*spans)


def window_around(
    extents: Iterable[Rectangle | None], box: Box, size: int, multiple: int, air: int = AIR
) -> Rectangle:
    """One window of the resampled slices that contains the head in all of them.

    Parameters
    ----------
    extents : iterable of Rectangle or None
        Bounding rectangles of the slices' heads on the original grid; at least one is not None.
    box : Box
        The part of the slices that is resampled to ``size``.
    size : int
        Working size in pixels.
    multiple : int
        The factor by which the network's encoder reduces the size of a slice.
    air : int
        Margin around the head on each side, in pixels of the working size.

    Returns
    -------
    Rectangle
        Within (0, size). Its edges are multiples of ``multiple`` or the slice's own; its sides are multiples
        of 16 if ``size`` is.
    """
    edges = np.array([(e.top, e.bottom, e.left, e.right) for e in extents if e is not None])
    scaled = (edges - (box.top, box.top, box.left, box.left)) * (size / box.side)
    (first_row, _, first_column, _), (_, last_row, _, last_column) = scaled.min(axis=0), scaled.max(axis=0)
    return Rectangle(
        *_span(first_row - air, last_row + air, size, multiple),
        *_span(first_column - air, last_column + air, size, multiple),
    )


def _span(first: float, last: float, size: int, multiple: int) -> tuple[int, int]:
    """Start and stop on the grid of ``multiple``, with a length that is a multiple of ``_STEP``."""
    start = int(max(first, 0) // multiple) * multiple
    length = math.ceil((min(last, size) - start) / _STEP) * _STEP
    if start + length < size:
        return start, start + length
    return max(size - length, 0) // multiple * multiple, size
