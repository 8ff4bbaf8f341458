"""How far probabilities can be taken at their word: observed against predicted share of tumour."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

#: Equal parts of the range of probabilities.
BINS = 20
#: What surrounds the truth and is counted with it: slices above and below, pixels on each side.
MARGIN = (1, 16)

Counts = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Reliability:
    """Voxels by the probability they were given; those of several patients add up.

    Attributes
    ----------
    voxels : ndarray of float
        Shape (BINS,): how many voxels have a probability in each bin.
    probability, tumour : ndarray of float
        Shape (BINS,): sum of their probabilities, and how many of them are tumour.
    """

    voxels: Counts
    probability: Counts
    tumour: Counts

    def __add__(self, other: Reliability) -> Reliability:
        """Both patients' voxels."""
        return Reliability(
            self.voxels + other.voxels, self.probability + other.probability, self.tumour + other.tumour
        )

    @property
    def error(self) -> float:
        """Expected calibration error: how far, voxel for voxel, bins' mean probability is from their share.

        Of Guo et al. 2017, https://arxiv.org/abs/1706.04599, for the probability of tumour.
        """
        return float(np.abs(self.probability - self.tumour).sum() / self.voxels.sum())


def measure_reliability(
    probability: npt.NDArray[np.floating], truth: npt.NDArray[np.generic]
) -> Reliability | None:
    """Count a patient's voxels in the foreground region: the box around the truth with a margin.

    Over the whole volume nearly all voxels are background that nobody doubts, which makes every model look
    calibrated; so the region follows Mehrtash et al. 2020, https://doi.org/10.1109/TMI.2020.3006437, with
    the margin :data:`MARGIN`.

    Parameters
    ----------
    probability : ndarray of float
        Shape (z, y, x), 0 to 1.
    truth : ndarray
        Likewise; non-zero is tumour.

    Returns
    -------
    Reliability or None
        None without tumour.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    if probability.shape != truth.shape:
        raise ValueError(f"probability of {probability.shape} and truth of {truth.shape} differ in shape")
    tumour = truth != 0
    if not tumour.any():
        return None
    region = tuple(
        slice(max(int(places.min()) - margin, 0), int(places.max()) + 1 + margin)
        for places, margin in zip(np.nonzero(tumour), (MARGIN[0], MARGIN[1], MARGIN[1]), strict=True)
    )
    values, is_tumour = probability[region].ravel().astype(np.float64), tumour[region].ravel()
    bins = np.minimum((values * BINS).astype(np.intp), BINS - 1)
    return Reliability(
        np.bincount(bins, minlength=BINS).astype(np.float64),
        np.bincount(bins, values, BINS).astype(np.float64),
        np.bincount(bins, is_tumour, BINS).astype(np.float64),
    )
