"""Training in several processes, on the CPU: each test starts real ones."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from narrow_network import narrow_network
from torch import distributed as torch_distributed
from training_runs import TESTS

from napari_lgg_seg.core.data.masks import write_patient
from napari_lgg_seg.core.model.checkpoint import load_model, read_card
from napari_lgg_seg.core.training.distributed import Processes, current, joined
from napari_lgg_seg.core.training.events import StepDone
from napari_lgg_seg.core.training.train import locked_output

pytestmark = pytest.mark.skipif(
    not (torch_distributed.is_available() and torch_distributed.is_gloo_available()),
    reason="this build of PyTorch has no Gloo",
)

NAMES = ("first", "second", "third", "fourth", "fifth")

#: One process of a training, which prints what it found as JSON. "plain" leaves out what depends on the
#: number of processes: batch statistics and augmentation.
SCRIPT = """
import json, sys
from pathlib import Path

import torch
from narrow_network import narrow_network
from torch.nn import functional

from napari_lgg_seg.core import devices
from napari_lgg_seg.core.training import distributed, run
from napari_lgg_seg.core.training.callbacks import Callback
from napari_lgg_seg.core.errors import LggSegError
from napari_lgg_seg.core.training.events import Ended, EpochDone, PatientValidated, StepDone
from napari_lgg_seg.core.training.options import TrainOptions
from napari_lgg_seg.core.model.preprocess import PreprocessOptions
from napari_lgg_seg.core.training.train import train

def with_running_statistics(norm, x):
    return functional.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias)

class Gradients(Callback):
    def after_step(self, run):
        parts = [p.grad.flatten() for p in run.network.parameters()]
        found["gradients"].append(torch.cat(parts)[::997].tolist())
        found["norms"].append(float(torch.cat(parts).norm()))

class Stop(Callback):
    # Stops in one process only, which must be enough.
    def after_step(self, run):
        if run.processes.rank == stops and run.steps_done == 2:
            run.stop("Enough.")

data, output, plain, stops = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "plain", int(sys.argv[4])
options = TrainOptions(init="scratch", device="cpu", small_share=0, **json.loads(sys.argv[5]))
resume = "resume" in sys.argv
found = {"losses": [], "gradients": [], "norms": [], "validated": [], "reason": "", "summaries": []}
if plain:
    torch.nn.BatchNorm2d.forward = with_running_statistics
    devices._cpu_has_bf16 = lambda: False
    run.augment = lambda images, masks, *_: (images, masks)
sets = [data / n for n in ("first", "second", "third")], [data / n for n in ("fourth", "fifth")]
try:
    with narrow_network(), distributed.joined("cpu") as processes:
        more = [Gradients(), Stop()]
        work = train(*sets, output, options, PreprocessOptions(32), callbacks=more, resume=resume)
        for event in work:
            if isinstance(event, StepDone):
                found["losses"].append(event.loss)
                print("step", event.step, flush=True)
            elif isinstance(event, PatientValidated):
                found["validated"].append(event.name)
            elif isinstance(event, EpochDone):
                found["summaries"].append(event.validation and event.validation.mean)
            elif isinstance(event, Ended):
                found["reason"] = event.reason
        found["rank"] = processes.rank
except LggSegError as error:
    print(f"Error: {error}", file=sys.stderr)
    raise SystemExit(1)
print(json.dumps(found), flush=True)
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory, make_patient):
    """Folders of three patients to train on and two to validate on."""
    folder = tmp_path_factory.mktemp("data")
    for seed, name in enumerate(NAMES):
        write_patient(folder / name, make_patient(name, shape=(4, 64, 64), seed=seed))
    (folder / "script.py").write_text(SCRIPT)
    return folder


