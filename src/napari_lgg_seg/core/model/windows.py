"""Which part of each slice the network has to see: slices without head are skipped, air is left out.

The networks are convolutional, so that a window of a slice gives what the whole slice gives there, up to
the effect of its border. Windows lie on the grid of the coarsest level, so that pooling meets the same
pixels, and slices are resampled as a whole before: only air is missing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .geometry import Extent

if TYPE_CHECKING:
    from .geometry import Box

#: Air kept around the head on each side, in pixels of the working size. By ``benchmarks/agreement.py``
#: labels then agree with those of whole slices; with 8 they do not over all voxels.
AIR = 16

#: Sides of windows differ by so many pixels: OpenVINO prepares itself anew for each size that it meets, which
#: takes as long as half a slice. Single patients take longer with 8, and all with 32.
_STEP = 16

#: Voxels of the head (every second one is looked at) that a row or column may hold and still be air.
_STRAY = 2


def head_extents(head: npt.NDArray[np.bool_], step: int, box: Box) -> tuple[Extent | None, ...]:
    """Where the head lies in each slice, within the box of all; None where a slice has none.

    Parameters
    ----------
    head : ndarray of bool
        Shape (z, y, x): which voxels belong to the head, of every ``step``-th row and column.
    step : int
        That distance.
    box : Box
        Around the head in all slices, but for stray voxels.
    """
    found = [_extent(plane, step) if plane.any() else None for plane in head]
    whole = Extent(box.top, box.top + box.side, box.left, box.left + box.side)
    return tuple(extent.within(whole) if extent is not None else None for extent in found)


def _extent(plane: npt.NDArray[np.bool_], step: int) -> Extent:
    spans = []
    for axis in (1, 0):
        counts = plane.sum(axis=axis)
        inside = np.flatnonzero(counts > min(_STRAY, counts.max() - 1))
        spans += [int(inside[0]) * step, (int(inside[-1]) + 1) * step]
    return Extent(*spans)


def window_around(
    extents: Iterable[Extent | None], box: Box, size: int, multiple: int, air: int = AIR
) -> Extent:
    """The window of resampled slices that shows the heads of all of them.

    Parameters
    ----------
    extents : iterable of Extent or None
        Of the slices, on the patient's own grid; at least one of them is not None.
    box : Box
        What is resampled to ``size``.
    size : int
        Working size in pixels.
    multiple : int
        By what the network divides the size of a slice on its way down.
    air : int
        What is kept around the head on each side, in pixels of the working size.

    Returns
    -------
    Extent
        Within (0, size), from and to multiples of ``multiple``, or to the end of the slice; sides are
        multiples of 16 if the slice's own are.
    """
    edges = np.array([(e.top, e.bottom, e.left, e.right) for e in extents if e is not None])
    scaled = (edges - (box.top, box.top, box.left, box.left)) * (size / box.side)
    (first_row, _, first_column, _), (_, last_row, _, last_column) = scaled.min(axis=0), scaled.max(axis=0)
    return Extent(
        *_span(first_row - air, last_row + air, size, multiple),
        *_span(first_column - air, last_column + air, size, multiple),
    )


def _span(first: float, last: float, size: int, multiple: int) -> tuple[int, int]:
    """From a multiple to a multiple, of one of few lengths, around what there is to be seen."""
    start = int(max(first, 0) // multiple) * multiple
    length = math.ceil((min(last, size) - start) / _STEP) * _STEP
    if start + length < size:
        return start, start + length
    return max(size - length, 0) // multiple * multiple, size
