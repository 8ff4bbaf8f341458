"""Random augmentation of training slices."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_lgg_seg.core.evaluation.metrics import dice
from napari_lgg_seg.core.training import augment as module
from napari_lgg_seg.core.training.augment import augment


def squares(n=32, side=64):
    """Slices with a bright, off-centre square on black, and the square as mask."""
    masks = torch.zeros(n, 1, side, side)
    masks[..., 14:34, 24:40] = 1
    return 10 * masks.repeat(1, 3, 1, 1) - 1, masks


def augmented(images, masks, seed=0, **options):
    return augment(images, masks, torch.Generator().manual_seed(seed), **options)


def textured(n=12, side=64):
    """Smooth tissue with detail on a background of -1, and no tumour."""
    generator = torch.Generator().manual_seed(9)
    images = torch.full((n, 3, side, side), -1.0)
    inside = slice(side // 8, -side // 8)
    images[..., inside, inside] = 1 + torch.rand((n, 3, side * 3 // 4, side * 3 // 4), generator=generator)
    return images, torch.zeros(n, 1, side, side)


@pytest.fixture
def alone(monkeypatch):
    """Turn off all changes except the named ones, which are then applied to every slice."""

    def choose(*names, **values):
        for name in ("ROTATION", "SCALE", "SHIFT", "GAIN", "OFFSET", "MISSING"):
            monkeypatch.setattr(module, name, getattr(module, name) if name in names else 0.0)
        for name in ("ELASTIC", "GAMMA", "BIAS", "BLUR", "NOISE"):
            monkeypatch.setattr(module, f"{name}_SHARE", 1.0 if name in names else 0.0)
        for name, value in values.items():
            monkeypatch.setattr(module, name, value)

    return choose


def unflipped(images):
    """Slices mirrored so that their brighter half is on the left."""
    half = images.shape[-1] // 2
    flipped = images[..., half:].sum((1, 2, 3)) > images[..., :half].sum((1, 2, 3))
    return torch.where(flipped[:, None, None, None], images.flip(-1), images)


@pytest.mark.parametrize("seed", range(3))
def test_masks_are_transformed_with_the_images(seed):
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


def test_all_randomness_comes_from_the_generator():
    images, masks = squares()
    torch.manual_seed(1)
    first = augmented(images, masks, 5)
    torch.manual_seed(2)
    again, other = augmented(images, masks, 5), augmented(images, masks, 6)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    assert not torch.equal(first[1], other[1])


def test_the_input_is_not_modified():
    images, masks = squares()
    before = images.clone(), masks.clone()
    augmented(images, masks)
    assert torch.equal(images, before[0])
    assert torch.equal(masks, before[1])


def test_each_slice_of_a_batch_changes_differently():
    _, masks = augmented(*squares())
    assert len({tuple(mask.flatten().tolist()) for mask in masks}) == len(masks)


def test_half_of_the_slices_are_mirrored():
    masks = torch.zeros(200, 1, 64, 64)
    masks[..., 22:42, 6:22] = 1  # so far left of the middle that no rotation moves it to the right
    _, masks = augmented(masks.repeat(1, 3, 1, 1), masks)
    columns = torch.arange(64.0)
    centres = (masks.sum(dim=(1, 2)) * columns).sum(1) / masks.sum(dim=(1, 2, 3))
    assert 60 < int((centres > 31.5).sum()) < 140


def test_pixels_from_outside_the_slice_are_background():
    images = torch.full((40, 3, 32, 32), 7.0)
    new_images, _ = augmented(images, torch.zeros(40, 1, 32, 32))
    # The pixels of a sequence differ only by noise.
    assert new_images.std(dim=(2, 3)).max() < 0.1
    assert new_images.mean() == pytest.approx(7, rel=0.1)


def test_channels_that_are_not_the_sequences_are_refused():
    images, masks = squares(2, 16)
    with pytest.raises(ValueError, match=r"^Slices of 3 channels cannot be FLAIR\.$"):
        augmented(images, masks, sequences=("FLAIR",))


# --- neighbouring slices -----------------------------------------------------------------------


def ninefold(n=24, side=48):
    """Slices with two neighbours, all three different, and a mask: c is 9."""
    generator = torch.Generator().manual_seed(4)
    images = torch.full((n, 9, side, side), -1.0)
    images[..., 6:-6, 6:-6] = 1 + torch.rand((n, 9, side - 12, side - 12), generator=generator)
    masks = torch.zeros(n, 1, side, side)
    masks[..., 14:30, 18:30] = 1
    return images, masks


#: All changes except noise, which is drawn for every channel, and missing sequences, which follow it.
SHARED = ("ROTATION", "SCALE", "SHIFT", "GAIN", "OFFSET", "ELASTIC", "GAMMA", "BIAS", "BLUR")


@pytest.mark.parametrize("change", SHARED)
@pytest.mark.parametrize("options", [{}, {"size": 32}])
def test_a_slice_and_its_neighbours_change_alike(alone, change, options):
    """A slice whose neighbours are copies of it still equals them afterwards."""
    alone(change)
    images, masks = textured(16)
    images, _ = augmented(images.repeat(1, 3, 1, 1), masks, neighbours=1, **options)
    before, itself, after = images.chunk(3, dim=1)
    assert torch.equal(before, itself)
    assert torch.equal(after, itself)


@pytest.mark.parametrize("sequences", [None, ("FLAIR",)])
@pytest.mark.parametrize("options", [{}, {"size": 32}])
def test_neighbours_do_not_affect_how_a_slice_changes(alone, sequences, options):
    """Except for the noise, and as long as no neighbour is darker or brighter than the slice."""
    alone(*SHARED)
    more = {"sequences": sequences, **options} if sequences else options
    images, masks = ninefold()
    images = images[:, :: 3 // len(sequences)] if sequences else images
    each = images.shape[1] // 3
    images[:, :, 10, 10] = 3
    expected, expected_masks = augmented(images[:, each : 2 * each], masks, **more)
    both, both_masks = augmented(images, masks, neighbours=1, **more)
    torch.testing.assert_close(both[:, each : 2 * each], expected)
    torch.testing.assert_close(both_masks, expected_masks)
    assert not torch.allclose(both[:, :each], expected)


@pytest.mark.parametrize("change", ["GAMMA", "GAIN", "OFFSET"])
def test_intensities_change_equally_in_all_neighbours(alone, change):
    """A brighter neighbour does not shift the scale: a scanner has one curve for the whole volume."""
    alone(change)
    images = torch.full((30, 9, 32, 32), -1.0)
    images[..., 8:24, 8:24] = 1
    images[:, 3:6, 4:8, 8:24] = 2
    images[:, :3, 24:28, 8:24] = 5
    new_images, _ = augmented(images, torch.zeros(30, 1, 32, 32), neighbours=1)
    before, itself, after = new_images[..., 10:22, 10:22].chunk(3, dim=1)
    torch.testing.assert_close(before, itself)
    torch.testing.assert_close(after, itself)
    assert (itself - 1).abs().mean() > 0.01


def test_each_neighbour_has_its_own_noise(alone):
    alone("NOISE")
    images, masks = textured(8)
    new_images, _ = augmented(images.repeat(1, 3, 1, 1), masks, neighbours=1)
    before, itself, after = (new_images - unmirrored(new_images, images)).chunk(3, dim=1)
    for other in (before, after):
        assert not torch.equal(other, itself)
        together = (other * itself).mean((1, 2, 3)) / (other.std((1, 2, 3)) * itself.std((1, 2, 3)))
        assert together.abs().max() < 0.1
        torch.testing.assert_close(other.std((1, 2, 3)), itself.std((1, 2, 3)), rtol=0.1, atol=1e-4)


def unmirrored(new_images, images):
    """The input slices, three times each, mirrored where the augmented ones are."""
    images = images.repeat(1, 3, 1, 1)
    off = [(new_images - known).abs().mean((1, 2, 3)) for known in (images, images.flip(-1))]
    return torch.where((off[0] < off[1])[:, None, None, None], images, images.flip(-1))


def test_sequences_are_missing_in_all_neighbours_at_once():
    images = torch.randn(400, 9, 16, 16, generator=torch.Generator().manual_seed(0))
    new_images, _ = augmented(images, torch.zeros(400, 1, 16, 16), neighbours=1)
    slices = new_images.unflatten(1, (3, 3))
    for channel, least in ((0, 5), (2, 10)):
        replaced = (slices[:, :, channel] == slices[:, :, 1]).flatten(2).all(2)
        assert torch.equal(replaced.any(1), replaced.all(1))
        assert least <= int(replaced.all(1).sum()) <= 100
    assert not torch.equal(slices[:, 0, 1], slices[:, 1, 1])


@pytest.mark.parametrize(("channels", "neighbours"), [(3, 1), (9, 0), (6, 1)])
def test_channels_that_are_not_those_of_the_neighbours_are_refused(channels, neighbours):
    with pytest.raises(ValueError, match=f"^Slices of {channels} channels cannot be "):
        augmented(torch.zeros(2, channels, 16, 16), torch.zeros(2, 1, 16, 16), neighbours=neighbours)


@pytest.mark.parametrize(
    ("options", "then"),
    [
        ({}, [0.542113721370697, 0.37385278940200806, 0.9463365077972412]),
        ({"size": 40}, [0.7981011867523193, 0.46762847900390625, 0.17058467864990234]),
    ],
)
def test_a_seed_gives_what_it_gave_in_version_0_1_0(options, then):
    """As many random numbers are drawn, so that a training of that version resumes with the same slices."""
    generator = torch.Generator().manual_seed(0)
    augment(*squares(), generator, **options)
    assert torch.rand(3, generator=generator).tolist() == pytest.approx(then)


# --- strength ----------------------------------------------------------------------------------


def test_without_strength_slices_are_only_mirrored(alone, monkeypatch):
    monkeypatch.setattr(module, "MISSING", 0.0)
    before, masks_before = textured()
    images, _ = augmented(before, masks_before, strength=0.0)
    torch.testing.assert_close(unflipped(images), unflipped(before), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "change", ["ROTATION", "SCALE", "SHIFT", "GAIN", "OFFSET", "BIAS", "NOISE", "ELASTIC"]
)
def test_more_strength_changes_more(alone, change):
    alone(change)
    before, masks = squares(64)

    def changed(strength):
        images, _ = augmented(before, masks, strength=strength)
        return float((unflipped(images) - unflipped(before)).abs().mean())

    assert changed(2.0) > 1.3 * changed(1.0) > 0


# --- sequences ---------------------------------------------------------------------------------


def test_some_sequences_are_replaced_by_flair():
    images = torch.randn(400, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    new_images, _ = augmented(images, torch.zeros(400, 1, 16, 16))
    # Exactly, as in the dataset, whatever else was changed.
    pre, post = ((new_images[:, channel] == new_images[:, 1]).flatten(1).all(1) for channel in (0, 2))
    assert 5 <= int(pre.sum()) <= 60
    assert int(post.sum()) > int(pre.sum())
    assert not (pre & ~post).any()


def test_one_sequence():
    images, masks = squares(40)
    new_images, new_masks = augmented(images[:, 1:2], masks, sequences=("FLAIR",))
    assert new_images.shape == (40, 1, 64, 64)
    for image, mask in zip(new_images, new_masks, strict=True):
        bright = image[0] > (image.amin() + image.amax()) / 2
        assert dice(bright.numpy(), (mask[0] > 0.5).numpy()) > 0.9


@pytest.mark.parametrize(
    ("sequences", "replaced"),
    [
        (("FLAIR", "post-contrast"), 1),
        (("post-contrast", "FLAIR"), 0),
        (("pre-contrast", "post-contrast"), None),
    ],
)
def test_sequences_are_identified_by_name(alone, sequences, replaced):
    alone("MISSING")
    images = torch.arange(2.0)[None, :, None, None].repeat(300, 1, 4, 4)
    new_images, _ = augmented(images, torch.zeros(300, 1, 4, 4), sequences=sequences)
    changed = (new_images != images).flatten(2).any(2).sum(0).tolist()
    assert [count > 0 for count in changed] == [channel == replaced for channel in range(2)]


# --- geometry ----------------------------------------------------------------------------------


def test_elastic_deformation_bends_images_and_masks_alike(alone):
    alone("ELASTIC")
    before = torch.zeros(16, 1, 96, 96)
    before[..., 20:70, 10:60] = 1
    images, masks = augmented(before.repeat(1, 3, 1, 1), before)
    torch.testing.assert_close(images, masks.expand_as(images))
    # A bent square still overlaps with the original, but its edges are no longer straight.
    overlaps = [
        dice(mask.numpy() > 0.5, other.numpy() > 0.5)
        for mask, other in zip(unflipped(masks), before, strict=True)
    ]
    assert np.mean(overlaps) < 0.995
    assert min(overlaps) > 0.9
    heights = (masks[:, 0] > 0.5).sum(1)
    assert (heights.amax(1) - heights[:, [25, 70]].amax(1) > 0).float().mean() > 0.5


def test_without_any_change_slices_are_only_mirrored(alone):
    alone()
    images, masks = textured(20)
    images[..., :20] += 2
    new_images, _ = augmented(images, masks)
    torch.testing.assert_close(unflipped(new_images), unflipped(images), atol=1e-4, rtol=0)
    flipped = (new_images - images).abs().amax((1, 2, 3)) > 0.1
    assert 3 < int(flipped.sum()) < 17


@pytest.mark.parametrize("size", [24, 48, 64, 80])
def test_augmented_slices_have_the_size_asked_for(size):
    images, masks = augmented(*squares(6), size=size)
    assert images.shape == (6, 3, size, size)
    assert masks.shape == (6, 1, size, size)
    assert masks.min() >= 0
    assert masks.max() <= 1
    assert torch.isfinite(images).all()


def test_resized_slices_show_the_whole_slice(alone):
    alone()
    images, masks = squares(8)
    new_images, new_masks = augmented(images, masks, size=32)
    assert new_masks.sum((1, 2, 3)).tolist() == pytest.approx([20 * 16 / 4] * 8, rel=0.01)
    torch.testing.assert_close(new_images, 10 * new_masks.expand_as(new_images) - 1, atol=1e-4, rtol=0)


def test_smaller_slices_do_not_alias(alone):
    alone()
    stripes = (torch.arange(64) % 2).float().expand(4, 3, 64, 64)
    new_images, _ = augmented(stripes, torch.zeros(4, 1, 64, 64), size=21)
    assert new_images[..., 2:-2].std() < 0.1


# --- intensities -------------------------------------------------------------------------------


def test_each_sequence_has_its_gain_and_offset(alone):
    alone("GAIN", "OFFSET")
    images = torch.tensor([-1.0, 1.0])[:, None].expand(300, 3, 2, 2)
    new_images, _ = augmented(images, torch.zeros(300, 1, 2, 2))
    low, high = new_images.amin((2, 3)), new_images.amax((2, 3))
    gain, offset = (high - low) / 2, (high + low) / 2
    assert gain.mean() == pytest.approx(1, abs=0.02)
    assert gain.std() == pytest.approx(module.GAIN, rel=0.15)
    assert offset.mean() == pytest.approx(0, abs=0.02)
    assert offset.std() == pytest.approx(module.OFFSET, rel=0.15)
    assert (gain[:, 0] != gain[:, 1]).all()


@pytest.mark.parametrize("change", ["GAMMA", "BIAS"])
def test_contrast_and_bias_field_leave_background_and_masks(alone, change):
    alone(change)
    images, masks = textured()
    images[..., :30] += torch.where(images[..., :30] > 0, 3, 0)
    masks[..., 20:40, 20:40] = 1
    new_images, new_masks = augmented(images, masks)
    background = images[:, :1].eq(-1).all(0)
    assert torch.allclose(new_images[:, :, background[0]], torch.tensor(-1.0), atol=1e-4)
    ratio = (unflipped(new_images) + 1) / (unflipped(images) + 1).clamp(min=1e-6)
    tissue = ratio[unflipped(images) > 0]
    assert 0.02 < tissue.std() < 0.4
    assert 0.5 < tissue.min() < tissue.max() < 2
    assert new_masks.sum() == pytest.approx(float(masks.sum()))


def test_the_bias_field_is_smooth_and_the_same_for_all_sequences(alone):
    alone("BIAS")
    images = torch.zeros(8, 3, 64, 64)
    images[..., 4:60, 4:60] = 2
    new_images, _ = augmented(images, torch.zeros(8, 1, 64, 64))
    torch.testing.assert_close(new_images[:, 0], new_images[:, 2])
    inside = new_images[..., 6:58, 6:58]
    assert inside.diff(dim=-1).abs().max() < 0.1
    assert (inside.amax((1, 2, 3)) - inside.amin((1, 2, 3))).max() > 0.2


def test_gamma_preserves_the_order_and_the_extremes(alone):
    alone("GAMMA")
    ramp = torch.linspace(-1, 3, 64).expand(10, 3, 64, 64)
    new_images, _ = augmented(ramp, torch.zeros(10, 1, 64, 64))
    rows = unflipped(new_images)[:, :, 32].flip(-1)
    assert (rows.diff(dim=-1) > -1e-4).all()
    assert torch.allclose(rows[..., 0], torch.tensor(-1.0), atol=1e-3)
    assert torch.allclose(rows[..., -1], torch.tensor(3.0), atol=1e-3)
    assert not torch.allclose(rows[0, 0], rows[0, 1], atol=1e-2), "all sequences have the same curve"


def test_blur_lowers_gradients_and_preserves_the_mean(alone):
    images, masks = textured()
    alone()
    sharp, _ = augmented(images, masks)
    alone("BLUR", BLUR=(0.5, 1.0))
    blurred, same = augmented(images, masks)
    for axis in (-1, -2):
        steepness = [new.diff(dim=axis).abs().mean((1, 2, 3)) for new in (sharp, blurred)]
        assert (steepness[1] < 0.95 * steepness[0]).all()
    torch.testing.assert_close(blurred.mean((2, 3)), sharp.mean((2, 3)), atol=1e-3, rtol=0)
    assert torch.equal(same, masks)


def test_blur_does_not_darken_the_edges_of_the_image(alone):
    alone("BLUR")
    images = torch.full((4, 3, 16, 16), 5.0)
    images[..., 8, 8] = 0  # the background; the rest is bright up to the edge
    blurred, _ = augmented(images, torch.zeros(4, 1, 16, 16))
    torch.testing.assert_close(blurred[..., 0, :], images[..., 0, :], atol=1e-4, rtol=0)


@pytest.mark.parametrize("change", ["ELASTIC", "GAMMA", "BIAS", "BLUR", "NOISE"])
def test_each_change_is_applied_to_its_share_of_the_slices(alone, change):
    share = getattr(module, f"{change}_SHARE")
    alone(**{f"{change}_SHARE": share})
    images, masks = textured(400, 24)
    changed, _ = augmented(images, masks)
    # Unchanged slices are as they were, or mirrored.
    off = torch.stack([(changed - images).abs(), (changed - images.flip(-1)).abs()]).amax((2, 3, 4)).amin(0)
    assert (off > 1e-3).float().mean() == pytest.approx(share, abs=0.09)
    assert 0.2 <= share <= 0.5


@pytest.mark.parametrize("options", [{}, {"size": 40}])
def test_the_number_of_threads_does_not_matter(options):
    images, masks = textured(8)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(augmented(images, masks, **options))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
