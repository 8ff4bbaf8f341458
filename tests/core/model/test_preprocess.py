from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_lgg_seg.core.data.discover import patient_folders
from napari_lgg_seg.core.data.patients import read_patient
from napari_lgg_seg.core.evaluation.metrics import dice
from napari_lgg_seg.core.model.geometry import Box
from napari_lgg_seg.core.model.preprocess import (
    PreprocessOptions,
    back_to_grid,
    crop_and_resample,
    measure,
    normalise,
    normalise_each,
    resample,
)

OPTIONS = PreprocessOptions()


def round_trip(mask, box, size):
    small = crop_and_resample(mask[..., None], box, size)[:, 0]
    return back_to_grid(small, box, mask.shape[1:]).numpy()


def normalised(volume, options=OPTIONS):
    preparation = measure(volume, options)
    return normalise(crop_and_resample(volume, preparation.box, options.working_size), preparation)


def inside(shape, box):
    """The pixels of the slice plane that lie in the box."""
    y, x = np.indices(shape[1:3])
    return (y >= box.top) & (y < box.top + box.side) & (x >= box.left) & (x < box.left + box.side)


def disc(shape, centre, radius):
    y, x = np.indices(shape)
    return (((y - centre[0]) ** 2 + (x - centre[1]) ** 2) < radius**2).astype(np.uint8)[None]


# --- box ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6, 64, 64), (4, 65, 93), (5, 120, 70), (3, 31, 47), (1, 90, 90)])
def test_box_contains_the_head_and_little_else(make_head, shape):
    volume, _ = make_head(shape)
    box = measure(volume, OPTIONS).box
    head = volume.any(axis=(0, -1))
    assert not (head & ~inside(volume.shape, box)).any()
    extent = max(np.ptp(np.flatnonzero(head.any(axis=axis))) + 1 for axis in (0, 1))
    assert extent <= box.side <= extent + 2 * OPTIONS.margin + 3


@pytest.mark.parametrize("corner", [(0, 0), (0, 40), (30, 0), (30, 40)])
def test_head_at_the_border(corner):
    volume = np.zeros((3, 80, 100, 3), np.uint8)
    top, left = corner
    volume[:, top : top + 50, left : left + 60] = np.random.default_rng(0).integers(50, 99, (3, 50, 60, 3))
    box = measure(volume, OPTIONS).box
    assert not (volume.any(axis=(0, -1)) & ~inside(volume.shape, box)).any()
    assert crop_and_resample(volume, box, 32).shape == (3, 3, 32, 32)


def test_stray_bright_voxel_does_not_widen_the_box(make_head):
    volume, _ = make_head((10, 64, 64))
    expected = measure(volume, OPTIONS).box
    volume[4, 2, 2] = 255
    assert measure(volume, OPTIONS).box == expected


def test_margin(make_head):
    volume, _ = make_head((4, 128, 128))
    narrow, wide = (measure(volume, replace(OPTIONS, margin=margin)).box.side for margin in (0, 5))
    assert wide == narrow + 10


@pytest.mark.parametrize("shape", [(3, 5, 7, 3), (1, 1, 1, 3), (2, 1, 9, 3), (2, 70, 70, 3)])
@pytest.mark.parametrize("value", [0, 7, 0.1])
def test_box_of_a_constant_volume_is_the_whole_image(shape, value):
    volume = np.full(shape, value, np.float32)
    preparation = measure(volume, OPTIONS)
    assert inside(shape, preparation.box).all()
    assert preparation.box.side == max(shape[1:3])
    x = normalised(volume, replace(OPTIONS, working_size=16))
    assert torch.isfinite(x).all()
    assert x.abs().max() <= 1


@pytest.mark.parametrize("value", [0.1, 1e30, 1e-30, 200])
def test_noise_of_a_head_without_contrast_is_not_amplified(value):
    """Rounding errors must not be taken for contrast."""
    volume = np.zeros((3, 20, 20, 3), np.float32)
    volume[:, 5:15, 5:15] = value
    x = normalised(volume)
    assert torch.isfinite(x).all()
    assert x.abs().max() < 10


# --- intensities -------------------------------------------------------------------------------


def test_head_has_mean_0_and_standard_deviation_1(make_head):
    volume, _ = make_head((6, 96, 80))
    preparation = measure(volume, OPTIONS)
    slices = torch.from_numpy(volume).permute(0, 3, 1, 2).float()
    head = normalise(slices, preparation).permute(1, 0, 2, 3)[:, torch.from_numpy(volume.any(axis=-1))]
    torch.testing.assert_close(head.mean(1), torch.zeros(3), atol=0.05, rtol=0)
    torch.testing.assert_close(head.std(1), torch.ones(3), atol=0.05, rtol=0)


@pytest.mark.parametrize("factor", [0.01, 3, 1000.0])
def test_intensity_scale_does_not_matter(make_head, factor):
    volume, _ = make_head((4, 70, 60))
    torch.testing.assert_close(
        normalised((volume * np.float64(factor)).astype(np.float32)), normalised(volume), atol=1e-3, rtol=1e-3
    )


