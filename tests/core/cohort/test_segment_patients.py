"""Segmenting patients into a results folder: what is stored, what is skipped, and what a run leaves alone."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

import napari_lgg_seg as lgg
from napari_lgg_seg.core.cohort import run as module
from napari_lgg_seg.core.cohort.index import PatientStatus
from napari_lgg_seg.core.cohort.run import (
    PatientLeft,
    PatientStarted,
    PatientUnusable,
    PredictionStored,
    describe_run,
    is_done,
    segment_patients,
)
from napari_lgg_seg.core.data.label_files import LabelMap
from napari_lgg_seg.core.data.patients import read_patient
from napari_lgg_seg.core.inference.predict import Predictor, SlicesDone
from napari_lgg_seg.core.model.checkpoint import load_model
from napari_lgg_seg.core.options import SegmentOptions

OPTIONS = SegmentOptions(device="cpu")
RUN = {"model": "test"}


@pytest.fixture
def predictor(model):
    return Predictor(load_model(model), "cpu")


@pytest.fixture
def folders(cohort):
    return sorted(cohort.iterdir())


def of_kind(events, *kinds):
    return [event for event in events if isinstance(event, kinds)]


def empty_labels(folder):
    return LabelMap(folder.name, np.zeros((4, 64, 64), np.uint8))


def test_results_equal_those_of_segmenting_each_patient(folders, results, predictor, model):
    events = list(segment_patients(folders, results, predictor, OPTIONS, RUN))
    stored_events = of_kind(events, PredictionStored)
    assert [event.folder for event in stored_events] == folders
    assert [e.number for e in of_kind(events, PatientStarted)] == [1, 2, 3]
    assert of_kind(events, SlicesDone)
    for event in stored_events:
        expected = lgg.segment(read_patient(event.folder), load_model(model), OPTIONS)
        stored = results.read(event.folder.name)
        np.testing.assert_array_equal(stored.labels, expected.labels)
        np.testing.assert_allclose(stored.probability, expected.probability, atol=0.5 / 255 + 1e-6)
        assert event.status == stored.status == results.status(event.folder.name)
        assert event.status.state == "segmented"
        assert 0 <= event.status.uncertainty <= 1
        assert event.summary.predicted.voxels == int(expected.labels.sum())
        assert event.summary.dice > 0.5


def test_a_broken_patient_does_not_stop_the_others(folders, results, predictor):
    (folders[0] / f"{folders[0].name}_3.tif").write_bytes(b"not a TIFF")
    for file in folders[1].glob("*[0-9].tif"):
        file.unlink()  # masks only
    events = list(segment_patients(folders, results, predictor, OPTIONS, RUN))
    failed = of_kind(events, PatientUnusable)
    assert [event.name for event in failed] == [folder.name for folder in folders[:2]]
    assert "masks only" in failed[1].sentence
    assert [event.folder for event in of_kind(events, PredictionStored)] == folders[2:]
    assert results.status(folders[0].name) == PatientStatus("new")


def test_corrected_patients_are_skipped_unless_they_may_be_replaced(folders, results, predictor):
    name = folders[1].name
    results.write_corrected(name, empty_labels(folders[1]))
    events = list(segment_patients(folders, results, predictor, OPTIONS, RUN))
    assert [event.name for event in of_kind(events, PatientLeft)] == [name]
    assert not results.read_labels(name).any()
    events = list(segment_patients(folders, results, predictor, OPTIONS, RUN, replaceable={name}))
    assert not of_kind(events, PatientLeft, PatientUnusable)
    assert results.read_labels(name).any()
    assert results.status(name).state == "segmented"


def test_a_correction_during_the_run_is_not_replaced(folders, results, predictor):
    events = []
    for event in segment_patients(folders[:1], results, predictor, OPTIONS, RUN):
        events.append(event)
        if isinstance(event, SlicesDone):  # the network is running; the patient was new at the start
            results.write_corrected(folders[0].name, empty_labels(folders[0]))
    assert of_kind(events, PatientLeft)
    assert not results.read_labels(folders[0].name).any()


def test_only_the_next_patient_is_read_ahead(folders, results, predictor, monkeypatch, wait_until):
    begun, read = [], module.read_patient

    def recorded(folder):
        begun.append(folder)
        return read(folder)

    monkeypatch.setattr(module, "read_patient", recorded)
    events = segment_patients(folders, results, predictor, OPTIONS, RUN)
    while not isinstance(next(events), SlicesDone):
        pass
    wait_until(lambda: len(begun) >= 2)
    time.sleep(0.05)
    assert begun == folders[:2]
    assert [event.folder for event in of_kind(list(events), PredictionStored)] == folders


def test_a_correction_after_reading_ahead_is_not_replaced(folders, results, predictor):
    events = []
    for event in segment_patients(folders, results, predictor, OPTIONS, RUN):
        events.append(event)
        if isinstance(event, SlicesDone) and len(of_kind(events, PatientStarted)) == 1:
            results.write_corrected(folders[1].name, empty_labels(folders[1]))
    assert [event.name for event in of_kind(events, PatientLeft)] == [folders[1].name]
    assert not results.read_labels(folders[1].name).any()
    assert len(of_kind(events, PredictionStored)) == 2


def test_cancelling_leaves_the_current_patient_unchanged(folders, results, predictor):
    events = segment_patients(folders, results, predictor, OPTIONS, RUN)
    while not isinstance(next(events), PredictionStored):
        pass
    assert isinstance(next(events), PatientStarted)
    next(events)
    events.close()
    statuses = results.statuses([folder.name for folder in folders])
    assert [status.state for status in statuses.values()] == ["segmented", "new", "new"]


def test_each_patient_that_cannot_be_written_is_reported(folders, results, predictor):
    results.folder.write_text("a file is in the way")
    failed = of_kind(list(segment_patients(folders, results, predictor, OPTIONS, RUN)), PatientUnusable)
    assert len(failed) == 3
    assert str(results.folder) in failed[0].sentence


@pytest.mark.parametrize(
    ("state", "options", "expected"),
    [
        ("segmented", {}, True),
        ("exported", {}, True),
        ("new", {}, False),
        ("segmented", {"device": "mps", "batch_size": 3}, True),
        ("segmented", {"tta": True}, False),
        ("segmented", {"engine": "openvino-int8"}, False),
        ("segmented", {"full_resolution": True}, False),
    ],
)
def test_a_result_is_done_if_its_run_would_give_the_same_labels(model, state, options, expected):
    run = describe_run(model, OPTIONS)
    assert run["model"] == "bright FLAIR"
    other = describe_run(model, SegmentOptions(**{"device": "cpu", **options}))
    assert is_done(PatientStatus(state, made_with=run), other) is expected
    assert is_done(PatientStatus(state, made_with=other), other) is (state != "new")


def test_corrected_labels_are_never_done(model):
    run = describe_run(model, OPTIONS)
    assert not is_done(PatientStatus("corrected", by_hand=True, made_with=run), run)


@pytest.mark.parametrize("former", [{"thorough": False}, {"engine": "torch-compile"}, {}], ids=str)
def test_records_of_earlier_versions_are_understood(model, former):
    run = describe_run(model, OPTIONS)
    options = {k: v for k, v in run["options"].items() if k != "full_resolution"}
    before = {**run, "options": {**options, **former}}
    assert is_done(PatientStatus("segmented", made_with=before), run)


def test_a_model_trained_again_under_the_same_name_is_another_one(model, tmp_path):
    copy = Path(shutil.copy(model, tmp_path))
    status = PatientStatus("segmented", made_with=describe_run(copy, OPTIONS))
    assert is_done(status, describe_run(copy, OPTIONS))
    os.utime(copy, ns=(1, 1))
    assert not is_done(status, describe_run(copy, OPTIONS))
