from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from napari_lgg_seg.core.evaluation.patient_metrics import measure_cohort, write_metrics

# --- one patient -------------------------------------------------------------------------------


def test_metrics_of_a_patient_by_hand(boxes, measured):
    # Ground truth: lesions of 2 x 4 x 4 and 1 x 2 x 2. Prediction: half of the first, and a false positive.
    truth = boxes((1, 2, 2, 2, 4, 4), (4, 15, 15, 1, 2, 2))
    prediction = boxes((1, 2, 2, 2, 4, 2), (5, 10, 10, 1, 3, 3))
    metrics = measured(prediction, truth, first=9)
    assert (metrics.voxels, metrics.slices, metrics.of_slices, metrics.lesions) == (25, 3, 6, 2)
    agreement = metrics.agreement
    assert (agreement.true_voxels, agreement.true_slices, agreement.true_lesions) == (36, 3, 2)
    assert (agreement.missed_lesions, agreement.false_positive_lesions) == (1, 1)
    assert agreement.dice == pytest.approx(2 * 16 / (25 + 36))
    assert agreement.slice_dice == pytest.approx({10: 2 / 3, 11: 2 / 3, 13: 0, 14: 0})
    assert agreement.median_slice_dice == pytest.approx(1 / 3)
    assert (agreement.false_voxels_on_empty_slices, agreement.worst_slice) == (9, 14)


def test_components_that_touch_at_a_corner_are_one(boxes, measured):
    assert measured(boxes((1, 2, 2, 1, 2, 2), (2, 4, 4, 1, 2, 2))).lesions == 1
    assert measured(boxes((1, 2, 2, 1, 2, 2), (3, 4, 4, 1, 2, 2))).lesions == 2


def test_equal_masks(boxes, measured):
    truth = boxes((1, 2, 2, 2, 4, 4))
    agreement = measured(truth, truth).agreement
    assert (agreement.dice, agreement.median_slice_dice, agreement.hd95, agreement.surface_dice) == (
        1,
        1,
        0,
        1,
    )
    assert (agreement.missed_lesions, agreement.false_positive_lesions) == (0, 0)


def test_distance_of_a_shifted_plane_is_the_shift(boxes, measured):
    truth, prediction = (boxes((2, 3, x, 1, 10, 1)) for x in (4, 7))
    agreement = measured(prediction, truth).agreement
    assert (agreement.hd95, agreement.surface_dice) == (3, 0)
    agreement = measured(boxes((3, 3, 4, 1, 10, 1)), truth).agreement
    assert (agreement.hd95, agreement.surface_dice) == (1, 1)


@pytest.mark.parametrize(
    ("predicted", "true", "dice", "surface_dice", "missed", "false_positive"),
    [(0, 1, 0, 0, 1, 0), (1, 0, 0, 0, 0, 1), (0, 0, 1, 1, 0, 0)],
)
def test_empty_masks(boxes, measured, predicted, true, dice, surface_dice, missed, false_positive):
    box = boxes((1, 2, 2, 2, 4, 4))
    agreement = measured(box * predicted, box * true).agreement
    assert (agreement.dice, agreement.surface_dice, agreement.hd95) == (dice, surface_dice, None)
    assert (agreement.missed_lesions, agreement.false_positive_lesions) == (missed, false_positive)
    assert agreement.median_slice_dice == (0 if predicted or true else None)


def test_prediction_without_ground_truth(boxes, measured):
    metrics = measured(boxes((1, 2, 2, 2, 4, 4)))
    assert metrics.agreement is None
    assert metrics.as_row()["voxels"] == 32
    assert metrics.as_row()["dice"] is None


# --- the cohort --------------------------------------------------------------------------------


def test_metrics_of_a_cohort(boxes, measured, cohort_of):
    patients = cohort_of([16, 8, 2, 0])
    cohort = measure_cohort([*patients, measured(boxes())])
    assert cohort.summary.patients == 4
    assert cohort.summary.mean == pytest.approx((1 + 2 / 3 + 2 / 9 + 0) / 4)
    assert cohort.summary.median == pytest.approx((2 / 3 + 2 / 9) / 2)
    assert cohort.summary.below_half == ("P3", "P2")
    assert cohort.summary.missed == ("P3",)
    low, high = cohort.mean_interval
    assert 0 < low < cohort.summary.mean < high < 1
    assert cohort == measure_cohort(patients)


def test_interval_of_the_mean_is_close_to_that_of_a_normal_distribution(cohort_of):
    patients = cohort_of([16, 15, 14, 14, 12, 11, 9, 13] * 8)
    scores = np.array([p.agreement.dice for p in patients])
    margin = 1.96 * scores.std() / np.sqrt(len(scores))
    expected = (scores.mean() - margin, scores.mean() + margin)
    assert measure_cohort(patients).mean_interval == pytest.approx(expected, abs=0.003)


def test_one_patient_has_no_interval_and_no_ground_truth_no_metrics(boxes, measured, cohort_of):
    assert measure_cohort(cohort_of([8])).mean_interval is None
    assert measure_cohort([measured(boxes())]) is None


def test_files_of_metrics(tmp_path, boxes, measured, cohort_of):
    patients = [*cohort_of([16, 0]), measured(boxes(), name="no, truth")]
    write_metrics(tmp_path, patients, ["left out"], ["broken."])
    metrics = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["cohort"]["summary"]["mean"] == 0.5
    assert metrics["patients"][0]["agreement"]["slice_dice"] == {"2": 1, "3": 1}
    assert (metrics["without_prediction"], metrics["failed"]) == (["left out"], ["broken."])
    with (tmp_path / "metrics.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["patient"], row["dice"]) for row in rows] == [
        ("P0", "1.0"),
        ("P1", "0.0"),
        ("no, truth", ""),
    ]
    assert [row["false_voxels_on_empty_slices"] for row in rows] == ["0", "0", ""]
    assert not {"slice_dice", "spacing", "predicted_voxels"} & set(rows[0])