def test_sequences_are_normalised_separately(make_head):
    volume, _ = make_head((4, 70, 60))
    scaled = volume * np.array([1, 2, 5], np.float32)
    torch.testing.assert_close(normalised(scaled), normalised(volume), atol=1e-3, rtol=1e-3)


def test_outliers_are_clipped(make_head):
    volume, _ = make_head((4, 70, 60))
    brightest = normalised(volume).max()
    volume = volume.astype(np.float32)
    volume[2, 30, 30] = 1e6
    assert normalised(volume).max() < brightest + 1


def test_volumes_are_normalised_with_their_own_statistics(make_head):
    first, second = (measure(make_head(seed=seed)[0] // (seed + 1), OPTIONS) for seed in (0, 1))
    slices = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 99
    intensity_stats = torch.tensor([[p.clip, p.mean, p.sd] for p in (first, second)])
    together = normalise_each(slices, intensity_stats)
    torch.testing.assert_close(together[:1], normalise(slices[:1], first))
    torch.testing.assert_close(together[1:], normalise(slices[1:], second))


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16, np.int32, np.float16, np.float64])
def test_any_real_dtype(make_head, dtype):
    volume, _ = make_head((3, 64, 64))
    if dtype is bool:
        volume = volume > 80
    x = normalised(volume.astype(dtype))
    assert x.dtype == torch.float32
    torch.testing.assert_close(x, normalised(volume.astype(np.float32)))


def test_the_volume_is_not_changed(make_head):
    volume = make_head()[0].astype(np.float32)
    before = volume.copy()
    normalised(volume, replace(OPTIONS, working_size=measure(volume, OPTIONS).box.side))
    np.testing.assert_array_equal(volume, before)


# --- round trip --------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [192, 256, 301])
@pytest.mark.parametrize(
    ("grid", "centre", "box"),
    [
        ((256, 256), (120, 130), Box(20, 30, 200)),
        ((250, 181), (120, 90), Box(0, -30, 240)),
        ((181, 250), (100, 60), Box(-40, 3, 220)),
        ((200, 200), (60, 60), Box(-10, -10, 180)),
        ((200, 200), (150, 150), Box(30, 30, 190)),
        ((160, 160), (80, 80), Box(0, 0, 160)),
    ],
)
def test_mask_survives_a_round_trip(grid, centre, box, size):
    mask = disc(grid, centre, 25)
    back = round_trip(mask, box, size)
    assert back.shape == mask.shape
    assert dice(back >= 0.5, mask) > 0.98


def test_round_trip_at_the_original_size_is_exact():
    mask = np.random.default_rng(0).integers(0, 2, (2, 40, 50)).astype(np.uint8)
    box = Box(5, 7, 30)
    back = round_trip(mask, box, 30)
    expected = np.where(inside(mask.shape, box), mask, 0)
    np.testing.assert_array_equal(back, expected)


@pytest.mark.parametrize("size", [16, 30, 64])
def test_values_outside_the_box_are_0(size):
    box = Box(5, 7, 30)
    back = back_to_grid(torch.ones(2, size, size), box, (40, 50)).numpy()
    where = inside((2, 40, 50), box)
    assert not back[:, ~where].any()
    np.testing.assert_allclose(back[:, where], 1, atol=1e-6)


def test_slices_keep_their_order():
    slices = np.zeros((3, 20, 20, 1), np.uint8)
    slices[...] = np.array([10, 20, 30])[:, None, None, None]
    small = crop_and_resample(slices, Box(0, 0, 20), 8)
    np.testing.assert_allclose(small.mean(dim=(1, 2, 3)), [10, 20, 30], rtol=1e-5)


def test_box_beyond_the_image_is_padded_with_0():
    small = crop_and_resample(np.full((1, 10, 10, 3), 9, np.uint8), Box(-5, -5, 20), 20)
    expected = torch.zeros(1, 3, 20, 20)
    expected[..., 5:15, 5:15] = 9
    torch.testing.assert_close(small, expected)


def test_downsampling_is_antialiased():
    """Thin lines become grey instead of being hit or missed."""
    lines = torch.zeros(1, 1, 64, 64)
    lines[..., ::4] = 1
    small = resample(lines, 16)
    assert small.shape == (1, 1, 16, 16)
    torch.testing.assert_close(small[..., 1:-1], torch.full((1, 1, 16, 14), 0.25), atol=0.05, rtol=0)


@pytest.mark.real_data
def test_box_contains_the_tumour_of_real_patients(lgg_dataset):
    outside = {}
    for folder in patient_folders(lgg_dataset):
        patient = read_patient(folder)
        box = measure(patient.volume, OPTIONS).box
        lost = int(patient.truth[:, ~inside(patient.truth.shape, box)].sum())
        if lost:
            outside[patient.name] = lost
    assert not outside
