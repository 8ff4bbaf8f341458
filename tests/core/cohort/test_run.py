"""A cohort segmented in one process: events, finished patients, and results that are never touched."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import tifffile
from flair_model import write_flair_model

import napari_lgg_seg as lgg
from napari_lgg_seg.core.choices import OptionsError
from napari_lgg_seg.core.cohort import run as module
from napari_lgg_seg.core.cohort.patient_job import (
    PatientFailed,
    PatientProgress,
    PatientSegmented,
    PatientSkipped,
)
from napari_lgg_seg.core.cohort.run import CohortFound
from napari_lgg_seg.core.cohort.store import ResultStore
from napari_lgg_seg.core.data.label_files import LabelMap
from napari_lgg_seg.core.data.masks import write_patient
from napari_lgg_seg.core.data.patients import read_patient
from napari_lgg_seg.core.errors import ClusterError, ExportError
from napari_lgg_seg.core.options import SegmentOptions

NAMES = ("TCGA_CS_0003_20000303", "TCGA_DU_0001_19990101", "TCGA_HT_0002_20000202")
FORMATS = ("masks", "tiff", "nifti")


@pytest.fixture
def segment(cohort, model, tmp_path):
    """Factory: all events of a run over the cohort into tmp_path / "out"."""

    def segment_(model=model, file_format="masks", overwrite=False, replace_corrected=False, **options):
        options = SegmentOptions(device="cpu", **options)
        output = tmp_path / "out"
        permitted = {"overwrite": overwrite, "replace_corrected": replace_corrected}
        return list(lgg.segment_cohort(cohort, output, model, options, file_format, **permitted))

    return segment_


def contents(folder: Path) -> dict[Path, tuple[bytes, int]]:
    """Content and modification time of every file below a folder, including hidden ones."""
    return {f: (f.read_bytes(), f.stat().st_mtime_ns) for f in sorted(folder.rglob("*")) if f.is_file()}


def labels_in(folder: Path) -> dict[Path, bytes]:
    """Content of the label files below a folder, without hidden files."""
    found = contents(folder).items()
    return {f: content for f, (content, _) in found if "/." not in str(f.relative_to(folder.parent))}


def kinds(events) -> list[type]:
    """Types of the outcomes."""
    return [type(event) for event in events if not isinstance(event, PatientProgress | CohortFound)]


# --- events ------------------------------------------------------------------------------------


def test_events_of_a_run(segment, cohort, tmp_path):
    events = segment(batch_size=2)
    assert events[0] == CohortFound(3)
    assert kinds(events) == [PatientSegmented] * 3
    shares = [e.share for e in events if isinstance(e, PatientProgress) and e.folder == cohort / NAMES[0]]
    assert shares == [0, 0.5, 1]
    for event, name in zip((e for e in events if isinstance(e, PatientSegmented)), NAMES, strict=True):
        labels = read_patient(tmp_path / "out" / name).truth
        assert (event.name, event.folder, event.runs_on) == (name, cohort / name, "CPU")
        assert event.measurements.voxels == int(labels.sum()) > 0
        assert event.dice > 0.8
        assert f"{name}: Tumour: {event.measurements.voxels:,} voxels" in event.summary()


def test_a_missing_folder_is_reported(model, tmp_path):
    gone = tmp_path / "gone"
    events = list(lgg.segment_cohort([gone], tmp_path / "out", model, SegmentOptions(device="cpu")))
    assert kinds(events) == [PatientFailed]
    assert str(gone) in events[1].sentence


def test_leftovers_of_a_killed_program_are_ignored(segment, cohort):
    left = cohort / ".lgg-0123abcd"
    left.mkdir()
    slices = sorted((cohort / NAMES[0]).glob("*.tif"))
    (left / slices[0].name).write_bytes(slices[0].read_bytes())
    assert kinds(segment()) == [PatientSegmented] * 3


@pytest.mark.parametrize(("workers", "scheduler"), [(0, None), (-1, None), (2, "tcp://127.0.0.1:8786")])
def test_invalid_numbers_of_workers_are_refused(cohort, tmp_path, workers, scheduler):
    with pytest.raises(OptionsError):
        list(lgg.segment_cohort(cohort, tmp_path / "out", workers=workers, scheduler=scheduler))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("where", [{"workers": 2}, {"scheduler": "tcp://127.0.0.1:8786"}])
def test_a_missing_package_is_named(cohort, model, tmp_path, monkeypatch, where):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ClusterError, match=r"pip install 'napari-lgg-seg\[cluster\]'"):
        list(lgg.segment_cohort(cohort, tmp_path / "out", model, **where))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("renamed", [False, True])
@pytest.mark.parametrize("file_format", FORMATS)
def test_results_never_go_among_the_images(cohort, model, renamed, file_format):
    if renamed:  # so that results would get a folder of their own there
        for number, folder in enumerate(sorted(cohort.iterdir())):
            folder.rename(cohort / str(number))
    before = contents(cohort)
    for output in (cohort, next(cohort.iterdir()), next(cohort.iterdir()) / "results"):
        events = list(lgg.segment_cohort(cohort, output, model, file_format=file_format))
        assert kinds(events) == [PatientFailed] * 3
        assert all("choose another folder" in event.sentence for event in events[1:])
        assert {event.folder for event in events[1:]} == set(cohort.iterdir())
    assert contents(cohort) == before


# --- reading and writing during computation ----------------------------------------------------


def outcomes(events) -> list[tuple[type, str]]:
    """Outcome and name of each patient, in the order of the events."""
    return [
        (type(event), event.folder.name)
        for event in events
        if isinstance(event, PatientSegmented | PatientSkipped | PatientFailed)
    ]


@pytest.fixture
def steps(monkeypatch):
    """The steps of a run as they begin, and a dict of functions to call at a step."""
    begun_steps, hooks = [], {}

    def noting(kind, work, name_of):
        def step(job, subject, *rest):
            name = name_of(subject)
            begun_steps.append(f"{kind} {name}")
            hooks.get(f"{kind} {name}", lambda: None)()
            return work(job, subject, *rest)

        return step

    monkeypatch.setattr(module, "read_input", noting("read", module.read_input, lambda folder: folder.name))
    monkeypatch.setattr(
        module,
        "write_result",
        noting("write", module.write_result, lambda computed: computed.outcome.name),
    )
    return begun_steps, hooks


def test_only_the_next_patient_is_read_ahead(cohort, model, tmp_path, steps, wait_until):
    begun_steps, _ = steps
    run = lgg.segment_cohort(cohort, tmp_path / "out", model, SegmentOptions(device="cpu"))
    with closing(run) as events:
        event = next(e for e in events if isinstance(e, PatientProgress))
        assert event.folder == cohort / NAMES[0]
        wait_until(lambda: len(begun_steps) == 2)
        time.sleep(0.05)
        assert begun_steps == [f"read {NAMES[0]}", f"read {NAMES[1]}"]
        assert outcomes(events) == [(PatientSegmented, name) for name in NAMES]


def test_a_result_is_written_while_the_next_patient_is_segmented(cohort, model, tmp_path, steps):
    """Its outcome comes before the next one's nevertheless."""
    _, hooks = steps
    next_done, waited = threading.Event(), []
    hooks[f"write {NAMES[0]}"] = lambda: waited.append(next_done.wait(60))
    events = []
    for event in lgg.segment_cohort(cohort, tmp_path / "out", model, SegmentOptions(device="cpu")):
        events.append(event)
        if isinstance(event, PatientProgress) and event.folder == cohort / NAMES[1] and event.share == 1:
            assert outcomes(events) == []
            next_done.set()
    assert waited == [True], "the next patient was not segmented before the result was written"
    assert outcomes(events) == [(PatientSegmented, name) for name in NAMES]


