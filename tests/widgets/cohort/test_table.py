"""The cohort browser's table: what it lists, sorts and filters."""

from __future__ import annotations

import shutil
import threading

import numpy as np
import pytest
from cohort_window import (
    BROKEN,
    FIRST,
    NAMES,
    SECOND,
    THIRD,
    cell,
    found,
    results_of,
    run_to_end,
    select,
    shown,
    table_of,
)
from label_writing import write_labels
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLineEdit
from window import assert_message

from napari_lgg_seg.core.cohort import summary_cache
from napari_lgg_seg.core.data.label_files import LabelMap
from napari_lgg_seg.core.data.patients import read_patient
from napari_lgg_seg.widgets.cohort import jobs
from napari_lgg_seg.widgets.cohort.widget import CohortBrowser

pytestmark = pytest.mark.filterwarnings("error:Private attribute access:FutureWarning")


def test_layers_menu_docks_the_browser(viewer, menu_action, wait_until):
    menu_action("Layers", "Segment", "Cohort").trigger()
    wait_until(lambda: any(isinstance(w, CohortBrowser) for w in viewer.window.dock_widgets.values()))


def test_without_a_folder_a_message_says_what_to_do(viewer):
    _, widget = viewer.window.add_plugin_dock_widget("napari-lgg-seg", "Cohort")
    assert_message(found(widget))
    assert "Choose the folder" in found(widget)
    assert not widget.controls.segment_all.enabled
    widget.step(1)


def test_table_shows_what_is_known_of_patients(browse, cohort):
    widget = browse()
    assert shown(widget) == sorted([*NAMES, BROKEN])
    assert found(widget) == "4 patients: 3 new, 1 cannot be read."
    for name in NAMES:
        patient = read_patient(cohort / name)
        assert cell(widget, name, "State") == "new"
        assert cell(widget, name, "Institution") == name[5:7]
        assert cell(widget, name, "Slices\nin all") == str(len(patient.truth))
        assert cell(widget, name, "Slices\ntrue") == str(patient.truth.any(axis=(1, 2)).sum())
        assert cell(widget, name, "Volume\ntrue") == f"{patient.truth.sum():,}"
        assert cell(widget, name, "Missing") == ""
        assert cell(widget, name, "Dice") is None
        assert not cell(widget, name, "Patient", Qt.ItemDataRole.DecorationRole).isNull()
    assert widget.controls.results.value == cohort.parent / "patients-results"
    assert not widget.controls.results.value.exists(), "reading must write nothing"


def test_broken_patients_are_listed_with_the_reason(browse):
    widget = browse()
    assert cell(widget, BROKEN, "State") == "cannot be read"
    tooltip = cell(widget, BROKEN, "State", Qt.ItemDataRole.ToolTipRole)
    assert f"{BROKEN}_3.tif" in tooltip
    assert_message(tooltip)
    assert cell(widget, BROKEN, "Volume\ntrue") is None


def test_names_are_shown_before_the_files_are_read(viewer, cohort, wait_until, monkeypatch, all_read):
    resume, cached_summary = threading.Event(), jobs.cached_summary
    monkeypatch.setattr(jobs, "cached_summary", lambda *args: (resume.wait(60), cached_summary(*args))[1])
    _, widget = viewer.window.add_plugin_dock_widget("napari-lgg-seg", "Cohort")
    widget.open_dataset(cohort)
    wait_until(lambda: len(shown(widget)) == 4)
    assert "Reading 4 more" in found(widget)
    assert cell(widget, FIRST, "Slices\nin all") is None
    resume.set()
    all_read(widget)
    assert cell(widget, FIRST, "Slices\nin all") == "6"


def test_second_opening_reads_no_images(browse, all_read, cohort, monkeypatch):
    shutil.rmtree(cohort / BROKEN)  # broken patients are read each time
    widget = browse()
    read = []
    monkeypatch.setattr(summary_cache, "read_summary", lambda folder, _: read.append(folder.name))
    widget.open_dataset(cohort)
    all_read(widget)
    assert read == []
    assert cell(widget, SECOND, "Slices\nin all") == "7"
    assert not cell(widget, SECOND, "Patient", Qt.ItemDataRole.DecorationRole).isNull()


