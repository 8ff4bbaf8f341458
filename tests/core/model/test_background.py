"""Background, padding and outliers: found at any scale and offset, and left alone where there are none."""

from __future__ import annotations

import numpy as np
import pytest
from robustness import PERTURBATIONS

from napari_lgg_seg.core.data.discover import patient_folders
from napari_lgg_seg.core.data.patients import read_patient
from napari_lgg_seg.core.data.phantom import make_sample_patient
from napari_lgg_seg.core.model.background import find_intensities, subtract_background


@pytest.fixture(scope="module")
def volume():
    return make_sample_patient().volume


def test_a_volume_without_offset_padding_and_outliers_is_returned_as_it_is(volume, make_head):
    assert subtract_background(volume) is volume
    head, _ = make_head((6, 64, 64))
    assert subtract_background(head) is head
    for bright in (np.zeros((2, 8, 8, 3), np.uint8), np.full((2, 8, 8, 1), 7, np.uint8)):
        assert subtract_background(bright) is bright


@pytest.mark.real_data
def test_published_images_are_returned_as_they_are(lgg_dataset):
    for folder in patient_folders(lgg_dataset):
        patient = read_patient(folder)
        assert subtract_background(patient.volume) is patient.volume, patient.name


@pytest.mark.parametrize("name", PERTURBATIONS)
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_results_are_finite_non_negative_and_do_not_change_the_input(volume, name):
    perturbed = PERTURBATIONS[name](volume)
    before = perturbed.copy()
    found = subtract_background(perturbed)
    np.testing.assert_array_equal(perturbed, before)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert found.min() >= 0


@pytest.mark.parametrize("offset", [20, 100, 1000, -500, 1e9])
@pytest.mark.parametrize("scale", [1 / 255, 1, 1e6])
def test_an_offset_is_subtracted_at_any_scale(volume, offset, scale):
    found = subtract_background((volume.astype(np.float64) + offset) * scale)
    np.testing.assert_allclose(found / scale, volume, atol=1)


@pytest.mark.parametrize("padding", [-1024, -2000, -32768, 32767, 1e20, np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("offset", [0, 1000])
def test_padding_becomes_background(volume, padding, offset):
    padded = volume.astype(np.float64) + offset
    padded[:, :40], padded[-3:] = padding, padding
    found = subtract_background(padded)
    assert not found[:, :40].any()
    assert not found[-3:].any()
    np.testing.assert_allclose(found[:-3, 40:], volume[:-3, 40:], atol=1)


@pytest.mark.parametrize("outlier", [-32768, -1e30, -50])
def test_dark_outliers_become_background(volume, outlier):
    changed = volume.astype(np.float64)
    changed[10, 100, 100:105] = outlier
    expected = volume.copy()
    expected[10, 100, 100:105] = 0
    np.testing.assert_array_equal(subtract_background(changed), expected)


def test_zeros_around_a_brain_without_skull_are_background(volume):
    """Its darkest voxels are no padding, nor are they moved to 0."""
    brain = np.where((volume > 30).all(axis=-1, keepdims=True), volume, 0)
    np.testing.assert_array_equal(subtract_background(brain.astype(np.int16)), brain)


def test_an_image_without_a_finite_value_becomes_0():
    values = np.full((2, 8, 8, 1), np.nan)
    assert not subtract_background(values).any()
    assert find_intensities(values[..., 0]).background == 0
