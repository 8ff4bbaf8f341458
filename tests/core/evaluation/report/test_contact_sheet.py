from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from napari_lgg_seg.core.evaluation.label_pairs import Volumes
from napari_lgg_seg.core.evaluation.patient_metrics import measure_patient
from napari_lgg_seg.core.evaluation.report.contact_sheet import (
    MARGIN,
    MOST_SLICES,
    as_webp,
    chosen_slices,
    draw_sheet,
)
from napari_lgg_seg.core.evaluation.report.tiles import (
    PREDICTION_COLOUR,
    TILE,
    TRUTH_COLOUR,
    ShownProbability,
)
from napari_lgg_seg.preferences import COLOURS

# The left edge of the first slice.
LEFT = MARGIN


@pytest.fixture
def volumes(make_head) -> Volumes:
    """A head with tumour in slices 2 to 5 of 6, and a prediction shifted to the right."""
    images, truth = make_head()
    return Volumes("TCGA_DU_0001_19990101", tuple(range(1, 7)), np.roll(truth, 3, axis=2), truth, images)


def sheet_of(volumes, probability=None):
    return draw_sheet(volumes, measure_patient(volumes), probability)


def pixels_of(sheet, colour):
    return (sheet == colour).all(axis=-1)


def slices_part(sheet):
    """The sheet without its legend and charts."""
    return sheet[170:-280]


def labels_on(slices, count=60):
    prediction = np.zeros((count, 16, 16), np.uint8)
    prediction[slices, 4:8, 4:8] = 1
    return Volumes("P", tuple(range(1, count + 1)), prediction)


# --- choice of slices --------------------------------------------------------------------------


def test_tumour_slices_and_one_on_each_side_are_shown():
    assert chosen_slices(labels_on([5, 6, 20])) == [4, 5, 6, 7, 19, 20, 21]
    assert chosen_slices(labels_on([0, 59])) == [0, 1, 58, 59]


def test_slices_with_ground_truth_are_shown_as_well():
    volumes = dataclasses.replace(labels_on([5]), truth=labels_on([9]).prediction)
    assert chosen_slices(volumes) == [4, 5, 6, 8, 9, 10]


@pytest.mark.parametrize("slices", [range(10, 50), []], ids=["many", "none"])
def test_many_slices_are_thinned_out_evenly(slices):
    chosen = chosen_slices(labels_on(list(slices)))
    assert len(chosen) == MOST_SLICES
    assert (chosen[0], chosen[-1]) == ((9, 50) if slices else (0, 59))
    assert set(np.diff(chosen)) <= {1, 2, 3}


# --- the picture -------------------------------------------------------------------------------


def test_height_grows_with_the_number_of_rows(volumes):
    sheet = sheet_of(volumes)
    assert sheet.dtype == np.uint8
    assert sheet.shape[2] == 3
    assert sheet.shape[1] == 2 * MARGIN + 6 * TILE + 5 * 10
    tall = sheet_of(labels_on(list(range(60))))
    assert tall.shape[0] > sheet.shape[0] + 2 * TILE
    assert tall.shape[1] == sheet.shape[1]


def test_outlines_have_the_viewers_colours(volumes):
    assert "#{:02x}{:02x}{:02x}".format(*PREDICTION_COLOUR) == COLOURS["vermilion"]
    assert "#{:02x}{:02x}{:02x}".format(*TRUTH_COLOUR) == COLOURS["sky blue"]
    sheet = slices_part(sheet_of(volumes))
    assert pixels_of(sheet, PREDICTION_COLOUR).sum() > 300
    assert pixels_of(sheet, TRUTH_COLOUR).sum() > 300


def test_both_outlines_are_visible_where_they_coincide(volumes):
    sheet = slices_part(sheet_of(dataclasses.replace(volumes, prediction=volumes.truth)))
    assert pixels_of(sheet, PREDICTION_COLOUR).sum() > 300
    assert pixels_of(sheet, TRUTH_COLOUR).sum() > 300


