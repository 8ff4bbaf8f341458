"""Correlation and limits of agreement of paired values."""

from __future__ import annotations

import numpy as np
import pytest
from paired_values import FeatureAgreement, feature_agreement, shape_agreement

from napari_lgg_seg.core.errors import PatientError
from napari_lgg_seg.core.evaluation.study.shape import FEATURES, Shape

EMPTY = Shape(None, None, None, None, 0)


def shape(bevr: float, asd: float = 0.1, mf: float = 0.1) -> Shape:
    return Shape(bevr, asd, mf, 3, 100)


def test_limits_of_agreement_by_hand():
    found = feature_agreement([1.0, 2, 3, 4], [0.0, 2, 4, 2])
    # Differences 1, 0, -1, 2: mean 0.5, sum of squares around it 5.
    assert found.mean_difference == pytest.approx(0.5)
    assert found.upper - found.mean_difference == pytest.approx(1.96 * np.sqrt(5 / 3))
    assert found.mean_difference - found.lower == pytest.approx(1.96 * np.sqrt(5 / 3))
    assert found.patients == 4


def test_correlations_by_hand():
    # Predicted values 1, 2, 3, 10 and their ranks against 1 to 4.
    found = feature_agreement([1.0, 2, 3, 10], [1.0, 2, 3, 4])
    assert found.spearman == pytest.approx(1)
    assert found.pearson == pytest.approx(14 / np.sqrt(50 * 5))


def test_constant_values_have_no_correlation():
    assert feature_agreement([1, 1, 1], [1, 2, 3]) == FeatureAgreement(
        3, None, None, -1, -1 - 1.96, -1 + 1.96
    )


@pytest.mark.parametrize(("predicted", "manual"), [([1], [1]), ([1, 2], [1]), ([], [])])
def test_agreement_needs_two_pairs(predicted, manual):
    with pytest.raises(ValueError, match="pairs"):
        feature_agreement(predicted, manual)


def test_shape_features_are_compared_over_patients_with_tumour_in_both():
    manual = {"a": shape(0.2, 0.1), "b": shape(0.4, 0.2), "c": shape(0.9), "d": EMPTY}
    predicted = {"b": shape(0.5, 0.2), "a": shape(0.3, 0.1), "c": EMPTY, "d": shape(0.1)}
    found = shape_agreement(predicted, manual)
    assert set(found) == set(FEATURES)
    assert found["bevr"].patients == 2
    assert found["bevr"].mean_difference == pytest.approx(0.1)
    assert found["asd"].mean_difference == pytest.approx(0)
    with pytest.raises(PatientError, match="1 patients"):
        shape_agreement({"a": shape(0.1)}, manual)
