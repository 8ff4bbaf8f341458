"""Agreement of paired values, such as a shape feature of predicted and of manual masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from napari_lgg_seg.core.errors import PatientError
from napari_lgg_seg.core.evaluation.study.shape import FEATURES, Shape


@dataclass(frozen=True)
class FeatureAgreement:
    """Agreement of a feature of predicted masks with that of manual ones.

    Attributes
    ----------
    patients : int
        Number of pairs.
    pearson, spearman : float or None
        Correlation; None if one of the sides is constant.
    mean_difference : float
        Predicted minus manual (Bland and Altman 1986).
    lower, upper : float
        Limits of agreement: mean difference -+ 1.96 standard deviations of the differences.
    """

    patients: int
    pearson: float | None
    spearman: float | None
    mean_difference: float
    lower: float
    upper: float


def feature_agreement(predicted: Sequence[float], manual: Sequence[float]) -> FeatureAgreement:
    """Correlation and Bland-Altman limits of agreement of paired values.

    Parameters
    ----------
    predicted, manual : sequence of float
        Values of the same patients in the same order, at least two.

    Raises
    ------
    ValueError
        If the lengths differ or there are fewer than two pairs.
    """
    from scipy.stats import pearsonr, spearmanr

    left, right = np.asarray(predicted, dtype=np.float64), np.asarray(manual, dtype=np.float64)
    if left.shape != right.shape or left.ndim != 1 or len(left) < 2:
        raise ValueError(f"values of shapes {left.shape} and {right.shape}; two or more pairs are needed")
    varies = bool(np.ptp(left) and np.ptp(right))
    differences = left - right
    mean, sd = float(differences.mean()), float(differences.std(ddof=1))
    return FeatureAgreement(
        patients=len(left),
        pearson=float(pearsonr(left, right).statistic) if varies else None,
        spearman=float(spearmanr(left, right).statistic) if varies else None,
        mean_difference=mean,
        lower=mean - 1.96 * sd,
        upper=mean + 1.96 * sd,
    )


def shape_agreement(
    predicted: Mapping[str, Shape], manual: Mapping[str, Shape]
) -> dict[str, FeatureAgreement]:
    """Agreement of each shape feature over the patients with a tumour in both masks.

    Raises
    ------
    PatientError
        If there are fewer than two such patients.
    """
    names = [name for name in manual if name in predicted and manual[name].voxels and predicted[name].voxels]
    if len(names) < 2:
        raise PatientError(
            f"{len(names)} patients have a tumour in both tables; agreement needs two or more."
        )
    return {
        feature: feature_agreement(
            [getattr(predicted[name], feature) for name in names],
            [getattr(manual[name], feature) for name in names],
        )
        for feature in FEATURES
    }
