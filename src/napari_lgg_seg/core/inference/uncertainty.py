"""How sure a network is of one patient's tumour: voxel by voxel, and as figures of the patient.

All are made from the probability alone. With test-time augmentation that is the mean of what the network
says of each slice and of its mirror image, so that they also count where the two differ.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

#: Probabilities between these are in doubt, whatever the threshold.
DOUBTFUL = (0.05, 0.95)
#: Below this the logarithm is that of this, so that the entropy of 0 and 1 is 0.
_SMALLEST = 1e-12


def voxel_entropy(probability: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Entropy of each voxel in bits.

    ``-p log2(p) - (1 - p) log2(1 - p)``: 0 where the network is sure either way, 1 where p is a half.

    Parameters
    ----------
    probability : ndarray of float
        Any shape, 0 to 1.

    Returns
    -------
    ndarray of float32
        Same shape, 0 to 1.
    """
    entropy = np.zeros(probability.shape, np.float32)
    # Most of a volume is sure to be none: only the rest is worth a logarithm.
    unsure = (probability > _SMALLEST) & (probability < 1)
    p = probability[unsure].astype(np.float64)
    entropy[unsure] = -p * np.log2(p) - (1 - p) * np.log2(1 - p)
    return entropy


def mean_entropy(
    probability: npt.NDArray[np.floating], labels: npt.NDArray[np.generic] | None = None
) -> float:
    """Mean :func:`voxel_entropy`, in bits per voxel, of the voxels that are tumour or might be.

    It is averaged over the voxels in doubt (:data:`DOUBTFUL`) together with those labelled as tumour. Of
    the rest of the head, which is many times larger and sure to be none, nothing enters, so that the
    figure depends neither on the size of the picture nor on that of the head; a large tumour that is sure
    but for its rim has a low figure, a small or faint one, of which most is rim, a high one.

    It says where to look first, not how wrong a result is: what the network is sure of can be wrong, and
    a lesion that it passed over without doubt leaves no trace. That is why a patient in whom nothing was
    found deserves a look whatever the figure is.

    Parameters
    ----------
    probability : ndarray of float
        Any shape, 0 to 1.
    labels : ndarray of bool or integers, optional
        Same shape; non-zero is tumour. Without them only the voxels in doubt count.

    Returns
    -------
    float
        0 to 1; 0 where no voxel is tumour or in doubt.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    if labels is not None and labels.shape != probability.shape:
        raise ValueError(f"labels of shape {labels.shape} for a probability of {probability.shape}")
    low, high = DOUBTFUL
    counted = (probability > low) & (probability < high)
    if labels is not None:
        counted |= labels != 0
    return float(voxel_entropy(probability[counted]).mean()) if counted.any() else 0.0


def expected_dice(probability: npt.NDArray[np.floating], labels: npt.NDArray[np.generic]) -> float | None:
    """The Dice that labels would have with the truth, nearly, if the probabilities were right.

    Of the voxels labelled, and of all voxels, a share is expected to be tumour: that of
    :func:`.postprocess.best_threshold`, with the labels as they are after the clean-up.

    Parameters
    ----------
    probability : ndarray of float
        Any shape, 0 to 1.
    labels : ndarray of bool or integers
        Same shape; non-zero is tumour.

    Returns
    -------
    float or None
        0 to 1; None where nothing is labelled and no voxel is the least likely, as there is nothing to
        agree about.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    if labels.shape != probability.shape:
        raise ValueError(f"labels of shape {labels.shape} for a probability of {probability.shape}")
    tumour = labels != 0
    both = float(probability.sum(dtype=np.float64)) + int(np.count_nonzero(tumour))
    return 2 * float(probability[tumour].sum(dtype=np.float64)) / both if both else None
