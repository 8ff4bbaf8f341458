"""The Segment widget beyond one click: live threshold, corrections, any image, voxel size."""

from __future__ import annotations

import numpy as np
import pytest
from flair_model import write_flair_model

from napari_lgg_seg.core.data.patients import SEQUENCES
from napari_lgg_seg.core.evaluation.measurements import measure_labels

NAME = "TCGA_DU_0001_19990101"

pytestmark = pytest.mark.filterwarnings("error:Private attribute access:FutureWarning")


@pytest.fixture
def segmented(viewer, open_patient, dock, run):
    """A widget whose patient is segmented."""
    open_patient()
    widget = dock()
    run(widget)
    return widget


@pytest.fixture
def bright_square():
    """A dark picture with a head and a bright square in it."""
    picture = np.zeros((40, 50), np.float32)
    picture[4:36, 6:44] = 100
    picture[12:20, 20:30] = 400
    return picture


def tumours(viewer):
    return [layer for layer in viewer.layers if layer.name.startswith(f"{NAME} tumour")]


# --- threshold, clean-up, holes ----------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e9, -2])
def test_a_probability_with_other_values_is_refused_in_a_sentence(viewer, segmented, value):
    before = tumours(viewer)[0].data.copy()
    probability = viewer.layers[f"{NAME} probability"]
    probability.data = np.where(probability.data > 0.2, value, probability.data).astype(np.float32)
    segmented.controls.threshold.value = 0.3
    assert "probabilit" in segmented.status.value
    np.testing.assert_array_equal(tumours(viewer)[0].data, before)


def test_threshold_changes_labels_without_running_the_network(viewer, segmented, monkeypatch):
    monkeypatch.setattr("napari_lgg_seg.widgets.segment.widget.create_worker", None)  # a run would fail
    (layer,) = tumours(viewer)
    probability = viewer.layers[f"{NAME} probability"].data
    for threshold in (0.9, 0.1, 0.5):
        segmented.controls.threshold.value = threshold
        np.testing.assert_array_equal(layer.data, probability >= threshold)
    assert tumours(viewer) == [layer]


@pytest.mark.parametrize("writeable", [True, False])
def test_labels_are_changed_in_place_if_possible(viewer, segmented, writeable):
    (layer,) = tumours(viewer)
    before = layer.data.copy()
    before.flags.writeable = writeable
    layer.data = before
    segmented.controls.threshold.value = 0.9
    assert (layer.data is before) == writeable
    np.testing.assert_array_equal(layer.data, viewer.layers[f"{NAME} probability"].data >= 0.9)
    assert tumours(viewer) == [layer]


def test_clean_up_and_hole_filling_change_labels(viewer, segmented):
    (layer,) = tumours(viewer)
    probability = viewer.layers[f"{NAME} probability"]
    values = np.zeros(probability.data.shape, np.float32)
    values[2, 10:20, 10:20] = 1
    values[2, 14:16, 14:16] = 0
    values[4, 40:43, 40:43] = 1
    probability.data = values
    controls = segmented.controls
    controls.threshold.value = 0.6
    assert layer.data.sum() == 96 + 9
    controls.fill_holes.value = True
    assert layer.data.sum() == 100 + 9
    controls.clean_up.value = "largest"
    assert layer.data.sum() == 100
    controls.clean_up.value = "small"
    controls.smallest_volume.value = 9
    assert layer.data.sum() == 100 + 9
    controls.smallest_volume.value = 10
    assert layer.data.sum() == 100


