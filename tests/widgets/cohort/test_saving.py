"""Edits of a cohort's patients are saved whenever they could be lost."""

from __future__ import annotations

import os
import shutil
import threading

import numpy as np
import pytest
import tifffile
from cohort_window import (
    FIRST,
    SECOND,
    THIRD,
    cell,
    open_patients,
    results_of,
    roles,
    shown,
    states,
    status,
    tumour_of,
)
from window import assert_message, threads_done

from napari_lgg_seg.core.cohort import autosave as edit_files
from napari_lgg_seg.core.cohort import sources
from napari_lgg_seg.core.data.patients import read_patient
from napari_lgg_seg.core.evaluation.compare_folders import compare_folders
from napari_lgg_seg.core.evaluation.metrics import dice
from napari_lgg_seg.widgets.review.autosave import enable_autosave

pytestmark = pytest.mark.filterwarnings("error:Private attribute access:FutureWarning")


def test_edits_are_saved_when_another_patient_is_opened(viewer, segmented, open_row, cohort, all_read):
    widget = segmented()
    open_row(widget, FIRST)
    layer = tumour_of(viewer, FIRST)
    assert viewer.layers.selection.active == layer
    layer.paint((2, 5, 5), 1)
    layer.paint((3, 60, 3), 2)
    painted = layer.data.copy()
    open_row(widget, SECOND)
    assert states(widget)[FIRST] == "corrected"
    assert cell(widget, FIRST, "Volume\nfound") == f"{np.count_nonzero(painted):,}"
    truth = read_patient(cohort / FIRST).truth
    assert cell(widget, FIRST, "Dice") == f"{dice(painted, truth):.3f}"
    assert states(widget)[SECOND] == "segmented", "it was not edited"
    open_row(widget, FIRST)
    np.testing.assert_array_equal(tumour_of(viewer, FIRST).data, painted)
    # It is the same in the next session.
    widget.open_dataset(cohort)
    all_read(widget)
    assert states(widget)[FIRST] == "corrected"
    assert viewer.layers == []
    _, *compared = compare_folders(results_of(cohort).folder, cohort)
    (first,) = (one.metrics for one in compared if one.pair.name == FIRST)
    assert first.agreement.dice == pytest.approx(dice(painted, truth))


def test_opening_patients_changes_no_files(viewer, segmented, open_row, cohort):
    widget = segmented()
    files = {f: (f.stat().st_mtime_ns, f.read_bytes()) for f in results_of(cohort).folder.rglob("*.*")}
    for name in (FIRST, SECOND, FIRST):
        open_row(widget, name)
    assert {f: (f.stat().st_mtime_ns, f.read_bytes()) for f in files} == files
    assert set(states(widget).values()) == {"segmented", "cannot be read"}


def test_image_folders_are_never_changed(viewer, segmented, open_row, cohort, click, wait_until):
    before = {f: f.read_bytes() for f in cohort.rglob("*") if f.is_file()}
    widget = segmented()
    open_row(widget, FIRST)
    tumour_of(viewer, FIRST).paint((2, 5, 5), 1)
    viewer.layers["ground truth"].paint((2, 5, 5), 1)
    open_row(widget, SECOND)
    click(widget, "Accept")
    wait_until(lambda: states(widget)[SECOND] == "corrected")
    assert {f: f.read_bytes() for f in cohort.rglob("*") if f.is_file()} == before


@pytest.mark.parametrize("leave", ["double click", "next", "folder"])
def test_a_failure_to_write_keeps_the_patient_open(
    viewer, segmented, open_row, cohort, wait_until, full_disk, click, leave, tmp_path
):
    widget = segmented()
    open_row(widget, THIRD)
    layer = tumour_of(viewer, THIRD)
    layer.paint((2, 5, 5), 1)
    painted = layer.data.copy()
    full_disk()
    if leave == "double click":
        widget.open_patient(SECOND)
    elif leave == "next":
        click(widget, "Next >")
    else:
        widget.open_dataset(tmp_path)
    wait_until(lambda: "No space left" in status(widget))
    assert_message(status(widget))
    assert f"{THIRD} stays open" in status(widget)
    assert open_patients(viewer) == [THIRD]
    np.testing.assert_array_equal(layer.data, painted)
    assert widget.controls.dataset.value == cohort, "the table shows the old folder"
    assert len(shown(widget)) == 4
    full_disk(False)
    open_row(widget, SECOND)
    np.testing.assert_array_equal(results_of(cohort).patient(THIRD).read_labels(), painted)


