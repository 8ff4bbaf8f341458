"""Only one training at a time writes to an output."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from training_runs import TESTS, files, of, start, until

from napari_lgg_seg.core.errors import ExportError, TrainingError
from napari_lgg_seg.core.training.callbacks import Callback
from napari_lgg_seg.core.training.events import Ended, StepDone
from napari_lgg_seg.core.training.train import locked_output

pytestmark = pytest.mark.usefixtures("narrow")

#: A process that holds the lock until it is killed or its input ends.
HOLDER = """
import sys
from pathlib import Path
from napari_lgg_seg.core.training.train import locked_output

with locked_output(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def refused(output):
    """Expect the error about another training."""
    text = f"Another training is writing {output}; wait until it has ended or choose another output."
    return pytest.raises(TrainingError, match=f"^{re.escape(text)}$")


@pytest.fixture
def holder(output):
    """Another process that trains to the output."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, output],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, sys.path)])},
    )
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.communicate()


# --- in one process ----------------------------------------------------------------------------


@pytest.mark.parametrize("resume", [False, True])
def test_a_second_training_to_the_same_output_is_refused(patients, output, state, resume):
    first = start(patients, output)
    events = [next(first), next(first)]
    slices = state.with_name("slices") / "0.npy"
    slices.parent.mkdir(parents=True, exist_ok=True)
    slices.write_bytes(b"of the first training")
    before = files(output.parent)
    with refused(output):
        next(start(patients, output, resume=resume))
    assert files(output.parent) == before
    events += first
    assert len(of(events, StepDone)) == 6
    assert events[-1] == Ended("All 2 epochs are done.")


def test_the_second_training_can_start_when_the_first_is_closed(patients, output):
    first = start(patients, output)
    next(first)
    second = start(patients, output, resume=True)
    first.close()
    assert len(of(until(second, StepDone), StepDone)) == 1


def test_the_second_training_can_start_when_the_first_has_ended(patients, output):
    first = start(patients, output, epochs=1)
    events = list(first)  # kept: nothing is released by deleting it
    more = until(start(patients, output, resume=True), StepDone)
    assert [event.step for event in of([*events, *more], StepDone)] == [1, 2, 3, 4]


def test_the_second_training_can_start_when_the_first_has_failed(patients, output):
    class Failing(Callback):
        def after_step(self, run):
            raise ZeroDivisionError

    first = start(patients, output, callbacks=[Failing()])
    with pytest.raises(ZeroDivisionError):
        list(first)
    assert of(until(start(patients, output, resume=True), StepDone), StepDone)


def test_a_training_can_be_closed_by_another_thread(patients, output):
    first = start(patients, output)
    with ThreadPoolExecutor(1) as other:
        other.submit(next, first).result()
        with refused(output):
            next(start(patients, output))
    first.close()
    assert of(until(start(patients, output, resume=True), StepDone), StepDone)


def test_trainings_to_two_outputs_do_not_disturb_each_other(patients, output):
    first, second = start(patients, output), start(patients, output.with_name("other.safetensors"))
    next(first)
    assert of(until(second, StepDone), StepDone)
    first.close()


def test_a_wrong_name_leaves_no_files(patients, tmp_path):
    with pytest.raises(TrainingError, match="must end in"):
        next(start(patients, tmp_path / "model.pt"))
    assert files(tmp_path) == []


def test_a_file_in_place_of_the_state_folder_is_an_error(patients, output, state):
    state.parent.write_text("not a folder")
    with pytest.raises(ExportError, match=r"my model\.state could not be written .*\.$"):
        next(start(patients, output))


# --- in two processes --------------------------------------------------------------------------


def test_a_training_in_another_process_is_noticed_until_it_ends(patients, output, holder):
    with refused(output):
        next(start(patients, output))
    holder.communicate()
    assert of(until(start(patients, output), StepDone), StepDone)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system cannot kill")
def test_a_killed_training_leaves_no_lock(output, holder):
    with refused(output), locked_output(output):
        pass
    holder.kill()
    holder.wait()
    with locked_output(output):
        pass


def test_a_training_runs_where_the_file_system_has_no_locks(output, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(pytest.importorskip("fcntl"), "flock", refuse)
    with locked_output(output):
        pass