@pytest.mark.parametrize("control", ["threshold", "clean_up", "fill_holes", "smallest_volume"])
def test_corrected_labels_are_never_replaced(viewer, segmented, wait_until, control):
    (corrected,) = tumours(viewer)
    corrected.paint((3, 30, 30), 1)
    corrected.paint((3, 33, 33), 1)
    kept = corrected.data.copy()
    values = {"threshold": (0.9, 0.2), "clean_up": ("largest", "off"), "fill_holes": (True, False)}
    for value in values.get(control, (7, 8)):
        getattr(segmented.controls, control).value = value
    np.testing.assert_array_equal(corrected.data, kept)
    old, new = tumours(viewer)  # one new layer, however often the control moves
    assert old is corrected
    probability = viewer.layers[f"{NAME} probability"].data
    if control == "threshold":
        np.testing.assert_array_equal(new.data, probability >= 0.2)
    wait_until(lambda: "corrections" in segmented.status.value)
    assert f"'{corrected.name}'" in segmented.status.value
    assert f"'{new.name}'" in segmented.status.value


def test_labels_next_to_corrected_ones_keep_the_slice_numbers(viewer, open_patient, dock, run):
    open_patient()
    for sequence in SEQUENCES:
        viewer.layers[sequence].metadata["lgg"]["slice_numbers"] = list(range(9, 15))
    widget = dock()
    run(widget)
    tumours(viewer)[0].fill((0, 0, 0), 1)
    widget.controls.threshold.value = 0.9
    for layer in tumours(viewer):
        assert layer.metadata["lgg"]["slice_numbers"] == list(range(9, 15))


def test_moving_the_threshold_without_a_result_does_nothing(viewer, open_patient, dock):
    open_patient()
    before = list(viewer.layers)
    dock().controls.threshold.value = 0.8
    assert list(viewer.layers) == before


def test_labels_stay_if_the_probability_was_removed(viewer, segmented):
    (layer,) = tumours(viewer)
    before = layer.data.copy()
    viewer.layers.remove(f"{NAME} probability")
    segmented.controls.threshold.value = 0.9
    np.testing.assert_array_equal(layer.data, before)


def test_slider_starts_at_the_models_threshold(viewer, open_patient, dock, tmp_path):
    from dataclasses import replace

    from napari_lgg_seg.core.model.checkpoint import load_model, save_model

    model = load_model(write_flair_model(tmp_path / "a.safetensors"))
    save_model(tmp_path / "b.safetensors", model.network, replace(model.card, threshold=0.35))
    widget = dock()
    widget.offer_model(tmp_path / "b.safetensors")
    assert widget.controls.threshold.value == pytest.approx(0.35)


@pytest.fixture
def with_own_options(viewer, open_patient, dock, run, tmp_path):
    """A widget whose patient is segmented with a model that has an automatic threshold and clean-up."""
    from dataclasses import replace

    from napari_lgg_seg.core.model.checkpoint import load_model, save_model

    model = load_model(write_flair_model(tmp_path / "a.safetensors"))
    card = replace(model.card, threshold="auto", clean_up="minor")
    save_model(tmp_path / "b.safetensors", model.network, card)
    open_patient()
    widget = dock()
    widget.offer_model(tmp_path / "b.safetensors")
    run(widget)
    return widget


def test_the_models_own_options_are_used_and_shown(viewer, with_own_options):
    from napari_lgg_seg.core.inference.postprocess import best_threshold, postprocess
    from napari_lgg_seg.core.options import SegmentOptions

    controls = with_own_options.controls
    assert controls.automatic.value
    assert controls.clean_up.value == "minor"
    (layer,) = tumours(viewer)
    probability = viewer.layers[f"{NAME} probability"].data
    best = best_threshold(probability)
    assert controls.threshold.value == pytest.approx(best, abs=0.01)
    wanted = postprocess(probability, SegmentOptions(threshold="auto", clean_up="minor"))
    np.testing.assert_array_equal(layer.data, wanted)
    made_with = layer.metadata["lgg"]["made_with"]
    assert made_with["options"]["threshold"] == "auto"
    assert made_with["threshold"] == pytest.approx(best)


