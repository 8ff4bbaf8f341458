"""Where a closer look is worth it: what a quick look, at half the size, makes of a volume.

The same network answers for every second slice at half the working size. Where that gives next to no
probability, nor in the slices beside, the network at its full size would find nothing either, and the
answer of the quick look stays: an eighth of the work tells where the rest is to be done. What it misses are
weak pieces that lie apart, which clean-up would drop: with that, labels agree with those of a close look at
everything. From which probability on a closer look is worth it differs from model to model:
:mod:`.calibrate_coarse` finds it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..model.geometry import Rectangle

if TYPE_CHECKING:
    from ..model.geometry import Box

Probability = npt.NDArray[np.float32]

#: Fewer slices are soon done, and may have little to do with each other.
FEWEST = 8

#: Each so many-th slice is looked at.
_EVERY = 2

#: What the network has to see around such voxels, in pixels of the working size; :mod:`.windows` adds as
#: much again.
_AROUND = 16


def coarse_size(working_size: int, multiple: int) -> int:
    """The size for a quick look, in pixels.

    Parameters
    ----------
    working_size : int
        The model's, in pixels.
    multiple : int
        By what the network divides the size of a slice on its way down.
    """
    return math.ceil(working_size / 2 / multiple) * multiple


def coarse_slices(slices: Sequence[int]) -> list[int]:
    """The slices for a quick look, of all that may hold tumour: every second one, and the last."""
    return sorted({*slices[::_EVERY], *slices[-1:]})


def fill_between(probability: Probability, slices: Sequence[int], looked: Sequence[int]) -> None:
    """Give the slices that were left out the higher probability of the two beside them, in place.

    Parameters
    ----------
    probability : ndarray of float32
        Shape (z, y, x).
    slices, looked : sequence of int
        Those that may hold tumour, ascending, and which of them were looked at: :func:`looked_at`.
    """
    places = np.searchsorted(looked, slices)
    for z, place in zip(slices, places, strict=True):
        if looked[place] != z:
            np.maximum(probability[looked[place - 1]], probability[looked[place]], out=probability[z])


def refine_regions(
    probability: Probability,
    limit: float,
    slices: Sequence[int],
    extents: Sequence[Rectangle | None],
    box: Box,
    size: int,
) -> tuple[Rectangle | None, ...]:
    """The part of each slice that is worth a closer look, by the slice itself and those beside it.

    Parameters
    ----------
    probability : ndarray of float32
        Shape (z, y, x), from a quick look.
    limit : float
        The probability from which a voxel is worth it.
    slices : sequence of int
        Those that may hold tumour, ascending.
    extents : sequence of Rectangle or None
        Where the head lies in each slice of the volume.
    box : Box
        What is resampled to ``size``.
    size : int
        Working size in pixels.

    Returns
    -------
    tuple of Rectangle or None
        For each slice of the volume, on its own grid; None where nothing is.
    """
    around = round(_AROUND * box.side / size)
    found: list[Rectangle | None] = [None] * len(probability)
    for z in slices:
        found[z] = _span_of(probability[z] >= limit)
    grown: list[Rectangle | None] = [None] * len(probability)
    for before, z, after in zip((None, *slices), slices, (*slices[1:], None), strict=False):
        near = _union([e for i in (before, z, after) if i is not None and (e := found[i]) is not None])
        head = extents[z]
        if near is not None and head is not None:
            grown[z] = near.grown(around).within(head)
    return tuple(grown)


class Remainder:
    """What only the quick look has seen, brought to the level of a close one.

    At half the size next to nothing is a little more, or less, than at the full size. Each voxel of it counts
    for little, but there are so many that an automatic threshold
    (:func:`napari_lgg_seg.core.inference.postprocess.best_threshold`) depends on their sum.

    Parameters
    ----------
    probability : ndarray of float32
        Shape (z, y, x), from a quick look; it is changed in place.
    limit : float
        The probability from which a voxel is worth a closer look. None that is not keeps more than that.
    """

    def __init__(self, probability: Probability, limit: float) -> None:
        np.minimum(probability, limit, out=probability)
        self._probability, self._limit = probability, np.float32(limit)
        self._remains = np.ones(probability.shape, bool)
        self._quick = self._close = 0.0

    def replace(self, z: int, plane: Probability) -> None:
        """Put in what a close look gives of a slice, shape (y, x), 0 where it did not look."""
        seen, quick = plane > 0, self._probability[z]
        both = seen & (quick < self._limit)
        self._quick += float(quick[both].sum(dtype=np.float64))
        self._close += float(np.minimum(plane[both], self._limit).sum(dtype=np.float64))
        np.copyto(quick, plane, where=seen)
        self._remains[z] &= ~seen

    def level(self) -> None:
        """Give what remains as much, on the average, as a close look gave where both had looked."""
        if self._quick and self._close:
            probability, remains = self._probability, self._remains
            np.multiply(probability, np.float32(self._close / self._quick), out=probability, where=remains)
            np.minimum(probability, self._limit, out=probability, where=remains)


def _span_of(plane: npt.NDArray[np.bool_]) -> Rectangle | None:
    rows = np.flatnonzero(plane.any(axis=1))
    if not len(rows):
        return None
    columns = np.flatnonzero(plane[rows[0] : rows[-1] + 1].any(axis=0))
    return Rectangle(int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)


def _union(extents: Sequence[Rectangle]) -> Rectangle | None:
    if not extents:
        return None
    return Rectangle(
        min(e.top for e in extents),
        max(e.bottom for e in extents),
        min(e.left for e in extents),
        max(e.right for e in extents),
    )
