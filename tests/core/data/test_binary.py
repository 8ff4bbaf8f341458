"""Values in masks: what is tumour, what is cut with a notice, and what is refused."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from napari_lgg_seg.core.data.binary import labels_in, tumour_in
from napari_lgg_seg.core.errors import LggSegWarning, PatientError

FILES = [Path("p_1_mask.tif"), Path("p_2_mask.tif")]
TUMOUR = np.zeros((2, 8, 8), bool)
TUMOUR[1, 2:5, 2:6] = True


@pytest.fixture(autouse=True)
def warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def soft(highest: float, dtype: type) -> np.ndarray:
    """The tumour with edges of all shades below half of the highest value, and of one above."""
    values = np.where(TUMOUR, highest, 0.0)
    values[1, 1, 2:6] = np.array([0.1, 0.2, 0.3, 0.4]) * highest
    values[1, 3, 3] = 0.7 * highest
    return values.astype(dtype)


@pytest.mark.parametrize("value", [1, 7, 101, 254, 255, 256, 65535])
@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_two_values_are_background_and_tumour(value, dtype):
    values = (TUMOUR * value).astype(dtype)
    np.testing.assert_array_equal(tumour_in(values, FILES, several_labels=False), TUMOUR)
    np.testing.assert_array_equal(labels_in(values, FILES), TUMOUR * value)


@pytest.mark.parametrize(
    ("highest", "dtype"),
    [
        (255, np.uint8),
        (250, np.uint8),
        (200, np.int16),
        (65535, np.uint16),
        (1, np.float32),
        (0.6, np.float64),
    ],
)
@pytest.mark.parametrize("several_labels", [False, True])
def test_shades_of_gray_are_cut_at_half_of_the_highest_value(highest, dtype, several_labels):
    with pytest.warns(LggSegWarning, match=r"p_2_mask\.tif holds shades of gray"):
        found = tumour_in(soft(highest, dtype), FILES, several_labels=several_labels)
    np.testing.assert_array_equal(found, TUMOUR)


def test_resampling_by_splines_overshoots():
    values = soft(1, np.float32)
    values[0, 0, 0] = -0.08
    with pytest.warns(LggSegWarning, match="shades of gray"):
        np.testing.assert_array_equal(labels_in(values, FILES[:1]), TUMOUR)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
@pytest.mark.parametrize("others", [(2,), (2, 4), (3, 41)])
def test_label_numbers_are_refused_in_masks_and_counted_with_a_notice_elsewhere(others, dtype):
    values = TUMOUR.astype(dtype)
    values[1, 2, 2 : 2 + len(others)] = others
    listed = ", ".join(map(str, (1, *others)))
    with pytest.raises(PatientError, match=rf"p_2_mask\.tif .*several labels \({listed}\)"):
        tumour_in(values, FILES, several_labels=False)
    with pytest.warns(LggSegWarning, match=rf"several labels \({listed}\); all"):
        np.testing.assert_array_equal(tumour_in(values, FILES, several_labels=True), TUMOUR)
    np.testing.assert_array_equal(labels_in(values, FILES), values)


def test_nan_is_background_with_a_notice():
    values = np.where(TUMOUR, 1.0, np.nan)
    values[0, 0, 0] = 0
    with pytest.warns(LggSegWarning, match=r"115 voxels without a value"):
        np.testing.assert_array_equal(tumour_in(values, FILES, several_labels=False), TUMOUR)


@pytest.mark.parametrize(
    "values",
    [
        np.full((2, 3, 3), np.nan),
        np.where(TUMOUR, np.inf, 0),
        np.where(TUMOUR, 3, -2),
        np.where(TUMOUR, 1.5, -2.5),
        np.where(TUMOUR, 1 + 1j, 0),
        np.zeros((2, 3, 3), [("R", "u1"), ("G", "u1"), ("B", "u1")]),
    ],
    ids=["no number", "infinite", "negative", "negative fraction", "complex", "colours"],
)
def test_what_cannot_be_labels_is_refused(values):
    with pytest.raises(PatientError, match=r"p_[12]_mask\.tif"):
        labels_in(values, FILES)


def test_a_mask_that_marks_everything_is_reported():
    with pytest.warns(LggSegWarning, match="marks every voxel"):
        tumour_in(np.ones((2, 3, 3), np.uint8), FILES, several_labels=False)


def test_minus_one_is_a_mask_with_all_bits_set():
    np.testing.assert_array_equal(labels_in(-TUMOUR.astype(np.int8), FILES), TUMOUR)
    with pytest.raises(PatientError, match="negative"):  # a border, perhaps
        labels_in(-TUMOUR.astype(np.int16), FILES)