def test_painting_during_a_save_is_saved_as_well(
    viewer, segmented, open_row, cohort, wait_until, monkeypatch
):
    keep, layers = sources.save_edits, []

    def save_and_paint(name, work, results):
        kept = keep(name, work, results)
        if not layers:
            layers.append(tumour_of(viewer, FIRST))
            layers[0].data[4, 1, :9] = 1  # painted just before the layers are removed
        return kept

    widget = segmented()
    open_row(widget, FIRST)
    monkeypatch.setattr(sources, "save_edits", save_and_paint)
    tumour_of(viewer, FIRST).paint((2, 5, 5), 1)
    open_row(widget, SECOND)
    kept = results_of(cohort).patient(FIRST).read_labels()
    np.testing.assert_array_equal(kept, layers[0].data)
    assert kept[4, 1, :9].all()


def test_edits_of_ground_truth_and_other_labels_are_saved(viewer, segmented, open_row, cohort, wait_until):
    widget = segmented()
    open_row(widget, FIRST)
    truth = viewer.layers["ground truth"]
    truth.paint((2, 5, 5), 1)
    mine = viewer.add_labels(np.zeros_like(truth.data), name="second reader")
    mine.paint((1, 9, 9), 3)
    tumour_of(viewer, FIRST).paint((3, 9, 9), 1)
    open_row(widget, SECOND)
    folder = results_of(cohort).folder / FIRST
    np.testing.assert_array_equal(tifffile.imread(folder / f"{FIRST}_ground truth edited.tif"), truth.data)
    np.testing.assert_array_equal(tifffile.imread(folder / f"{FIRST}_second reader edited.tif"), mine.data)
    assert "ground truth edited.tif" in status(widget)
    assert_message(status(widget))


def test_labels_drawn_for_a_patient_without_any_become_its_result(viewer, browse, open_row, cohort):
    widget = browse()
    open_row(widget, FIRST)
    mine = viewer.add_labels(np.zeros((6, 64, 64), np.uint8), name="Labels")
    mine.paint((1, 30, 30), 1)
    open_row(widget, SECOND)
    assert states(widget)[FIRST] == "corrected"
    np.testing.assert_array_equal(results_of(cohort).patient(FIRST).read_labels(), mine.data)
    open_row(widget, FIRST)
    np.testing.assert_array_equal(tumour_of(viewer, FIRST).data, mine.data)


def test_a_result_of_the_segment_widget_is_saved(viewer, browse, open_row, dock, run, cohort):
    widget = browse()
    open_row(widget, FIRST)
    run(dock())
    predicted = tumour_of(viewer, FIRST).data.copy()
    open_row(widget, SECOND)
    assert states(widget)[FIRST] == "segmented"
    stored = results_of(cohort).patient(FIRST).read()
    np.testing.assert_array_equal(stored.labels, predicted)
    assert stored.status.uncertainty is not None
    assert stored.status.made_with["model"] == "bright FLAIR"


def test_the_segment_widget_does_not_replace_corrections(viewer, segmented, open_row, dock, run, cohort):
    widget = segmented()
    open_row(widget, FIRST)
    tumour_of(viewer, FIRST).paint((2, 5, 5), 1)
    open_row(widget, SECOND)
    open_row(widget, FIRST)
    corrected = tumour_of(viewer, FIRST).data.copy()
    run(dock())
    assert roles(viewer).count("tumour") == 2
    open_row(widget, SECOND)
    assert states(widget)[FIRST] == "corrected"
    np.testing.assert_array_equal(results_of(cohort).patient(FIRST).read_labels(), corrected)


