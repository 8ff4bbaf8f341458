"""Tools for correcting labels: remove or keep components, fill holes, interpolate slices.

Each returns new labels of the same shape and dtype; nothing is changed in place.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..errors import CorrectionError

LabelArray = npt.NDArray[np.integer]
Mask = npt.NDArray[np.bool_]


def piece_at(labels: LabelArray, position: Sequence[int]) -> Mask:
    """Connected component of one label that contains a voxel.

    Parameters
    ----------
    labels : ndarray of int
        Shape (z, y, x) or (y, x); 0 is background.
    position : sequence of int
        Indices of the voxel.

    Returns
    -------
    ndarray of bool
        Same shape; voxels that touch at a corner are connected.

    Raises
    ------
    CorrectionError
        If the voxel is background or outside.
    """
    from scipy.ndimage import label

    place = tuple(int(p) for p in position)
    inside = all(0 <= p < n for p, n in zip(place, labels.shape, strict=True))
    if not inside or not labels[place]:
        raise CorrectionError("There is no labelled component at this position; point at one.")
    same = labels == labels[place]
    box = _box(same)  # labelling the whole volume takes ten times as long
    pieces, _ = label(same[box], structure=np.ones((3,) * labels.ndim))
    found = np.zeros(labels.shape, bool)
    found[box] = pieces == pieces[tuple(p - side.start for p, side in zip(place, box, strict=True))]
    return found


def _box(mask: Mask) -> tuple[slice, ...]:
    """Bounding box of a non-empty mask."""
    from scipy.ndimage import find_objects

    return tuple(find_objects(mask.view(np.uint8))[0])


def remove_piece(labels: LabelArray, position: Sequence[int]) -> LabelArray:
    """Remove the component that contains a voxel, see :func:`piece_at`."""
    return np.where(piece_at(labels, position), labels.dtype.type(0), labels)


def keep_piece(labels: LabelArray, position: Sequence[int]) -> LabelArray:
    """Remove all other components of the same label; other labels stay. See :func:`piece_at`."""
    piece = piece_at(labels, position)
    value = labels[tuple(int(p) for p in position)]
    return np.where((labels == value) & ~piece, labels.dtype.type(0), labels)


def fill_holes(labels: LabelArray, value: int) -> LabelArray:
    """Fill background that a label encloses within a slice.

    Parameters
    ----------
    labels : ndarray of int
        Shape (z, y, x) or (y, x).
    value : int
        Label whose holes are filled.

    Returns
    -------
    ndarray of int
        Same shape and dtype. Holes are found in each slice separately, since slices are thick.

    Raises
    ------
    CorrectionError
        If there is no hole.
    """
    from scipy.ndimage import binary_fill_holes

    pages = labels.reshape(-1, *labels.shape[-2:])
    holes = np.zeros(pages.shape, bool)
    for z in np.flatnonzero((pages == value).any(axis=(1, 2))):
        holes[z] = binary_fill_holes(pages[z] == value) & (pages[z] == 0)
    if not holes.any():
        raise CorrectionError(f"Label {value} has no holes within its slices.")
    return np.where(holes.reshape(labels.shape), labels.dtype.type(value), labels)


def interpolate(labels: LabelArray, value: int, at: int) -> LabelArray:
    """Interpolate a label in the slices between two painted ones.

    Signed distances to the outlines are interpolated (Raya & Udupa 1990, "Shape-based interpolation of
    multidimensional objects", IEEE TMI 9) after aligning their centres, so that a shape that moves between
    slices is not lost.

    Parameters
    ----------
    labels : ndarray of int
        Shape (z, y, x).
    value : int
        Label to interpolate; voxels of other labels stay.
    at : int
        A slice in the gap: one without the label, with slices that have it below and above.

    Returns
    -------
    ndarray of int
        Same shape and dtype.

    Raises
    ------
    CorrectionError
        If slice ``at`` has the label already, or is not between two slices that have it.
    """
    if labels.ndim != 3:
        raise CorrectionError("Slices can only be interpolated in 3D labels.")
    painted = np.flatnonzero((labels == value).any(axis=(1, 2)))
    if at in painted:
        raise CorrectionError(
            f"This slice has label {value} already; go to an empty slice between two painted ones."
        )
    below, above = painted[painted < at], painted[painted > at]
    if not below.size or not above.size:
        raise CorrectionError(
            f"Label {value} is not painted both below and above this slice; paint it in both first."
        )
    first, last = int(below[-1]), int(above[0])
    result = labels.copy()
    for z in range(first + 1, last):
        between = _between(labels[first] == value, labels[last] == value, (z - first) / (last - first))
        result[z][between & (labels[z] == 0)] = value
    return result


def _between(one: Mask, other: Mask, share: float) -> Mask:
    """The shape between two others, at a fraction ``share`` of the way from the first to the second."""
    from scipy.ndimage import shift

    centres = [np.argwhere(mask).mean(axis=0) for mask in (one, other)]
    centre = (1 - share) * centres[0] + share * centres[1]
    distances = [
        shift(_signed_distance(mask), centre - own, order=1, mode="nearest")
        for mask, own in zip((one, other), centres, strict=True)
    ]
    found: Mask = (1 - share) * distances[0] + share * distances[1] > 0
    return found


def _signed_distance(mask: Mask) -> npt.NDArray[np.float64]:
    """Distance to the outline in pixels: positive inside, negative outside."""
    from scipy.ndimage import distance_transform_edt

    # The image border is not an outline: a shape that is cut there continues.
    inside = distance_transform_edt(mask) if not mask.all() else np.full(mask.shape, float(max(mask.shape)))
    outside = distance_transform_edt(~mask)
    return np.where(mask, inside - 0.5, 0.5 - outside)