@pytest.mark.parametrize("broken", [0, 1, 2])
def test_failures_are_reported_in_order_for_the_right_patient(segment, cohort, steps, broken):
    _, hooks = steps
    for number, name in enumerate(NAMES):
        if number == broken:
            (cohort / name / f"{name}_2.tif").write_bytes(b"no TIFF")
        else:
            hooks[f"write {name}"] = lambda: time.sleep(0.05)  # an immediate failure must wait for it
    expected = [(PatientFailed if n == broken else PatientSegmented, name) for n, name in enumerate(NAMES)]
    events = segment()
    assert outcomes(events) == expected
    (failed,) = (event for event in events if isinstance(event, PatientFailed))
    assert str(cohort / NAMES[broken] / f"{NAMES[broken]}_2.tif") in failed.sentence


@pytest.mark.parametrize("broken", [0, 1, 2])
def test_a_result_that_cannot_be_written_is_reported(segment, tmp_path, steps, broken):
    _, hooks = steps

    def refuse():
        raise ExportError("The disk is full.")

    hooks[f"write {NAMES[broken]}"] = refuse
    events = segment()
    assert outcomes(events) == [
        (PatientFailed if n == broken else PatientSegmented, name) for n, name in enumerate(NAMES)
    ]
    assert [e.sentence for e in events if isinstance(e, PatientFailed)] == ["The disk is full."]
    assert kinds(segment()) == [
        PatientFailed if n == broken else PatientSkipped for n, name in enumerate(NAMES)
    ]


