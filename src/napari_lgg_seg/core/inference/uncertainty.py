"""Uncertainty of a segmentation, per voxel and per patient.

Everything is computed from the probability. With test-time augmentation, that is the mean of the results for
each slice and its mirror image, so that disagreement between the two contributes as well.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .postprocess import check_probability

#: Voxels with probabilities between these count as uncertain, whatever the threshold.
UNCERTAIN = (0.05, 0.95)
#: Smaller probabilities have an entropy of 0.
_SMALLEST = 1e-12


def voxel_entropy(probability: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Entropy of each voxel in bits.

    ``-p log2(p) - (1 - p) log2(1 - p)``: 0 for probabilities of 0 and 1, and 1 for a probability of 0.5.

    Parameters
    ----------
    probability : ndarray of float
        Any shape, 0 to 1.

    Returns
    -------
    ndarray of float32
        Same shape, 0 to 1.

    Raises
    ------
    ImageError
        If a value is NaN or not from 0 to 1; as do all functions of this module.
    """
    check_probability(probability)
    entropy = np.zeros(probability.shape, np.float32)
    # Most of a volume has a probability of almost 0: compute logarithms for the rest only.
    unsure = (probability > _SMALLEST) & (probability < 1)
    p = probability[unsure].astype(np.float64)
    entropy[unsure] = -p * np.log2(p) - (1 - p) * np.log2(1 - p)
    return entropy


def mean_entropy(
    probability: npt.NDArray[np.floating], labels: npt.NDArray[np.generic] | None = None
) -> float:
    """Mean :func:`voxel_entropy`, in bits per voxel, over voxels that are, or might be, tumour.

    The mean is over uncertain voxels (:data:`UNCERTAIN`) and those labelled as tumour. The rest of the head
    is excluded, so that the value does not depend on the size of the image or the head. It is low for a large
    tumour that is uncertain only at its border, and high for a small or faint one that is mostly border.

    It ranks patients for review but does not measure errors: the network can be confidently wrong, and a
    lesion that it missed leaves no trace. A patient without any findings should therefore be reviewed
    regardless of this value.

    Parameters
    ----------
    probability : ndarray of float
        Any shape, 0 to 1.
    labels : ndarray of bool or integers, optional
        Same shape; non-zero is tumour. Without labels, only uncertain voxels count.

    Returns
    -------
    float
        0 to 1; 0 if no voxel is tumour or uncertain.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    if labels is not None and labels.shape != probability.shape:
        raise ValueError(f"labels of shape {labels.shape} for a probability of {probability.shape}")
    check_probability(probability)
    low, high = UNCERTAIN
    counted = (probability > low) & (probability < high)
    if labels is not None:
        counted |= labels != 0
    return float(voxel_entropy(probability[counted]).mean()) if counted.any() else 0.0


def expected_dice(probability: npt.NDArray[np.floating], labels: npt.NDArray[np.generic]) -> float | None:
    """Expected Dice of labels with the ground truth (approximately), if the probabilities are calibrated.

    Twice the summed probability of the labelled voxels, divided by the summed probability of all voxels plus
    the number of labelled ones; see :func:`.postprocess.best_threshold`. Clean-up is taken into account.

    Parameters
    ----------
    probability : ndarray of float
        Any shape, 0 to 1.
    labels : ndarray of bool or integers
        Same shape; non-zero is tumour.

    Returns
    -------
    float or None
        0 to 1; None if nothing is labelled and all probabilities are 0, since Dice is undefined then.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    if labels.shape != probability.shape:
        raise ValueError(f"labels of shape {labels.shape} for a probability of {probability.shape}")
    check_probability(probability)
    tumour = labels != 0
    both = float(probability.sum(dtype=np.float64)) + int(np.count_nonzero(tumour))
    return 2 * float(probability[tumour].sum(dtype=np.float64)) / both if both else None
