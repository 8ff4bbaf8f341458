"""Widgets start with the user's preferences in napari's settings."""

from __future__ import annotations

import shutil

import pytest
from qtpy.QtWidgets import QTableView

from napari_lgg_seg.core import devices
from napari_lgg_seg.core.model.checkpoint import DEFAULT_MODEL
from napari_lgg_seg.core.training.initial_model import DEFAULT

NAME = "TCGA_DU_0001_19990101"


@pytest.fixture
def opened(viewer):
    """Factory: dock a widget like the user does."""
    return lambda title: viewer.window.add_plugin_dock_widget("napari-lgg-seg", title)[1]


@pytest.fixture(params=["missing", "broken"])
def no_model(request, tmp_path):
    """A file that is not a model."""
    path = tmp_path / f"{request.param}.safetensors"
    if request.param == "broken":
        path.write_text("no model")
    return path


def listed(widget):
    return list(widget.device.choices)


def test_segment_starts_with_the_preferences(opened, prefer, small_model, wait_until):
    prefer(device="cpu", model=str(small_model), threshold="fixed", fixed_threshold=0.3)
    widget = opened("Segment")
    assert widget.device.value == "cpu"
    assert widget.model.value == small_model
    wait_until(lambda: set(listed(widget)) == {"auto", *devices.available_devices()})
    assert widget.device.value == "cpu"
    options = widget.controls.options()
    assert (options.device, options.threshold) == ("cpu", 0.3)
    # The preference applies to every model.
    widget.model.value = DEFAULT_MODEL
    assert widget.controls.options().threshold == 0.3


def test_auto_is_selected_if_the_preferred_device_is_missing(opened, prefer, wait_until):
    prefer(device="mps")
    widget = opened("Segment")
    wait_until(lambda: "mps" not in listed(widget))
    assert widget.device.value == "auto"


@pytest.mark.parametrize(
    ("preferred", "used"), [("automatic", "auto"), ("the model's own", 0.5)], ids=["automatic", "own"]
)
def test_segment_uses_the_preferred_threshold(opened, prefer, small_model, preferred, used):
    prefer(threshold=preferred, model=str(small_model))
    assert opened("Segment").controls.options().threshold == used


def test_segment_reports_a_preferred_model_that_cannot_be_used(opened, prefer, no_model, small_model):
    prefer(model=str(no_model))
    widget = opened("Segment")
    assert str(no_model) in widget.status.value
    assert "shipped" in widget.status.value
    assert widget.model.value == DEFAULT_MODEL
    widget.offer_model(small_model)
    assert str(no_model) not in widget.status.value


def test_fine_tune_starts_with_the_preferences(opened, prefer, small_model, patient_on_disk, wait_until):
    pytest.importorskip("pyqtgraph")
    pytest.importorskip("pyqtgraph")
    for name in (NAME, NAME.replace("1_", "2_")):
        folder = patient_on_disk(name).parent
    prefer(device="cpu", model=str(small_model), dataset_folder=str(folder))
    controls = opened("Fine-tune").controls
    assert controls.options().init == str(small_model)
    assert controls.options().device == "cpu"
    controls.source.value = "Folder of patients..."
    wait_until(lambda: controls.found.value == "2 patients with images and masks.")


def test_fine_tune_reports_a_preferred_model_that_cannot_be_used(opened, prefer, no_model, small_model):
    pytest.importorskip("pyqtgraph")
    pytest.importorskip("pyqtgraph")
    prefer(model=str(no_model))
    widget = opened("Fine-tune")
    assert str(no_model) in widget.status.value
    assert widget.controls.options().init == DEFAULT
    widget.start_from(small_model)
    assert str(no_model) not in widget.status.value


def test_the_preferred_dataset_is_listed_at_once(opened, prefer, small_model, patient_on_disk, wait_until):
    folder = patient_on_disk(NAME).parent
    prefer(dataset_folder=str(folder), model=str(small_model))
    widget = opened("Cohort")
    wait_until(
        lambda: "1 new" in widget.controls.found.value and "Reading" not in widget.controls.found.value
    )
    assert widget.native.findChild(QTableView).model().rowCount() == 1
    assert widget.controls.dataset.value == folder
    assert widget.controls.results.value == folder.with_name(f"{folder.name}-results")
    assert widget.controls.model.path == small_model
    assert widget.controls.status.value == ""


def test_a_cohort_is_segmented_with_the_preferences(opened, prefer, small_model, patient_on_disk, wait_until):
    folder = patient_on_disk(NAME).parent
    chosen = {"device": "mps", "threshold": "fixed", "fixed_threshold": 0.3}  # a device that is not present
    prefer(dataset_folder=str(folder), model=str(small_model), **chosen)
    widget = opened("Cohort")
    wait_until(lambda: "1 new" in widget.controls.found.value)
    widget.controls.segment_all.native.click()
    wait_until(lambda: not widget.runs.is_running)
    text = widget.controls.run_status.value
    assert text.startswith("1 patient segmented.")
    assert ("MPS is not present" in text) == ("mps" not in devices.available_devices())
    made_with = widget.patients.row_of(NAME).status.made_with
    assert made_with["threshold"] == 0.3
    assert made_with["options"]["threshold"] == 0.3
    widget.controls.segment_all.native.click()
    wait_until(lambda: "nothing to segment" in widget.controls.run_status.value)


def test_a_preferred_dataset_that_is_missing_is_not_listed(opened, prefer, no_model, patient_on_disk):
    folder = patient_on_disk(NAME).parent
    prefer(dataset_folder=str(folder), model=str(no_model))
    shutil.rmtree(folder)
    widget = opened("Cohort")
    assert "Choose the folder" in widget.controls.found.value
    assert str(no_model) in widget.controls.status.value


def test_changed_preferences_apply_to_widgets_opened_later(viewer, opened, prefer, small_model):
    first = opened("Segment")
    prefer(model=str(small_model))
    assert first.model.value == DEFAULT_MODEL
    viewer.window.remove_dock_widget(first.native)
    assert opened("Segment").model.value == small_model