def test_closing_waits_for_a_result_that_is_being_written(cohort, model, segment, tmp_path, steps):
    begun_steps, hooks = steps
    hooks[f"write {NAMES[0]}"] = lambda: time.sleep(0.3)
    with closing(lgg.segment_cohort(cohort, tmp_path / "out", model, SegmentOptions(device="cpu"))) as events:
        next(e for e in events if isinstance(e, PatientProgress) and e.folder == cohort / NAMES[1])
        assert begun_steps.count(f"write {NAMES[0]}") == 1
        assert not (tmp_path / "out" / NAMES[0]).exists()
    assert [folder.name for folder in (tmp_path / "out").iterdir()] == [NAMES[0]]
    assert f"write {NAMES[1]}" not in begun_steps
    before = contents(tmp_path / "out")
    hooks.clear()
    assert kinds(segment()) == [PatientSkipped, PatientSegmented, PatientSegmented]
    assert {f: c for f, c in contents(tmp_path / "out").items() if f in before} == before


def test_closing_does_not_wait_for_a_patient_that_is_being_read(cohort, model, tmp_path, steps, wait_until):
    begun_steps, hooks = steps
    resume = threading.Event()
    hooks[f"read {NAMES[1]}"] = lambda: resume.wait(60)
    run = lgg.segment_cohort(cohort, tmp_path / "out", model, SegmentOptions(device="cpu"))
    try:
        with closing(run) as events:
            next(e for e in events if isinstance(e, PatientProgress))
            wait_until(lambda: len(begun_steps) == 2)
            started = time.monotonic()
        assert time.monotonic() - started < 5
    finally:
        resume.set()
    assert not (tmp_path / "out").exists()


# --- finished patients -------------------------------------------------------------------------


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_second_call_skips_finished_patients(segment, tmp_path, file_format):
    if file_format == "nifti":
        pytest.importorskip("nibabel")
    assert kinds(segment(file_format=file_format)) == [PatientSegmented] * 3
    before = contents(tmp_path / "out")
    events = segment(file_format=file_format, batch_size=1)
    assert kinds(events) == [PatientSkipped] * 3
    assert contents(tmp_path / "out") == before
    assert [e.summary() for e in events[1:]] == [f"{n}: already finished, skipped." for n in NAMES]


def test_the_engine_is_recorded_but_not_compared(segment, tmp_path):
    segment(engine="torch")
    record = json.loads((tmp_path / "out" / NAMES[0] / ".lgg-masks.json").read_text())
    provenance = record["provenance"]
    assert provenance["engine"] == "torch"
    assert "engine" not in provenance["options"]
    assert kinds(segment(engine="auto")) == [PatientSkipped] * 3


def test_a_record_of_version_0_1_0_is_still_read(segment, tmp_path):
    segment()
    for name in NAMES:
        path = tmp_path / "out" / name / ".lgg-masks.json"
        provenance = json.loads(path.read_text())["provenance"]
        path.write_text(json.dumps({**provenance, "engine": "torch-compile"}))
    assert kinds(segment()) == [PatientSkipped] * 3


def test_full_resolution_gives_another_result(segment):
    segment()
    failed = [e for e in segment(full_resolution=True) if isinstance(e, PatientFailed)]
    assert len(failed) == 3
    assert "holds results that were made with another look;" in failed[0].sentence
    assert kinds(segment(full_resolution=True, overwrite=True)) == [PatientSegmented] * 3
    assert kinds(segment(full_resolution=True)) == [PatientSkipped] * 3


@pytest.mark.usefixtures("openvino")
def test_int8_gives_another_result(segment, cohort, tmp_path):
    segment(engine="openvino")
    failed = [e for e in segment(engine="openvino-int8") if isinstance(e, PatientFailed)]
    assert len(failed) == 3
    assert "holds results that were made with another engine;" in failed[0].sentence
    assert kinds(segment(engine="openvino-int8", overwrite=True)) == [PatientSegmented] * 3
    assert kinds(segment(engine="openvino-int8")) == [PatientSkipped] * 3
    assert kinds(segment(engine="torch")) == [PatientFailed] * 3


@pytest.mark.parametrize("file_format", FORMATS)
def test_two_runs_write_the_same_bytes(segment, tmp_path, file_format):
    if file_format == "nifti":
        pytest.importorskip("nibabel")
    segment(file_format=file_format)
    first = {f: content for f, (content, _) in contents(tmp_path / "out").items()}
    segment(file_format=file_format, overwrite=True)
    assert {f: content for f, (content, _) in contents(tmp_path / "out").items()} == first


