from __future__ import annotations

import math

import numpy as np
import pytest

from napari_lgg_seg.core.agreement import bootstrap_interval, compare, dice_by_slice, means

pytest.importorskip("monai")


def box(*ranges, shape=(6, 20, 20)):
    mask = np.zeros(shape, np.uint8)
    mask[tuple(slice(*r) for r in ranges)] = 1
    return mask


TRUTH = box((1, 4), (4, 12), (4, 12))  # 3 x 8 x 8 = 192 voxels


def test_a_mask_agrees_with_itself():
    found = compare(TRUTH, TRUTH)
    assert (found.dice, found.iou, found.precision, found.recall, found.tumour_slice_dice) == (1, 1, 1, 1, 1)
    assert (found.hd95, found.surface_dice) == (0, 1)
    assert (found.missed_lesions, found.invented_lesions, found.false_voxels_on_empty_slices) == (0, 0, 0)
    assert found.predicted_voxels == found.true_voxels == 192


def test_figures_of_a_shifted_mask():
    shifted = box((1, 4), (4, 12), (6, 14))  # two pixels along x: 3 x 8 x 6 = 144 in common
    found = compare(shifted, TRUTH)
    assert found.dice == pytest.approx(2 * 144 / 384)
    assert found.iou == pytest.approx(144 / 240)
    assert found.precision == found.recall == pytest.approx(144 / 192)
    assert found.hd95 == pytest.approx(2)
    assert 0.5 < found.surface_dice < 1
    assert compare(shifted, TRUTH, (5, 0.5, 0.5)).hd95 == pytest.approx(1)


def test_voxels_on_slices_without_tumour_and_slices_of_their_own():
    prediction = box((1, 6), (4, 12), (4, 12))
    found = compare(prediction, TRUTH)
    assert found.false_voxels_on_empty_slices == 2 * 64
    assert found.tumour_slice_dice == 1
    assert np.array_equal(dice_by_slice(prediction, TRUTH), [np.nan, 1, 1, 1, 0, 0], equal_nan=True)


def test_missed_and_invented_lesions():
    truth = TRUTH | box((1, 2), (16, 18), (16, 18))
    prediction = box((1, 3), (5, 9), (5, 9)) | box((5, 6), (0, 2), (0, 2)) | box((5, 6), (0, 2), (6, 8))
    found = compare(prediction, truth)
    assert (found.missed_lesions, found.invented_lesions) == (1, 2)


@pytest.mark.parametrize(("prediction", "truth", "overlap"), [(0, 0, 1), (0, 1, 0), (1, 0, 0)])
def test_empty_masks(prediction, truth, overlap):
    found = compare(TRUTH * prediction, TRUTH * truth)
    assert found.dice == found.iou == overlap
    assert math.isnan(found.hd95)
    assert math.isnan(found.surface_dice)
    assert math.isnan(found.tumour_slice_dice) == (not truth)


def test_masks_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match="different shapes"):
        compare(TRUTH, TRUTH[:3])


def test_bootstrap_interval_holds_the_mean_and_narrows_with_more_patients():
    values = np.random.default_rng(1).normal(0.8, 0.1, 200)
    low, high = bootstrap_interval(values)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * 0.1 / math.sqrt(200), rel=0.2)
    few_low, few_high = bootstrap_interval(values[:20])
    assert few_high - few_low > high - low
    assert bootstrap_interval(values) == (low, high)


def test_means_leave_out_what_is_not_defined():
    found = means({"a": compare(TRUTH, TRUTH), "b": compare(0 * TRUTH, TRUTH)})
    assert found["dice"] == 0.5
    assert found["hd95"] == 0
