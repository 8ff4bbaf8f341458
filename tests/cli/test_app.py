"""The program as a whole: usage, help, and the small commands sample and info."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from flair_model import write_flair_model
from program import NAME, OTHER, contents

from napari_lgg_seg.core.data.discover import patient_folders
from napari_lgg_seg.core.data.patients import read_patient
from napari_lgg_seg.core.model.checkpoint import DEFAULT_MODEL, read_card


@pytest.mark.parametrize(
    "arguments",
    [
        ["--nonsense"],
        ["nonsense"],
        ["segment"],
        ["segment", "."],
        ["segment", "nowhere", "--output", "masks"],
        ["segment", ".", "--output", "masks", "--device", "tpu"],
        ["segment", ".", "--output", "masks", "--threshold", "1.5"],
        ["segment", ".", "--output", "masks", "--threshold", "half"],
        ["evaluate", "."],
        ["evaluate", ".", "nowhere"],
        ["sample"],
        ["train", "."],
        ["train", ".", "--output", "m.safetensors", "--epochs", "0"],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2(run, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments).code == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["segment", "--help"], ["evaluate", "-h"]])
def test_help_is_no_error(run, arguments):
    done = run(*arguments)
    assert done.code == 0
    assert "Usage" in done.out


def test_help_names_every_command(run):
    text = run("--help").out
    commands = (
        "segment",
        "evaluate",
        "report",
        "sample",
        "info",
        "train",
        "shape",
        "associate",
        "calibrate-coarse",
    )
    for command in commands:
        assert command in text
    assert "quick-look" not in text
    assert "not a medical device" in text


@pytest.fixture
def small_sample(monkeypatch, make_patient):
    """A small sample patient."""
    monkeypatch.setattr(
        "napari_lgg_seg.core.data.phantom.make_sample_patient", lambda: make_patient("LGG_sample")
    )


def test_sample_is_a_patient_folder(run, small_sample, tmp_path, make_patient):
    done = run("sample", tmp_path / "sample")
    assert done.code == 0
    assert str(tmp_path / "sample") in done.out
    np.testing.assert_array_equal(read_patient(tmp_path / "sample").volume, make_patient().volume)


@pytest.fixture
def small_samples(monkeypatch, make_patient):
    """The made cohort, made small."""
    monkeypatch.setattr(
        "napari_lgg_seg.core.data.phantom_cohort.make_sample_patients",
        lambda count: (make_patient(f"TCGA_XA_000{n}_20000101", seed=n) for n in range(count)),
    )


def test_sample_makes_a_cohort(run, small_samples, tmp_path):
    done = run("sample", tmp_path / "cohort", "--patients", 3)
    assert done.code == 0
    assert f"3 synthetic patients are in {tmp_path / 'cohort'}" in done.out
    folders = patient_folders(tmp_path / "cohort")
    assert [folder.name for folder in folders] == [f"TCGA_XA_000{n}_20000101" for n in range(3)]
    volumes = [read_patient(folder).volume for folder in folders]
    assert not np.array_equal(volumes[0], volumes[1])
    assert all(read_patient(folder).truth is not None for folder in folders)


def test_sample_leaves_a_cohort_that_is_there_alone(run, small_samples, tmp_path):
    assert run("sample", tmp_path, "--patients", 2).code == 0
    before = contents(tmp_path)
    done = run("sample", tmp_path, "--patients", 2)
    assert done.code == 1
    assert "TCGA_XA_0000_20000101" in done.err
    assert contents(tmp_path) == before


def test_sample_leaves_a_patient_that_is_there_alone(run, small_sample, write):
    folder = write()
    before = contents(folder)
    done = run("sample", folder)
    assert done.code == 1
    assert str(folder) in done.err
    assert contents(folder) == before


def test_info_prints_the_shipped_models_header(run):
    done = run("info")
    assert done.code == 0
    first, _, rest = done.out.partition("\n")
    assert first == str(DEFAULT_MODEL)
    card = json.loads(rest)
    assert card["schema_version"] == 1
    assert card["sequences"] == ["pre-contrast", "FLAIR", "post-contrast"]
    assert card["training_patients"]
    assert not set(card["training_patients"]) & set(card["validation_patients"])
    for key in ("data", "licence", "created", "package_version", "threshold", "preprocess", "intended_use"):
        assert card[key], key
    low, high = card["results"]["mean_interval"]
    assert low < card["results"]["summary"]["mean"] < high
    assert 0 < card["results"]["calibration"]["expected_error"] < 0.1
    folds = card["results"]["cross_validation"]
    assert folds["summary"]["patients"] == 90
    failed = [row["dice"] for row in folds["failures"]]
    assert failed == sorted(failed)
    assert max(failed) < 0.7


def test_info_tells_the_neighbouring_slices(run, tmp_path):
    model = write_flair_model(tmp_path / "neighbours.safetensors", neighbours=2)
    assert json.loads(run("info", model).out.partition("\n")[2])["neighbouring_slices"] == 2
    assert json.loads(run("info").out.partition("\n")[2])["neighbouring_slices"] == 0


def test_info_of_another_model_and_of_no_model(run, small_model, tmp_path):
    assert json.loads(run("info", small_model).out.partition("\n")[2])["name"] == "bright FLAIR"
    (tmp_path / "no model").write_text("text")
    done = run("info", tmp_path / "no model")
    assert done.code == 1
    assert str(tmp_path / "no model") in done.err


# --- as a program ------------------------------------------------------------------------------


def program(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "napari_lgg_seg", *map(str, arguments)]
    environment = {**os.environ, "COLUMNS": "200", "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", timeout=600, check=False, env=environment
    )


def test_sample_segment_evaluate_with_the_shipped_model(tmp_path):
    sample, masks, metrics = tmp_path / "sample", tmp_path / "masks", tmp_path / "dice.json"
    done = program("sample", sample)
    assert done.returncode == 0, done.stderr
    done = program("segment", sample, "--output", masks)
    assert done.returncode == 0, done.stderr
    assert "1 of 1 patient" in done.stdout
    done = program("evaluate", masks, sample, "--json", metrics)
    assert done.returncode == 0, done.stderr
    assert json.loads(metrics.read_text())["mean"] > 0.7


def test_program_ends_with_a_sentence_where_it_cannot_go_on(tmp_path):
    done = program("info", tmp_path / "ä nowhere")
    assert done.returncode == 1
    assert "ä nowhere" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="Windows has no way to send Ctrl-C to one program alone")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_training_keeps_its_model_and_goes_on(write, dataset, output, small_model, number):
    for name in (NAME, OTHER):
        write(name, shape=(3, 64, 64))
    words = ["train", dataset, "--output", output, "--init", small_model, "--device", "cpu"]
    words += ["--slices-per-epoch", 4, "--batch-size", 2, "--patience", 0]
    command = [sys.executable, "-m", "napari_lgg_seg", *map(str, words)]
    state = output.with_name("model.state") / "last.pt"
    process = subprocess.Popen(
        [*command, "--epochs", "1000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 300
        # The state with the initial model's validation; steps follow.
        while not state.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(number)
        out, err = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "Go on with --resume." in err
    assert "Traceback" not in err
    assert "The best model" not in out
    assert read_card(output).training["initial_model"] == "bright FLAIR"
    assert sorted(path.name for path in state.parent.iterdir()) == [".lock", "history.csv", "last.pt"]
    if number == signal.SIGINT:
        done = program(*words, "--epochs", 1, "--resume")
        assert done.returncode == 0, done.stderr
        assert str(output) in done.stdout


@pytest.mark.real_data
def test_real_patients_are_segmented(run, lgg_dataset, masks, tmp_path):
    folders = [
        lgg_dataset / name for name in json.loads(run("info").out.partition("\n")[2])["validation_patients"]
    ]
    chosen = sorted((f for f in folders if f.is_dir()), key=lambda f: len(list(f.iterdir())))[:2]
    assert len(chosen) == 2
    done = run("segment", *chosen, "--output", masks)
    assert done.code == 0
    assert "2 of 2 patients" in done.out
    for folder in chosen:
        assert read_patient(masks / folder.name).shape == read_patient(folder).shape
    assert run("evaluate", masks, lgg_dataset, "--json", tmp_path / "dice.json").code == 0
    assert json.loads((tmp_path / "dice.json").read_text())["mean"] > 0.3
