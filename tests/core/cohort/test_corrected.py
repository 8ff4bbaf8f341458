"""Patients with corrected labels, as input of a training."""

from __future__ import annotations

import dataclasses
import os
import shutil

import numpy as np
import pytest
import tifffile

from napari_lgg_seg.core.cohort.corrected import CorrectedPatient, find_corrected
from napari_lgg_seg.core.cohort.store import ResultStore
from napari_lgg_seg.core.data.label_files import LabelMap
from napari_lgg_seg.core.data.masks import write_patient
from napari_lgg_seg.core.data.patients import read_patient
from napari_lgg_seg.core.errors import PatientError
from napari_lgg_seg.core.training.patients import load_patient, source_name

A, B, C = "TCGA_DU_0001_19990101", "TCGA_DU_0002_19990101", "TCGA_DU_0003_19990101"


@pytest.fixture
def folders(tmp_path, make_patient):
    """A dataset of three patients, the first without masks, and its results: two are corrected."""
    dataset, folder = tmp_path / "data", tmp_path / "data-results"
    results = ResultStore(folder)
    for seed, name in enumerate((A, B, C)):
        patient = make_patient(name, seed=seed)
        write_patient(
            dataset / name, dataclasses.replace(patient, truth=None if name == A else patient.truth)
        )
        labels = np.zeros(patient.shape, np.uint8)
        labels[2, 10:20, 10:30], labels[3, 5, 5] = 1, 4
        label_map = LabelMap(name, labels, patient.slice_numbers)
        if name == C:
            results.patient(name).write_prediction(label_map)
        else:
            results.patient(name).write_edits(label_map)
    return dataset, folder


def labels_of(folders, name):
    return folders[1] / name / f"{name}_tumour.tif"


def names(folders):
    return list(find_corrected(*folders).patients)


def test_patients_with_corrected_labels_are_found(folders):
    dataset, results = folders
    found = find_corrected(*folders)
    assert found.patients == {name: CorrectedPatient(name, dataset / name, results) for name in (A, B)}
    assert found.problems == ()


def test_exported_patients_still_count_as_corrected(folders):
    for name in (A, C):
        ResultStore(folders[1]).patient(name).mark_exported()
    assert names(folders) == [A, B]


def test_accepted_predictions_count_as_corrected(folders):
    ResultStore(folders[1]).patient(C).accept()
    assert names(folders) == [A, B, C]


def test_a_patient_without_labels_is_not_found(folders):
    labels_of(folders, A).unlink()
    assert names(folders) == [B]


def test_corrected_labels_without_images_are_named(folders):
    shutil.rmtree(folders[0] / A)
    found = find_corrected(*folders)
    assert list(found.patients) == [B]
    (problem,) = found.problems
    assert A in problem
    assert "no images" in problem


def test_there_are_none_without_results(folders, tmp_path):
    assert find_corrected(folders[0], tmp_path / "nothing").patients == {}


def test_labels_that_another_program_changed_are_left_out_and_named(folders):
    pages = tifffile.imread(labels_of(folders, A))
    tifffile.imwrite(labels_of(folders, A), 1 - pages.clip(0, 1))
    found = find_corrected(*folders)
    assert list(found.patients) == [B]
    (problem,) = found.problems
    assert A in problem
    assert "another program" in problem


@pytest.mark.parametrize("name", [A, B])
def test_all_corrected_label_values_count_as_tumour(folders, name):
    source = find_corrected(*folders).patients[name]
    patient = load_patient(source)
    assert source_name(source) == patient.name == name
    np.testing.assert_array_equal(patient.volume, read_patient(source.folder).volume)
    assert patient.truth.dtype == np.uint8
    assert np.unique(patient.truth).tolist() == [0, 1]
    assert patient.truth.sum() == 200 + 1
    assert patient.slices_without_mask == ()


def test_labels_removed_since_then_are_reported(folders):
    source = find_corrected(*folders).patients[A]
    labels_of(folders, A).unlink()
    with pytest.raises(PatientError, match=A):
        load_patient(source)


@pytest.mark.parametrize("change", ["predicted", "elsewhere"])
def test_labels_that_are_no_longer_a_persons_are_reported(folders, change):
    source = find_corrected(*folders).patients[A]
    if change == "predicted":
        zeros = LabelMap(A, np.zeros(read_patient(source.folder).shape, np.uint8))
        ResultStore(folders[1]).patient(A).write_prediction(zeros, replace_corrected=True)
    else:
        stat = labels_of(folders, A).stat()
        content = bytearray(labels_of(folders, A).read_bytes())
        content[-1] ^= 1
        labels_of(folders, A).write_bytes(content)
        os.utime(labels_of(folders, A), ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(PatientError, match=A):
        load_patient(source)
