"""One click on Segment, the patient it applies to, and cancelling."""

from __future__ import annotations

import numpy as np
import pytest
from flair_model import write_flair_model
from qtpy.QtWidgets import QComboBox
from window import assert_message, assert_same, contents, layer_names, visible_text

from napari_lgg_seg.core.evaluation.metrics import dice
from napari_lgg_seg.widgets.segment import widget as segment

NAME = "TCGA_DU_0001_19990101"
OTHER = "TCGA_HT_0002_20000202"

pytestmark = pytest.mark.filterwarnings("error:Private attribute access:FutureWarning")


def offered(widget):
    """Names of the patients to choose from."""
    return [str(choice) for choice in widget.patient.choices]


def choose(widget, name):
    widget.patient.value = next(choice for choice in widget.patient.choices if str(choice) == name)


# --- one click ---------------------------------------------------------------------------------


def test_one_click_segments_the_patient(viewer, open_patient, dock, run, notices):
    open_patient()
    widget = dock()
    run(widget)
    tumour, probability = viewer.layers[f"{NAME} tumour"], viewer.layers[f"{NAME} probability"]
    truth = viewer.layers["ground truth"].data
    assert tumour.data.dtype == np.uint8
    assert set(np.unique(tumour.data)) == {0, 1}
    assert tumour.data.shape == probability.data.shape == truth.shape
    assert dice(tumour.data, truth) > 0.85
    assert tumour.visible
    assert not probability.visible
    assert probability.data.dtype == np.float32
    assert 0 <= probability.data.min() < 0.5 < probability.data.max() <= 1
    np.testing.assert_array_equal(tumour.data, probability.data >= 0.5)
    assert viewer.layers.selection.active == tumour
    assert f"{dice(tumour.data, truth):.2f}" in widget.status.value
    assert f"{np.count_nonzero(tumour.data):,} voxels" in widget.status.value
    assert notices == []


def test_results_have_the_patients_grid_and_metadata(viewer, open_patient, dock, run):
    open_patient()
    for layer in viewer.layers:
        layer.scale, layer.translate, layer.units = (5, 0.9, 0.9), (10, 2, 3), ("mm", "mm", "mm")
    flair = viewer.layers["FLAIR"]
    run(dock())
    for role in ("tumour", "probability"):
        layer = viewer.layers[f"{NAME} {role}"]
        for key in ("scale", "translate", "rotate", "shear"):
            np.testing.assert_array_equal(getattr(layer, key), getattr(flair, key), err_msg=key)
        assert layer.units == flair.units
        assert layer.axis_labels == flair.axis_labels
        assert layer.metadata["lgg"].items() >= {**flair.metadata["lgg"], "role": role}.items()


def test_viewer_goes_to_the_slice_with_most_tumour(viewer, open_patient, dock, run):
    open_patient()
    for layer in viewer.layers:
        layer.scale = (5, 1, 1)
    viewer.dims.set_current_step(0, 0)
    run(dock())
    most = int(viewer.layers[f"{NAME} tumour"].data.sum(axis=(1, 2)).argmax())
    assert most != 0
    assert viewer.dims.current_step[0] == most


def test_viewer_goes_to_that_slice_with_a_time_series_open(viewer, open_patient, dock, run):
    open_patient()
    viewer.add_image(np.zeros((2, 6, 64, 64), np.uint8))
    run(dock())
    most = int(viewer.layers[f"{NAME} tumour"].data.sum(axis=(1, 2)).argmax())
    assert viewer.dims.current_step[1] == most


def test_ground_truth_becomes_an_outline_over_the_result(viewer, open_patient, dock, run):
    open_patient()
    assert viewer.layers["ground truth"].contour == 0
    run(dock())
    assert viewer.layers["ground truth"].contour > 0
    assert viewer.layers[f"{NAME} tumour"].contour == 0


def test_message_if_no_tumour_is_found(viewer, open_patient, dock, run, tmp_path):
    open_patient()
    widget = dock()
    widget.offer_model(write_flair_model(tmp_path / "sees none.safetensors", cut=100))
    run(widget)
    assert "No tumour found" in widget.status.value
    assert not viewer.layers[f"{NAME} tumour"].data.any()


def test_single_slice_is_enough(viewer, patient_on_disk, dock, run):
    viewer.open(str(patient_on_disk() / f"{NAME}_3.tif"), plugin="napari-lgg-seg")
    run(dock())
    assert viewer.layers[f"{NAME} tumour"].data.shape == (1, 64, 64)
    assert viewer.layers[f"{NAME} tumour"].data.any()


def test_cancel_button_and_progress_are_shown_while_running(
    viewer, open_patient, dock, click, gate, wait_until
):
    open_patient(shape=(12, 64, 64))
    widget = dock()
    click(widget, "Segment")
    assert widget.button.text == "Cancel"
    assert not widget.progress.native.isHidden()
    wait_until(lambda: "of 12 slices" in widget.status.value)
    assert widget.progress.max == 12
    gate.open()
    wait_until(lambda: widget.button.text == "Segment")
    assert widget.progress.native.isHidden()
    assert "Tumour" in widget.status.value


