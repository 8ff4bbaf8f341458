"""Patients with corrected labels, as input of a training."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from napari_lgg_seg.core.cohort.corrected import CorrectedPatient, corrected_patients
from napari_lgg_seg.core.cohort.results import CohortResults
from napari_lgg_seg.core.data.label_files import LabelMap
from napari_lgg_seg.core.data.masks import write_patient
from napari_lgg_seg.core.data.patients import read_patient
from napari_lgg_seg.core.errors import PatientError, ResultsError
from napari_lgg_seg.core.training.patients import load_patient, source_name

A, B, C = "TCGA_DU_0001_19990101", "TCGA_DU_0002_19990101", "TCGA_DU_0003_19990101"


@pytest.fixture
def folders(tmp_path, make_patient):
    """A dataset of three patients, the first without masks, and its results: two are corrected."""
    dataset, folder = tmp_path / "data", tmp_path / "data-results"
    results = CohortResults(folder)
    for seed, name in enumerate((A, B, C)):
        patient = make_patient(name, seed=seed)
        write_patient(
            dataset / name, dataclasses.replace(patient, truth=None if name == A else patient.truth)
        )
        labels = np.zeros(patient.shape, np.uint8)
        labels[2, 10:20, 10:30], labels[3, 5, 5] = 1, 4
        label_map = LabelMap(name, labels, patient.slice_numbers)
        if name == C:
            results.write_prediction(name, label_map, labels.astype(np.float32).clip(0, 1))
        else:
            results.write_corrected(name, label_map)
    return dataset, folder


def test_patients_with_corrected_labels_are_found(folders):
    dataset, results = folders
    assert corrected_patients(*folders) == [CorrectedPatient(dataset / name, results) for name in (A, B)]


def test_exported_patients_still_count_as_corrected(folders):
    CohortResults(folders[1]).mark_exported(A)
    CohortResults(folders[1]).mark_exported(C)
    assert [patient.name for patient in corrected_patients(*folders)] == [A, B]


@pytest.mark.parametrize("what", ["labels", "images"])
def test_patients_with_missing_labels_or_images_are_left_out(folders, what):
    dataset, results = folders
    files = [CohortResults(results).labels_file(A)] if what == "labels" else list((dataset / A).iterdir())
    for file in files:
        file.unlink()
    assert [patient.name for patient in corrected_patients(*folders)] == [B]


def test_there_are_none_without_results(folders, tmp_path):
    assert corrected_patients(folders[0], tmp_path / "nothing") == []


def test_a_damaged_index_is_reported(folders):
    (folders[1] / "cohort.json").write_text("no index")
    with pytest.raises(ResultsError, match=r"cohort\.json"):
        corrected_patients(*folders)


@pytest.mark.parametrize("name", [A, B])
def test_all_corrected_label_values_count_as_tumour(folders, name):
    (source,) = [patient for patient in corrected_patients(*folders) if patient.name == name]
    patient = load_patient(source)
    assert source_name(source) == patient.name == name
    np.testing.assert_array_equal(patient.volume, read_patient(source.folder).volume)
    assert patient.truth.dtype == np.uint8
    assert np.unique(patient.truth).tolist() == [0, 1]
    assert patient.truth.sum() == 200 + 1
    assert patient.slices_without_mask == ()


def test_labels_removed_since_then_are_reported(folders):
    source = corrected_patients(*folders)[0]
    CohortResults(folders[1]).labels_file(A).unlink()
    with pytest.raises(PatientError, match=A):
        load_patient(source)
