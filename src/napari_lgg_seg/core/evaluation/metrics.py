"""Dice, for one patient and summarised over a cohort."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


def dice(prediction: npt.NDArray[np.generic], truth: npt.NDArray[np.generic]) -> float:
    """Dice coefficient of two masks over all their voxels.

    Parameters
    ----------
    prediction, truth : ndarray
        Any shape, the same for both; non-zero is tumour.

    Returns
    -------
    float
        0 to 1; two empty masks agree: 1.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"masks of different shapes: {prediction.shape} and {truth.shape}")
    predicted, true = prediction != 0, truth != 0
    total = int(predicted.sum()) + int(true.sum())
    return 2 * int((predicted & true).sum()) / total if total else 1.0


@dataclass(frozen=True)
class Summary:
    """Dice per patient over a cohort.

    Attributes
    ----------
    patients : int
        Number of patients.
    mean, median : float
        Of the Dice per patient.
    below_half : tuple of str
        Patients with a Dice below 0.5, worst first.
    missed : tuple of str
        Patients with a Dice of 0.
    """

    patients: int
    mean: float
    median: float
    below_half: tuple[str, ...]
    missed: tuple[str, ...]


def summarise(dice_per_patient: Mapping[str, float]) -> Summary:
    """Mean, median and failures of a cohort's Dice per patient.

    Parameters
    ----------
    dice_per_patient : mapping of str to float
        At least one patient.
    """
    values = np.array(list(dice_per_patient.values()))
    worst_first = sorted(dice_per_patient, key=dice_per_patient.__getitem__)
    return Summary(
        patients=len(values),
        mean=float(values.mean()),
        median=float(np.median(values)),
        below_half=tuple(p for p in worst_first if dice_per_patient[p] < 0.5),
        missed=tuple(p for p in worst_first if dice_per_patient[p] == 0),
    )
