from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from napari_lgg_seg.core.choices import MINOR
from napari_lgg_seg.core.errors import ImageError
from napari_lgg_seg.core.evaluation.metrics import dice
from napari_lgg_seg.core.inference.postprocess import LOWEST_THRESHOLD, best_threshold, postprocess, to_labels
from napari_lgg_seg.core.inference.uncertainty import expected_dice, mean_entropy, voxel_entropy
from napari_lgg_seg.core.options import SegmentOptions


@pytest.mark.parametrize(
    ("threshold", "expected"), [(0.5, [0, 0, 1, 1]), (0.25, [0, 1, 1, 1]), (0.9, [0, 0, 0, 1])]
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_voxels_at_the_threshold_are_labelled(threshold, expected, dtype):
    labels = to_labels(np.array([0, 0.25, 0.5, 1], dtype), threshold)
    assert labels.dtype == np.uint8
    assert labels.tolist() == expected


def test_shape_is_kept():
    assert to_labels(np.zeros((2, 3, 4), np.float32), 0.5).shape == (2, 3, 4)


# --- automatic threshold -----------------------------------------------------------------------


def expected_dice_at(probability, threshold):
    """Approximate expected Dice of the labels at a threshold."""
    chosen = probability >= threshold
    return 2 * probability[chosen].sum() / (probability.sum() + chosen.sum())


@pytest.mark.parametrize("seed", range(5))
def test_no_threshold_has_a_higher_expected_dice_than_the_best(seed):
    rng = np.random.default_rng(seed)
    probability = rng.beta(0.2, 1 + seed, (4, 30, 30))
    best = best_threshold(probability)
    others = [expected_dice_at(probability, threshold) for threshold in np.linspace(LOWEST_THRESHOLD, 1, 200)]
    assert expected_dice_at(probability, best) >= max(others)
    assert best == pytest.approx(expected_dice_at(probability, best) / 2, abs=0.01)


@pytest.mark.parametrize("seed", range(3))
def test_the_best_threshold_beats_a_half_for_calibrated_probabilities(seed):
    rng = np.random.default_rng(seed)
    probability = rng.beta(0.3, 3, (30, 20, 20, 5))
    truth = rng.random(probability.shape) < probability
    gains = [
        dice(to_labels(p, "auto"), t) - dice(to_labels(p, 0.5), t)
        for p, t in zip(probability, truth, strict=True)
    ]
    assert np.mean(gains) > 0.05


def test_a_certain_network_gets_a_threshold_near_a_half():
    probability = np.zeros((4, 30, 30), np.float32)
    probability[1:3, 5:20, 5:20] = 0.99
    probability[1:3, 20, 5:20] = 0.55
    assert best_threshold(probability) == pytest.approx(0.55)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_an_uncertain_network_gets_a_lower_threshold(dtype):
    probability = np.full((4, 30, 30), 0.01, dtype)
    probability[1:3, 5:20, 5:20] = 0.4
    assert to_labels(probability, "auto").sum() == 450
    assert to_labels(probability, 0.5).sum() == 0


@pytest.mark.parametrize("value", [0, 0.05, 0.099])
def test_nothing_is_found_if_nothing_is_likely(value):
    probability = np.full((3, 8, 8), value, np.float32)
    assert best_threshold(probability) == 0.5
    assert not to_labels(probability, "auto").any()


def test_an_empty_volume_has_a_threshold():
    assert best_threshold(np.zeros((0, 8, 8), np.float32)) == 0.5


# --- clean-up and holes ------------------------------------------------------------------------


def simple_labels(probability, options):
    """A simple implementation: whole slices, the whole volume, one component after the other."""
    labels = probability >= options.threshold
    if options.clean_up not in (None, "off"):
        pieces, count = ndimage.label(labels, structure=np.ones((3, 3, 3)))
        volumes = [int((pieces == piece).sum()) for piece in range(1, count + 1)]
        if options.clean_up == "largest":
            kept = [volumes.index(max(volumes)) + 1] if volumes else []
        else:
            least = (
                options.smallest_volume if options.clean_up == "small" else MINOR * max(volumes, default=0)
            )
            kept = [piece for piece, volume in enumerate(volumes, start=1) if volume >= least]
        labels = np.isin(pieces, kept)
    if options.fill_holes:
        labels = np.stack([ndimage.binary_fill_holes(page) for page in labels])
    return labels.astype(np.uint8)


def blobs(seed, shape=(6, 40, 50)):
    """A probability with components of all sizes, some with holes, some at the edges."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), (0.6, 2, 2))
    probability = (1 / (1 + np.exp(-30 * (smooth - 0.05)))).astype(np.float32)
    probability[rng.random(shape) < 0.02] = 0
    return probability


@pytest.mark.parametrize("fill_holes", [False, True])
@pytest.mark.parametrize("clean_up", ["off", "small", "minor", "largest"])
@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
def test_labels_equal_those_of_a_simple_implementation(threshold, clean_up, fill_holes):
    options = SegmentOptions(threshold, clean_up, 20, fill_holes)
    differ = 0
    for seed in range(4):
        probability = blobs(seed)
        labels = postprocess(probability, options)
        assert labels.dtype == np.uint8
        np.testing.assert_array_equal(labels, simple_labels(probability, options))
        differ += int((labels != to_labels(probability, threshold)).sum())
    assert bool(differ) == (fill_holes or clean_up != "off"), "there are no components or holes to test"


@pytest.mark.parametrize("fill_holes", [False, True])
@pytest.mark.parametrize("clean_up", ["off", "small", "minor", "largest"])
@pytest.mark.parametrize("kind", ["nothing", "everything", "corners", "one slice", "no slice"])
def test_labels_of_unusual_volumes_equal_those_of_a_simple_implementation(kind, clean_up, fill_holes):
    probability = np.zeros((0 if kind == "no slice" else 4, 9, 7), np.float32)
    if kind == "everything":
        probability[:] = 1
    elif kind == "corners":
        probability[0, 0, 0] = probability[-1, -1, -1] = probability[2, 0, -1] = 1
    elif kind == "one slice":
        probability[2, 1:6, 1:6] = 1
        probability[2, 3, 3] = 0
    options = SegmentOptions(0.5, clean_up, 2, fill_holes)
    expected = simple_labels(probability, options) if len(probability) else probability.astype(np.uint8)
    np.testing.assert_array_equal(postprocess(probability, options), expected)


# --- values that are no probabilities ----------------------------------------------------------


@pytest.mark.parametrize("value", [1e9, -0.5, np.nan, np.inf])
@pytest.mark.parametrize(
    "use",
    [
        best_threshold,
        voxel_entropy,
        mean_entropy,
        lambda p: to_labels(p, 0.5),
        lambda p: postprocess(p, SegmentOptions("auto", "minor", fill_holes=True)),
        lambda p: expected_dice(p, p > 0.5),
    ],
)
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_values_that_are_no_probabilities_are_refused(use, value):
    probability = np.full((2, 5, 5), 0.7, np.float32)
    use(probability)
    probability[1, 2, 3] = value
    with pytest.raises(ImageError, match=r"^The probabilities range from .* instead of 0 to 1; .*\.$"):
        use(probability)


def test_rounding_errors_of_probabilities_are_accepted():
    assert to_labels(np.array([-1e-6, 1 + 1e-6], np.float32), 0.5).tolist() == [0, 1]
    assert to_labels(np.zeros((0, 4, 4), np.float32), 0.5).shape == (0, 4, 4)
