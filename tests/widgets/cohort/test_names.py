"""Folders that are called differently from their patients, or that hold no patient or one a second time."""

from __future__ import annotations

import pytest
from cohort_window import (
    FIRST,
    SECOND,
    cell,
    found,
    open_patients,
    results_of,
    run_status,
    run_to_end,
    running,
    select,
    shown,
    states,
    status,
    tumour_of,
)
from qtpy.QtCore import Qt
from window import assert_message

from napari_lgg_seg.core.data.label_files import LabelMap
from napari_lgg_seg.core.data.patients import read_patient

pytestmark = pytest.mark.filterwarnings("error:Private attribute access:FutureWarning")


@pytest.fixture
def cohort(patient_on_disk):
    """Folders ``a`` and ``b`` of two patients, ``again`` with the first one, and ``empty``."""
    for seed, (name, folder) in enumerate(((FIRST, "a"), (SECOND, "b"), (FIRST, "again"))):
        written = patient_on_disk(name, seed=seed)
        written.rename(written.parent / folder)
    dataset = written.parent
    (dataset / "empty").mkdir()
    return dataset


def store(cohort, name, folder):
    """Correct a patient's labels as if in an earlier session: all of its ground truth."""
    labels = read_patient(cohort / folder).truth
    results_of(cohort).patient(name).write_edits(LabelMap(name, labels))
    return labels


def test_patients_are_named_as_in_their_files(browse, cohort):
    labels = store(cohort, SECOND, "b")
    widget = browse()
    assert shown(widget) == sorted([FIRST, SECOND, "again", "empty"])
    assert found(widget) == "4 patients: 1 new, 1 corrected, 2 cannot be read."
    assert states(widget) == {
        FIRST: "new",
        SECOND: "corrected",
        "again": "cannot be read",
        "empty": "cannot be read",
    }
    assert cell(widget, SECOND, "Volume\nfound") == f"{labels.sum():,}"
    assert cell(widget, FIRST, "Patient", Qt.ItemDataRole.ToolTipRole) == str(cohort / "a")


def test_folders_that_cannot_be_used_are_shown_with_the_reason_and_not_opened(
    viewer, browse, cohort, open_row
):
    widget = browse()
    open_row(widget, FIRST)
    reasons = {
        "again": f"{cohort / 'again'} holds {FIRST} a second time, after {cohort / 'a'}; rename one of them",
        "empty": f"{cohort / 'empty'} holds no slices",
    }
    for name, reason in reasons.items():
        assert cell(widget, name, "State", Qt.ItemDataRole.ToolTipRole).startswith(reason)
        assert cell(widget, name, "Volume\ntrue") is None
        widget.open_patient(name)
        assert status(widget).startswith(reason)
        assert_message(status(widget))
        assert open_patients(viewer) == [FIRST]


def test_corrections_are_saved_under_the_name_in_the_files(
    viewer, browse, cohort, open_row, click, wait_until
):
    store(cohort, FIRST, "a")
    widget = browse()
    open_row(widget, FIRST)
    tumour_of(viewer, FIRST).paint((2, 5, 5), 1)
    painted = tumour_of(viewer, FIRST).data.copy()
    click(widget, "Accept")
    wait_until(lambda: "is corrected so far" in status(widget))
    assert (results_of(cohort).patient(FIRST).read_labels() == painted).all()
    assert [f.name for f in results_of(cohort).folder.iterdir() if f.is_dir()] == [FIRST]
    assert states(widget)["again"] == "cannot be read"


def test_segment_all_leaves_out_folders_that_cannot_be_used(browse, cohort, click, wait_until):
    widget = browse()
    run_to_end(widget, click, wait_until)
    assert run_status(widget).startswith(f"2 patients segmented. 2 patients failed: {cohort / 'again'} holds")
    assert_message(run_status(widget))
    assert states(widget) == {
        FIRST: "segmented",
        SECOND: "segmented",
        "again": "cannot be read",
        "empty": "cannot be read",
    }
    assert cell(widget, FIRST, "Volume\nfound") is not None
    assert not (results_of(cohort).folder / "again").exists()


@pytest.mark.parametrize("button", ["Segment selected", "Export masks..."])
def test_a_selection_of_folders_that_cannot_be_used_does_nothing(
    browse, cohort, click, wait_until, choose_folder, tmp_path, button
):
    store(cohort, FIRST, "a")
    widget = browse()
    select(widget, "again")
    choose_folder(tmp_path / "masks")
    click(widget, button)
    wait_until(lambda: "1 patient failed" in run_status(widget))
    assert run_status(widget).startswith("0 patients ")
    assert f"{cohort / 'again'} holds {FIRST} a second time" in run_status(widget)
    assert not running(widget)
    assert not (tmp_path / "masks").exists()
    assert states(widget)[FIRST] == "corrected"


def test_masks_are_exported_under_the_name_in_the_files(
    browse, cohort, click, wait_until, choose_folder, tmp_path
):
    labels = store(cohort, SECOND, "b")
    widget = browse()
    select(widget, SECOND, "empty")
    choose_folder(tmp_path / "masks")
    click(widget, "Export masks...")
    wait_until(lambda: run_status(widget).startswith("1 patient exported") and not running(widget))
    assert f"1 patient failed: {cohort / 'empty'} holds no slices" in run_status(widget)
    (exported,) = (tmp_path / "masks").iterdir()
    assert exported.name == SECOND
    assert (read_patient(exported).truth == labels).all()


def test_a_patient_may_be_given_by_the_name_of_its_folder(viewer, browse, cohort, wait_until):
    widget = browse()
    widget.open_dataset(cohort, patient="b")
    wait_until(lambda: open_patients(viewer) == [SECOND])
