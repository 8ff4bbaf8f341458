from __future__ import annotations

import numpy as np
import pytest

from napari_lgg_seg.core.evaluation.metrics import dice, summarise


@pytest.mark.parametrize(
    ("prediction", "truth", "expected"),
    [
        ([1, 1, 0, 0], [1, 1, 0, 0], 1.0),
        ([1, 1, 0, 0], [0, 0, 1, 1], 0.0),
        ([1, 1, 1, 0], [0, 1, 1, 0], 0.8),
        ([1, 0, 0, 0], [1, 1, 1, 0], 0.5),
        ([0, 0, 0, 0], [1, 0, 0, 0], 0.0),
        ([1, 0, 0, 0], [0, 0, 0, 0], 0.0),
        ([0, 0, 0, 0], [0, 0, 0, 0], 1.0),
    ],
)
def test_dice_by_hand(prediction, truth, expected):
    assert dice(np.array(prediction), np.array(truth)) == pytest.approx(expected)
    assert dice(np.array(truth), np.array(prediction)) == pytest.approx(expected)


def test_dice_is_over_all_voxels_of_a_volume():
    prediction, truth = np.zeros((2, 4, 4), np.uint8), np.zeros((2, 4, 4), np.uint8)
    prediction[0, 0, 0] = truth[0, 0, 0] = 1
    truth[1, 0, :2] = 1
    assert dice(prediction, truth) == pytest.approx(2 * 1 / (1 + 3))


@pytest.mark.parametrize(
    ("dtype", "value"), [(np.uint8, 255), (bool, True), (np.int16, -1), (np.float32, 0.5)]
)
def test_any_nonzero_value_is_tumour(dtype, value):
    mask = np.array([0, value, value], dtype)
    assert dice(mask, np.array([0, 1, 1], np.uint8)) == 1


def test_dice_of_many_voxels_does_not_overflow():
    mask = np.ones((200, 200), np.uint8)
    assert dice(mask, mask) == 1


def test_dice_refuses_different_shapes():
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(3, 2\)"):
        dice(np.zeros((2, 3)), np.zeros((3, 2)))
    with pytest.raises(ValueError, match="different shapes"):
        dice(np.zeros((2, 3)), np.zeros((1, 3)))


def test_summary_of_a_cohort():
    summary = summarise({"a": 0.9, "b": 0.0, "c": 0.5, "d": 0.49, "e": 0.11})
    assert summary.patients == 5
    assert summary.mean == pytest.approx(0.4)
    assert summary.median == pytest.approx(0.49)
    assert summary.below_half == ("b", "e", "d")
    assert summary.missed == ("b",)


def test_summary_of_one_patient():
    summary = summarise({"a": 0.75})
    assert (summary.patients, summary.mean, summary.median) == (1, 0.75, 0.75)
    assert summary.below_half == summary.missed == ()
