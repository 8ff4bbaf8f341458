"""The Compare widget: two folders of patients."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from label_writing import write_labels, write_masks
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog
from window import assert_message, layer_names, threads_done

from napari_lgg_seg.core.data.label_files import LabelMap
from napari_lgg_seg.core.data.patients import read_patient
from napari_lgg_seg.core.evaluation import compare_folders as core
from napari_lgg_seg.core.evaluation.compare import compare
from napari_lgg_seg.widgets.finetune.labelled import labelled_patients

FIRST, SECOND, THIRD = (f"TCGA_DU_000{n}_19990101" for n in (1, 2, 3))

pytestmark = pytest.mark.filterwarnings("error:Private attribute access:FutureWarning")


@pytest.fixture
def cohort(patient_on_disk, tmp_path):
    """Three patients on disk, and predictions shifted by 0, 1 and 2 pixels."""
    for shift, name in enumerate((FIRST, SECOND, THIRD)):
        truth = read_patient(patient_on_disk(name, seed=shift)).truth
        write_masks(tmp_path / "out" / name, name, np.roll(truth, shift, 2))
    return tmp_path


@pytest.fixture
def dock_folders(dock_compare):
    """Factory: dock the Compare widget and show its tab for folders."""

    def dock_():
        widget = dock_compare()
        widget.tabs.setCurrentIndex(1)
        return widget

    return dock_


@pytest.fixture
def compare_all(dock_folders, cohort, click, wait_until):
    """Factory: compare the folders and wait until that is done; returns the Compare widget."""

    def compare_all_(predictions="out", truth="patients"):
        widget = dock_folders()
        folders = widget.folders
        folders.predictions.value, folders.truth.value = cohort / predictions, cohort / truth
        wait_until(lambda: folders.button.enabled)
        click(widget, "Compare all")
        assert folders.button.text == "Cancel"
        wait_until(lambda: folders.button.text == "Compare all")
        return widget

    return compare_all_


@pytest.fixture
def open_row(wait_until):
    """Factory: double-click a patient and wait until it is compared."""

    def open_row_(widget, name):
        double_click(widget, name)
        wait_until(
            lambda: widget.layers.pair is not None and widget.layers.pair.prediction.name.startswith(name)
        )
        wait_until(lambda: widget.button.text == "Compare" and widget.results.isVisibleTo(widget.native))

    return open_row_


@pytest.fixture
def save_as(monkeypatch):
    """Factory: set the answer to the next dialog for a file; "" for Cancel."""

    def save_as_(path):
        monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_, **__: (str(path), ""))

    return save_as_


def column(table, place, role=Qt.ItemDataRole.DisplayRole):
    model = table.model()
    return [model.index(row, place).data(role) for row in range(model.rowCount())]


def double_click(widget, name):
    table = widget.folders.table
    table.doubleClicked.emit(table.model().index(column(table, 0).index(name), 0))


# --- the table ---------------------------------------------------------------------------------


def test_all_patients_are_listed_worst_first(compare_all):
    widget = compare_all()
    table = widget.folders.table
    assert column(table, 0) == [THIRD, SECOND, FIRST]
    assert column(table, 1)[2] == "1.000"
    text = widget.folders.status.value
    assert text.startswith("3 patients: mean Dice ")
    assert "95 % interval" in text
    assert "0 below 0.5, 0 missed entirely." in text
    table.sortByColumn(0, Qt.SortOrder.AscendingOrder)
    assert column(table, 0) == [FIRST, SECOND, THIRD]
    table.sortByColumn(2, Qt.SortOrder.DescendingOrder)
    assert column(table, 0)[-1] == FIRST


def test_a_broken_patient_is_reported_and_the_others_compared(compare_all, cohort):
    (cohort / "out" / SECOND / f"{SECOND}_2_mask.tif").write_bytes(b"no TIFF")
    widget = compare_all()
    table = widget.folders.table
    for order in (Qt.SortOrder.AscendingOrder, Qt.SortOrder.DescendingOrder):
        table.sortByColumn(1, order)
        assert column(table, 0)[-1] == SECOND
        assert column(table, 1)[-1] == "failed"
    assert f"{SECOND}_2_mask.tif" in column(table, 0, Qt.ItemDataRole.ToolTipRole)[-1]
    assert "1 patient could not be compared" in widget.folders.status.value


def test_patients_in_only_one_folder_are_named(compare_all, cohort, make_patient):
    for file in (cohort / "out" / FIRST).iterdir():
        file.unlink()
    write_labels(cohort / "out", LabelMap("TCGA_HT_9999_19990101", make_patient().truth), "tiff")
    text = compare_all().folders.status.value
    assert f"1 patient without prediction, not included: {FIRST}." in text
    assert "1 patient without ground truth, not included: TCGA_HT_9999_19990101." in text


def test_a_single_patients_folders_are_enough(compare_all, cohort):
    widget = compare_all(f"out/{FIRST}", f"patients/{SECOND}")
    assert column(widget.folders.table, 0) == [SECOND]
    assert "interval" not in widget.folders.status.value


def test_folders_without_labels_are_reported(compare_all, cohort):
    (cohort / "nothing").mkdir()
    widget = compare_all("nothing")
    assert "nothing contains no patient's labels" in widget.folders.status.value
    assert not widget.folders.export.enabled


def test_folders_must_be_chosen_first(dock_folders, wait_until, cohort):
    folders = dock_folders().folders
    assert not folders.button.enabled
    folders.run()
    folders.predictions.value = cohort / "nowhere"
    folders.truth.value = cohort / "patients"
    wait_until(lambda: folders.button.enabled)
    folders.run()
    wait_until(lambda: "nowhere is not a folder" in folders.status.value)


# --- cancel and close --------------------------------------------------------------------------


@pytest.fixture
def during_run(dock_folders, cohort, monkeypatch, gate, wait_until):
    """Factory: do something while the second patient is compared; returns the widget."""
    read = core.read_pair

    def wait_and_read(pair, **more):
        if pair.name == SECOND:
            gate.pass_through()
        return read(pair, **more)

    monkeypatch.setattr(core, "read_pair", wait_and_read)

    def during(act):
        widget = dock_folders()
        folders = widget.folders
        folders.predictions.value, folders.truth.value = cohort / "out", cohort / "patients"
        folders.run()
        wait_until(gate.reached.is_set)
        wait_until(lambda: len(column(folders.table, 0)) == 1)
        act(widget)
        gate.open()
        wait_until(threads_done)
        return widget

    return during


def test_cancel_keeps_finished_patients(during_run, click, wait_until):
    widget = during_run(lambda widget: click(widget, "Cancel"))
    folders = widget.folders
    wait_until(lambda: folders.button.text == "Compare all")
    assert 1 <= len(column(folders.table, 0)) < 3
    assert "Cancelled after" in folders.status.value
    assert folders.export.enabled
    wait_until(lambda: folders.button.enabled)


def test_dock_closed_during_a_comparison(viewer, during_run, wait_until, notices):
    widget = during_run(lambda widget: viewer.window.remove_dock_widget(widget.native))
    wait_until(lambda: widget.folders.status.value.startswith("Cancelled after"))
    assert notices == []


def test_viewer_closed_during_a_comparison(viewer, during_run, notices):
    during_run(lambda _: viewer.close())
    assert notices == []


# --- export ------------------------------------------------------------------------------------


def test_export_writes_all_metrics(compare_all, click, save_as, tmp_path):
    widget = compare_all()
    save_as(tmp_path / "metrics")
    click(widget, "Export CSV...")
    with (tmp_path / "metrics.csv").open(encoding="utf-8") as file:
        rows = {row["patient"]: row for row in csv.DictReader(file)}
    assert list(rows) == [FIRST, SECOND, THIRD]
    truth = read_patient(tmp_path / "patients" / THIRD).truth
    agreement = compare(np.roll(truth, 2, 2), truth)
    for name in ("dice", "iou", "precision", "recall", "hd95", "surface_dice", "volume_error"):
        assert float(rows[THIRD][name]) == pytest.approx(getattr(agreement, name))
    assert str(tmp_path / "metrics.csv") in widget.folders.status.value


def test_export_asks_before_replacing_a_file(compare_all, click, save_as, answer, tmp_path):
    widget = compare_all()
    path = tmp_path / "metrics.csv"
    path.write_text("precious", encoding="utf-8")
    save_as(tmp_path / "metrics")
    asked = answer("No")
    click(widget, "Export CSV...")
    assert path.read_text(encoding="utf-8") == "precious"
    assert str(path) in asked[0]
    answer("Yes")
    click(widget, "Export CSV...")
    assert FIRST in path.read_text(encoding="utf-8")
    save_as("")
    click(widget, "Export CSV...")
    save_as(tmp_path / "metrics.csv" / "below a file.csv")
    click(widget, "Export CSV...")
    assert "could not be written" in widget.folders.status.value


# --- opening a patient --------------------------------------------------------------------


def test_double_click_opens_and_compares(viewer, compare_all, open_row):
    widget = compare_all()
    open_row(widget, THIRD)
    assert widget.tabs.currentIndex() == 0
    roles = [layer.metadata["lgg"]["role"] for layer in viewer.layers]
    assert roles == ["pre-contrast", "FLAIR", "post-contrast", "truth", "tumour", "comparison"]
    assert widget.folders.status.value.startswith("3 patients: ")
    assert viewer.layers[-1].name == f"{THIRD} tumour vs ground truth"
    pair = widget.layers.pair
    np.testing.assert_array_equal(pair.prediction.data, np.roll(pair.truth.data, 2, 2))
    assert (
        widget.results.metrics.value("Dice") == f"{compare(pair.prediction.data, pair.truth.data).dice:.3f}"
    )
    assert viewer.dims.current_step[0] == int(pair.truth.data.sum(axis=(1, 2)).argmax())


def test_the_next_patient_replaces_the_previous_one(viewer, compare_all, open_row):
    widget = compare_all()
    open_row(widget, THIRD)
    open_row(widget, FIRST)
    assert {layer.metadata["lgg"]["patient"] for layer in viewer.layers} == {FIRST}
    open_row(widget, FIRST)
    assert len(viewer.layers) == 6


def test_edited_patients_stay_open(viewer, compare_all, open_row):
    widget = compare_all()
    open_row(widget, THIRD)
    painted = widget.layers.pair.prediction
    painted.fill((3, 0, 0), 1)
    open_row(widget, FIRST)
    assert painted in viewer.layers
    open_row(widget, THIRD)
    assert widget.layers.pair.prediction == painted
    assert painted.data[3, 0, 0] == 1


def test_a_patient_that_is_open_is_not_opened_twice(viewer, compare_all, open_row, cohort):
    viewer.open(str(cohort / "patients" / THIRD), plugin="napari-lgg-seg")
    widget = compare_all()
    open_row(widget, THIRD)
    assert layer_names(viewer)[:4] == ["pre-contrast", "FLAIR", "post-contrast", "ground truth"]
    assert len(viewer.layers) == 6
    (row,) = labelled_patients(viewer.layers)
    assert row.proposed == viewer.layers["ground truth"], "a prediction from a file is no correction"


def test_labels_alone_are_opened_without_images(viewer, compare_all, open_row, cohort):
    for name in (FIRST, SECOND, THIRD):
        truth = read_patient(cohort / "patients" / name).truth
        write_masks(cohort / "masks" / name, name, truth)
    widget = compare_all(truth="masks")
    open_row(widget, SECOND)
    assert len(viewer.layers) == 3


def test_a_patient_that_cannot_be_opened_is_reported(viewer, compare_all, cohort, wait_until):
    widget = compare_all()
    (cohort / "patients" / SECOND / f"{SECOND}_1.tif").unlink()
    double_click(widget, SECOND)
    wait_until(lambda: f"{SECOND}_1.tif" in widget.folders.status.value)
    assert len(viewer.layers) == 0


def test_the_table_says_which_folders_it_is_of(compare_all, cohort, wait_until):
    widget = compare_all()
    summary = widget.folders.status.value
    widget.folders.predictions.value = cohort / "other"
    wait_until(lambda: str(cohort / "out") in widget.folders.status.value)
    assert_message(widget.folders.status.value)
    widget.folders.predictions.value = cohort / "out"
    wait_until(lambda: widget.folders.status.value == summary)


def test_folders_chosen_after_the_click_do_not_count(dock_folders, cohort, click, wait_until, monkeypatch):
    widget = dock_folders()
    folders = widget.folders
    folders.predictions.value, folders.truth.value = cohort / "out", cohort / "patients"
    wait_until(lambda: folders.button.enabled)
    then = []
    monkeypatch.setattr(folders, "_save_first", then.append)
    click(widget, "Compare all")
    folders.predictions.value = cohort / "other"
    then[0]()
    wait_until(lambda: folders.button.text == "Compare all" and bool(folders.metrics))
    assert len(folders.metrics) == 3
    assert str(cohort / "out") in folders.status.value
