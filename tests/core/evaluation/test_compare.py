from __future__ import annotations

import numpy as np
import pytest

from napari_lgg_seg.core.errors import ComparisonError
from napari_lgg_seg.core.evaluation.compare import AGREED, FALSE_NEGATIVE, FALSE_POSITIVE, compare, overlay


def box(*corner, shape=(6, 20, 20)):
    """A mask with one box: (z, y, x, size along z, y and x)."""
    mask = np.zeros(shape, np.uint8)
    z, y, x, depth, height, width = corner
    mask[z : z + depth, y : y + height, x : x + width] = 1
    return mask


EMPTY = np.zeros((6, 20, 20), np.uint8)
BOX = box(1, 2, 2, 2, 4, 4)


def ragged_pair(seed, shape):
    """An irregular ground truth, and a prediction that is shifted and has a hole."""
    from scipy.ndimage import gaussian_filter

    noise = np.random.default_rng(seed).normal(size=shape)
    truth = gaussian_filter(noise, (1, 4, 4)[-len(shape) :]) > 0.06
    prediction = np.roll(truth, 2, axis=-1)
    prediction[..., 10:20, :7] = False
    return prediction.astype(np.uint8), truth.astype(np.uint8)


# --- metrics -----------------------------------------------------------------------------------


def test_metrics_by_hand():
    # Half of the ground truth is found; the same volume is predicted on a slice without tumour.
    agreement = compare(box(1, 2, 2, 1, 4, 4) | box(4, 2, 2, 1, 4, 4), BOX)
    assert agreement.dice == agreement.precision == agreement.recall == 0.5
    assert agreement.iou == pytest.approx(1 / 3)
    assert agreement.volume_error == 0
    assert (agreement.predicted_voxels, agreement.predicted_lesions) == (32, 2)
    assert (agreement.true_voxels, agreement.true_slices, agreement.true_lesions) == (32, 2, 1)
    assert (agreement.missed_lesions, agreement.false_positive_lesions) == (0, 1)
    assert agreement.false_voxels_on_empty_slices == 16
    assert agreement.slice_dice == {2: 1, 3: 0, 5: 0}


def test_volume_error_has_a_sign():
    assert compare(box(1, 2, 2, 2, 4, 5), BOX).volume_error == pytest.approx(0.25)
    assert compare(box(1, 2, 2, 2, 4, 3), BOX).volume_error == pytest.approx(-0.25)


def test_any_nonzero_label_of_any_type_is_tumour():
    expected = compare(box(1, 2, 2, 2, 4, 3), BOX)
    for many in (3 * BOX, -BOX.astype(np.int16), BOX.astype(float), BOX > 0, (300 * BOX.astype(np.uint32))):
        assert compare(box(1, 2, 2, 2, 4, 3), many) == expected


@pytest.mark.parametrize(
    ("prediction", "truth", "dice", "precision", "recall", "volume_error", "worst"),
    [
        (EMPTY, BOX, 0, None, 0, -1, 2),
        (BOX, EMPTY, 0, 0, None, None, 2),
        (EMPTY, EMPTY, 1, None, None, None, None),
    ],
)
def test_conventions_for_empty_masks(prediction, truth, dice, precision, recall, volume_error, worst):
    agreement = compare(prediction, truth)
    assert agreement.dice == agreement.iou == agreement.surface_dice == dice
    assert agreement.hd95 is None
    assert (agreement.precision, agreement.recall) == (precision, recall)
    assert (agreement.volume_error, agreement.worst_slice) == (volume_error, worst)


def test_worst_slice_has_the_lowest_dice_and_then_the_most_wrong_voxels():
    truth = box(1, 2, 2, 1, 4, 4) | box(2, 2, 2, 1, 9, 9) | box(3, 2, 2, 1, 4, 4)
    prediction = box(1, 2, 2, 1, 4, 4)
    assert compare(prediction, truth).worst_slice == 3
    assert compare(prediction, truth, slice_numbers=range(20, 26)).worst_slice == 22
    assert compare(truth, truth).worst_slice == 2


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", [(10, 40, 40), (40, 40)])
@pytest.mark.parametrize("known", [False, True])
def test_surfaces_agree_with_monai(seed, shape, known):
    metrics = pytest.importorskip("monai.metrics")
    torch = pytest.importorskip("torch")
    prediction, truth = ragged_pair(seed, shape)
    spacing = (2.5, 0.5, 0.7)[-len(shape) :] if known else None
    pair = [torch.from_numpy(mask)[None, None].float() for mask in (prediction, truth)]
    options = {"include_background": True, "spacing": spacing}
    agreement = compare(prediction, truth, spacing)
    hd95 = metrics.compute_hausdorff_distance(*pair, percentile=95, **options)
    surface_dice = metrics.compute_surface_dice(*pair, class_thresholds=[1.0], **options)
    assert agreement.hd95 == pytest.approx(float(hd95), rel=1e-5)
    assert agreement.surface_dice == pytest.approx(float(surface_dice), rel=1e-5)
    assert agreement.spacing == spacing


