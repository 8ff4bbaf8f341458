"""Segmenting the patients of a cohort, and reviewing them by uncertainty."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import tifffile
from cohort_window import (
    BROKEN,
    FIRST,
    NAMES,
    SECOND,
    THIRD,
    cell,
    labels_file,
    open_patients,
    results_of,
    roles,
    run_status,
    run_to_end,
    running,
    select,
    shown,
    states,
    status,
    tumour_of,
)
from qtpy.QtWidgets import QApplication
from window import assert_message, threads_done

import napari_lgg_seg as lgg
from napari_lgg_seg.core.atomic import cannot_read
from napari_lgg_seg.core.cohort.patient_results import PatientResults
from napari_lgg_seg.core.data.label_files import LabelMap
from napari_lgg_seg.core.data.patients import read_patient
from napari_lgg_seg.core.evaluation.metrics import dice
from napari_lgg_seg.core.model.checkpoint import DEFAULT_MODEL

pytestmark = pytest.mark.filterwarnings("error:Private attribute access:FutureWarning")


def test_segment_all_gives_the_api_results_and_continues_after_a_broken_patient(
    browse, click, wait_until, cohort, small_model
):
    widget = browse()
    click(widget, "Segment all")
    wait_until(lambda: " of 4: " in run_status(widget))
    wait_until(lambda: not running(widget))
    assert run_status(widget).startswith("3 patients segmented. 1 patient failed:")
    assert f"{BROKEN}_3.tif" in run_status(widget)
    assert_message(run_status(widget))
    assert states(widget) == {**dict.fromkeys(NAMES, "segmented"), BROKEN: "cannot be read"}
    for name in NAMES:
        patient = read_patient(cohort / name)
        plain = lgg.segment(patient, lgg.load_model(small_model))
        np.testing.assert_array_equal(results_of(cohort).patient(name).read_labels(), plain.labels)
        assert cell(widget, name, "Dice") == f"{dice(plain.labels, patient.truth):.3f}"
        assert cell(widget, name, "Volume\nfound") == f"{plain.labels.sum():,}"
        assert 0 <= float(cell(widget, name, "Uncertainty")) <= 1


def test_segment_all_skips_patients_done_with_this_model(browse, click, wait_until, cohort, answer):
    shutil.rmtree(cohort / BROKEN)
    widget = browse()
    run_to_end(widget, click, wait_until)
    files = [labels_file(cohort, name) for name in NAMES]
    stamps = [f.stat().st_mtime_ns for f in files]
    asked = answer("Yes")
    run_to_end(widget, click, wait_until)
    assert "nothing to segment: 3 patients already segmented with this model" in run_status(widget)
    assert [f.stat().st_mtime_ns for f in files] == stamps
    # Other options are another run.
    widget.controls.tta.value = True
    run_to_end(widget, click, wait_until)
    assert run_status(widget).startswith("3 patients segmented")
    assert all(f.stat().st_mtime_ns != stamp for f, stamp in zip(files, stamps, strict=True))
    assert asked == []


@pytest.mark.parametrize("file_format", ["tiff", "masks"])
def test_results_of_the_command_line_are_shown_and_done(
    viewer, browse, click, open_row, wait_until, cohort, small_model, file_format
):
    shutil.rmtree(cohort / BROKEN)
    folder = results_of(cohort).folder
    list(lgg.segment_cohort(cohort, folder, small_model, file_format=file_format))
    widget = browse()
    assert set(states(widget).values()) == {"segmented"}
    assert all(cell(widget, name, "Uncertainty") for name in NAMES)
    if file_format == "tiff":
        run_to_end(widget, click, wait_until)
        assert "nothing to segment: 3 patients already segmented with this model" in run_status(widget)
    open_row(widget, FIRST)
    stored = results_of(cohort).patient(FIRST)
    np.testing.assert_array_equal(tumour_of(viewer, FIRST).data, stored.read_labels())
    tumour_of(viewer, FIRST).paint((2, 5, 5), 1)
    painted = tumour_of(viewer, FIRST).data.copy()
    open_row(widget, SECOND)
    assert states(widget)[FIRST] == "corrected"
    np.testing.assert_array_equal(stored.read_labels(), painted)
    list(lgg.segment_cohort(cohort / FIRST, folder, small_model, overwrite=True))
    np.testing.assert_array_equal(stored.read_labels(), painted)


def test_segment_all_skips_corrected_labels_and_says_so(
    viewer, segmented, open_row, click, wait_until, cohort
):
    widget = segmented()
    open_row(widget, FIRST)
    layer = tumour_of(viewer, FIRST)
    layer.paint((2, 5, 5), 1)  # not even saved yet
    painted = layer.data.copy()
    widget.controls.tta.value = True
    run_to_end(widget, click, wait_until)
    assert "1 patient with corrected labels" in run_status(widget)
    assert states(widget)[FIRST] == "corrected"
    np.testing.assert_array_equal(results_of(cohort).patient(FIRST).read_labels(), painted)
    np.testing.assert_array_equal(layer.data, painted)


def test_labels_of_another_program_are_not_called_corrected(browse, click, wait_until, cohort, answer):
    shutil.rmtree(cohort / BROKEN)
    file = labels_file(cohort, FIRST)
    file.parent.mkdir(parents=True)
    tifffile.imwrite(file, np.zeros(read_patient(cohort / FIRST).shape, np.uint8))
    before = file.read_bytes()
    widget = browse()
    run_to_end(widget, click, wait_until)
    assert "Skipped: 1 patient with labels of another program, which are kept." in run_status(widget)
    assert "corrected" not in run_status(widget)
    asked = answer("Cancel")
    select(widget, FIRST, SECOND)
    click(widget, "Segment selected")
    assert len(asked) == 1
    assert f"{FIRST} has labels that another program made or changed" in asked[0]
    assert file.read_bytes() == before


def test_results_that_cannot_be_read_leave_the_others_in_the_table(browse, cohort, monkeypatch):
    status_of = PatientResults.status

    def refuse(results, *args, **kwargs):
        if results.name == FIRST:
            raise cannot_read(results.folder, PermissionError(13, "Permission denied"))
        return status_of(results, *args, **kwargs)

    monkeypatch.setattr(PatientResults, "status", refuse)
    found = states(browse())
    assert found[FIRST] == "cannot be read"
    assert {found[name] for name in (SECOND, THIRD)} == {"new"}


@pytest.mark.parametrize("button", ["Yes", "No", "Cancel"])
def test_segment_selected_asks_before_replacing_corrections(
    viewer, segmented, click, wait_until, cohort, answer, open_row, button
):
    widget = segmented()
    open_row(widget, FIRST)
    tumour_of(viewer, FIRST).paint((2, 5, 5), 1)
    painted = tumour_of(viewer, FIRST).data.copy()
    open_row(widget, SECOND)
    stamp = labels_file(cohort, SECOND).stat().st_mtime_ns
    asked = answer(button)
    select(widget, FIRST, SECOND)
    click(widget, "Segment selected")
    wait_until(lambda: len(asked) == 1 and not running(widget))
    assert FIRST in asked[0]
    corrected_is_there = np.array_equal(results_of(cohort).patient(FIRST).read_labels(), painted)
    assert corrected_is_there == (button != "Yes")
    assert states(widget)[FIRST] == ("segmented" if button == "Yes" else "corrected")
    done_again = labels_file(cohort, SECOND).stat().st_mtime_ns != stamp
    assert done_again == (button != "Cancel")


def test_replacing_the_open_patients_corrections_shows_the_new_labels(
    viewer, segmented, click, wait_until, cohort, answer, open_row
):
    widget = segmented()
    predicted = results_of(cohort).patient(FIRST).read_labels()
    open_row(widget, FIRST)
    tumour_of(viewer, FIRST).paint((2, 5, 5), 1)
    answer("Yes")
    select(widget, FIRST)
    click(widget, "Segment selected")
    wait_until(lambda: run_status(widget).startswith("1 patient segmented"))
    wait_until(lambda: np.array_equal(tumour_of(viewer, FIRST).data, predicted))
    assert roles(viewer).count("tumour") == 1
    open_row(widget, SECOND)
    assert states(widget)[FIRST] == "segmented"


def test_what_another_window_corrected_since_the_listing_is_kept_and_shown(browse, click, wait_until, cohort):
    widget = browse()
    other = results_of(cohort).patient(FIRST)
    other.write_edits(LabelMap(FIRST, np.zeros(read_patient(cohort / FIRST).shape, np.uint8)))
    assert states(widget)[FIRST] == "new"
    run_to_end(widget, click, wait_until)
    assert "1 patient with corrected labels, which are kept" in run_status(widget)
    assert states(widget)[FIRST] == "corrected"
    assert not other.read_labels().any()


def test_segment_selected_without_a_selection_says_so(browse, click):
    widget = browse()
    select(widget)
    click(widget, "Segment selected")
    assert "Select patients" in run_status(widget)
    assert not running(widget)


def test_the_open_patient_shows_its_new_result(viewer, browse, open_row, click, wait_until, cohort):
    widget = browse()
    open_row(widget, FIRST)
    run_to_end(widget, click, wait_until)
    wait_until(lambda: f"{FIRST} tumour" in viewer.layers)
    np.testing.assert_array_equal(
        tumour_of(viewer, FIRST).data, results_of(cohort).patient(FIRST).read_labels()
    )
    assert f"{FIRST} probability" in viewer.layers
    assert "segmented" in status(widget)


def test_painting_during_the_run_is_not_disturbed(viewer, browse, open_row, click, wait_until, gate, cohort):
    widget = browse()
    open_row(widget, FIRST)
    select(widget, FIRST)
    click(widget, "Segment selected")
    wait_until(gate.reached.is_set)
    mine = viewer.add_labels(np.zeros((6, 64, 64), np.uint8))
    mine.paint((1, 30, 30), 1)
    painted = mine.data.copy()
    gate.open()
    wait_until(lambda: not running(widget))
    QApplication.processEvents()
    np.testing.assert_array_equal(mine.data, painted)
    open_row(widget, SECOND)
    np.testing.assert_array_equal(results_of(cohort).patient(FIRST).read_labels(), painted)
    assert states(widget)[FIRST] == "corrected"


def test_cancel_keeps_what_is_done(viewer, browse, click, wait_until, gate, cohort):
    widget = browse()
    click(widget, "Segment all")
    wait_until(gate.reached.is_set)
    assert not widget.controls.dataset.enabled
    click(widget, "Cancel")
    gate.open()
    wait_until(lambda: not running(widget))
    assert run_status(widget) == "Cancelled: 0 patients segmented."
    assert "segmented" not in states(widget).values()
    assert widget.controls.dataset.enabled
    wait_until(threads_done)
    run_to_end(widget, click, wait_until)
    assert list(states(widget).values()).count("segmented") == 3


def test_patients_can_be_opened_during_a_run(viewer, browse, click, wait_until, gate, open_row):
    widget = browse()
    click(widget, "Segment all")
    wait_until(gate.reached.is_set)
    open_row(widget, SECOND)
    gate.open()
    wait_until(lambda: not running(widget))
    assert open_patients(viewer) == [SECOND]


def test_a_missing_model_is_reported(browse, click, wait_until, tmp_path, small_model):
    widget = browse()
    gone = tmp_path / "gone.safetensors"
    shutil.copy(small_model, gone)
    widget.controls.model.offer(gone)
    gone.unlink()
    run_to_end(widget, click, wait_until)
    assert "gone.safetensors" in run_status(widget)
    assert_message(run_status(widget))
    assert not running(widget)


def test_the_window_may_be_closed_during_a_run(viewer, browse, click, wait_until, gate, cohort, notices):
    widget = browse()
    click(widget, "Segment all")
    wait_until(gate.reached.is_set)
    viewer.close()
    gate.open()
    wait_until(threads_done)
    states = {status.state for status in results_of(cohort).statuses(NAMES).found.values()}
    assert "new" in states, "the run went on"
    assert notices == []


def test_most_uncertain_first_starts_with_patients_without_tumour(browse, click, cohort, make_head, all_read):
    results, rng = results_of(cohort), np.random.default_rng(0)
    for name, doubt in ((FIRST, 0.1), (SECOND, 0.4)):
        truth = read_patient(cohort / name).truth
        probability = np.clip(truth + doubt * rng.random(truth.shape), 0, 1 - doubt).astype(np.float32)
        labels = (probability >= 0.5).astype(np.uint8)
        results.patient(name).write_prediction(
            LabelMap(name, labels), probability=probability, keep_probability=True
        )
    shape = read_patient(cohort / THIRD).truth.shape
    nothing = np.zeros(shape, np.uint8)
    results.patient(THIRD).write_prediction(
        LabelMap(THIRD, nothing), probability=nothing.astype(np.float32), keep_probability=True
    )
    widget = browse()
    click(widget, "Most uncertain first")
    assert shown(widget) == [THIRD, SECOND, FIRST, BROKEN]
    assert cell(widget, THIRD, "Uncertainty") == "none found"
    doubts = [float(cell(widget, name, "Uncertainty")) for name in (SECOND, FIRST)]
    assert 1 > doubts[0] > doubts[1] > 0
    for name in (FIRST, SECOND):
        status = results.patient(name).status()
        assert cell(widget, name, "Uncertainty") == f"{1 - status.expected_dice:.3f}"
        assert cell(widget, name, "Mean\nentropy") == f"{status.uncertainty:.3f}"


def test_the_order_by_uncertainty_stays_while_reviewing(viewer, segmented, click, wait_until):
    widget = segmented()
    click(widget, "Most uncertain first")
    order = shown(widget)
    for name in order[:3]:
        click(widget, "Next >")
        wait_until(lambda name=name: open_patients(viewer) == [name])
        click(widget, "Accept")
        wait_until(lambda name=name: states(widget)[name] == "corrected")
        assert shown(widget) == order


def test_next_continues_where_a_filter_has_removed_the_patient(viewer, segmented, click, wait_until):
    widget = segmented()
    widget.controls.state.value = "segmented"
    for name in shown(widget):
        click(widget, "Next >")
        wait_until(lambda name=name: open_patients(viewer) == [name])
        click(widget, "Accept")
        wait_until(lambda name=name: name not in shown(widget))
    click(widget, "Next >")
    assert "last patient" in status(widget)


def test_changes_after_the_click_do_not_count(viewer, segmented, open_row, click, wait_until, cohort):
    """The open patient's edits are saved first, which takes a moment."""
    widget = segmented()
    open_row(widget, FIRST)
    tumour_of(viewer, FIRST).paint((2, 5, 5), 1)
    select(widget, SECOND)
    widget.controls.run_status.value = ""
    click(widget, "Segment selected")
    model = widget.controls.model.path
    widget.controls.tta.value = not widget.controls.tta.value
    widget.controls.model.combo.value = DEFAULT_MODEL
    select(widget, THIRD)
    wait_until(lambda: run_status(widget) != "" and not running(widget))
    job = widget.runs._run.job
    assert list(job.patients.values()) == [SECOND]
    assert (job.model, job.options.tta) == (model, not widget.controls.tta.value)
    assert run_status(widget).startswith("1 patient segmented")


def test_another_folder_after_the_click_stops_the_run(browse, wait_until, tmp_path, cohort):
    widget = browse()
    settings = widget.runs.settings()
    other = tmp_path / "elsewhere"
    shutil.copytree(cohort / THIRD, other / THIRD)
    widget.open_dataset(other)
    wait_until(lambda: shown(widget) == [THIRD])
    widget.runs.segment_all(settings)
    assert not running(widget)
    assert "another folder was chosen" in run_status(widget)
    assert_message(run_status(widget))
