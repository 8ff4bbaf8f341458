"""Probabilities -> labels: threshold, clean-up of separate pieces, holes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .options import MINOR, SegmentOptions

Labels = npt.NDArray[np.uint8]


def to_labels(probability: npt.NDArray[np.floating], threshold: float) -> Labels:
    """Tumour where the probability reaches the threshold.

    Parameters
    ----------
    probability : ndarray of float
        Any shape, 0 to 1.
    threshold : float
        Between 0 and 1.

    Returns
    -------
    ndarray of uint8
        Same shape, 0 and 1.
    """
    return (probability >= threshold).astype(np.uint8)


def postprocess(
    probability: npt.NDArray[np.floating], options: SegmentOptions, default_threshold: float
) -> Labels:
    """Labels from a volume's probability, as the options ask.

    Parameters
    ----------
    probability : ndarray of float
        Shape (z, y, x), 0 to 1.
    options : SegmentOptions
        Threshold, clean-up and hole filling are used.
    default_threshold : float
        The model's threshold, for options that name none.

    Returns
    -------
    ndarray of uint8
        Same shape, 0 and 1.
    """
    threshold = default_threshold if options.threshold is None else options.threshold
    labels = to_labels(probability, threshold)
    if options.clean_up == "off" and not options.fill_holes:
        return labels
    box = _bounding_box(labels)
    if box is None:
        return labels
    # Only the part that holds tumour is looked at: a tenth of the time on most patients.
    if options.clean_up != "off":
        labels[box] = _drop_pieces(labels[box], options)
    if options.fill_holes:
        labels[box] = _fill_holes(labels[box])
    return labels


def _bounding_box(labels: Labels) -> tuple[slice, ...] | None:
    from scipy.ndimage import find_objects

    boxes = find_objects(labels)
    return boxes[0] if boxes else None


def _drop_pieces(labels: Labels, options: SegmentOptions) -> Labels:
    """Without the pieces that the options call too small.

    Voxels that touch by a corner belong to one piece.
    """
    from scipy.ndimage import label

    pieces, count = label(labels, structure=np.ones((3, 3, 3)))
    volumes = np.bincount(pieces.ravel(), minlength=count + 1)
    volumes[0] = 0
    if options.clean_up == "largest":
        keep = np.arange(count + 1) == volumes.argmax()
    else:
        smallest = options.smallest_volume if options.clean_up == "small" else MINOR * volumes.max()
        keep = volumes >= smallest
    keep[0] = False
    kept: Labels = keep[pieces].astype(np.uint8)
    return kept


def _fill_holes(labels: Labels) -> Labels:
    """Holes within slices filled; slices are thick, so that a hole in 3D is rare and means less."""
    from scipy.ndimage import binary_fill_holes

    return np.stack([binary_fill_holes(page) for page in labels]).astype(np.uint8)
