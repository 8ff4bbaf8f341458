"""Fine-tune on the corrected patients of a cohort, and on old patients again."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from qtpy.QtCore import QEvent
from qtpy.QtWidgets import QApplication
from window import threads_done

pytest.importorskip("pyqtgraph")
pytest.importorskip("pyqtgraph")

from napari_lgg_seg.core.cohort.corrected import CorrectedPatient
from napari_lgg_seg.core.cohort.store import ResultStore
from napari_lgg_seg.core.data.label_files import LabelMap
from napari_lgg_seg.core.data.masks import write_patient
from napari_lgg_seg.core.data.patients import read_patient
from napari_lgg_seg.core.model.checkpoint import read_card
from napari_lgg_seg.widgets.review.review_session import session_of

NAMES = [f"TCGA_DU_000{n}_19990101" for n in range(1, 5)]
OLD = [f"TCGA_HT_000{n}_20000202" for n in range(1, 7)]
CORRECTED = "Corrected patients of a cohort"

pytestmark = pytest.mark.filterwarnings("error:Private attribute access:FutureWarning")


@pytest.fixture
def cohort(patient_on_disk):
    """A dataset of four patients, of which three are corrected and one is segmented; folders of both."""
    for seed, name in enumerate(NAMES):
        dataset = patient_on_disk(name, seed=seed).parent
    results = ResultStore(dataset.with_name("corrections"))
    for name in NAMES:
        patient = read_patient(dataset / name)
        labels = 2 * patient.truth
        labels[0, 3, 3] = 5
        label_map = LabelMap(name, labels, patient.slice_numbers)
        if name == NAMES[-1]:
            results.patient(name).write_prediction(
                label_map, probability=patient.truth.astype(np.float32), keep_probability=True
            )
        else:
            results.patient(name).write_edits(label_map)
    return dataset, results.folder


@pytest.fixture
def old(tmp_path, make_patient):
    """A folder of old patients, one of which is also among the corrected ones."""
    for seed, name in enumerate([*OLD, NAMES[0]]):
        write_patient(tmp_path / "old" / name, make_patient(name, seed=seed))
    return tmp_path / "old"


@pytest.fixture
def choose(dock_finetune, cohort, wait_until):
    """Factory: dock the widget and choose the corrected patients of the cohort."""

    def choose_(epochs=1):
        widget = dock_finetune(epochs=epochs)
        c = widget.controls
        c.source.value = CORRECTED
        c.patients.value, c.results.value = cohort
        wait_until(lambda: c.found.value == "3 corrected patients.")
        return widget

    return choose_


@pytest.fixture
def choose_old(old, wait_until):
    """Factory: choose the folder of old patients."""

    def choose_(widget, folder=old, found="7 patients with images and masks."):
        widget.controls.old.value = folder
        wait_until(lambda: widget.controls.old_found.value == found)

    return choose_


def names_of(sources):
    return [source.name for source in sources]


# --- corrected patients -----------------------------------------------------------------------------------


def test_corrected_labels_are_used_as_ground_truth(choose, train, asked, cohort):
    widget = choose()
    assert "Ready to train on 2 patients, with 1 for validation" in widget.status.value
    train(widget)
    sources = [*asked.training, *asked.validation]
    assert sorted(names_of(sources)) == NAMES[:3]
    for source in sources:
        assert isinstance(source, CorrectedPatient)
        truth = source.read().truth
        assert truth[0, 3, 3] == 1
        assert truth.sum() == read_patient(cohort[0] / source.name).truth.sum() + 1


def test_a_second_folder_of_a_corrected_patient_is_named(dock_finetune, cohort, wait_until):
    dataset, results = cohort
    shutil.copytree(dataset / NAMES[0], dataset / "again")
    patient = read_patient(dataset / "again")
    label_map = LabelMap(patient.name, patient.truth, patient.slice_numbers)
    ResultStore(results).patient("again").write_edits(label_map)
    c = dock_finetune().controls
    c.source.value = CORRECTED
    c.patients.value, c.results.value = cohort
    wait_until(lambda: c.found.value.startswith("3 corrected patients. Left out: "))
    assert str(dataset / "again") in c.found.value
    assert str(dataset / NAMES[0]) in c.found.value


def test_message_if_no_patient_is_corrected(dock_finetune, cohort, wait_until, tmp_path):
    widget = dock_finetune()
    c = widget.controls
    c.source.value = CORRECTED
    assert "results" in widget.status.value
    c.patients.value = cohort[0]
    assert c.results.value == cohort[0].with_name(f"{cohort[0].name}-results")
    wait_until(lambda: "is no folder" in widget.status.value)
    (tmp_path / "empty").mkdir()
    c.results.value = tmp_path / "empty"
    wait_until(lambda: "No patient of this cohort is corrected yet" in c.found.value)
    assert not widget.button.enabled


def test_only_controls_of_the_chosen_source_are_shown(choose):
    widget = choose()
    c = widget.controls

    def shown():
        return [e.label for e in (c.folder, c.patients, c.results) if e.native.isVisibleTo(widget.native)]

    assert shown() == ["Patients", "Results"]
    assert not widget.sources.table.isVisibleTo(widget.native)
    c.source.value = "Folder of patients..."
    assert shown() == ["Folder"]
    c.source.value = "Patients open in the viewer"
    assert shown() == []
    assert widget.sources.table.isVisibleTo(widget.native)


def test_the_cohort_under_review_is_filled_in(viewer, dock_finetune, cohort, wait_until, tmp_path):
    session = session_of(viewer)
    session.choose_cohort(*cohort)
    c = dock_finetune().controls
    assert (c.patients.value, c.results.value) == cohort
    c.source.value = CORRECTED
    wait_until(lambda: c.found.value == "3 corrected patients.")
    elsewhere = tmp_path / "a", tmp_path / "b"
    session.choose_cohort(*elsewhere)
    assert (c.patients.value, c.results.value) == elsewhere
    c.results.value = tmp_path / "c"  # the user's choice is kept
    session.choose_cohort(*cohort)
    assert (c.patients.value, c.results.value) == (elsewhere[0], tmp_path / "c")


def test_newly_corrected_patients_are_used(viewer, choose, cohort, wait_until, click, asked):
    widget = choose()
    _, browser = viewer.window.add_plugin_dock_widget("napari-lgg-seg", "Cohort")
    browser.open_dataset(*cohort)
    wait_until(lambda: "3 corrected" in browser.controls.found.value)
    browser.open_patient(NAMES[-1])
    wait_until(lambda: browser.open_name == NAMES[-1])
    click(browser, "Accept")
    wait_until(lambda: widget.controls.found.value == "4 corrected patients.")
    # Edits are saved before the file is read.
    layer = viewer.layers[f"{NAMES[-1]} tumour"]
    layer.data_setitem((np.array([1]), np.array([60]), np.array([61])), 1)
    click(widget, "Start")
    wait_until(lambda: hasattr(asked, "training") and widget.button.text == "Start")
    (source,) = [s for s in [*asked.training, *asked.validation] if s.name == NAMES[-1]]
    assert source.read().truth[1, 60, 61] == 1


def test_accepted_labels_of_open_patients_are_proposed(viewer, open_patient, dock, run, click, dock_finetune):
    names = NAMES[:2]
    for seed, name in enumerate(names):
        open_patient(name, seed=seed)
        run(dock())
    _, correct = viewer.window.add_plugin_dock_widget("napari-lgg-seg", "Correct")
    for name in names:
        correct.menu.value = viewer.layers[f"{name} tumour"]
        click(correct, "Accept")
        assert correct.status.value.startswith(f"{name}: '{name} tumour' counts as corrected")
    assert "2 patients are corrected so far; Fine-tune can train on them." in correct.status.value
    chosen = dock_finetune().sources.table.chosen()
    assert [layer.name for _, layer in chosen] == [f"{name} tumour" for name in names]


# --- old patients --------------------------------------------------------------


def test_old_patients_train_and_never_validate(choose, choose_old, train, asked, old):
    widget = choose()
    choose_old(widget)
    assert "Ready to train on 2 patients and 2 old patients, with 1 for validation" in widget.status.value
    widget.controls.old_share.value = 0.75
    assert "Ready to train on 2 patients and 6 old patients, with 1 for validation" in widget.status.value
    train(widget)
    assert names_of(asked.training)[2:] == OLD
    assert {source.parent for source in asked.training[2:]} == {old}
    assert set(names_of(asked.validation)) <= set(NAMES[:3])


def test_old_patients_in_addition_to_open_ones(
    open_patients, dock_finetune, choose_old, train, asked, wait_until
):
    open_patients(3)
    widget = dock_finetune()
    choose_old(widget)
    assert "Ready to train on 2 patients and 2 old patients, with 1 for validation" in widget.status.value
    train(widget)
    assert len([source for source in asked.training if isinstance(source, Path)]) == 2


def test_the_share_is_shown_once_old_patients_are_chosen(choose, choose_old):
    widget = choose()
    share = widget.controls.old_share.native
    assert not share.isVisibleTo(widget.native)
    choose_old(widget)
    assert share.isVisibleTo(widget.native)


def test_a_missing_folder_of_old_patients_is_reported(choose, choose_old, tmp_path):
    widget = choose()
    folder = tmp_path / "nowhere"
    sentence = f"{folder} is no folder; choose the folder that holds the patients' folders."
    choose_old(widget, folder, sentence)
    assert sentence in widget.status.value
    assert not widget.button.enabled
    widget.controls.old.line_edit.value = ""
    assert widget.button.enabled


def test_the_model_records_all_its_patients(viewer, choose, choose_old, train, tuned, notices):
    widget = choose()
    choose_old(widget)
    train(widget)
    card = read_card(tuned)
    assert "Dice" in widget.status.value
    assert len(card.training_patients) == 4
    assert len(set(card.training_patients) & set(OLD)) == 2
    assert sorted({*card.training_patients, *card.validation_patients} - set(OLD)) == NAMES[:3]
    # No patient was open, so the preview shows the images of a corrected one.
    (preview,) = [layer for layer in viewer.layers if layer.name.endswith("preview")]
    assert preview.metadata["lgg"]["patient"] == card.validation_patients[0]
    assert notices == []


def test_closing_stops_the_scans(viewer, choose, old, wait_until, notices):
    widget = choose()
    widget.controls.old.value = old
    viewer.window.remove_dock_widget(widget.native)
    widget.native.deleteLater()
    QApplication.sendPostedEvents(widget.native, QEvent.Type.DeferredDelete)
    session_of(viewer).choose_cohort(Path("a"), Path("b"))
    wait_until(threads_done)
    assert notices == []