def test_the_slider_takes_over_until_the_box_is_ticked_again(viewer, with_own_options):
    controls = with_own_options.controls
    (layer,) = tumours(viewer)
    chosen, by_itself = controls.threshold.value, layer.data.copy()
    controls.clean_up.value = "off"
    controls.threshold.value = 0.95
    assert not controls.automatic.value
    np.testing.assert_array_equal(layer.data, viewer.layers[f"{NAME} probability"].data >= 0.95)
    controls.clean_up.value = "minor"
    controls.automatic.value = True
    assert controls.threshold.value == pytest.approx(chosen)
    np.testing.assert_array_equal(layer.data, by_itself)


@pytest.mark.parametrize("full_resolution", [False, True])
def test_hint_if_clean_up_would_keep_what_coarse_to_fine_skips(
    viewer, open_patient, dock, run, wait_until, tmp_path, full_resolution
):
    model = write_flair_model(
        tmp_path / "large.safetensors", working_size=192, clean_up="minor", coarse_threshold=0.01
    )
    open_patient(shape=(8, 64, 64))
    widget = dock()
    widget.offer_model(model)
    widget.controls.full_resolution.value = full_resolution
    run(widget)
    (layer,) = tumours(viewer)
    assert layer.data.any()
    assert layer.metadata["lgg"]["made_with"]["coarse_to_fine"] is not full_resolution
    assert layer.metadata["lgg"]["made_with"]["options"]["full_resolution"] is full_resolution
    hint = "Segment again to find small separate components"
    assert hint not in widget.status.value
    widget.controls.clean_up.value = "off"
    if full_resolution:
        wait_until(lambda: not widget._measure_timer.isActive())
        assert hint not in widget.status.value
    else:
        wait_until(lambda: hint in widget.status.value)
    run(widget)
    assert hint not in widget.status.value


def test_choosing_another_model_changes_labels_only_by_a_run(viewer, segmented, tmp_path):
    from dataclasses import replace

    from napari_lgg_seg.core.model.checkpoint import load_model, save_model

    (layer,) = tumours(viewer)
    before = layer.data.copy()
    model = load_model(write_flair_model(tmp_path / "a.safetensors"))
    save_model(tmp_path / "b.safetensors", model.network, replace(model.card, threshold=0.95))
    segmented.offer_model(tmp_path / "b.safetensors")
    assert segmented.controls.threshold.value == pytest.approx(0.95)
    assert tumours(viewer) == [layer]
    np.testing.assert_array_equal(layer.data, before)


def test_the_header_names_the_run_that_made_the_labels(viewer, segmented, tmp_path):
    (layer,) = tumours(viewer)
    segmented.offer_model(write_flair_model(tmp_path / "another.safetensors"))
    segmented.controls.tta.value = True
    segmented.controls.threshold.value = 0.7
    made_with = layer.metadata["lgg"]["made_with"]
    assert made_with["model"] == "bright FLAIR"
    assert made_with["options"]["tta"] is False
    assert made_with["options"]["threshold"] == pytest.approx(0.7)


# --- measurements -----------------------------------------------------------------------------------


def test_measurements_are_shown_and_stored_in_the_layer(viewer, segmented):
    (layer,) = tumours(viewer)
    measurements = measure_labels(layer.data)
    assert measurements.summary() in segmented.status.value
    assert int(layer.features["voxels"][0]) == measurements.voxels
    assert int(layer.features["slices"][0]) == measurements.slices
    assert float(layer.features["diameter"][0]) == pytest.approx(measurements.diameter)
    assert layer.metadata["lgg"]["made_with"]["options"]["threshold"] == 0.5


def test_a_voxel_size_becomes_scale_units_and_millilitres(viewer, segmented, wait_until):
    for axis, size in zip("zyx", (5.0, 0.9, 0.8), strict=True):
        assert "ml" not in segmented.status.value
        segmented.controls.spacing[axis].value = size
    for layer in viewer.layers:
        np.testing.assert_allclose(layer.scale, (5.0, 0.9, 0.8))
        assert {str(unit) for unit in layer.units} == {"millimeter"}
    wait_until(lambda: " ml (" in segmented.status.value)
    (layer,) = tumours(viewer)
    millilitres = float(layer.features["millilitres"][0])
    assert millilitres == pytest.approx(np.count_nonzero(layer.data) * 5 * 0.9 * 0.8 / 1000)


