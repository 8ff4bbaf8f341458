from __future__ import annotations

import pytest
import torch

pytest.importorskip("monai")

from napari_lgg_seg.core.losses import BceDiceLoss


@pytest.fixture
def masks():
    masks = torch.zeros(3, 1, 16, 16)
    masks[0, 0, 4:12, 4:10] = 1
    masks[1, 0, 2:5, 2:5] = 1
    return masks


def test_perfect_and_sure_is_near_0(masks):
    assert BceDiceLoss()(40 * masks - 20, masks) == pytest.approx(0, abs=1e-3)


def test_wrong_and_sure_is_large(masks):
    assert BceDiceLoss()(20 - 40 * masks, masks) > 10


def test_empty_batch_with_empty_prediction_is_near_0(masks):
    assert BceDiceLoss()(torch.full_like(masks, -20), 0 * masks) == pytest.approx(0, abs=1e-3)


def test_undecided_by_hand():
    """Probability 1/2 everywhere, a quarter is tumour: ln 2, and Dice (2 * 2 + 1) / (8 + 4 + 1)."""
    masks = torch.zeros(1, 1, 4, 4)
    masks[..., :2, :2] = 1
    expected = torch.log(torch.tensor(2.0)) + 1 - 5 / 13
    torch.testing.assert_close(BceDiceLoss()(torch.zeros_like(masks), masks), expected)


def test_dice_is_over_the_batch(masks):
    """One false voxel in an empty slice costs little beside a large tumour in another."""
    logits = 40 * masks - 20
    logits[2, 0, 0, 0] = 20
    assert BceDiceLoss()(logits, masks) < 0.1


def test_gradient_points_to_the_truth(masks):
    logits = torch.zeros_like(masks, requires_grad=True)
    BceDiceLoss()(logits, masks).backward()
    assert (logits.grad[masks == 1] < 0).all()
    assert (logits.grad[masks == 0] > 0).all()


def test_better_is_less(masks):
    losses = [float(BceDiceLoss()((2 * masks - 1) * sure, masks)) for sure in (-2, 0, 1, 3, 9)]
    assert losses == sorted(losses, reverse=True)
