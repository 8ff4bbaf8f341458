"""Several processes on one cohort: no correction is lost, and none is replaced by a prediction."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from napari_lgg_seg.core.cohort.store import ResultStore
from napari_lgg_seg.core.data.label_files import LabelMap
from napari_lgg_seg.core.data.label_reading import read_labels
from napari_lgg_seg.core.data.provenance import Provenance
from napari_lgg_seg.core.errors import ChangedError, CorrectedError

NAMES = [f"P_{number}" for number in range(40)]
SHAPE = (2, 8, 8)
RUN = Provenance("0", "model", {}, "0.1.0")


def label_map(name, value):
    return LabelMap(name, np.full(SHAPE, value, np.uint8), (1, 2))


# --- what runs in other processes, at the same time ------------------------------------------------


def correct(folder: Path, who: int) -> None:
    """Correct every second patient, with one's own number as label."""
    for name in NAMES[who::2]:
        ResultStore(folder).patient(name).write_edits(label_map(name, who + 1))


def correct_same(folder: Path, who: int) -> None:
    """Correct one patient again and again, never without having seen what is there; report what was saved."""
    patient = ResultStore(folder).patient(NAMES[0])
    saved = []
    for number in range(30):
        try:
            patient.write_edits(label_map(NAMES[0], 2 * number + who + 1), revision=patient.revision())
            saved.append(2 * number + who + 1)
        except ChangedError:
            continue
    sys.stdout.write(" ".join(map(str, saved)))


def correct_some(folder: Path, who: int) -> None:
    """Correct every second patient in a random order."""
    names = NAMES[::2]
    random.Random(who).shuffle(names)
    for name in names:
        ResultStore(folder).patient(name).write_edits(label_map(name, 7))


def segment(folder: Path, _who: int) -> None:
    """Predict all patients again and again, in two formats."""
    for file_format in ("tiff", "masks", "tiff"):
        for name in NAMES:
            patient = ResultStore(folder).patient(name)
            try:
                patient.write_prediction(label_map(name, 1), file_format, provenance=RUN, overwrite=True)
            except CorrectedError:
                continue


def run_at_once(folder, *works):
    """Run functions in a process each; returns what they printed."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    code = "import sys, pathlib, {0}; {0}.{1}(pathlib.Path(sys.argv[1]), int(sys.argv[2]))"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code.format(__name__, work.__name__), str(folder), str(who)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for who, work in enumerate(works)
    ]
    printed = []
    for process in processes:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        printed.append(out)
    return printed


def hidden(folder):
    return [path for path in folder.rglob(".*") if not path.name.endswith(".json")]


def test_corrections_by_two_processes_are_all_there(tmp_path):
    run_at_once(tmp_path, correct, correct)
    statuses = ResultStore(tmp_path).corrected().found
    assert sorted(statuses) == sorted(NAMES)
    assert {status.state for status in statuses.values()} == {"corrected"}
    for number, name in enumerate(NAMES):
        assert (ResultStore(tmp_path).patient(name).read_labels() == number % 2 + 1).all()
    assert hidden(tmp_path) == []


def test_corrections_of_one_patient_do_not_replace_what_was_not_seen(tmp_path):
    saved = [list(map(int, out.split())) for out in run_at_once(tmp_path, correct_same, correct_same)]
    assert all(saved)
    stored = ResultStore(tmp_path).patient(NAMES[0]).read(SHAPE)
    assert stored.status.state == "corrected"
    assert len(np.unique(stored.labels)) == 1
    assert stored.labels.max() in (saved[0][-1], saved[1][-1])
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("before", [False, True])
def test_predictions_never_replace_corrections_made_meanwhile(tmp_path, before):
    if before:
        for name in NAMES:
            ResultStore(tmp_path).patient(name).write_prediction(label_map(name, 1), provenance=RUN)
    run_at_once(tmp_path, segment, correct_some)
    for name in NAMES:
        stored = ResultStore(tmp_path).patient(name).read(SHAPE)
        corrected = name in NAMES[::2]
        assert (stored.status.state == "corrected") == corrected
        assert (stored.labels == (7 if corrected else 1)).all()
        if (tmp_path / name / f"{name}_1_mask.tif").exists():
            np.testing.assert_array_equal(read_labels(tmp_path / name), stored.labels != 0)
    assert hidden(tmp_path) == []
