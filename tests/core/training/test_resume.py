"""A training that was stopped or killed resumes as if it had never stopped."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import pytest
import torch
from training_runs import (
    OPTIONS,
    TESTS,
    about,
    files,
    history_rows,
    of,
    start,
    step_losses,
    until,
    weights,
)

from napari_lgg_seg.core.data.masks import write_patient
from napari_lgg_seg.core.model.checkpoint import load_model
from napari_lgg_seg.core.training.events import (
    Ended,
    EpochDone,
    PatientRead,
    PatientValidated,
    SlicesDone,
    StepDone,
)

pytestmark = pytest.mark.usefixtures("narrow")


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5])
def test_a_resumed_training_continues_as_if_never_stopped(patients, output, whole_run, step):
    expected, whole = whole_run
    first = until(start(patients, output), StepDone, step)
    second = list(start(patients, output, resume=True))
    assert [event.step for event in of(second, StepDone)] == list(range(step + 1, 7))
    assert step_losses(first) + step_losses(second) == about(step_losses(expected))
    assert second[-2].best == expected[-2].best
    assert second[-2].loss == about(expected[-2].loss)
    found = weights(output)
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(found[name], tensor, msg=name)
    assert [row["step"] for row in history_rows(output)] == ["3", "6"]


def test_resuming_after_the_end_does_nothing(patients, output):
    list(start(patients, output))
    before = output.read_bytes()
    again = list(start(patients, output, resume=True))
    assert [type(event) for event in again] == [PatientRead, Ended]
    assert output.read_bytes() == before
    assert len(history_rows(output)) == 2


def test_a_finished_training_can_have_more_epochs(patients, output):
    list(start(patients, output))
    more = list(start(patients, output, resume=True, epochs=3))
    assert [event.step for event in of(more, StepDone)] == [7, 8, 9]
    assert len(history_rows(output)) == 3


@pytest.mark.parametrize("kind", [SlicesDone, PatientValidated])
def test_a_training_stopped_in_a_validation_repeats_it(patients, output, whole_run, kind):
    until(start(patients, output), kind)
    events = list(start(patients, output, resume=True))
    kinds = [type(event) for event in events if not isinstance(event, SlicesDone)]
    assert kinds[:3] == [PatientRead, PatientValidated, EpochDone]
    expected = of(whole_run[0], EpochDone)[0]
    assert of(events, EpochDone)[0].loss == about(expected.loss)
    assert of(events, EpochDone)[0].validation == expected.validation
    assert step_losses(events) == about(step_losses(whole_run[0])[3:])
    assert [row["step"] for row in history_rows(output)] == ["3", "6"]


def test_a_training_stopped_before_its_first_step_leaves_no_files(patients, output):
    until(start(patients, output), PatientRead)
    assert not output.exists()
    assert not list(output.parent.rglob("last.pt"))


KILLED = """
import os, signal, sys
from pathlib import Path

import torch
from narrow_network import narrow_network

from napari_lgg_seg.core.training.events import StepDone
from napari_lgg_seg.core.training.options import TrainOptions
from napari_lgg_seg.core.model.preprocess import PreprocessOptions
from napari_lgg_seg.core.training.train import train

moment, data, output = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
calls = []

def die(*_):
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))

def die_while_saving(write):
    def writing(path, content):
        if "last.pt" in path.name:
            calls.append(path)
        if len(calls) < 3:
            return write(path, content)
        write(path, b"half of it")
        die()
    return writing

if moment == "state":
    Path.write_bytes = die_while_saving(Path.write_bytes)
with narrow_network():
    work = train([data / "first"], [data / "second"], output, TrainOptions(**OPTIONS), PreprocessOptions(32))
    for event in work:
        if isinstance(event, StepDone):
            print(event.loss, flush=True)
            if moment == "step" and event.step == 5:
                die()
"""


@pytest.mark.parametrize("moment", ["step", "state"])
def test_a_killed_training_can_be_resumed(patients, output, state, tmp_path, whole_run, moment):
    """Killed in the second epoch, after a step or while the state was being written."""
    for [patient] in patients:
        write_patient(tmp_path / patient.name, patient)
    script = tmp_path / "killed.py"
    script.write_text(KILLED.replace("OPTIONS", repr(dataclasses.asdict(OPTIONS)), 1))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
    done = subprocess.run(
        [sys.executable, script, moment, tmp_path, output],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode not in (0, 1), done.stderr
    printed = [float(line) for line in done.stdout.split()]
    assert printed == about(step_losses(whole_run[0])[: len(printed)])
    assert len(printed) == (5 if moment == "step" else 3 + 2)
    leftovers = list(output.parent.rglob("*.tmp"))
    assert bool(leftovers) == (moment == "state")
    assert load_model(output).card.training["epoch"] == 1
    events = list(start([[tmp_path / "first"], [tmp_path / "second"]], output, resume=True))
    assert step_losses(events) == about(step_losses(whole_run[0])[3:])
    assert events[-2].best == whole_run[0][-2].best
    assert load_model(output).card.results["validation"] == {"second": events[-2].best}
    assert files(state.parent) == [".lock", "history.csv", "last.pt"]
    assert not list(output.parent.rglob("*.tmp"))


def test_leftovers_of_a_killed_training_are_removed(patients, tmp_path):
    """Only its own, although its name reads as a pattern."""
    output = tmp_path / "model [1].safetensors"
    leftover = tmp_path / ".model [1].safetensors.abcdefgh.tmp"
    other = tmp_path / ".model 1.safetensors.abcdefgh.tmp"
    for path in (leftover, other):
        path.write_bytes(b"half of it")
        os.utime(path, (0, 0))
    until(start(patients, output), StepDone)
    assert not leftover.exists()
    assert other.exists()