# --- which patient -----------------------------------------------------------------------------


def test_without_a_patient_a_message_says_how_to_open_one(viewer, dock, click, menu_action):
    widget = dock()
    click(widget, "Segment")
    assert widget.button.text == "Segment"
    assert len(viewer.layers) == 0
    assert_message(widget.status.value)
    assert "No patient is open" in widget.status.value
    # These menu entries exist.
    for path in ("File > IO Utilities > Open LGG patient...", "File > Open Sample > LGG patient (synthetic)"):
        assert path in widget.status.value
        menu_action(*path.split(" > "))


def test_patient_opened_after_the_widget_is_found(viewer, open_patient, dock, run):
    widget = dock()
    open_patient()
    assert str(widget.patient.value) == NAME
    run(widget)
    assert f"{NAME} tumour" in layer_names(viewer)


def test_foreign_layers_are_not_offered_as_patients(viewer, dock):
    viewer.add_labels(np.zeros((6, 64, 64), np.uint8), name="truth", metadata={"lgg": "mine"})
    viewer.add_points(np.zeros((2, 3)), metadata={"lgg": {"role": "FLAIR"}})
    widget = dock()
    assert offered(widget) == []


def test_patient_is_found_by_metadata_whatever_its_layers_are_called(viewer, open_patient, dock, run):
    open_patient()
    for index, layer in enumerate(viewer.layers):
        layer.name = f"layer {index}"
    run(dock())
    assert f"{NAME} tumour" in layer_names(viewer)


def test_newest_of_two_patients_is_chosen_and_the_other_can_be(viewer, open_patient, dock, run):
    widget = dock()
    open_patient(NAME)
    open_patient(OTHER, shape=(4, 48, 64))
    assert offered(widget) == [NAME, OTHER]
    assert str(widget.patient.value) == OTHER
    run(widget)
    assert viewer.layers[f"{OTHER} tumour"].data.shape == (4, 48, 64)
    assert f"{NAME} tumour" not in layer_names(viewer)
    choose(widget, NAME)
    run(widget)
    assert str(widget.patient.value) == NAME
    assert viewer.layers[f"{NAME} tumour"].data.shape == (6, 64, 64)


def test_result_belongs_to_the_patient_chosen_when_segment_was_clicked(
    viewer, open_patient, dock, click, gate, wait_until
):
    widget = dock()
    open_patient(NAME)
    click(widget, "Segment")
    open_patient(OTHER, shape=(4, 64, 64))
    assert str(widget.patient.value) == OTHER
    gate.open()
    wait_until(lambda: widget.button.text == "Segment")
    assert viewer.layers[f"{NAME} tumour"].data.shape == (6, 64, 64)
    assert f"{OTHER} tumour" not in layer_names(viewer)


def test_closed_patient_is_not_offered_any_more(viewer, open_patient, dock, click):
    open_patient(NAME)
    open_patient(OTHER)
    widget = dock()
    for layer in [layer for layer in viewer.layers if layer.metadata["lgg"]["patient"] == OTHER]:
        viewer.layers.remove(layer)
    assert offered(widget) == [NAME]
    assert str(widget.patient.value) == NAME
    viewer.layers.clear()
    assert offered(widget) == []
    click(widget, "Segment")
    assert widget.button.text == "Segment"
    assert "No patient is open" in widget.status.value


def test_patient_without_flair_is_refused_with_a_message(viewer, open_patient, dock, click):
    open_patient()
    widget = dock()
    viewer.layers.remove("FLAIR")
    click(widget, "Segment")
    assert widget.button.text == "Segment"
    assert_message(widget.status.value)
    assert "FLAIR" in widget.status.value


def test_missing_sequence_is_reported_and_flair_used_instead(viewer, open_patient, dock, run):
    open_patient()
    widget = dock()
    assert "missing" not in visible_text(widget)
    viewer.layers.remove("post-contrast")
    assert "post-contrast missing" in visible_text(widget)
    run(widget)
    assert f"{NAME} tumour" in layer_names(viewer)


def test_sequence_may_be_left_out(viewer, open_patient, dock):
    open_patient()
    widget = dock()
    combo = next(c for c in widget.native.findChildren(QComboBox) if c.currentText() == "post-contrast")
    combo.setCurrentText("Use FLAIR instead")
    assert "post-contrast missing" in visible_text(widget)


def test_sequence_that_is_a_copy_of_flair_is_reported(viewer, tmp_path, make_patient, dock):
    from napari_lgg_seg.core.data.masks import write_patient

    patient = make_patient(NAME)
    patient.volume[..., 0] = patient.volume[..., 1]
    write_patient(tmp_path / "filled_sequences", patient)
    viewer.open(str(tmp_path / "filled_sequences"), plugin="napari-lgg-seg")
    assert "pre-contrast missing" in visible_text(dock())


# --- again -------------------------------------------------------------------------------------