def test_edits_are_saved_after_a_stroke(viewer, segmented, open_row, cohort, wait_until, prefer):
    prefer(autosave_seconds=1)
    widget = segmented()
    open_row(widget, FIRST)
    layer = tumour_of(viewer, FIRST)
    layer.paint((2, 5, 5), 1)
    wait_until(lambda: states(widget)[FIRST] == "corrected")
    wait_until(lambda: np.array_equal(results_of(cohort).patient(FIRST).read_labels(), layer.data))
    assert open_patients(viewer) == [FIRST]
    assert layer in viewer.layers


def test_undo_is_saved_as_well(viewer, segmented, open_row, cohort, wait_until, prefer):
    prefer(autosave_seconds=1)
    widget = segmented()
    open_row(widget, FIRST)
    layer = tumour_of(viewer, FIRST)
    layer.paint((2, 5, 5), 1)
    layer.paint((2, 40, 40), 1)
    wait_until(lambda: np.array_equal(results_of(cohort).patient(FIRST).read_labels(), layer.data))
    layer.undo()
    wait_until(lambda: np.array_equal(results_of(cohort).patient(FIRST).read_labels(), layer.data))


def test_a_review_interrupted_by_a_crash_can_be_resumed(
    viewer,
    segmented,
    open_row,
    wait_until,
    prefer,
    click,
    sessions_folder,
):
    prefer(autosave_seconds=1)
    widget = segmented()
    assert not widget.resume_banner.row.native.isVisibleTo(widget.native)
    open_row(widget, FIRST)
    layer = tumour_of(viewer, FIRST)
    layer.paint((2, 5, 5), 1)
    painted = layer.data.copy()
    wait_until(lambda: any(sessions_folder.glob("*.json")))
    (note,) = sessions_folder.glob("*.json")
    of_dead = note.read_text().replace(f'"process": [{os.getpid()}, ', '"process": [999999999, ')
    viewer.window.remove_dock_widget(widget.native)  # which leaves nothing to resume ...
    assert not list(sessions_folder.glob("*.json"))
    viewer.layers.clear()
    (sessions_folder / "999999999.json").write_text(of_dead)  # ... as if it had been killed instead
    _, again = viewer.window.add_plugin_dock_widget("napari-lgg-seg", "Cohort")
    assert FIRST in again.resume_banner.text.value
    assert_message(again.resume_banner.text.value)
    click(again, f"Resume {FIRST}")
    wait_until(lambda: f"{FIRST} tumour" in viewer.layers)
    np.testing.assert_array_equal(tumour_of(viewer, FIRST).data, painted)
    assert states(again)[FIRST] == "corrected"
    assert not again.resume_banner.row.native.isVisibleTo(again.native)


def autosaved():
    """Names of the labels in the recovery folder."""
    return [edit_files.read(file).title for file in edit_files.recovery_folder().glob("*.npz")]


def test_edits_are_either_in_the_results_or_autosaved(
    viewer, segmented, open_row, cohort, wait_until, prefer, qtbot, patient_on_disk
):
    enable_autosave(viewer)
    prefer(autosave_seconds=1)
    widget = segmented()
    open_row(widget, FIRST)
    layer = tumour_of(viewer, FIRST)
    layer.paint((2, 5, 5), 1)
    wait_until(lambda: np.array_equal(results_of(cohort).patient(FIRST).read_labels(), layer.data))
    qtbot.wait(1500)  # long enough for a second autosave
    assert autosaved() == []
    layer.undo()
    wait_until(lambda: np.array_equal(results_of(cohort).patient(FIRST).read_labels(), layer.data))
    qtbot.wait(1500)
    assert autosaved() == []
    # Edits of a patient that does not belong to the cohort are autosaved.
    folder = cohort.parent / "elsewhere" / "TCGA_EZ_0009_20090909"
    shutil.copytree(patient_on_disk(folder.name), folder)
    viewer.open(str(folder), plugin="napari-lgg-seg")
    viewer.layers[f"{folder.name} ground truth"].paint((1, 3, 3), 2)
    wait_until(lambda: autosaved() == [f"{folder.name} ground truth"])


