"""Saving a user's edits of an open patient to the results."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from napari_lgg_seg.core.cohort.edits import Edits, KnownRevision, save_edits
from napari_lgg_seg.core.data.discover import find_by_name
from napari_lgg_seg.core.data.label_files import LabelMap
from napari_lgg_seg.core.errors import ChangedError, ResultsError

NAME = "TCGA_DU_0001_19990101"


SHAPE = (4, 6, 5)


@pytest.fixture
def patient(results):
    """The results of one patient."""
    return results.patient(NAME)


def label_map(labels):
    return LabelMap(NAME, labels, tuple(range(1, len(labels) + 1)))


def test_edits_by_hand_are_saved_as_corrected(patient, labels):
    saved = save_edits(patient, Edits(label_map(labels), by_hand=True), SHAPE)
    assert saved.status.state == "corrected"
    assert saved.sentence == ""
    np.testing.assert_array_equal(patient.read_labels(), labels)


def test_a_new_prediction_does_not_replace_corrected_labels(patient, labels, probability):
    edits = Edits(label_map(labels), by_hand=False, probability=probability)
    assert save_edits(patient, edits, SHAPE).status.state == "segmented"
    patient.write_edits(label_map(1 - labels))
    saved = save_edits(patient, edits, SHAPE)
    assert saved.status.state == "corrected"
    assert "not saved" in saved.sentence
    np.testing.assert_array_equal(patient.read_labels(), 1 - labels)


def test_a_new_prediction_replaces_the_one_before(patient, labels, probability):
    save_edits(patient, Edits(label_map(labels), probability=probability), SHAPE)
    save_edits(patient, Edits(label_map(1 - labels), probability=1 - probability), SHAPE)
    stored = patient.read()
    np.testing.assert_array_equal(stored.labels, 1 - labels)
    np.testing.assert_allclose(stored.probability, 1 - probability, atol=0.5 / 255 + 1e-6)


def test_edits_of_a_new_prediction_are_saved_with_its_probability(patient, labels, probability):
    save_edits(patient, Edits(label_map(labels), probability=probability), SHAPE)
    edits = Edits(label_map(1 - labels), by_hand=True, probability=1 - probability)
    assert save_edits(patient, edits, SHAPE).status.state == "corrected"
    np.testing.assert_allclose(patient.read().probability, 1 - probability, atol=0.5 / 255 + 1e-6)


def test_labels_that_are_stored_already_are_accepted(patient, labels, probability):
    save_edits(patient, Edits(label_map(labels), probability=probability), SHAPE)
    (file,) = patient.folder.glob("*_tumour.tif")
    before = file.stat().st_mtime_ns
    edits = Edits(label_map(labels), by_hand=True, is_stored=True)
    assert save_edits(patient, edits, SHAPE).status.state == "corrected"
    assert file.stat().st_mtime_ns == before


def test_labels_of_another_grid_are_refused_before_anything_is_written(patient, labels, probability):
    save_edits(patient, Edits(label_map(labels), probability=probability), SHAPE)
    with pytest.raises(ResultsError, match="2 x 6 x 5"):
        save_edits(patient, Edits(label_map(labels[:2]), by_hand=True), SHAPE)
    assert patient.status().state == "segmented"
    np.testing.assert_array_equal(patient.read_labels(), labels)


def test_a_change_by_another_window_is_noticed(patient, labels):
    known = KnownRevision(patient.revision())
    save_edits(patient, Edits(label_map(labels), by_hand=True, known=known), SHAPE)
    # One's own changes are not those of another.
    save_edits(patient, Edits(label_map(1 - labels), by_hand=True, known=known), SHAPE)
    patient.write_edits(label_map(np.ones_like(labels)))
    edits = Edits(label_map(labels), by_hand=True, known=known)
    with pytest.raises(ChangedError, match="another window"):
        save_edits(patient, edits, SHAPE)
    assert patient.read_labels().all()


def test_edits_get_a_file_of_their_own_if_the_patient_is_closed_after_such_a_change(patient, labels):
    known = KnownRevision(patient.revision())
    patient.write_edits(label_map(np.ones_like(labels)))
    edits = Edits(label_map(labels), by_hand=True, known=known, leaving=True)
    saved = save_edits(patient, edits, SHAPE)
    (file,) = patient.folder.glob("* edited.tif")
    assert str(file) in saved.sentence
    np.testing.assert_array_equal(tifffile.imread(file), labels)
    assert patient.read_labels().all()


def test_further_labels_get_separate_files(results, patient, labels):
    edits = Edits(None, more=(("truth", label_map(labels)), ("a/b_1", label_map(labels))))
    sentences = [save_edits(patient, edits, SHAPE).sentence for _ in range(2)]
    files = sorted(patient.folder.iterdir())
    assert len(files) == 4
    assert all(sum(str(file) in sentence for sentence in sentences) == 1 for file in files)
    for file in files:
        np.testing.assert_array_equal(tifffile.imread(file), labels)
    assert patient.status().state == "new"
    # They are taken neither for slices, which would block labels, nor for the patient's result.
    save_edits(patient, Edits(label_map(labels), by_hand=True), SHAPE)
    assert set(find_by_name("labels", results.folder).patients) == {NAME}
    assert [file.name for file in results.folder.iterdir()] == [NAME]


def test_outdated_edits_are_not_written(patient, labels):
    edits = Edits(label_map(labels), by_hand=True)
    edits.is_old.set()
    saved = save_edits(patient, edits, SHAPE)
    assert saved.status.state == "new"
    assert patient.read_labels() is None