@pytest.mark.parametrize("seed", range(2))
def test_overlap_agrees_with_monai(seed):
    metrics = pytest.importorskip("monai.metrics")
    torch = pytest.importorskip("torch")
    prediction, truth = ragged_pair(seed, (10, 40, 40))
    pair = [torch.from_numpy(mask)[None, None].float() for mask in (prediction, truth)]
    agreement = compare(prediction, truth)
    confusion = metrics.get_confusion_matrix(*pair)
    for name, theirs in (("precision", "precision"), ("recall", "sensitivity"), ("iou", "threat score")):
        value = metrics.compute_confusion_matrix_metric(theirs, confusion)
        assert getattr(agreement, name) == pytest.approx(float(value), rel=1e-5)
    assert agreement.dice == pytest.approx(float(metrics.compute_dice(*pair)), rel=1e-5)


def test_distances_are_in_millimetres_with_a_spacing():
    moved = box(2, 2, 2, 2, 4, 4)
    assert compare(moved, BOX).hd95 == 1
    agreement = compare(moved, BOX, (5, 1, 1))
    assert agreement.hd95 == 5
    assert agreement.surface_dice < compare(moved, BOX).surface_dice
    assert agreement.slice_dice == compare(moved, BOX).slice_dice


# --- a single slice ----------------------------------------------------------------------------


def test_a_single_slice_may_have_two_or_three_dimensions():
    prediction, truth = ragged_pair(0, (40, 40))
    flat, volume = compare(prediction, truth), compare(prediction[None], truth[None])
    assert flat == volume
    assert list(flat.slice_dice) == [1]
    in_mm = compare(prediction, truth, (0.5, 0.7))
    assert in_mm == compare(prediction[None], truth[None], (9, 0.5, 0.7))
    assert in_mm.spacing == (0.5, 0.7)
    assert in_mm.hd95 < flat.hd95


# --- the overlay -------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6, 8), (3, 6, 8)])
def test_overlay_labels_agreement_and_both_kinds_of_error(shape):
    rng = np.random.default_rng(0)
    prediction, truth = (rng.integers(0, 3, shape) for _ in range(2))
    shown = overlay(prediction, truth)
    assert (shown.dtype, shown.shape) == (np.uint8, shape)
    np.testing.assert_array_equal(shown == AGREED, (prediction > 0) & (truth > 0))
    np.testing.assert_array_equal(shown == FALSE_NEGATIVE, (prediction == 0) & (truth > 0))
    np.testing.assert_array_equal(shown == FALSE_POSITIVE, (prediction > 0) & (truth == 0))


# --- invalid input -----------------------------------------------------------------------------


@pytest.mark.parametrize("work", [compare, overlay])
@pytest.mark.parametrize(
    ("prediction", "truth", "sentence"),
    [
        (BOX[:5], BOX, "prediction has 5 x 20 x 20 voxels but the ground truth has 6 x 20 x 20"),
        (BOX[1], BOX[:1], "20 x 20 voxels but the ground truth has 1 x 20 x 20"),
        (BOX[None], BOX[None], r"shape \(1, 6, 20, 20\)"),
        (BOX[:0], BOX[:0], "shape"),
        (BOX, 0.3 * BOX, "ground truth .* is not a mask"),
        (BOX * np.nan, BOX, "prediction .* is not a mask"),
        (BOX.astype(str), BOX, "prediction .* is not a mask"),
    ],
)
def test_arrays_that_are_not_a_pair_of_masks_are_refused(work, prediction, truth, sentence):
    with pytest.raises(ComparisonError, match=sentence):
        work(prediction, truth)


@pytest.mark.parametrize("spacing", [(1, 1), (0, 1, 1), (1, -1, 1), (1, np.inf, 1), (1, 1, 1, 1)])
def test_invalid_spacings_are_refused(spacing):
    with pytest.raises(ComparisonError, match="spacing"):
        compare(BOX, BOX, spacing)


def test_slice_numbers_must_match_the_slices():
    with pytest.raises(ComparisonError, match="3 slice numbers were given for 6 slices"):
        compare(BOX, BOX, slice_numbers=(1, 2, 3))
    with pytest.raises(ComparisonError, match="occurs twice"):
        compare(BOX, BOX, slice_numbers=(1, 2, 3, 3, 4, 5))