def test_summaries_read_late_do_not_replace_newer_ones(
    viewer, cohort, small_model, wait_until, monkeypatch, all_read, click
):
    resume, cached_summary = threading.Event(), jobs.cached_summary
    monkeypatch.setattr(jobs, "cached_summary", lambda *args: (cached_summary(*args), resume.wait(60))[0])
    _, widget = viewer.window.add_plugin_dock_widget("napari-lgg-seg", "Cohort")
    widget.controls.model.offer(small_model)
    widget.open_dataset(cohort)
    wait_until(lambda: len(shown(widget)) == 4)
    first = shown(widget)[0]
    select(widget, first)
    run_to_end(widget, click, wait_until, "Segment selected")
    dice_before = cell(widget, first, "Dice")
    assert dice_before is not None
    resume.set()
    all_read(widget)
    assert cell(widget, first, "Dice") == dice_before


@pytest.mark.parametrize(
    ("title", "descending", "expected"),
    [
        ("Patient", True, sorted([*NAMES, BROKEN], reverse=True)),
        ("Slices\nin all", False, [FIRST, SECOND, THIRD, BROKEN]),
        ("Slices\nin all", True, [THIRD, SECOND, FIRST, BROKEN]),
        ("Institution", False, [THIRD, FIRST, BROKEN, SECOND]),
        ("State", True, [BROKEN, THIRD, FIRST, SECOND]),
    ],
)
def test_unknown_values_are_sorted_last(browse, title, descending, expected):
    widget = browse()
    table = table_of(widget)
    model = table.model()
    column = [model.headerData(i, Qt.Orientation.Horizontal) for i in range(model.columnCount())].index(title)
    table.sortByColumn(column, Qt.SortOrder.DescendingOrder if descending else Qt.SortOrder.AscendingOrder)
    assert shown(widget) == expected


def test_filters_by_name_and_state(browse, qtbot):
    widget = browse()
    (field,) = [e for e in widget.native.findChildren(QLineEdit) if e.placeholderText()]
    qtbot.keyClicks(field, "ht tcga")
    assert shown(widget) == [SECOND]
    assert "1 shown" in found(widget)
    field.clear()
    widget.controls.state.value = "cannot be read"
    assert shown(widget) == [BROKEN]
    widget.controls.state.value = "All states"
    assert len(shown(widget)) == 4


def test_a_folder_without_patients_is_reported(browse, cohort, wait_until, tmp_path):
    widget = browse()
    for folder, part in ((cohort / FIRST, "patient's own"), (tmp_path / "gone", "cannot be opened")):
        widget.open_dataset(folder)
        wait_until(lambda part=part: part in found(widget))
        assert_message(found(widget))
        assert shown(widget) == []
        assert not widget.controls.segment_all.enabled


def test_results_among_images_are_refused(browse, cohort, wait_until):
    widget = browse()
    for folder in (cohort, cohort / FIRST):
        widget.open_dataset(cohort, folder)
        wait_until(lambda: "another folder for the results" in found(widget))
        assert shown(widget) == []


def test_a_damaged_index_is_reported_and_kept(browse, cohort, all_read):
    widget = browse()
    index = results_of(cohort).folder / "cohort.json"  # of version 0.1.0
    write_labels(index.parent, LabelMap(FIRST, np.ones((6, 64, 64), np.uint8)), "tiff")
    index.write_text("{")
    widget.open_dataset(cohort)
    all_read(widget)
    assert found(widget) == "4 patients: 2 new, 2 cannot be read."
    tooltip = cell(widget, FIRST, "State", Qt.ItemDataRole.ToolTipRole)
    assert "cohort.json cannot be read" in tooltip
    assert_message(tooltip)
    assert index.read_text() == "{"


@pytest.mark.real_data
def test_the_dataset_opens(viewer, all_read, lgg_dataset, open_row, tmp_path):
    _, widget = viewer.window.add_plugin_dock_widget("napari-lgg-seg", "Cohort")
    few = tmp_path / "few"
    few.mkdir()
    folders = sorted(f for f in lgg_dataset.iterdir() if f.is_dir())[:5]
    for folder in folders:
        shutil.copytree(folder, few / folder.name)
    widget.open_dataset(few)
    all_read(widget)
    assert found(widget) == "5 patients: 5 new."
    open_row(widget, folders[2].name)
    assert cell(widget, folders[2].name, "Institution") == folders[2].name.split("_")[1]
