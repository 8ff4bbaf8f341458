"""Calibration of probabilities against the ground truth."""

import numpy as np
import pytest
from calibration import BINS, measure_reliability


def _volume_where(share, probability):
    """A box in which ``share`` of the voxels, evenly distributed, are tumour."""
    truth = np.zeros((10, 80, 80), np.uint8)
    truth[2:8, 20:60, 20:60] = np.random.default_rng(0).random((6, 40, 40)) < share
    truth[[2, 7], 20, 20], truth[[2, 7], 59, 59] = 1, 1  # the corners fix the bounding box
    values = np.zeros(truth.shape, np.float32)
    values[2:8, 20:60, 20:60] = probability
    return values, truth


def test_calibrated_probabilities_have_no_error():
    probability, truth = _volume_where(0.3, 0.3)
    found = measure_reliability(probability, truth)
    assert found.error < 0.01
    assert found.tumour[int(0.3 * BINS)] == truth.sum()


def test_overconfidence_is_measured():
    probability, truth = _volume_where(0.5, 0.9)
    found = measure_reliability(probability, truth)
    inside = 6 * 40 * 40
    box = 8 * 72 * 72  # one slice and 16 pixels larger on each side, correct background
    assert found.voxels.sum() == box
    assert found.error == pytest.approx(0.4 * inside / box, abs=0.005)


def test_counts_of_patients_are_added():
    one = measure_reliability(*_volume_where(0.5, 0.9))
    other = measure_reliability(*_volume_where(0.5, 0.1))
    both = one + other
    assert both.voxels.sum() == one.voxels.sum() + other.voxels.sum()
    assert both.error == pytest.approx((one.error + other.error) / 2)


def test_certain_voxels_are_counted():
    truth = np.zeros((3, 40, 40), np.uint8)
    truth[1, 20, 20] = 1
    found = measure_reliability(truth.astype(np.float32), truth)
    assert found.error == 0
    assert found.voxels[-1] == 1


def test_without_tumour_there_is_no_region():
    assert measure_reliability(np.zeros((2, 8, 8)), np.zeros((2, 8, 8))) is None


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="differ in shape"):
        measure_reliability(np.zeros((2, 8, 8)), np.zeros((3, 8, 8)))