def test_prediction_without_ground_truth_has_one_outline(volumes):
    sheet = sheet_of(dataclasses.replace(volumes, truth=None))
    assert pixels_of(slices_part(sheet), PREDICTION_COLOUR).sum() > 300
    assert not pixels_of(sheet, TRUTH_COLOUR).any()


def test_outline_surrounds_the_tumour():
    prediction = np.zeros((1, 64, 64), np.uint8)
    prediction[0, 16:32, 24:48] = 1
    volumes = Volumes("P", (1,), prediction)
    rows, columns = np.nonzero(pixels_of(slices_part(sheet_of(volumes)), PREDICTION_COLOUR))
    scale = TILE / 64
    assert columns.min() - LEFT == pytest.approx(24 * scale, abs=2)
    assert columns.max() - LEFT == pytest.approx(48 * scale, abs=2)
    assert np.ptp(rows) == pytest.approx(16 * scale, abs=3)


@pytest.mark.parametrize("shape", [(64, 64), (1500, 1500), (40, 300), (300, 40)])
def test_a_single_pixel_is_visible(shape):
    prediction = np.zeros((3, *shape), np.uint8)
    prediction[1, 20, 20] = 1
    sheet = slices_part(sheet_of(Volumes("P", (1, 2, 3), prediction)))
    assert pixels_of(sheet, PREDICTION_COLOUR).any()


def test_outlines_are_on_black_without_images(volumes):
    with_images = slices_part(sheet_of(volumes))
    without = slices_part(sheet_of(dataclasses.replace(volumes, images=None)))
    assert pixels_of(without, (0, 0, 0)).mean() > 0.4
    assert pixels_of(without, TRUTH_COLOUR).any()
    assert pixels_of(with_images, (0, 0, 0)).mean() < 0.4


def test_probability_is_a_strip_below_the_slices(volumes):
    shown = chosen_slices(volumes)
    values = volumes.truth[shown].astype(np.float32)
    with_it = sheet_of(volumes, ShownProbability(values, "Probability of some model."))
    assert with_it.shape[0] > sheet_of(volumes).shape[0] + 60
    brightest = (252, 253, 191)
    assert pixels_of(slices_part(with_it), brightest).sum() > 1000
    nothing = sheet_of(volumes, ShownProbability(0 * values, "Nothing."))
    assert not pixels_of(slices_part(nothing), brightest).any()


@pytest.mark.parametrize("images", ["empty", "constant", "tiny"])
def test_degenerate_images_are_drawn(volumes, images):
    if images == "tiny":
        volumes = Volumes("P", (1,), np.ones((1, 1, 1), np.uint8), None, np.full((1, 1, 1, 3), 9, np.uint8))
    else:
        pixels = np.full_like(volumes.images, 0 if images == "empty" else 77)
        volumes = dataclasses.replace(volumes, images=pixels)
    assert pixels_of(slices_part(sheet_of(volumes)), PREDICTION_COLOUR).any()


def test_empty_masks_have_no_outline(volumes):
    empty = np.zeros_like(volumes.truth)
    sheet = sheet_of(dataclasses.replace(volumes, prediction=empty, truth=empty))
    assert not pixels_of(slices_part(sheet), PREDICTION_COLOUR).any()


@pytest.mark.parametrize("name", ["P" * 300, "Zoë 中文", "", "two\nlines", "\x1b[31m", "\udce9"])
def test_unusual_names_do_not_change_the_layout(volumes, name):
    sheet = sheet_of(dataclasses.replace(volumes, name=name))
    assert sheet.shape == sheet_of(volumes).shape


def test_webp_is_close_to_the_picture_and_small(volumes):
    sheet = sheet_of(volumes)
    data = as_webp(sheet)
    back = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert back.shape == sheet.shape
    assert np.abs(back.astype(int) - sheet).mean() < 5
    assert len(data) < sheet.size / 15
