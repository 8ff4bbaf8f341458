"""Probabilities -> labels: threshold, clean-up of separate pieces, holes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..choices import MINOR, Threshold
from ..options import SegmentOptions

Labels = npt.NDArray[np.uint8]


#: An automatic threshold is never below this: where nothing is likely, something would always be found.
LOWEST_THRESHOLD = 0.1


def best_threshold(probability: npt.NDArray[np.floating]) -> float:
    """The threshold that promises the largest Dice of a volume, if the probabilities are right.

    Of the voxels above a threshold a share is expected to be tumour, and so is a share of the others: that
    is the expected Dice, nearly. Its best threshold is half of it (Lipton et al. 2014,
    https://arxiv.org/abs/1402.1892; Dai and Li 2023, https://jmlr.org/papers/v24/22-0712.html), thus nearly
    0.5 where the network is sure, and lower where it doubts.

    Parameters
    ----------
    probability : ndarray of float
        Any shape, 0 to 1.

    Returns
    -------
    float
        From :data:`LOWEST_THRESHOLD` to 1; 0.5 where no voxel reaches that.
    """
    likely = np.sort(probability[probability >= LOWEST_THRESHOLD])[::-1]
    if not len(likely):
        return 0.5
    found, chosen = likely.cumsum(dtype=np.float64), np.arange(1, len(likely) + 1)
    expected = 2 * found / (probability.sum(dtype=np.float64) + chosen)
    return float(likely[expected.argmax()])


def threshold_of(probability: npt.NDArray[np.floating], threshold: Threshold | None) -> float:
    """A threshold as a number: that of the volume where it is "auto", 0.5 where there is none."""
    if threshold is None:
        return 0.5
    return best_threshold(probability) if isinstance(threshold, str) else threshold


def to_labels(probability: npt.NDArray[np.floating], threshold: Threshold) -> Labels:
    """Tumour where the probability reaches the threshold.

    Parameters
    ----------
    probability : ndarray of float
        Any shape, 0 to 1.
    threshold : float or "auto"
        Between 0 and 1, or :func:`best_threshold`.

    Returns
    -------
    ndarray of uint8
        Same shape, 0 and 1.
    """
    return (probability >= threshold_of(probability, threshold)).astype(np.uint8)


def postprocess(probability: npt.NDArray[np.floating], options: SegmentOptions) -> Labels:
    """Labels from a volume's probability, as the options ask.

    Parameters
    ----------
    probability : ndarray of float
        Shape (z, y, x), 0 to 1.
    options : SegmentOptions
        Threshold, clean-up and hole filling are used; :meth:`.SegmentOptions.complete` gives a model's own.
        Without them: 0.5 and "off".

    Returns
    -------
    ndarray of uint8
        Same shape, 0 and 1.
    """
    labels = to_labels(probability, 0.5 if options.threshold is None else options.threshold)
    cleans = options.clean_up not in (None, "off")
    if not cleans and not options.fill_holes:
        return labels
    # Only the part that holds tumour is looked at: a tenth of the time on most patients.
    if cleans and (box := _bounding_box(labels)) is not None:
        labels[box] = _drop_pieces(labels[box], options)
    if options.fill_holes:
        _fill_holes(labels)
    return labels


def _bounding_box(labels: Labels) -> tuple[slice, ...] | None:
    """The part of a slice or volume, of uint8, that holds all of its tumour."""
    spans = []
    for axis in range(labels.ndim):
        # The quickest of many ways: the last axis first leaves least to the others.
        flat = labels
        for other in reversed(range(labels.ndim)):
            if other != axis:
                flat = np.bitwise_or.reduce(flat, axis=other)
        inside = np.flatnonzero(flat)
        if not len(inside):
            return None
        spans.append(slice(int(inside[0]), int(inside[-1]) + 1))
    return tuple(spans)


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


def _fill_holes(labels: Labels) -> None:
    """Fill holes within slices, in place; slices are thick, so that a hole in 3D is rare and means less."""
    from scipy.ndimage import binary_fill_holes

    for page in labels:
        if (box := _bounding_box(page)) is not None:
            page[box] = binary_fill_holes(page[box])
