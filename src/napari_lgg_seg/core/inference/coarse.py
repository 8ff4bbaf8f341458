"""Coarse-to-fine inference: which regions of a volume need full resolution.

Every second slice is computed at half resolution first; only candidate regions are computed at full
resolution. Where the coarse pass finds next to no probability in a slice and its neighbours, full resolution
would not find anything either, and the coarse result stays. This pass costs an eighth of a full one. It can
miss small faint components, but clean-up drops those, so that the final labels agree with those of full
resolution everywhere. The probability from which a voxel is a candidate differs between models;
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

#: Volumes with fewer slices are computed at full resolution: that takes little time, and the slices may not
#: be neighbours.
MIN_SLICES = 8

#: The coarse pass computes every n-th slice.
_SLICE_STEP = 2

#: Margin around candidate voxels, in pixels of the working size; :mod:`.windows` adds as much again.
_MARGIN = 16


def coarse_size(working_size: int, multiple: int) -> int:
    """Height and width of slices in the coarse pass, in pixels.

    Parameters
    ----------
    working_size : int
        The model's working size in pixels.
    multiple : int
        The result is a multiple of this, since the network downsamples a slice by this factor.
    """
    return math.ceil(working_size / 2 / multiple) * multiple


def coarse_slices(slices: Sequence[int]) -> list[int]:
    """The slices of the coarse pass: every second one of ``slices``, and the last."""
    return sorted({*slices[::_SLICE_STEP], *slices[-1:]})


def fill_skipped_slices(probability: Probability, slices: Sequence[int], computed: Sequence[int]) -> None:
    """Set skipped slices to the voxel-wise maximum of the computed slices on either side, in place.

    Parameters
    ----------
    probability : ndarray of float32
        Shape (z, y, x).
    slices : sequence of int
        Slices that may hold tumour, ascending.
    computed : sequence of int
        Those of them that were computed, from :func:`coarse_slices`.
    """
    places = np.searchsorted(computed, slices)
    for z, place in zip(slices, places, strict=True):
        if computed[place] != z:
            np.maximum(probability[computed[place - 1]], probability[computed[place]], out=probability[z])


def refine_regions(
    probability: Probability,
    threshold: float,
    slices: Sequence[int],
    extents: Sequence[Rectangle | None],
    box: Box,
    size: int,
) -> tuple[Rectangle | None, ...]:
    """The region of each slice to compute at full resolution: candidates in it and in adjacent slices.

    Parameters
    ----------
    probability : ndarray of float32
        Shape (z, y, x), from the coarse pass.
    threshold : float
        Probability from which a voxel is a candidate.
    slices : sequence of int
        Slices that may hold tumour, ascending.
    extents : sequence of Rectangle or None
        Rectangle of the head in each slice of the volume.
    box : Box
        The square that is resampled to ``size``.
    size : int
        Working size in pixels.

    Returns
    -------
    tuple of Rectangle or None
        One per slice, on the volume's grid; None where there is no candidate.
    """
    margin = round(_MARGIN * box.side / size)
    found: list[Rectangle | None] = [None] * len(probability)
    for z in slices:
        found[z] = _bounding_box(probability[z] >= threshold)
    regions: list[Rectangle | None] = [None] * len(probability)
    for before, z, after in zip((None, *slices), slices, (*slices[1:], None), strict=False):
        nearby = _union([e for i in (before, z, after) if i is not None and (e := found[i]) is not None])
        head = extents[z]
        if nearby is not None and head is not None:
            regions[z] = nearby.grown(margin).within(head)
    return tuple(regions)


class CoarseProbability:
    """Result of the coarse pass, into which the full-resolution result is merged.

    The tiny probabilities far from any candidate differ systematically between the two resolutions. Each is
    negligible, but there are so many that an automatic threshold
    (:func:`napari_lgg_seg.core.inference.postprocess.best_threshold`) depends on their sum. So they are
    rescaled by the ratio of the two results where both are known.

    Parameters
    ----------
    probability : ndarray of float32
        Shape (z, y, x), from the coarse pass; changed in place. It is clipped to ``threshold``, since the
        coarse pass only finds candidates.
    threshold : float
        Probability from which a voxel is a candidate.
    """

    def __init__(self, probability: Probability, threshold: float) -> None:
        np.minimum(probability, threshold, out=probability)
        self._probability, self._threshold = probability, np.float32(threshold)
        self._coarse_only = np.ones(probability.shape, bool)
        self._coarse_sum = self._full_sum = 0.0

    def merge(self, z: int, plane: Probability) -> None:
        """Insert the full-resolution result of a slice, shape (y, x), which is 0 outside its region."""
        refined, coarse = plane > 0, self._probability[z]
        both = refined & (coarse < self._threshold)
        self._coarse_sum += float(coarse[both].sum(dtype=np.float64))
        self._full_sum += float(np.minimum(plane[both], self._threshold).sum(dtype=np.float64))
        np.copyto(coarse, plane, where=refined)
        self._coarse_only[z] &= ~refined

    def rescale(self) -> None:
        """Rescale what only the coarse pass has computed to the level of full resolution."""
        if self._coarse_sum and self._full_sum:
            probability, where = self._probability, self._coarse_only
            ratio = np.float32(self._full_sum / self._coarse_sum)
            np.multiply(probability, ratio, out=probability, where=where)
            np.minimum(probability, self._threshold, out=probability, where=where)


def _bounding_box(plane: npt.NDArray[np.bool_]) -> Rectangle | None:
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
