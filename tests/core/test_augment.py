from __future__ import annotations

import pytest
import torch

from napari_lgg_seg.core.augment import augment
from napari_lgg_seg.core.metrics import dice


def squares(n=32, side=64):
    """Slices with a bright square on black, off the centre, and the square as mask."""
    masks = torch.zeros(n, 1, side, side)
    masks[..., 14:34, 24:40] = 1
    return 10 * masks.repeat(1, 3, 1, 1) - 1, masks


def augmented(images, masks, seed=0):
    return augment(images, masks, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("seed", range(3))
def test_masks_move_with_the_images(seed):
    before, mask_before = squares()
    images, masks = augmented(before, mask_before, seed)
    for image, mask, original in zip(images, masks, mask_before, strict=True):
        for channel in image:
            bright = channel > (channel.amin() + channel.amax()) / 2
            assert dice(bright.numpy(), (mask[0] > 0.5).numpy()) > 0.9
        assert dice((mask > 0.5).numpy(), (original > 0.5).numpy()) < 0.999, "nothing moved"


def test_shapes_and_ranges():
    images, masks = squares(5, 48)
    new_images, new_masks = augmented(images, masks)
    assert new_images.shape == images.shape
    assert new_masks.shape == masks.shape
    assert new_images.dtype == new_masks.dtype == torch.float32
    assert new_masks.min() >= 0
    assert new_masks.max() <= 1
    assert torch.isfinite(new_images).all()


def test_the_generator_decides_everything():
    images, masks = squares()
    torch.manual_seed(1)
    first = augmented(images, masks, 5)
    torch.manual_seed(2)
    again, other = augmented(images, masks, 5), augmented(images, masks, 6)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    assert not torch.equal(first[1], other[1])


def test_the_batch_itself_is_not_changed():
    images, masks = squares()
    before = images.clone(), masks.clone()
    augmented(images, masks)
    assert torch.equal(images, before[0])
    assert torch.equal(masks, before[1])


def test_slices_of_a_batch_change_differently():
    _, masks = augmented(*squares())
    assert len({tuple(mask.flatten().tolist()) for mask in masks}) == len(masks)


def test_half_of_the_slices_are_mirrored():
    masks = torch.zeros(200, 1, 64, 64)
    masks[..., 22:42, 6:22] = 1  # left of the middle, and so far that no turn brings it across
    _, masks = augmented(masks.repeat(1, 3, 1, 1), masks)
    columns = torch.arange(64.0)
    centres = (masks.sum(dim=(1, 2)) * columns).sum(1) / masks.sum(dim=(1, 2, 3))
    assert 60 < int((centres > 31.5).sum()) < 140


def test_what_comes_in_from_outside_is_background():
    images = torch.full((40, 3, 32, 32), 7.0)
    new_images, _ = augmented(images, torch.zeros(40, 1, 32, 32))
    # Noise alone tells the pixels of a sequence apart.
    assert new_images.std(dim=(2, 3)).max() < 0.1
    assert new_images.mean() == pytest.approx(7, rel=0.1)


def test_sequences_are_replaced_by_flair_now_and_then():
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(400, 3, 16, 16, generator=generator)
    new_images, _ = augmented(images, torch.zeros(400, 1, 16, 16))
    flat = new_images.flatten(2)
    flat = flat - flat.mean(dim=2, keepdim=True)
    flat = flat / flat.norm(dim=2, keepdim=True)
    pre, post = ((flat[:, channel] * flat[:, 1]).sum(1) > 0.9 for channel in (0, 2))
    assert 5 <= int(pre.sum()) <= 60
    assert int(post.sum()) > int(pre.sum())
    assert not (pre & ~post).any()
