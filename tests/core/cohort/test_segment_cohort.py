from __future__ import annotations

import os
import time

import numpy as np
import pytest
from flair_model import write_flair_model

from napari_lgg_seg import api
from napari_lgg_seg.core.cohort import run as module
from napari_lgg_seg.core.cohort.index import PatientStatus
from napari_lgg_seg.core.cohort.results import CohortResults
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
from napari_lgg_seg.core.data.masks import write_patient
from napari_lgg_seg.core.data.patients import read_patient
from napari_lgg_seg.core.inference.predict import Predictor, SlicesDone
from napari_lgg_seg.core.model.checkpoint import load_model
from napari_lgg_seg.core.options import SegmentOptions

NAMES = [f"TCGA_DU_000{n}_19990101" for n in (1, 2, 3)]
OPTIONS = SegmentOptions(device="cpu")
RUN = {"model": "test"}


@pytest.fixture
def model(tmp_path):
    return write_flair_model(tmp_path / "bright FLAIR.safetensors")


@pytest.fixture
def predictor(model):
    return Predictor(load_model(model), "cpu")


@pytest.fixture
def folders(tmp_path, make_patient):
    for seed, name in enumerate(NAMES):
        write_patient(tmp_path / "cohort" / name, make_patient(name, seed=seed))
    return [tmp_path / "cohort" / name for name in NAMES]


@pytest.fixture
def results(tmp_path):
    return CohortResults(tmp_path / "results")


def of_kind(events, *kinds):
    return [event for event in events if isinstance(event, kinds)]


def test_results_are_those_of_a_plain_run(folders, results, predictor, model):
    events = list(segment_patients(folders, results, predictor, OPTIONS, RUN))
    done = of_kind(events, PredictionStored)
    assert [event.folder for event in done] == folders
    assert [e.number for e in of_kind(events, PatientStarted)] == [1, 2, 3]
    assert of_kind(events, SlicesDone)
    for event in done:
        plain = api.segment(read_patient(event.folder), load_model(model), OPTIONS)
        stored = results.read(event.folder.name)
        np.testing.assert_array_equal(stored.labels, plain.labels)
        np.testing.assert_allclose(stored.probability, plain.probability, atol=0.5 / 255 + 1e-6)
        assert event.status == stored.status == results.status(event.folder.name)
        assert event.status.state == "segmented"
        assert 0 <= event.status.uncertainty <= 1
        assert event.summary.predicted.voxels == int(plain.labels.sum())
        assert event.summary.dice > 0.5


def test_a_bad_patient_does_not_stop_the_others(folders, results, predictor):
    (folders[0] / f"{NAMES[0]}_3.tif").write_bytes(b"no TIFF")
    for file in folders[1].glob("*[0-9].tif"):
        file.unlink()  # masks only
    events = list(segment_patients(folders, results, predictor, OPTIONS, RUN))
    failed = of_kind(events, PatientUnusable)
    assert [event.name for event in failed] == NAMES[:2]
    assert "masks only" in failed[1].sentence
    assert [event.folder for event in of_kind(events, PredictionStored)] == folders[2:]
    assert results.statuses(NAMES)[NAMES[0]] == PatientStatus("new")


def test_corrected_patients_are_skipped_unless_they_may_be_replaced(folders, results, predictor):
    nothing = LabelMap(NAMES[1], np.zeros((6, 64, 64), np.uint8))
    results.write_corrected(NAMES[1], nothing)
    events = list(segment_patients(folders, results, predictor, OPTIONS, RUN))
    assert [event.name for event in of_kind(events, PatientLeft)] == NAMES[1:2]
    assert not results.read_labels(NAMES[1]).any()
    events = list(segment_patients(folders, results, predictor, OPTIONS, RUN, replaceable={NAMES[1]}))
    assert not of_kind(events, PatientLeft, PatientUnusable)
    assert results.read_labels(NAMES[1]).any()
    assert results.status(NAMES[1]).state == "segmented"


