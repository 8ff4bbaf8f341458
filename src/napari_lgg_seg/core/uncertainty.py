"""How sure a network is of one patient's tumour, as one figure made from its probability alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

#: Probabilities between these are in doubt, whatever the threshold.
DOUBTFUL = (0.05, 0.95)


def mean_entropy(
    probability: npt.NDArray[np.floating], labels: npt.NDArray[np.generic] | None = None
) -> float:
    """Mean entropy, in bits per voxel, of the voxels that are tumour or might be.

    The entropy of a voxel with probability p is ``-p log2(p) - (1 - p) log2(1 - p)``: 0 where the
    network is sure either way, 1 where p is a half. It is averaged over the voxels in doubt
    (:data:`DOUBTFUL`) together with those labelled as tumour. Of the rest of the head, which is many
    times larger and sure to be none, nothing enters, so that the figure depends neither on the size of
    the picture nor on that of the head; a large tumour that is sure but for its rim has a low figure, a
    small or faint one, of which most is rim, a high one.

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
    p = probability[counted].astype(np.float64)
    if not p.size:
        return 0.0
    p = np.clip(p, 1e-12, 1 - 1e-12)  # where the logarithm's limit is 0
    return float(np.mean(-p * np.log2(p) - (1 - p) * np.log2(1 - p)))
