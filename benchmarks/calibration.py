"""Calibration of the probabilities: the observed share of tumour against the predicted one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

#: Number of bins of equal width.
BINS = 20
#: Margin around the ground truth: slices above and below, pixels on each side.
MARGIN = (1, 16)

Counts = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Reliability:
    """Voxel counts by predicted probability; those of several patients can be added.

    Attributes
    ----------
    voxels : ndarray of float
        Shape (BINS,): number of voxels in each bin.
    probability, tumour : ndarray of float
        Shape (BINS,): sum of their probabilities, and number of tumour voxels among them.
    """

    voxels: Counts
    probability: Counts
    tumour: Counts

    def __add__(self, other: Reliability) -> Reliability:
        """The counts of both."""
        return Reliability(
            self.voxels + other.voxels, self.probability + other.probability, self.tumour + other.tumour
        )

    @property
    def error(self) -> float:
        """Expected calibration error of the probability of tumour.

        The mean over voxels of the difference between a bin's mean probability and its share of tumour: Guo
        et al. 2017, https://arxiv.org/abs/1706.04599.
        """
        return float(np.abs(self.probability - self.tumour).sum() / self.voxels.sum())


def measure_reliability(
    probability: npt.NDArray[np.floating], truth: npt.NDArray[np.generic]
) -> Reliability | None:
    """Count a patient's voxels in the foreground region: the box around the ground truth with a margin.

    In a whole volume nearly all voxels are obvious background, which makes every model look calibrated. The
    region therefore follows Mehrtash et al. 2020, https://doi.org/10.1109/TMI.2020.3006437, with the margin
    :data:`MARGIN`.

    Parameters
    ----------
    probability : ndarray of float
        Shape (z, y, x), 0 to 1.
    truth : ndarray
        The ground truth, in the same shape; non-zero is tumour.

    Returns
    -------
    Reliability or None
        None if the ground truth has no tumour.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    if probability.shape != truth.shape:
        raise ValueError(f"probability {probability.shape} and ground truth {truth.shape} differ in shape")
    tumour = truth != 0
    if not tumour.any():
        return None
    region = tuple(
        slice(max(int(indices.min()) - margin, 0), int(indices.max()) + 1 + margin)
        for indices, margin in zip(np.nonzero(tumour), (MARGIN[0], MARGIN[1], MARGIN[1]), strict=True)
    )
    values, is_tumour = probability[region].ravel().astype(np.float64), tumour[region].ravel()
    bins = np.minimum((values * BINS).astype(np.intp), BINS - 1)
    return Reliability(
        np.bincount(bins, minlength=BINS).astype(np.float64),
        np.bincount(bins, values, BINS).astype(np.float64),
        np.bincount(bins, is_tumour, BINS).astype(np.float64),
    )
