"""Patients whose labels somebody corrected, as a training takes them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from napari_lgg_seg.core.cohort.corrected import CorrectedPatient, corrected_patients
from napari_lgg_seg.core.cohort.results import CohortResults
from napari_lgg_seg.core.data.label_files import LabelMap
from napari_lgg_seg.core.data.masks import write_patient
from napari_lgg_seg.core.data.patients import read_patient
from napari_lgg_seg.core.errors import PatientError, ResultsError, TrainingError
from napari_lgg_seg.core.training.patients import load_patient, source_name
from napari_lgg_seg.core.training.split import draw_rehearsal

A, B, C = "TCGA_DU_0001_19990101", "TCGA_DU_0002_19990101", "TCGA_DU_0003_19990101"


@pytest.fixture
def cohort(tmp_path, make_patient):
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


def test_those_that_somebody_corrected(cohort):
    dataset, results = cohort
    assert corrected_patients(*cohort) == [CorrectedPatient(dataset / name, results) for name in (A, B)]


def test_exported_ones_are_corrected_all_the_same(cohort):
    CohortResults(cohort[1]).mark_exported(A)
    CohortResults(cohort[1]).mark_exported(C)
    assert [patient.name for patient in corrected_patients(*cohort)] == [A, B]


@pytest.mark.parametrize("what", ["labels", "images"])
def test_those_of_whom_something_is_gone_are_not(cohort, what):
    dataset, results = cohort
    files = [CohortResults(results).labels_file(A)] if what == "labels" else list((dataset / A).iterdir())
    for file in files:
        file.unlink()
    assert [patient.name for patient in corrected_patients(*cohort)] == [B]


def test_without_results_there_are_none(cohort, tmp_path):
    assert corrected_patients(cohort[0], tmp_path / "nothing") == []


def test_a_damaged_index_is_a_sentence(cohort):
    (cohort[1] / "cohort.json").write_text("no index")
    with pytest.raises(ResultsError, match=r"cohort\.json"):
        corrected_patients(*cohort)


@pytest.mark.parametrize("name", [A, B])
def test_corrected_labels_are_the_truth_whichever_their_values(cohort, name):
    (source,) = [patient for patient in corrected_patients(*cohort) if patient.name == name]
    patient = load_patient(source)
    assert source_name(source) == patient.name == name
    np.testing.assert_array_equal(patient.volume, read_patient(source.folder).volume)
    assert patient.truth.dtype == np.uint8
    assert np.unique(patient.truth).tolist() == [0, 1]
    assert patient.truth.sum() == 200 + 1
    assert patient.slices_without_mask == ()


def test_labels_that_are_gone_since_are_a_sentence(cohort):
    source = corrected_patients(*cohort)[0]
    CohortResults(cohort[1]).labels_file(A).unlink()
    with pytest.raises(PatientError, match=A):
        load_patient(source)


# --- old patients beside them ------------------------------------------------------------------


OLD = [f"old {number}" for number in range(20)]


@pytest.mark.parametrize(("share", "count"), [(0, 0), (0.5, 4), (0.2, 1), (0.75, 12), (0.95, 20)])
def test_as_many_as_make_up_the_share(share, count):
    drawn = draw_rehearsal(OLD, 4, share, seed=3)
    assert len(set(drawn)) == len(drawn) == count
    assert set(drawn) <= set(OLD)


def test_the_seed_draws(cohort):
    assert draw_rehearsal(OLD, 5, 0.5, 0) == draw_rehearsal(OLD[::-1], 5, 0.5, 0)
    assert draw_rehearsal(OLD, 5, 0.5, 0) != draw_rehearsal(OLD, 5, 0.5, 1)


@pytest.mark.parametrize("share", [-0.1, 1])
def test_a_share_that_cannot_be_is_a_sentence(share):
    with pytest.raises(TrainingError, match="share of rehearsal patients"):
        draw_rehearsal(OLD, 5, share, 0)
