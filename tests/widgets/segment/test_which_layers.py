"""Which layers a result belongs to and which of several is meant: identity decides, never a name."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from window import layer_of

from napari_lgg_seg.layers import layers_with, subject_of
from napari_lgg_seg.widgets.shared.export import labels_to_export

NAME = "TCGA_DU_0001_19990101"

pytestmark = pytest.mark.filterwarnings("error:Private attribute access:FutureWarning")


@pytest.fixture
def square():
    """Three slices with a head and a bright square in each."""
    volume = np.zeros((3, 40, 50), np.float32)
    volume[:, 4:36, 6:44] = 100
    volume[:, 12:20, 20:30] = 400
    return volume


def choose(widget, index):
    widget.patient.value = widget.patient.choices[index]


def roles(viewer, layer):
    return {
        other.metadata["lgg"]["role"]
        for other in viewer.layers
        if "lgg" in other.metadata and other.metadata["lgg"]["subject"] == subject_of(layer)
    }


# --- subjects ----------------------------------------------------------------------------------


def test_an_image_with_a_patients_name_keeps_its_results_apart(viewer, open_patient, dock, run, square):
    open_patient()
    image = viewer.add_image(square, name=NAME)
    widget = dock()
    assert len({text for text, _ in widget.patient._widget._mgui_get_choices()}) == 2
    choose(widget, 0)
    run(widget)
    patients = viewer.layers[f"{NAME} tumour"]
    before = patients.data.copy()
    choose(widget, 1)
    assert widget.subject.layer == image
    run(widget)
    np.testing.assert_array_equal(patients.data, before)
    (images,) = layers_with(viewer.layers, subject_of(image), "tumour")
    assert images.data.shape == square.shape
    assert roles(viewer, image) == {"tumour", "probability", "uncertainty"}


def test_renaming_an_image_leaves_its_result_linked(viewer, dock, run, square, wait_until):
    image = viewer.add_image(square, name="scan")
    widget = dock()
    run(widget)
    image.name = "another name"
    assert [str(subject) for subject in widget.patient.choices] == ["another name"]
    widget.controls.threshold.value = 0.9
    tumour, probability = (
        layers_with(viewer.layers, subject_of(image), r)[0] for r in ("tumour", "probability")
    )
    np.testing.assert_array_equal(tumour.data, probability.data >= 0.9)
    assert widget.controls.following.enabled
    run(widget)
    assert layers_with(viewer.layers, subject_of(image), "tumour") == [tumour]


def test_renaming_keeps_the_chosen_subject(viewer, dock, square):
    for name in ("first", "second"):
        viewer.add_image(square, name=name)
    widget = dock()
    choose(widget, 1)
    viewer.layers["second"].name = "renamed"
    assert str(widget.subject) == "renamed"


def test_a_patient_opened_twice_is_two_subjects(viewer, patient_on_disk, dock, run):
    folder = patient_on_disk()
    for _ in range(2):
        viewer.open(str(folder), plugin="napari-lgg-seg")
    flairs = [layer for layer in viewer.layers if layer.metadata["lgg"]["role"] == "FLAIR"]
    widget = dock()
    assert len(widget.patient.choices) == 2
    for index, flair in enumerate(flairs):
        choose(widget, index)
        assert widget.controls.sequences["FLAIR"].value == flair
        run(widget)
        assert len(layers_with(viewer.layers, subject_of(flair), "tumour")) == 1
    assert len([layer for layer in viewer.layers if layer.metadata["lgg"]["role"] == "tumour"]) == 2


def test_results_belong_to_the_chosen_image_whichever_sequence_was_picked(viewer, dock, run, square):
    first = viewer.add_image(square, name="first")
    second = viewer.add_image(square + 1, name="second")
    widget = dock()
    choose(widget, 0)
    widget.controls.sequences["FLAIR"].value = second
    run(widget)
    assert roles(viewer, first) == {"tumour", "probability", "uncertainty"}
    assert roles(viewer, second) == set()


# --- duplicates --------------------------------------------------------------------------------


@pytest.fixture
def twice(viewer, open_patient, dock, run):
    """A widget with a segmented patient, its labels, and their duplicate."""
    from napari.layers import Layer

    open_patient()
    widget = dock()
    run(widget)
    original = layer_of(viewer, "tumour")
    data, state, kind = original.as_layer_data_tuple()  # what napari's Duplicate Layer does
    state["name"] = f"{original.name} copy"
    copy = viewer.add_layer(Layer.create(np.copy(data), state, kind))
    return widget, original, copy


def test_the_corrected_original_is_exported_and_not_its_duplicate(viewer, twice):
    _, original, copy = twice
    original.paint((3, 30, 30), 1)
    viewer.layers.selection.active = viewer.layers["FLAIR"]
    assert labels_to_export(viewer) == original
    copy.paint((3, 20, 20), 1)
    assert labels_to_export(viewer) == copy
    viewer.layers.selection.active = original
    assert labels_to_export(viewer) == original


def test_a_duplicate_shares_no_metadata(viewer, twice):
    widget, original, copy = twice
    viewer.layers.selection.active = original
    widget.controls.threshold.value = 0.9
    assert original.metadata["lgg"]["made_with"]["options"]["threshold"] == pytest.approx(0.9)
    assert copy.metadata["lgg"]["made_with"]["options"]["threshold"] == 0.5


def test_the_slider_changes_the_selected_labels(viewer, twice):
    widget, original, copy = twice
    kept = original.data.copy()
    viewer.layers.selection.active = copy
    widget.controls.threshold.value = 0.95
    np.testing.assert_array_equal(original.data, kept)
    assert (copy.data != kept).any()


def test_a_duplicate_kept_aside_is_not_replaced(viewer, twice, run):
    widget, original, copy = twice
    kept = copy.data.copy()
    original.paint((3, 30, 30), 1)
    viewer.layers.selection.active = original
    for threshold in (0.9, 0.95):
        widget.controls.threshold.value = threshold
    np.testing.assert_array_equal(copy.data, kept)
    assert len(layers_with(viewer.layers, subject_of(original), "tumour")) == 3


# --- place, resolution, axes -------------------------------------------------------------------


AFFINE = np.array([[1, 0, 0, 60], [0, 0.8, -0.6, 5], [0, 0.6, 0.8, -7], [0, 0, 0, 1]], float)


def test_results_lie_where_their_image_lies(viewer, dock, run, square):
    place = {"scale": (5, 0.9, 0.8), "translate": (3, 4, 5), "affine": AFFINE, "units": ("mm",) * 3}
    image = viewer.add_image(square, name="scan", shear=(0.1, 0, 0), **place)
    run(dock())
    for layer in viewer.layers:
        for corner in ((0, 0, 0), (2, 39, 49)):
            np.testing.assert_allclose(layer.data_to_world(corner), image.data_to_world(corner))
        assert layer.units == image.units


def test_multiscale_images_are_segmented_and_exported_at_full_resolution(viewer, dock, run, square, tmp_path):
    from napari_lgg_seg.widgets.shared.export import write_mask_folder

    image = viewer.add_image([square, square[:, ::2, ::2]], name="scan", multiscale=True)
    run(dock())
    (tumour,) = layers_with(viewer.layers, subject_of(image), "tumour")
    assert tumour.data.shape == square.shape
    levels = [tumour.data, tumour.data[:, ::2, ::2]]
    labels = viewer.add_labels(levels, name="pyramid", multiscale=True)
    meta = {"metadata": labels.metadata, "multiscale": labels.multiscale}
    files = write_mask_folder(tmp_path / "masks", labels.data, meta)
    assert tifffile.imread(files[0]).shape == square.shape[1:]


def test_current_slice_needs_a_view_of_slices(viewer, dock, run, square):
    viewer.add_image(square, name="scan")
    widget = dock()
    widget.controls.current_slice.value = True
    viewer.dims.roll()
    run(widget)
    assert "does not show single slices" in widget.status.value
    assert [layer.name for layer in viewer.layers] == ["scan"]
    while 0 in viewer.dims.displayed:
        viewer.dims.roll()
    viewer.dims.set_point(0, 2)
    run(widget)
    assert viewer.layers["scan tumour"].data.any(axis=(1, 2)).tolist() == [False, False, True]
    assert "Slice 3 only." in widget.status.value


@pytest.mark.parametrize(
    ("shape", "is_odd"), [((60, 60, 12), True), ((90, 20, 60), True), ((12, 60, 60), False)]
)
def test_a_hint_if_the_first_axis_is_not_that_of_the_slices(viewer, dock, shape, is_odd):
    viewer.add_image(np.zeros(shape, np.uint8), name="scan")
    assert ("transpose" in dock().controls.about.value) == is_odd


# --- numbers -----------------------------------------------------------------------------------


def test_only_the_edited_voxel_size_changes(viewer, open_patient, dock):
    open_patient()
    for layer in viewer.layers:
        layer.scale, layer.units = (5.1234, 0.4297, 0.4297), ("mm",) * 3
    box = dock().controls.spacing["y"].native
    box.selectAll()
    QTest.keyClicks(box, "0,9375")
    QTest.keyClick(box, Qt.Key.Key_Return)
    for layer in viewer.layers:
        np.testing.assert_array_equal(layer.scale, (5.1234, 0.9375, 0.4297))
