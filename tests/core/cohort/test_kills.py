"""Writers of results that are killed at any moment leave the old result or the new one, never a mixture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from killing import kills

from napari_lgg_seg.core.cohort.patient_results import PatientResults
from napari_lgg_seg.core.cohort.store import ResultStore
from napari_lgg_seg.core.data.label_files import LabelMap, label_files
from napari_lgg_seg.core.data.label_reading import read_labels
from napari_lgg_seg.core.data.patients import read_patient
from napari_lgg_seg.core.data.provenance import Provenance

NAME = "P_1"
SHAPE = (2, 8, 8)
OLD, NEW = np.zeros(SHAPE, np.uint8), np.ones(SHAPE, np.uint8)
OLD_RUN, NEW_RUN = (Provenance("0", model, {}, "0.1.0") for model in ("old", "new"))


def label_map(labels):
    return LabelMap(NAME, labels, (1, 2))


def probability(labels):
    return labels * np.float32(0.8) + np.float32(0.1)


def predict(patient, labels, run, file_format, **options):
    options = {"provenance": run, "probability": probability(labels), "keep_probability": True, **options}
    patient.write_prediction(label_map(labels), file_format, **options)


def patient_of(folder: Path) -> PatientResults:
    return ResultStore(folder / "results").patient(NAME)


# --- what is killed --------------------------------------------------------------------------------


def prepare_nothing(folder):
    pass


def prepare_predictions(folder):
    for file_format in ("masks", "tiff"):
        predict(patient_of(folder), OLD, OLD_RUN, file_format)


def prepare_nifti(folder):
    predict(patient_of(folder), OLD, OLD_RUN, "nifti")


def write_tiff(folder):
    predict(patient_of(folder), NEW, NEW_RUN, "tiff", overwrite=True)


def write_masks(folder):
    predict(patient_of(folder), NEW, NEW_RUN, "masks", overwrite=True)


def write_nifti(folder):
    predict(patient_of(folder), NEW, NEW_RUN, "nifti", overwrite=True)


def write_edits(folder):
    patient_of(folder).write_edits(label_map(NEW))


def write_copy(folder):
    patient_of(folder).write_copy(label_map(NEW), "masks", by_hand=True, overwrite=True)


def accept(folder):
    patient_of(folder).accept()


def mark_exported(folder):
    patient_of(folder).mark_exported()


def read(folder):
    patient_of(folder).read()


PREDICTIONS = [
    (prepare_predictions, write_tiff, "tiff"),
    (prepare_predictions, write_masks, "masks"),
    (prepare_nifti, write_nifti, "nifti"),
]


# --- what is read afterwards -------------------------------------------------------------------------


def assert_whole(folder: Path) -> str:
    """Every reader finds the same result; returns which, and checks whose it is and its probability."""
    patient = patient_of(folder)
    found = []
    if label_files(patient.folder, NAME, "masks"):
        found.append(read_patient(patient.folder).truth)  # as another patient's folder, not as a result
    paths = (path for f in ("tiff", "nifti") for path in label_files(patient.folder, NAME, f))
    found += [read_labels(path) for path in paths]
    stored = patient.read(SHAPE)
    if stored is None:
        assert not found
        return "nothing"
    found.append(stored.labels)
    values = {int(labels.max()) for labels in found} | {int(labels.min()) for labels in found}
    assert len(values) == 1, "a mixture of two results"
    assert stored.status.state != "foreign"
    state = "new" if values == {1} else "old"
    if stored.probability is not None and not stored.status.by_hand:
        np.testing.assert_allclose(stored.probability, probability(stored.labels), atol=0.01)
    hidden = [path for path in folder.rglob(".*") if not path.name.endswith(".json")]
    assert hidden == [], "leftovers"
    return f"{state} {'person' if stored.status.by_hand else 'model'}"


def outcomes(prepare, write, tmp_path, *, half_written=False) -> list[str]:
    """What is found after each kill."""
    return [
        assert_whole(killed.folder) for killed in kills(prepare, write, tmp_path, half_written=half_written)
    ]


@pytest.mark.parametrize(("prepare", "write", "file_format"), PREDICTIONS, ids=["tiff", "masks", "nifti"])
def test_a_killed_prediction(tmp_path, prepare, write, file_format):
    found = []
    for killed in kills(prepare, write, tmp_path):
        found.append(assert_whole(killed.folder))
        standing = patient_of(killed.folder).status(NEW_RUN, file_format, verify=True).standing
        assert standing == ("finished" if found[-1] == "new model" else "in the way"), killed
    assert set(found) == {"new model", "old model"}
    assert found == sorted(found, reverse=True), "old first, then new"


@pytest.mark.parametrize("write", [write_tiff, write_masks, write_edits, write_copy])
def test_files_are_on_the_disk_before_they_count(tmp_path, write):
    """A power failure loses what was not synced."""
    found = set(outcomes(prepare_predictions, write, tmp_path, half_written=True))
    assert found == {"old model", "new model" if write in (write_tiff, write_masks) else "new person"}


@pytest.mark.parametrize("write", [write_tiff, write_masks, write_nifti])
def test_a_killed_first_prediction(tmp_path, write):
    found = []
    for killed in kills(prepare_nothing, write, tmp_path):
        found.append(assert_whole(killed.folder))
        write(killed.folder)
        assert assert_whole(killed.folder) == "new model"
    assert set(found) == {"nothing", "new model"}


@pytest.mark.parametrize(
    ("write", "after"), [(write_edits, "new person"), (write_copy, "new person"), (accept, "old person")]
)
def test_killed_corrections_exports_and_accepting(tmp_path, write, after):
    assert set(outcomes(prepare_predictions, write, tmp_path)) == {"old model", after}


def test_a_killed_note_of_an_export(tmp_path):
    for killed in kills(prepare_predictions, mark_exported, tmp_path):
        assert assert_whole(killed.folder) == "old model"
        assert patient_of(killed.folder).status().state in ("segmented", "exported")


def prepare_half_written(folder):
    """A prediction that was committed, and none of whose files are in place yet."""
    prepare_predictions(folder)
    patient = patient_of(folder)
    (patient.folder / ".lgg-committed").mkdir()
    other = ResultStore(folder / "other").patient(NAME)
    for file_format in ("masks", "tiff"):
        predict(other, NEW, NEW_RUN, file_format)
    for path in other.folder.iterdir():
        path.rename(patient.folder / ".lgg-committed" / path.name)
    other.folder.rmdir()
    other.folder.parent.rmdir()


def test_a_killed_recovery(tmp_path):
    """What a killed writer left is completed, even if a reader is killed that had begun to do so."""
    assert set(outcomes(prepare_half_written, read, tmp_path)) == {"new model"}


@pytest.mark.parametrize("prepare", [prepare_nothing, prepare_predictions])
def test_what_a_killed_writer_left_does_not_hinder_the_next(tmp_path, prepare):
    for killed in kills(prepare, write_tiff, tmp_path):
        write_edits(killed.folder)
        assert assert_whole(killed.folder) == "new person"
