"""Probabilities -> labels: threshold, clean-up of connected components, hole filling."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..choices import MINOR, Threshold
from ..errors import ImageError
from ..options import SegmentOptions

Labels = npt.NDArray[np.uint8]


#: Lower limit of automatic thresholds; without it, something would be found in every patient.
LOWEST_THRESHOLD = 0.1


#: Rounding errors by which a probability may lie outside of 0 to 1.
_ROUNDING = 1e-3


def check_probability(probability: npt.NDArray[np.generic]) -> None:
    """Refuse values that are no probabilities, for instance of an edited or foreign layer.

    Raises
    ------
    ImageError
        If a value is NaN or not from 0 to 1.
    """
    if not probability.size:
        return
    lowest, highest = float(probability.min()), float(probability.max())
    if not (lowest >= -_ROUNDING and highest <= 1 + _ROUNDING):  # also if they are NaN
        raise ImageError(
            f"The probabilities range from {lowest:g} to {highest:g} instead of 0 to 1; segment the image "
            "again."
        )


def best_threshold(probability: npt.NDArray[np.floating]) -> float:
    """The threshold that maximises the expected Dice of a volume, if the probabilities are calibrated.

    The best threshold is half the expected Dice that it achieves (Lipton et al. 2014,
    https://arxiv.org/abs/1402.1892; Dai and Li 2023, https://jmlr.org/papers/v24/22-0712.html): close to 0.5
    where the network is certain, and lower where it is not.

    Parameters
    ----------
    probability : ndarray of float
        Any shape, 0 to 1.

    Returns
    -------
    float
        From :data:`LOWEST_THRESHOLD` to 1; 0.5 if no voxel reaches the former.

    Raises
    ------
    ImageError
        If the values are no probabilities; as do all functions of this module.
    """
    check_probability(probability)
    likely = np.sort(probability[probability >= LOWEST_THRESHOLD])[::-1]
    if not len(likely):
        return 0.5
    found, chosen = likely.cumsum(dtype=np.float64), np.arange(1, len(likely) + 1)
    expected = 2 * found / (probability.sum(dtype=np.float64) + chosen)
    return float(likely[expected.argmax()])


def threshold_of(probability: npt.NDArray[np.floating], threshold: Threshold | None) -> float:
    """Resolve a threshold to a number: "auto" to the volume's :func:`best_threshold`, None to 0.5."""
    if threshold is None:
        return 0.5
    return best_threshold(probability) if isinstance(threshold, str) else threshold


def to_labels(probability: npt.NDArray[np.floating], threshold: Threshold) -> Labels:
    """Label voxels whose probability reaches the threshold.

    Parameters
    ----------
    probability : ndarray of float
        Any shape, 0 to 1.
    threshold : float or "auto"
        From 0 to 1; "auto" is :func:`best_threshold`.

    Returns
    -------
    ndarray of uint8
        Same shape, 0 and 1.
    """
    check_probability(probability)
    return (probability >= threshold_of(probability, threshold)).astype(np.uint8)


def postprocess(probability: npt.NDArray[np.floating], options: SegmentOptions) -> Labels:
    """Labels from a volume's probability: threshold, clean-up and hole filling.

    Parameters
    ----------
    probability : ndarray of float
        Shape (z, y, x), 0 to 1.
    options : SegmentOptions
        Missing values default to a threshold of 0.5 and no clean-up; :meth:`.ModelCard.complete` fills in
        the model's own.

    Returns
    -------
    ndarray of uint8
        Same shape, 0 and 1.
    """
    labels = to_labels(probability, 0.5 if options.threshold is None else options.threshold)
    cleans = options.clean_up not in (None, "off")
    if not cleans and not options.fill_holes:
        return labels
    # Working on the tumour's bounding box takes a tenth of the time for most patients.
    if cleans and (box := _bounding_box(labels)) is not None:
        labels[box] = _drop_components(labels[box], options)
    if options.fill_holes:
        _fill_holes(labels)
    return labels


def _bounding_box(labels: Labels) -> tuple[slice, ...] | None:
    """Bounding box of the tumour in a slice or volume of uint8; None without tumour."""
    spans = []
    for axis in range(labels.ndim):
        # Reducing the last axis first is the fastest order.
        flat = labels
        for other in reversed(range(labels.ndim)):
            if other != axis:
                flat = np.bitwise_or.reduce(flat, axis=other)
        inside = np.flatnonzero(flat)
        if not len(inside):
            return None
        spans.append(slice(int(inside[0]), int(inside[-1]) + 1))
    return tuple(spans)


def _drop_components(labels: Labels, options: SegmentOptions) -> Labels:
    """Remove the 26-connected components that are too small for the options."""
    from scipy.ndimage import label

    components, count = label(labels, structure=np.ones((3, 3, 3)))
    volumes = np.bincount(components.ravel(), minlength=count + 1)
    volumes[0] = 0
    if options.clean_up == "largest":
        keep = np.arange(count + 1) == volumes.argmax()
    else:
        smallest = options.smallest_volume if options.clean_up == "small" else MINOR * volumes.max()
        keep = volumes >= smallest
    keep[0] = False
    kept: Labels = keep[components].astype(np.uint8)
    return kept


def _fill_holes(labels: Labels) -> None:
    """Fill holes within each slice, in place; slices are too thick for holes in 3D."""
    from scipy.ndimage import binary_fill_holes

    for page in labels:
        if (box := _bounding_box(page)) is not None:
            page[box] = binary_fill_holes(page[box])