@pytest.mark.parametrize("first", ["layer", "dock"])
def test_edits_saved_at_the_last_moment_are_not_autosaved_too(
    viewer, segmented, open_row, cohort, first, wait_until
):
    enable_autosave(viewer)
    widget = segmented()
    open_row(widget, FIRST)
    layer = tumour_of(viewer, FIRST)
    layer.paint((2, 5, 5), 1)
    if first == "layer":
        viewer.layers.remove(layer)
    else:
        viewer.window.remove_dock_widget(widget.native)
    np.testing.assert_array_equal(results_of(cohort).patient(FIRST).read_labels(), layer.data)
    wait_until(threads_done)
    assert autosaved() == []


def test_a_patient_whose_layers_were_removed_opens_again(viewer, segmented, open_row):
    widget = segmented()
    open_row(widget, FIRST)
    shown = roles(viewer)
    viewer.layers.clear()
    open_row(widget, FIRST)
    assert roles(viewer) == shown


def test_a_patient_that_was_closed_is_not_offered(
    viewer,
    segmented,
    open_row,
    wait_until,
    prefer,
    sessions_folder,
):
    prefer(autosave_seconds=1)
    widget = segmented()
    open_row(widget, FIRST)
    tumour_of(viewer, FIRST).paint((2, 5, 5), 1)
    wait_until(lambda: any(sessions_folder.glob("*.json")))
    open_row(widget, SECOND)
    wait_until(lambda: not list(sessions_folder.glob("*.json")))


@pytest.mark.parametrize("close", ["viewer", "window", "dock", "layer"])
def test_closing_saves_edits(viewer, segmented, open_row, cohort, close, wait_until, sessions_folder):
    widget = segmented()
    open_row(widget, FIRST)
    layer = tumour_of(viewer, FIRST)
    layer.paint((2, 5, 5), 1)
    painted = layer.data.copy()
    if close == "viewer":
        viewer.close()
    elif close == "window":
        assert widget.native.window().close()
    elif close == "layer":
        viewer.layers.remove(layer)
    else:
        viewer.window.remove_dock_widget(widget.native)
        assert layer in viewer.layers
    wait_until(threads_done)
    np.testing.assert_array_equal(results_of(cohort).patient(FIRST).read_labels(), painted)
    assert results_of(cohort).patient(FIRST).status().by_hand
    assert close == "layer" or not list(sessions_folder.glob("*.json"))
    if close == "layer":
        assert cell(widget, FIRST, "Volume\nfound") == f"{np.count_nonzero(painted):,}"
        assert states(widget)[FIRST] == "corrected"


def test_a_late_worker_does_not_overwrite_edits_saved_on_closing(
    viewer, segmented, open_row, cohort, wait_until, monkeypatch
):
    resume, keep = threading.Event(), sources.save_edits
    monkeypatch.setattr(sources, "save_edits", lambda *args: (resume.wait(3), keep(*args))[1])
    widget = segmented()
    open_row(widget, FIRST)
    layer = tumour_of(viewer, FIRST)
    layer.paint((2, 5, 5), 1)
    widget.open_patient(SECOND)  # its worker has copied the edits, and waits
    layer.paint((3, 40, 40), 1)
    painted = layer.data.copy()
    viewer.close()
    resume.set()
    wait_until(threads_done)
    np.testing.assert_array_equal(results_of(cohort).patient(FIRST).read_labels(), painted)


def test_closing_asks_if_edits_cannot_be_saved(viewer, segmented, open_row, full_disk, answer):
    widget = segmented()
    open_row(widget, FIRST)
    tumour_of(viewer, FIRST).paint((2, 5, 5), 1)
    full_disk()
    window = widget.native.window()
    asked = answer("No")
    assert not window.close()
    assert "No space left" in asked[0]
    assert FIRST in asked[0]
    assert open_patients(viewer) == [FIRST]
    answer("Yes")
    assert window.close()
    assert len(asked) == 2