def environment(**more):
    path = os.pathsep.join([str(TESTS), *filter(None, sys.path)])
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, "COLUMNS": "200", **more}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def start(command, count):
    """Start processes as torchrun does, but without its supervision."""
    port = free_port()
    return [
        subprocess.Popen(
            command,
            env=environment(
                RANK=str(rank),
                LOCAL_RANK=str(rank),
                WORLD_SIZE=str(count),
                MASTER_ADDR="127.0.0.1",
                MASTER_PORT=port,
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]


def script(data, output, *more, plain=False, stops=-1, **options):
    options = {"epochs": 1, "slices_per_epoch": 10, "batch_size": 5, "validate_every": 1, **options}
    kind = "plain" if plain else "usual"
    return [
        sys.executable,
        str(data / "script.py"),
        str(data),
        str(output),
        kind,
        str(stops),
        json.dumps(options),
        *more,
    ]


def train_as(count, *arguments, **options):
    """Train in a number of processes; returns what each of them printed."""
    processes = start(script(*arguments, **options), count)
    try:
        ended = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == count * [0], ended
    return [json.loads(out.splitlines()[-1]) for out, _ in ended]


# --- shared work -------------------------------------------------------------------------------


def test_several_processes_do_the_steps_of_one(data, tmp_path):
    """With batches of five slices, which two cannot share evenly, and a loss that is no mean over slices."""
    pytest.importorskip("monai")
    options = {"loss": "bce+dice", "plain": True, "warm_up": 0, "learning_rate": 1e-3}
    [alone] = train_as(1, data, tmp_path / "alone.safetensors", **options)
    first, second = train_as(2, data, tmp_path / "both.safetensors", **options)
    assert len(alone["losses"]) == 2
    assert first["losses"] == second["losses"]
    assert first["losses"] == pytest.approx(alone["losses"], rel=1e-4)
    assert first["gradients"] == second["gradients"]
    for both, one in zip(first["gradients"], alone["gradients"], strict=True):
        assert np.abs(one).max() > 1e-4
        assert np.abs(np.subtract(both, one)).max() < 1e-3 * np.abs(one).max()
    np.testing.assert_allclose(first["norms"], alone["norms"], rtol=1e-3)


def test_processes_share_the_validation_and_one_writes_files(data, tmp_path):
    output = tmp_path / "out" / "model.safetensors"
    options = {"epochs": 8, "slices_per_epoch": 24, "batch_size": 6, "tumour_share": 1, "validate_every": 4}
    options |= {"learning_rate": 1e-2, "average_decay": 0.5}
    found = train_as(2, data, output, **options)
    assert found[0]["losses"] == found[1]["losses"]
    assert np.mean(found[0]["losses"][-4:]) < 0.8 * np.mean(found[0]["losses"][:4])
    assert [part["validated"] for part in found] == [2 * ["fourth"], 2 * ["fifth"]]
    assert found[0]["summaries"] == found[1]["summaries"]
    files = sorted(str(path.relative_to(output.parent)) for path in output.parent.rglob("*"))
    state = Path("model.state")
    names = (".lock", "history.csv", "last.pt")
    assert files == ["model.safetensors", "model.state", *(str(state / name) for name in names)]
    with narrow_network():
        card = load_model(output).card
    assert card.training["processes"] == 2
    assert set(card.results["validation"]) == {"fourth", "fifth"}
    assert card.training_patients == ("first", "second", "third")
    assert len((output.parent / state / "history.csv").read_text().splitlines()) == 1 + 8


def test_a_stop_in_one_process_stops_all(data, tmp_path):
    output = tmp_path / "model.safetensors"
    found = train_as(2, data, output, slices_per_epoch=30, stops=1)
    assert [len(part["losses"]) for part in found] == [2, 2]
    assert [part["reason"] for part in found] == ["Another process of this training was stopped.", "Enough."]
    # The training can be resumed with another number of processes.
    [alone] = train_as(1, data, output, "resume", slices_per_epoch=30)
    assert len(alone["losses"]) == 4
    assert set(read_card(output).results["validation"]) == {"fourth", "fifth"}


def test_fewer_slices_than_processes_are_refused(data, tmp_path):
    processes = start(script(data, tmp_path / "model.safetensors", batch_size=1), 2)
    ended = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [1, 1]
    for _, err in ended:
        assert "cannot be shared by 2 processes; choose a larger batch size." in err
        assert "Traceback" not in err


def test_all_processes_are_refused_if_another_training_writes_the_output(data, tmp_path):
    output = tmp_path / "model.safetensors"
    with locked_output(output):
        processes = start(script(data, output), 2)
        try:
            ended = [process.communicate(timeout=120) for process in processes]
        finally:
            for process in processes:
                process.kill()
    assert [process.returncode for process in processes] == [1, 1]
    for _, err in ended:
        assert err.splitlines()[-1] == (
            f"Error: Another training is writing {output}; wait until it has ended or choose another output."
        )
    assert [path.name for path in output.parent.rglob("*")] == ["model.state", ".lock"]


# --- lost processes ----------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system cannot kill")
@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_ends_all_and_the_training_can_be_resumed(data, tmp_path, killed):
    output = tmp_path / "model.safetensors"
    options = {"epochs": 500, "slices_per_epoch": 10, "validate_every": 500}
    processes = start(script(data, output, **options), 2)
    try:
        for line in processes[killed].stdout:
            if line.startswith("step 5"):
                break
        processes[killed].send_signal(signal.SIGKILL)
        began = time.monotonic()
        _, err = processes[1 - killed].communicate(timeout=120)
        assert time.monotonic() - began < 60
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert processes[1 - killed].returncode == 1
    assert err.splitlines()[-1].startswith(
        "Error: Another process of this training ended or cannot be reached"
    )
    assert "--resume" in err
    assert "Traceback" not in err
    [alone] = train_as(1, data, output, "resume", **{**options, "epochs": 5})
    assert alone["reason"] == "All 5 epochs are done."
    with narrow_network():
        assert set(load_model(output).card.results["validation"]) == {"fourth", "fifth"}
    assert not list(tmp_path.rglob("*.tmp"))
    assert not list(tmp_path.rglob("slices"))


# --- torchrun ----------------------------------------------------------------------------------


def test_torchrun_trains_on_the_command_line(data, tmp_path):
    from flair_model import write_flair_model

    initial, output = write_flair_model(tmp_path / "initial.safetensors"), tmp_path / "model.safetensors"
    cohort = tmp_path / "cohort"
    cohort.mkdir()
    for name in NAMES:
        (cohort / name).symlink_to(data / name, target_is_directory=True)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "napari_lgg_seg", "train", str(cohort), "--output", str(output)]
    command += ["--init", str(initial), "--epochs", "1", "--set", "slices_per_epoch=4", "--batch-size", "4"]
    command += ["--device", "cpu", "--validation", "0.4"]
    cache = tmp_path / "cache"
    done = subprocess.run(
        command,
        env=environment(XDG_CACHE_HOME=str(cache)),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if sys.platform.startswith("linux"):  # where the processes met, closed to other users
        (met,) = cache.glob("*/torchrun")
        assert met.stat().st_mode & 0o077 == 0
        assert list(met.iterdir()) == []
    assert done.stdout.count("The best model is in") == 1
    assert done.stderr.count("Epoch 1 of 1") == 1
    card = read_card(output)
    assert card.training["processes"] == 2
    assert len(card.results["before"]) == len(card.results["validation"]) == 2


# --- a single process --------------------------------------------------------------------------


def test_a_single_process_joins_no_group(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    with joined("cpu") as processes:
        assert processes is current()
        assert processes == Processes()
        assert processes.is_main
        assert processes.share("abc") == "abc"
        assert processes.merged({"b": 1, "a": 2}) == {"b": 1, "a": 2}
        assert processes.from_main(StepDone) is StepDone
        processes.wait()
    assert not torch_distributed.is_initialized()