def test_corrected_during_the_run_is_kept(folders, results, predictor):
    corrected = LabelMap(NAMES[0], np.zeros((6, 64, 64), np.uint8))
    events = []
    for event in segment_patients(folders[:1], results, predictor, OPTIONS, RUN):
        events.append(event)
        if isinstance(event, SlicesDone):  # the network is at work; the patient was new when it began
            results.write_corrected(NAMES[0], corrected)
    assert of_kind(events, PatientLeft)
    assert not results.read_labels(NAMES[0]).any()


def test_the_next_patient_is_read_while_one_is_segmented(folders, results, predictor, monkeypatch):
    begun, read = [], module.read_patient

    def noted(folder):
        begun.append(folder)
        return read(folder)

    monkeypatch.setattr(module, "read_patient", noted)
    work = segment_patients(folders, results, predictor, OPTIONS, RUN)
    while not isinstance(next(work), SlicesDone):
        pass
    deadline = time.monotonic() + 30
    while len(begun) < 2 and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.05)
    assert begun == folders[:2]
    assert [event.folder for event in of_kind(list(work), PredictionStored)] == folders


def test_corrected_after_it_was_read_ahead_is_kept(folders, results, predictor):
    events = []
    for event in segment_patients(folders, results, predictor, OPTIONS, RUN):
        events.append(event)
        if isinstance(event, SlicesDone) and len(of_kind(events, PatientStarted)) == 1:
            results.write_corrected(NAMES[1], LabelMap(NAMES[1], np.zeros((6, 64, 64), np.uint8)))
    assert [event.name for event in of_kind(events, PatientLeft)] == NAMES[1:2]
    assert not results.read_labels(NAMES[1]).any()
    assert len(of_kind(events, PredictionStored)) == 2


def test_cancelling_leaves_the_patient_in_work_as_it_was(folders, results, predictor):
    work = segment_patients(folders, results, predictor, OPTIONS, RUN)
    while not isinstance(next(work), PredictionStored):
        pass
    assert isinstance(next(work), PatientStarted)
    next(work)
    work.close()
    assert [r.state for r in results.statuses(NAMES).values()] == ["segmented", "new", "new"]


def test_a_full_disk_fails_one_patient_after_the_other_in_sentences(folders, results, predictor):
    results.folder.write_text("a file is in the way")
    failed = of_kind(list(segment_patients(folders, results, predictor, OPTIONS, RUN)), PatientUnusable)
    assert len(failed) == 3
    assert str(results.folder) in failed[0].sentence


def test_runs_are_told_apart_by_model_and_options(model, tmp_path):
    run = describe_run(model, OPTIONS)
    assert run["model"] == "bright FLAIR"
    assert is_done(
        PatientStatus("segmented", made_with=run), describe_run(model, SegmentOptions(device="cpu"))
    )
    elsewhere = describe_run(model, SegmentOptions(device="mps", batch_size=3))
    assert is_done(PatientStatus("segmented", made_with=run), elsewhere)
    assert is_done(PatientStatus("exported", made_with=run), run)
    assert not is_done(
        PatientStatus("segmented", made_with=run), describe_run(model, SegmentOptions(tta=True))
    )
    coarse = describe_run(model, SegmentOptions(device="cpu", engine="openvino-int8"))
    assert not is_done(PatientStatus("segmented", made_with=run), coarse)
    assert is_done(PatientStatus("segmented", made_with=coarse), coarse)
    full_resolution = describe_run(model, SegmentOptions(device="cpu", full_resolution=True))
    assert not is_done(PatientStatus("segmented", made_with=run), full_resolution)
    assert is_done(PatientStatus("segmented", made_with=full_resolution), full_resolution)
    before = {**run, "options": {k: v for k, v in run["options"].items() if k != "full_resolution"}}
    assert is_done(PatientStatus("segmented", made_with=before), run)
    assert not is_done(PatientStatus("corrected", by_hand=True, made_with=run), run)
    assert not is_done(PatientStatus("new"), run)
    os.utime(model, ns=(1, 1))  # trained anew under the same name
    assert not is_done(PatientStatus("segmented", made_with=run), describe_run(model, OPTIONS))
