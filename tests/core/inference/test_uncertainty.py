from __future__ import annotations

import numpy as np
import pytest

from napari_lgg_seg.core.inference.postprocess import best_threshold
from napari_lgg_seg.core.inference.uncertainty import expected_dice, mean_entropy


def test_entropy_of_a_coin_is_one_bit_and_of_certainty_zero():
    assert mean_entropy(np.full((2, 3, 4), 0.5)) == pytest.approx(1)
    sure = np.zeros((2, 3, 4), np.float32)
    sure[0, 0] = 1
    assert mean_entropy(sure, sure > 0.5) == pytest.approx(0, abs=1e-9)


def test_mean_entropy_by_hand():
    p = np.array([0.1, 0.2, 0.99, 0.01])
    expected = [-x * np.log2(x) - (1 - x) * np.log2(1 - x) for x in p[:3]]
    assert mean_entropy(p, p > 0.5) == pytest.approx(np.mean(expected))
    assert mean_entropy(p) == pytest.approx(np.mean(expected[:2]))


def test_the_background_does_not_change_the_mean():
    small = np.full((1, 4, 4), 0.3, np.float32)
    large = np.zeros((9, 40, 40), np.float32)
    large[4, 10:14, 10:14] = small[0]
    assert mean_entropy(large) == pytest.approx(mean_entropy(small))


def test_a_small_tumour_that_is_mostly_border_is_less_certain():
    large, small = np.zeros((1, 40, 40), np.float32), np.zeros((1, 40, 40), np.float32)
    large[0, 9:31, 9:31], large[0, 10:30, 10:30] = 0.5, 0.99
    small[0, 18:23, 18:23], small[0, 19:22, 19:22] = 0.5, 0.99
    assert 0 < mean_entropy(large, large >= 0.5) < mean_entropy(small, small >= 0.5) < 1


def test_mean_entropy_is_zero_without_tumour_or_uncertain_voxels():
    assert mean_entropy(np.full((2, 3, 4), 0.01), np.zeros((2, 3, 4), np.uint8)) == 0


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match="shape"):
        mean_entropy(np.zeros((2, 3, 4)), np.zeros((3, 4)))


def test_expected_dice_by_hand():
    p = np.array([0.9, 0.6, 0.3, 0.2])
    assert expected_dice(p, p >= 0.5) == pytest.approx(2 * 1.5 / (2.0 + 2))
    assert expected_dice(p, np.ones(4, np.uint8)) == pytest.approx(2 * 2.0 / (2.0 + 4))
    assert expected_dice(p, np.zeros(4, bool)) == 0


def test_expected_dice_of_a_certain_and_of_an_empty_prediction():
    sure = np.zeros((2, 3, 4), np.float32)
    sure[1, 1] = 1
    assert expected_dice(sure, sure > 0) == 1
    assert expected_dice(np.zeros((2, 3, 4)), np.zeros((2, 3, 4))) is None


def test_no_threshold_has_a_higher_expected_dice_than_the_best():
    p = np.random.default_rng(0).beta(0.3, 0.6, 500)
    best = expected_dice(p, p >= best_threshold(p))
    assert all(expected_dice(p, p >= threshold) <= best for threshold in np.linspace(0.1, 1, 50))


def test_expected_dice_is_the_mean_over_random_ground_truths():
    rng = np.random.default_rng(0)
    p = rng.beta(0.3, 0.6, 4000)
    labels = p >= 0.4
    truths = rng.random((50, p.size)) < p
    dices = 2 * (truths & labels).sum(axis=1) / (truths.sum(axis=1) + labels.sum())
    assert expected_dice(p, labels) == pytest.approx(dices.mean(), abs=0.01)


def test_expected_dice_refuses_other_shapes():
    with pytest.raises(ValueError, match="shape"):
        expected_dice(np.zeros((2, 3, 4)), np.zeros((3, 4)))