def test_a_known_voxel_size_is_shown(viewer, open_patient, dock):
    open_patient()
    for layer in viewer.layers:
        layer.scale, layer.units = (5, 0.9, 0.8), ("mm",) * 3
    sizes = [box.value for box in dock().controls.spacing.values()]
    np.testing.assert_allclose(sizes, (5, 0.9, 0.8))


# --- going through slices ----------------------------------------------------------------------


def test_buttons_step_through_tumour_slices_and_wrap_around(viewer, segmented, click):
    (layer,) = tumours(viewer)
    slices = np.flatnonzero(layer.data.any(axis=(1, 2)))
    viewer.dims.set_point(0, slices[0])
    seen = []
    for _ in range(len(slices)):
        click(segmented, "tumour slice >")
        seen.append(viewer.dims.current_step[0])
    np.testing.assert_array_equal(seen, [*slices[1:], slices[0]])
    click(segmented, "< tumour slice")
    assert viewer.dims.current_step[0] == slices[-1]


def test_slices_are_numbered_as_in_their_files(viewer, open_patient, dock, run, click):
    open_patient()
    for sequence in SEQUENCES:
        viewer.layers[sequence].metadata["lgg"]["slice_numbers"] = list(range(21, 27))
    widget = dock()
    run(widget)
    found = widget.status.value
    for _ in range(2):
        click(widget, "tumour slice >")
        assert widget.status.value == f"Slice {viewer.dims.current_step[0] + 21}. {found}"


def test_the_current_slice_alone_can_be_segmented(viewer, open_patient, dock, run):
    open_patient()
    widget = dock()
    truth = viewer.layers["ground truth"].data
    here = int(truth.sum(axis=(1, 2)).argmax())
    viewer.dims.set_point(0, here)
    widget.controls.current_slice.value = True
    run(widget)
    (layer,) = tumours(viewer)
    np.testing.assert_array_equal(np.flatnonzero(layer.data.any(axis=(1, 2))), [here])
    first = layer.data[here].copy()
    viewer.dims.set_point(0, here + 1)
    run(widget)
    np.testing.assert_array_equal(layer.data[here], first)  # what was there stays
    assert layer.data[here + 1].any()


@pytest.fixture
def uses_slice_above(tmp_path):
    """A model that uses a neighbour on each side, and finds the tumour of the slice above."""
    return write_flair_model(tmp_path / "neighbours.safetensors", neighbours=1, offset=1)


def test_a_model_with_neighbouring_slices_works_like_any_other(viewer, segmented, run, uses_slice_above):
    (layer,) = tumours(viewer)
    alone = layer.data.copy()
    about = segmented.controls.about.value
    segmented.offer_model(uses_slice_above)
    run(segmented)
    assert segmented.controls.about.value == about
    np.testing.assert_array_equal(tumours(viewer)[0].data, alone[[*range(1, len(alone)), -1]])


@pytest.mark.parametrize("here", [0, 2, 4, 5])
def test_a_single_slice_is_segmented_with_its_real_neighbours(viewer, segmented, run, uses_slice_above, here):
    alone = tumours(viewer)[0].data.copy()
    above = alone[min(here + 1, len(alone) - 1)]
    for name in (f"{NAME} tumour", f"{NAME} probability"):
        viewer.layers.remove(name)
    segmented.offer_model(uses_slice_above)
    viewer.dims.set_point(0, here)
    segmented.controls.current_slice.value = True
    run(segmented)
    (layer,) = tumours(viewer)
    np.testing.assert_array_equal(layer.data[here], above)
    assert not np.delete(layer.data, here, axis=0).any()