def test_each_format_is_a_separate_result(segment, tmp_path):
    segment()
    assert kinds(segment(file_format="tiff")) == [PatientSegmented] * 3
    assert kinds(segment(file_format="tiff")) == kinds(segment()) == [PatientSkipped] * 3


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"threshold": 0.01, "tta": True}, "with another threshold and tta;"),
        ({"model": "other"}, "with another model;"),
        ({"images": True}, "from other images;"),
    ],
    ids=["options", "model", "images"],
)
def test_results_of_other_settings_are_not_replaced(segment, cohort, tmp_path, change, difference):
    segment()
    before = contents(tmp_path / "out")
    if change.pop("images", False):
        image = cohort / NAMES[0] / f"{NAMES[0]}_2.tif"
        pixels = tifffile.imread(image)
        pixels[5, 5] += 1
        tifffile.imwrite(image, pixels, photometric="rgb")
        expected = [PatientFailed, PatientSkipped, PatientSkipped]
    else:
        expected = [PatientFailed] * 3
    if "model" in change:
        change["model"] = write_flair_model(tmp_path / "other.safetensors", cut=1.0)
    events = segment(**change)
    assert kinds(events) == expected
    sentence = next(e.sentence for e in events if isinstance(e, PatientFailed))
    assert f"{tmp_path / 'out' / NAMES[0]} holds results that were made {difference}" in sentence
    assert contents(tmp_path / "out") == before
    assert kinds(segment(**change, overwrite=True)) == [PatientSegmented] * 3
    assert kinds(segment(**change)) == [PatientSkipped] * 3


def test_moving_images_and_model_makes_no_difference(segment, cohort, model, tmp_path):
    segment()
    moved = tmp_path / "elsewhere"
    cohort.rename(moved)
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(model.read_bytes())
    events = list(lgg.segment_cohort(moved, tmp_path / "out", copy, SegmentOptions(device="cpu")))
    assert kinds(events) == [PatientSkipped] * 3


@pytest.mark.parametrize("file_format", ["masks", "tiff"])
def test_incomplete_results_are_neither_finished_nor_replaced(segment, tmp_path, file_format):
    segment(file_format="masks")
    folder = tmp_path / "out" / NAMES[1]
    (folder / f"{NAMES[1]}_2_mask.tif").unlink()
    before = contents(tmp_path / "out")
    events = segment(file_format=file_format)
    failed = [event for event in events if isinstance(event, PatientFailed)]
    assert [event.folder.name for event in failed] == [NAMES[1]]
    assert f"{folder} holds labels already" in failed[0].sentence
    assert {f: c for f, c in contents(tmp_path / "out").items() if f in before} == before
    assert kinds(segment(file_format=file_format, overwrite=True)) == [PatientSegmented] * 3


