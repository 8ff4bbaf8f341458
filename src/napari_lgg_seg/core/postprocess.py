"""Probabilities -> labels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def to_labels(probability: npt.NDArray[np.floating], threshold: float) -> npt.NDArray[np.uint8]:
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
