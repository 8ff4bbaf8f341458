"""``segment`` as a program that is stopped, and what it says about workers that it cannot have."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from napari_lgg_seg.core.data.masks import write_patient
from napari_lgg_seg.core.data.patients import read_patient

NAMES = tuple(f"TCGA_DU_000{number}_1" for number in range(6))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory, make_patient) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    for name in NAMES:
        write_patient(folder / name, make_patient(name, shape=(30, 64, 64)))
    return folder


@pytest.mark.skipif(os.name == "nt", reason="Windows has no way to send Ctrl-C to one program alone")
@pytest.mark.parametrize(
    ("where", "number"),
    [([], signal.SIGINT), (["--workers", "2"], signal.SIGINT), (["--workers", "2"], signal.SIGTERM)],
    ids=["one process", "workers", "workers, ended by the system"],
)
def test_a_stopped_program_leaves_no_workers_and_goes_on(cohort, small_model, tmp_path, where, number):
    if where:
        pytest.importorskip("distributed")
    out = tmp_path / "out"
    words = ["segment", cohort, "--output", out, "--model", small_model, "--device", "cpu", "--batch-size", 1]
    words += ["--engine", "torch"]
    command = [sys.executable, "-m", "napari_lgg_seg", *map(str, words)]
    # In a session of its own, so that all its processes hear Ctrl-C, as in a terminal.
    process = subprocess.Popen(
        [*command, *where], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 300
        while not list(out.glob("TCGA*")) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        children = psutil.Process(process.pid).children(recursive=True)
        if number == signal.SIGINT:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        text, err = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "Stopped. The same command continues" in err
    assert "of 6 patients segmented" in text
    assert len(children) >= 2 * bool(where)
    psutil.wait_procs(children, timeout=60)
    assert [c for c in children if c.is_running() and c.status() != psutil.STATUS_ZOMBIE] == []
    whole = [folder.name for folder in out.iterdir()]
    assert set(whole) < set(NAMES)  # and no other file
    assert all(len(list((out / name).glob("*_mask.tif"))) == 30 for name in whole)

    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    finished = f"{len(whole)} {'was' if len(whole) == 1 else 'were'} finished before."
    assert f"{6 - len(whole)} of 6 patients segmented on CPU. {finished}" in done.stdout
    assert sorted(folder.name for folder in out.iterdir()) == list(NAMES)
    assert read_patient(out / NAMES[0]).shape == (30, 64, 64)


@pytest.mark.parametrize(
    "where", [["--workers", 0], ["--workers", "two"], ["--workers", 2, "--scheduler", "tcp://127.0.0.1:1"]]
)
def test_wrong_usage_exits_with_2(run, cohort, tmp_path, where):
    assert run("segment", cohort, "--output", tmp_path / "out", *where).code == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("package", ["distributed", "cryptography"])
@pytest.mark.parametrize("where", [["--workers", 2], ["--scheduler", "tcp://127.0.0.1:1"]])
def test_a_missing_extra_is_one_sentence(run, cohort, small_model, tmp_path, monkeypatch, where, package):
    monkeypatch.setitem(sys.modules, package, None)
    done = run("segment", cohort, "--output", tmp_path / "out", "--model", small_model, *where)
    assert done.code == 1
    assert done.err.startswith(f"Error: Several workers need the package {package}")
    assert "pip install 'napari-lgg-seg[cluster]'" in done.err
    assert not (tmp_path / "out").exists()


def test_no_workers_are_started_for_a_file_that_is_no_model(run, cohort, tmp_path):
    file = tmp_path / "text.safetensors"
    file.write_text("no model")
    done = run("segment", cohort, "--output", tmp_path / "out", "--model", file, "--workers", 2)
    assert done.code == 1
    assert done.err.startswith(f"Error: {file} is not a napari-lgg-seg model")
    assert not (tmp_path / "out").exists()