def test_a_picture_is_its_own_neighbour(viewer, dock, run, bright_square, uses_slice_above):
    viewer.add_image(bright_square, name="scan")
    widget = dock()
    widget.offer_model(uses_slice_above)
    run(widget)
    assert (viewer.layers["scan tumour"].data[bright_square == 400] == 1).mean() > 0.8


# --- any image ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.uint16, np.int32, np.float64])
@pytest.mark.parametrize("depth", [None, 1, 3])
def test_any_grey_image_can_be_segmented(viewer, dock, run, bright_square, dtype, depth):
    data = bright_square.astype(dtype)
    data = data if depth is None else np.stack([data] * depth)
    image = viewer.add_image(data, name="scan")
    widget = dock()
    assert "FLAIR is used instead" in widget.controls.about.value
    run(widget)
    tumour = viewer.layers["scan tumour"]
    assert tumour.data.shape == image.data.shape
    square = np.broadcast_to(bright_square == 400, image.data.shape)
    assert (tumour.data[square] == 1).mean() > 0.8
    assert tumour.data[~square].mean() < 0.1


def test_channels_of_a_colour_image_are_used_as_sequences(viewer, dock, run, bright_square):
    colour = np.zeros((2, 40, 50, 3), np.uint8)
    colour[..., 0] = colour[..., 2] = (bright_square > 0) * 60
    colour[..., 1] = bright_square / 2
    viewer.add_image(colour, name="scan", rgb=True)
    widget = dock()
    assert "colour channels" in widget.controls.about.value
    run(widget)
    tumour = viewer.layers["scan tumour"].data
    assert tumour.shape == (2, 40, 50)
    assert tumour[:, 14:18, 22:28].all()


def test_sequences_can_be_chosen(viewer, dock, run, bright_square):
    dull = (bright_square > 0).astype(np.float32)
    viewer.add_image(dull, name="first")
    viewer.add_image(bright_square, name="second")
    widget = dock()
    widget.patient.value = next(s for s in widget.patient.choices if str(s) == "first")
    flair = widget.controls.sequences["FLAIR"]
    assert flair.value.name == "first"
    run(widget)
    assert not viewer.layers["first tumour"].data.any()
    flair.value = next(layer for layer in flair.choices if layer is not None and layer.name == "second")
    viewer.add_points([[1, 1]])
    assert flair.value.name == "second"  # other layers come and go without changing the choice
    run(widget)
    assert viewer.layers["first tumour"].data.any()


@pytest.mark.parametrize(
    "data",
    [
        np.zeros((3, 20, 20), np.float32),
        np.full((3, 20, 20), np.nan, np.float32),
        np.full((2, 9, 7), -5.0),
        np.ones((1, 1, 1), np.uint8),
        np.full((2, 8, 8), 1e38, np.float32),
    ],
    ids=["constant", "NaN", "negative", "one voxel", "enormous values"],
)
def test_unusual_images_give_a_result_or_a_message(viewer, dock, run, data):
    viewer.add_image(data, name="scan", contrast_limits=(0, 1))
    widget = dock()
    run(widget)
    assert widget.status.value.endswith(".")
    if "scan tumour" in viewer.layers:
        assert viewer.layers["scan tumour"].data.shape == data.shape


def test_images_with_four_dimensions_are_refused_with_a_message(viewer, dock, run):
    viewer.add_image(np.zeros((2, 3, 8, 8), np.uint8), name="scan")
    widget = dock()
    run(widget)
    assert "4 dimensions" in widget.status.value
    assert [layer.name for layer in viewer.layers] == ["scan"]


def test_an_image_larger_than_memory_is_refused_with_a_message(viewer, dock, run, monkeypatch):
    from napari_lgg_seg.core import memory

    viewer.add_image(np.zeros((4, 64, 64), np.uint8), name="scan")
    monkeypatch.setattr(memory, "free_main_memory", lambda: 100_000)
    widget = dock()
    run(widget)
    assert "memory" in widget.status.value
    assert [layer.name for layer in viewer.layers] == ["scan"]
