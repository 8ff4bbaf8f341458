"""Opening a patient for review from a cohort or from arbitrary files, and saving its edits."""

from __future__ import annotations

import numpy as np
import pytest
from label_writing import write_labels

from napari_lgg_seg.core.cohort.edits import Edits
from napari_lgg_seg.core.cohort.sources import CohortSource, FilesSource, source_of
from napari_lgg_seg.core.cohort.summary_cache import SummaryCache, cached_summary
from napari_lgg_seg.core.data.label_files import LabelMap
from napari_lgg_seg.core.errors import PatientError
from napari_lgg_seg.core.evaluation.label_pairs import LabelPair


@pytest.fixture
def source(folder, results, tmp_path):
    return CohortSource(folder, results.patient(folder.name), tmp_path / "cache.sqlite")


def test_a_new_patient_has_no_labels_yet(source, patient):
    opened = source.read()
    np.testing.assert_array_equal(opened.patient.volume, patient.volume)
    assert opened.labels is opened.probability is opened.uncertainty is None
    assert opened.status.state == "new"
    assert opened.summary.truth.voxels == int(patient.truth.sum())


def test_a_segmented_patient_is_opened_with_its_probability(source, results, patient):
    probability = patient.truth.astype(np.float32) / 2
    label_map = LabelMap(patient.name, patient.truth)
    results.patient(patient.name).write_prediction(label_map, probability=probability, keep_probability=True)
    opened = source.read()
    np.testing.assert_array_equal(opened.labels, patient.truth)
    np.testing.assert_allclose(opened.uncertainty, patient.truth, atol=0.01)
    assert opened.status.state == "segmented"
    assert opened.summary.dice == 1


def test_saving_edits_updates_results_and_cached_summary(source, results, patient, folder):
    labels = np.zeros_like(patient.truth)
    labels[2, 3:5, 3:6] = 1
    saved = source.save(Edits(LabelMap(patient.name, labels), by_hand=True), patient)
    assert saved.status.state == "corrected"
    assert (saved.summary.predicted.voxels, saved.summary.predicted.slices) == (6, 1)
    np.testing.assert_array_equal(results.patient(patient.name).read_labels(), labels)
    with SummaryCache(source.cache_file) as cache:
        assert cached_summary(folder, source.results, cache).predicted == saved.summary.predicted


def test_labels_of_a_cohort_are_opened_from_its_results(folder, results, patient, tmp_path):
    stored = results.patient(patient.name)
    stored.write_edits(LabelMap(patient.name, patient.truth))
    pair = LabelPair(patient.name, stored.folder / f"{patient.name}_tumour.tif", folder, folder)
    source = source_of(pair, tmp_path / "cache")
    assert isinstance(source, CohortSource)
    assert source.key == CohortSource(folder, stored, tmp_path / "cache").key


def test_labels_in_other_files_are_read_only(folder, patient, tmp_path):
    (path,) = write_labels(tmp_path / "other", LabelMap(patient.name, 1 - patient.truth), "tiff")
    source = source_of(LabelPair(patient.name, path, folder, folder), tmp_path / "cache")
    assert isinstance(source, FilesSource)
    assert not source.can_save
    opened = source.read()
    np.testing.assert_array_equal(opened.labels, 1 - patient.truth)
    np.testing.assert_array_equal(opened.patient.truth, patient.truth)
    with pytest.raises(PatientError, match="read-only"):
        source.save(Edits(LabelMap(patient.name, patient.truth)), patient)