@pytest.mark.parametrize("damage", ["mask empty", "mask too many", "record gone", "record cut"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_labels_that_are_not_those_of_their_record_are_kept_and_named(segment, tmp_path, damage, overwrite):
    segment()
    folder = tmp_path / "out" / NAMES[1]
    provenance = folder / ".lgg-masks.json"
    mask = folder / f"{NAMES[1]}_2_mask.tif"
    {
        "mask empty": lambda: mask.write_bytes(b""),
        "mask too many": lambda: mask.with_name(f"{NAMES[1]}_9_mask.tif").write_bytes(mask.read_bytes()),
        "record gone": provenance.unlink,
        "record cut": lambda: provenance.write_text(provenance.read_text()[:50]),
    }[damage]()
    before = contents(folder)
    events = segment(overwrite=overwrite)
    others = PatientSegmented if overwrite else PatientSkipped
    assert sorted(map(str, kinds(events))) == sorted(map(str, [others, PatientFailed, others]))
    sentence = next(e.sentence for e in events if isinstance(e, PatientFailed))
    assert str(folder) in sentence
    assert "made or changed by another program and is kept" in sentence
    assert contents(folder) == before
    assert PatientFailed not in kinds(segment(replace_corrected=True))
    assert kinds(segment()) == [PatientSkipped] * 3


def test_removed_results_are_computed_again(segment, tmp_path):
    segment()
    for mask in (tmp_path / "out" / NAMES[1]).glob("*.tif"):
        mask.unlink()
    assert kinds(segment()) == [PatientSkipped, PatientSegmented, PatientSkipped]


def empty_labels(name):
    return LabelMap(name, np.zeros((4, 64, 64), np.uint8), (1, 2, 3, 4))


@pytest.mark.parametrize("file_format", FORMATS)
def test_corrected_labels_are_only_replaced_with_an_option_of_its_own(segment, tmp_path, file_format):
    segment(file_format=file_format)
    corrected = ResultStore(tmp_path / "out").patient(NAMES[2])
    corrected.write_edits(empty_labels(NAMES[2]))
    for options in ({}, {"overwrite": True}):
        events = segment(file_format=file_format, **options)
        (kept,) = (e for e in events if isinstance(e, PatientSkipped) and e.corrected)
        assert kept.folder.name == NAMES[2]
        assert NAMES[2] in kept.summary()
        assert "--replace-corrected" in kept.summary()
        assert not corrected.read_labels().any()
    segment(file_format=file_format, replace_corrected={NAMES[0]})
    assert not corrected.read_labels().any()
    assert kinds(segment(file_format=file_format, replace_corrected=True, overwrite=True)) == (
        [PatientSegmented] * 3
    )
    assert corrected.read_labels().any()
    assert corrected.status().state == "segmented"


@pytest.mark.parametrize("which", [0, 1])
def test_a_correction_during_the_run_is_not_replaced(cohort, model, tmp_path, which):
    results, events = ResultStore(tmp_path / "out"), []
    for event in lgg.segment_cohort(cohort, results.folder, model, SegmentOptions(device="cpu"), "tiff"):
        events.append(event)
        if isinstance(event, PatientProgress) and event.folder.name == NAMES[0] and event.share == 1:
            results.patient(NAMES[which]).write_edits(empty_labels(NAMES[which]))
    left = [event for event in events if isinstance(event, PatientSkipped)]
    assert [(event.name, event.corrected) for event in left] == [(NAMES[which], True)]
    assert not results.patient(NAMES[which]).read_labels().any()
    assert len([event for event in events if isinstance(event, PatientSegmented)]) == 2


def test_probability_and_uncertainty_are_those_of_the_labels(cohort, model, tmp_path):
    options, patient = SegmentOptions(device="cpu"), ResultStore(tmp_path / "out").patient(NAMES[0])
    keep = {"overwrite": True, "keep_probability": True}
    list(lgg.segment_cohort(cohort, tmp_path / "out", model, options, "tiff", **keep))
    expected = lgg.segment(read_patient(cohort / NAMES[0]), lgg.load_model(model), options)
    stored = patient.read()
    np.testing.assert_array_equal(stored.labels, expected.labels)
    np.testing.assert_allclose(stored.probability, expected.probability, atol=0.5 / 255 + 1e-6)
    assert stored.status.uncertainty == pytest.approx(expected.mean_uncertainty)
    other = write_flair_model(tmp_path / "other.safetensors", cut=1.0)
    list(lgg.segment_cohort(cohort, tmp_path / "out", other, options, "tiff", overwrite=True))
    assert patient.read().probability is None
    changed = lgg.segment(read_patient(cohort / NAMES[0]), lgg.load_model(other), options)
    assert patient.status().uncertainty == pytest.approx(changed.mean_uncertainty)


def test_what_a_table_shows_comes_with_the_result(segment, tmp_path):
    for event in segment(file_format="tiff"):
        if isinstance(event, PatientSegmented):
            assert event.details.predicted.voxels == event.measurements.voxels
            assert event.details.dice == event.dice
            assert event.status == ResultStore(tmp_path / "out").patient(event.name).status()


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot kill a program that way")
def test_a_killed_run_can_be_resumed(cohort, model, make_patient, tmp_path):
    for number in range(4, 9):
        name = f"TCGA_DU_000{number}_1"
        write_patient(cohort / name, make_patient(name, shape=(20, 64, 64)))
    out = tmp_path / "out"
    arguments = ["segment", cohort, "--output", out, "--model", model, "--device", "cpu", "--batch-size", 2]
    arguments += ["--engine", "torch"]
    command = [sys.executable, "-m", "napari_lgg_seg", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 300
        while not out.is_dir() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    finished = [folder for folder in out.iterdir() if not folder.name.startswith(".")]
    before = labels_in(out)
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{8 - len(finished)} of 8 patients segmented" in done.stdout
    assert {f: c for f, c in labels_in(out).items() if f in before} == before
    assert not [path for path in out.rglob(".*") if path.name != ".lgg-masks.json"], "leftovers"
    for folder in cohort.iterdir():
        assert read_patient(out / folder.name).shape == read_patient(folder).shape