def test_second_run_replaces_the_result_in_place(viewer, open_patient, dock, run, generous_model):
    open_patient()
    widget = dock()
    run(widget)
    before, voxels = list(viewer.layers), np.count_nonzero(viewer.layers[f"{NAME} tumour"].data)
    share = viewer.layers[f"{NAME} probability"].data.mean()
    viewer.layers[f"{NAME} tumour"].opacity = 0.3
    widget.offer_model(generous_model)
    run(widget)
    assert list(viewer.layers) == before
    assert np.count_nonzero(viewer.layers[f"{NAME} tumour"].data) > voxels
    assert viewer.layers[f"{NAME} probability"].data.mean() > share
    assert viewer.layers[f"{NAME} tumour"].opacity == 0.3


def test_edited_result_is_never_replaced(viewer, open_patient, dock, run, generous_model):
    open_patient()
    widget = dock()
    run(widget)
    painted = viewer.layers[f"{NAME} tumour"]
    voxels = np.count_nonzero(painted.data)
    painted.paint((0, 5, 5), 1)
    as_painted = painted.data.copy()
    count = len(viewer.layers)
    widget.offer_model(generous_model)
    run(widget)
    np.testing.assert_array_equal(painted.data, as_painted)
    assert len(viewer.layers) == count + 1
    new = viewer.layers.selection.active
    assert new != painted
    assert new.name.startswith(f"{NAME} tumour")
    assert np.count_nonzero(new.data) > voxels
    assert not new.data[0, 5, 5]
    # The new layer was not edited, so a third run replaces it, and still not the edited one.
    run(widget)
    assert len(viewer.layers) == count + 1
    np.testing.assert_array_equal(painted.data, as_painted)


def test_removed_result_comes_back_as_a_new_layer(viewer, open_patient, dock, run):
    open_patient()
    widget = dock()
    run(widget)
    viewer.layers.remove(f"{NAME} tumour")
    viewer.layers.remove(f"{NAME} probability")
    run(widget)
    assert {f"{NAME} tumour", f"{NAME} probability"} <= set(layer_names(viewer))


# --- Cancel ------------------------------------------------------------------------------------


def test_cancel_leaves_layers_as_they_were(viewer, open_patient, dock, click, gate, wait_until):
    open_patient(shape=(12, 64, 64))
    widget = dock()
    before = contents(viewer)
    click(widget, "Segment")
    wait_until(gate.reached.is_set)
    click(widget, "Cancel")
    gate.open()
    wait_until(lambda: widget.button.text == "Segment")
    assert widget.button.enabled
    assert_same(before, contents(viewer))
    assert widget.status.value == "Cancelled."
    assert widget.progress.native.isHidden()


def test_cancelled_second_run_leaves_the_first_result(
    viewer, open_patient, dock, run, click, gate, wait_until, generous_model
):
    open_patient(shape=(12, 64, 64))
    widget = dock()
    gate.open()
    run(widget)
    before = contents(viewer)
    gate.close()
    widget.offer_model(generous_model)
    click(widget, "Segment")
    wait_until(gate.reached.is_set)
    click(widget, "Cancel")
    gate.open()
    wait_until(lambda: widget.button.text == "Segment")
    assert_same(before, contents(viewer))


def test_cancel_before_the_first_batch(viewer, open_patient, dock, click, wait_until):
    open_patient()
    widget = dock()
    before = contents(viewer)
    click(widget, "Segment")
    click(widget, "Cancel")
    wait_until(lambda: widget.button.text == "Segment")
    assert_same(before, contents(viewer))


def test_run_after_cancel_gives_the_result(viewer, open_patient, dock, click, run, gate, wait_until):
    open_patient()
    widget = dock()
    click(widget, "Segment")
    wait_until(gate.reached.is_set)
    click(widget, "Cancel")
    gate.open()
    wait_until(lambda: widget.button.text == "Segment")
    run(widget)
    assert f"{NAME} tumour" in layer_names(viewer)


# --- export from the widget --------------------------------------------------------------------


def test_export_button_is_enabled_by_labels_and_writes_the_result(
    viewer, patient_on_disk, dock, run, find_button, choose_folder, tmp_path
):
    from napari_lgg_seg.core.data.patients import read_patient

    folder = patient_on_disk()
    for mask in folder.glob("*_mask.tif"):
        mask.unlink()
    viewer.open(str(folder), plugin="napari-lgg-seg")
    widget = dock()
    assert not find_button(widget.native, "Export masks...").isEnabled()
    run(widget)
    choose_folder(tmp_path / "masks")
    export = find_button(widget.native, "Export masks...")
    assert export.isEnabled()
    export.click()
    back = read_patient(tmp_path / "masks" / NAME)
    np.testing.assert_array_equal(back.truth, viewer.layers[f"{NAME} tumour"].data)


def test_layers_menu_docks_the_widget(viewer, menu_action):
    menu_action("Layers", "Segment", "Segment").trigger()
    (dock,) = viewer.window.dock_widgets.values()
    assert isinstance(dock, segment.SegmentWidget)
