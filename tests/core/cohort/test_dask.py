"""Patients distributed over real worker processes, of a running cluster and of a run itself."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from flair_model import write_flair_model

import napari_lgg_seg as lgg
from napari_lgg_seg.core.cohort.dask import pool as cluster_pool
from napari_lgg_seg.core.cohort.dask import spread as cluster
from napari_lgg_seg.core.cohort.dask import worker as cluster_worker
from napari_lgg_seg.core.cohort.patient_job import (
    PatientFailed,
    PatientProgress,
    PatientSegmented,
    PatientSkipped,
)
from napari_lgg_seg.core.data.masks import write_patient
from napari_lgg_seg.core.errors import ClusterError, DeviceError, ModelError
from napari_lgg_seg.core.inference.predict import Notice
from napari_lgg_seg.core.options import SegmentOptions

dask = pytest.importorskip("dask")
distributed = pytest.importorskip("distributed")

NAMES = tuple(f"TCGA_DU_000{number}_1" for number in range(5))
#: By default, a scheduler serves web pages at one fixed port.
NO_PAGES = {"dashboard_address": "127.0.0.1:0"}
OPTIONS = SegmentOptions(device="cpu", batch_size=2, engine="torch")


@pytest.fixture(scope="module")
def patients(tmp_path_factory, make_patient) -> Path:
    """Five patients, the fourth of which is broken."""
    folder = tmp_path_factory.mktemp("cohort")
    for seed, name in enumerate(NAMES):
        write_patient(folder / name, make_patient(name, seed=seed, shape=(30, 64, 64)))
    broken = folder / NAMES[3] / f"{NAMES[3]}_4.tif"
    broken.write_bytes(broken.read_bytes()[:-100])
    return folder


@pytest.fixture(scope="module")
def expected(patients, model, tmp_path_factory) -> dict[str, bytes]:
    """Files that a single process writes for the cohort."""
    output = tmp_path_factory.mktemp("expected") / "out"
    events = list(lgg.segment_cohort(patients, output, model, OPTIONS))
    assert names(events, PatientSegmented) == [NAMES[0], NAMES[1], NAMES[2], NAMES[4]]
    return contents(output)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """Client of a cluster with two workers of two threads each, as an administrator would run it."""
    scratch = tmp_path_factory.mktemp("scratch")
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=2,
            scheduler_kwargs=NO_PAGES,
            local_directory=scratch,
            host="127.0.0.1",
        ) as there,
        distributed.Client(there, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture
def address(running) -> str:
    """Address of the running cluster's scheduler."""
    return running.scheduler.address


def names(events, kind: type) -> list[str]:
    return sorted(event.folder.name for event in events if isinstance(event, kind))


def contents(folder: Path) -> dict[str, bytes]:
    """Content of every file below a folder, including hidden ones."""
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def modified(folder: Path) -> dict[str, int]:
    return {str(f.relative_to(folder)): f.stat().st_mtime_ns for f in folder.rglob("*.tif")}


@contextmanager
def changed(client, change, undo, *arguments):
    """Change something in all workers, and undo it after the block."""
    client.run(change, *arguments)
    try:
        yield
    finally:
        client.run(undo)


# --- a running cluster -------------------------------------------------------------------------


def test_a_scheduler_gives_the_same_files_and_skips_finished_patients(
    patients, model, expected, running, address, tmp_path
):
    def loads():
        return cluster_worker._load.cache_info().misses

    def threads():
        import torch

        return torch.get_num_threads()

    before = running.run(loads)
    events = list(lgg.segment_cohort(patients, tmp_path / "out", model, OPTIONS, scheduler=address))
    assert names(events, PatientSegmented) == [NAMES[0], NAMES[1], NAMES[2], NAMES[4]]
    (failed,) = (event for event in events if isinstance(event, PatientFailed))
    assert str(patients / NAMES[3] / f"{NAMES[3]}_4.tif") in failed.sentence
    assert contents(tmp_path / "out") == expected
    # Each worker loaded the model once, for all its patients, and uses the threads that it was given.
    assert {worker: count - before[worker] for worker, count in running.run(loads).items()} == dict.fromkeys(
        before, 1
    )
    assert set(running.run(threads).values()) == {2}
    assert {e.worker for e in events if isinstance(e, PatientProgress)} == set(before)

    written = modified(tmp_path / "out")
    events = list(lgg.segment_cohort(patients, tmp_path / "out", model, OPTIONS, scheduler=address))
    assert names(events, PatientSkipped) == [NAMES[0], NAMES[1], NAMES[2], NAMES[4]]
    assert names(events, PatientSegmented) == []
    assert modified(tmp_path / "out") == written
    assert contents(tmp_path / "out") == expected

    options = dataclasses.replace(OPTIONS, threshold=0.01)
    events = list(lgg.segment_cohort(patients, tmp_path / "out", model, options, scheduler=address))
    assert names(events, PatientFailed) == list(NAMES)
    assert contents(tmp_path / "out") == expected


def test_the_command_prints_the_same_as_with_one_process(run, patients, model, address, tmp_path):
    said = {}
    for name, where in (("one", []), ("many", ["--scheduler", address])):
        arguments = ["segment", patients, "--output", tmp_path / name, "--model", model, "--device", "cpu"]
        arguments += ["--engine", "torch", *where]
        done = run(*arguments)
        assert done.code == 1
        lines = [line for line in done.err.splitlines() if line and "%" not in line]
        said[name] = sorted(lines), done.out.replace(str(tmp_path / name), "OUT")
    assert said["one"] == said["many"]
    assert said["one"][1] == "4 of 5 patients segmented on CPU. Results are in OUT\n"
    assert len(said["one"][0]) == 5
    assert contents(tmp_path / "one") == contents(tmp_path / "many")


def test_the_next_run_gets_a_new_predictor(patients, model, running, address, tmp_path):
    """A worker can run for days, and may have the memory again that it lacked before."""

    def change():
        from napari_lgg_seg.core.inference.engines import TorchEngine
        from napari_lgg_seg.core.inference.predict import Predictor

        class Other(TorchEngine):
            name = "openvino"  # as if the first run had fallen back to another engine

        Predictor.original = Predictor._use

        def use(self, engine):
            Predictor.original(self, engine)
            self.engine.__class__ = Other

        Predictor._use = use

    def undo():
        from napari_lgg_seg.core.inference.predict import Predictor

        Predictor._use = Predictor.original

    def engines(output):
        provenances = [json.loads(f.read_text()) for f in output.glob("*/.lgg-masks.json")]
        return {provenance["provenance"]["engine"] for provenance in provenances}

    with changed(running, change, undo):
        list(lgg.segment_cohort(patients, tmp_path / "first", model, OPTIONS, scheduler=address))
    assert engines(tmp_path / "first") == {"openvino"}
    list(lgg.segment_cohort(patients, tmp_path / "second", model, OPTIONS, scheduler=address))
    assert engines(tmp_path / "second") == {"torch"}


def test_closing_the_events_stops_the_workers(patients, model, running, address, tmp_path):
    with closing(lgg.segment_cohort(patients, tmp_path / "out", model, OPTIONS, scheduler=address)) as events:
        next(event for event in events if isinstance(event, PatientProgress))
    deadline = time.monotonic() + 120
    while any(running.call_stack().values()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(running.call_stack().values())
    for folder in (tmp_path / "out").glob("*"):
        assert not folder.name.startswith(".")
        assert len(list(folder.glob("*_mask.tif"))) == 30


def test_a_broken_model_is_reported(patients, model, address, tmp_path):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(model.read_bytes()[:-99])
    with pytest.raises(ModelError, match=r"broken\.safetensors is not a napari-lgg-seg model or is damaged"):
        list(lgg.segment_cohort(patients, tmp_path / "out", broken, OPTIONS, scheduler=address))
    assert not (tmp_path / "out").exists()


def test_an_unavailable_device_is_reported(patients, model, address, tmp_path):
    torch = pytest.importorskip("torch")
    if torch.backends.mps.is_available():
        pytest.skip("this machine has the device")
    options = SegmentOptions(device="mps")
    with pytest.raises(DeviceError, match="'mps' is not present"):
        list(lgg.segment_cohort(patients, tmp_path / "out", model, options, scheduler=address))


def test_another_version_on_a_worker_is_reported(patients, model, running, address, tmp_path):
    def change():
        cluster_worker.__version__ = "0.0.1"

    def undo():
        cluster_worker.__version__ = lgg.__version__

    with (
        changed(running, change, undo),
        pytest.raises(
            ClusterError, match=f"has version 0.0.1 of napari-lgg-seg instead of {lgg.__version__}"
        ),
    ):
        list(lgg.segment_cohort(patients, tmp_path / "out", model, OPTIONS, scheduler=address))
    assert not (tmp_path / "out").exists()


def test_a_worker_without_the_package_is_reported(patients, model, running, address, tmp_path):
    module = cluster_worker.__name__

    def change():
        sys.modules["original"], sys.modules[module] = sys.modules.get(module), None

    def undo():
        del sys.modules[module]
        original = sys.modules.pop("original")
        if original is not None:  # otherwise no worker had imported it yet
            sys.modules[module] = original

    # These functions are pickled by value, so that they do not need the module.
    with (
        changed(running, change, undo),
        pytest.raises(ClusterError, match=f"install version {lgg.__version__} there"),
    ):
        list(lgg.segment_cohort(patients, tmp_path / "out", model, OPTIONS, scheduler=address))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("hidden", ["output", "patients", "model"])
def test_a_folder_that_a_worker_does_not_see_is_reported(patients, model, running, address, tmp_path, hidden):
    """As if the worker were on another machine with other disks."""
    path = {"output": tmp_path / "out", "patients": patients, "model": model}[hidden]

    def change(path):
        def hiding(check):
            return lambda other: not str(other).startswith(str(path)) and check(other)

        Path.here = os.path.exists, os.path.isfile
        os.path.exists, os.path.isfile = map(hiding, Path.here)

    def undo():
        os.path.exists, os.path.isfile = Path.here
        del Path.here

    with (
        changed(running, change, undo, path),
        pytest.raises(ClusterError, match="does not see") as error,
    ):
        list(lgg.segment_cohort(patients, tmp_path / "out", model, OPTIONS, scheduler=address))
    assert f"does not see {path}" in str(error.value)
    assert not (tmp_path / "out").exists()


def test_another_model_on_a_worker_is_reported(patients, model, running, address, tmp_path):
    other = write_flair_model(tmp_path / "other.safetensors", cut=1.0)

    def change(other):
        cluster_worker.DEFAULT_MODEL = other

    def undo():
        from napari_lgg_seg.core.model.checkpoint import DEFAULT_MODEL

        cluster_worker.DEFAULT_MODEL = DEFAULT_MODEL

    with (
        changed(running, change, undo, other),
        pytest.raises(ClusterError, match=r"has another model in .*other\.safetensors"),
    ):
        list(lgg.segment_cohort(patients, tmp_path / "out", None, OPTIONS, scheduler=address))


@pytest.mark.parametrize("address", ["nonsense", "abc://nowhere:1", "tls://127.0.0.1:9", "tcp://127.0.0.1:9"])
def test_an_unreachable_scheduler_is_reported(patients, model, tmp_path, monkeypatch, address):
    monkeypatch.setattr(cluster, "_CONNECT_TIMEOUT", 2.0)
    with pytest.raises(ClusterError, match=f"No dask scheduler answers at {address} "):
        list(lgg.segment_cohort(patients, tmp_path / "out", model, OPTIONS, scheduler=address))
    assert not (tmp_path / "out").exists()


def test_a_scheduler_without_workers_is_reported(patients, model, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster_pool, "_NO_WORKERS_TIMEOUT", 3.0)
    with distributed.LocalCluster(n_workers=0, scheduler_kwargs=NO_PAGES, host="127.0.0.1") as empty:
        work = lgg.segment_cohort(
            patients, tmp_path / "out", model, OPTIONS, scheduler=empty.scheduler_address
        )
        with pytest.raises(ClusterError, match="no worker for 3 seconds"):
            list(work)


@pytest.fixture
def own_scheduler(tmp_path):
    """A scheduler in a process of its own, which may be killed, with one worker; its process and address."""
    file, module = tmp_path / "scheduler.json", [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    options = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)]
    worker = [
        sys.executable,
        "-m",
        "distributed.cli.dask_worker",
        "--scheduler-file",
        str(file),
        "--no-nanny",
    ]
    with (
        subprocess.Popen([*module, *options], cwd=tmp_path, stderr=subprocess.DEVNULL) as scheduler,
        subprocess.Popen([*worker, "--no-dashboard"], cwd=tmp_path, stderr=subprocess.DEVNULL) as one,
    ):
        try:
            deadline = time.monotonic() + 60
            while not file.exists() and time.monotonic() < deadline:
                time.sleep(0.1)
            time.sleep(0.5)
            yield scheduler, json.loads(file.read_text())["address"]
        finally:
            one.kill()
            scheduler.kill()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_killed_scheduler_is_one_sentence_and_results_stay(
    run, patients, model, own_scheduler, tmp_path, monkeypatch
):
    scheduler, address = own_scheduler
    out = tmp_path / "out"
    receive = cluster_pool.Pool._finish

    def kill_after_the_first(pool, worker):
        yield from receive(pool, worker)
        scheduler.kill()

    monkeypatch.setattr(cluster_pool.Pool, "_finish", kill_after_the_first)
    command = ["segment", patients, "--output", out, "--model", model, "--device", "cpu", "--engine", "torch"]
    with dask.config.set({"distributed.comm.timeouts.connect": "2s"}):
        done = run(*command, "--scheduler", address)
    assert done.code == 1
    (error,) = (line for line in done.err.splitlines() if line.startswith("Error: "))
    assert error.startswith("Error: The scheduler can no longer be reached")
    assert "ERROR" not in done.err  # dask's own logs
    assert done.out.startswith("1 of 5 patients segmented on CPU.")
    assert len(list((out / NAMES[0]).glob("*_mask.tif"))) == 30
    assert not list(out.glob(".lgg-run-*"))


# --- workers started by the run ----------------------------------------------------------------


def worker_process(address: str) -> psutil.Process:
    """The process that listens at a worker's address."""
    port = int(address.rpartition(":")[2])
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if port in listening(process):
                return process
    raise AssertionError(address)


def listening(process: psutil.Process) -> dict[int, str]:
    """Port -> host where a process waits for connections."""
    found = process.net_connections("inet")
    return {c.laddr.port: c.laddr.ip for c in found if c.status == psutil.CONN_LISTEN}


needs_signals = pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")


@needs_signals
def test_the_patient_of_a_killed_worker_is_done_by_another_one(patients, model, expected, tmp_path):
    environment = dict(os.environ)
    children = set(psutil.Process().children(recursive=True))
    events, hosts, lost = [], set(), None
    for event in lgg.segment_cohort(patients, tmp_path / "out", model, OPTIONS, workers=2):
        events.append(event)
        if lost is None and isinstance(event, PatientProgress) and event.worker and event.share > 0.2:
            mine = set(psutil.Process().children(recursive=True)) - children
            hosts = {host for p in [psutil.Process(), *mine] for host in listening(p).values()}
            worker_process(event.worker).send_signal(signal.SIGKILL)
            lost = event.folder
    assert hosts == {"127.0.0.1"}
    assert [e.text for e in events if isinstance(e, Notice)] == [
        f"A worker was lost; {lost.name} is given to another one."
    ]
    # Every patient is done exactly once.
    assert names(events, PatientSegmented) == [NAMES[0], NAMES[1], NAMES[2], NAMES[4]]
    assert names(events, PatientFailed) == [NAMES[3]]
    assert contents(tmp_path / "out") == expected
    # All started processes have ended, and this one's environment is unchanged.
    left = {p for p in psutil.Process().children(recursive=True) if p not in children}
    assert [p for p in left if "spawn_main" in " ".join(p.cmdline())] == []
    assert {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"} == {
        k: v for k, v in environment.items() if k != "PYTEST_CURRENT_TEST"
    }


#: Tries to talk to dask at each port in its arguments, without a certificate and with one of its own; as
#: another user, if this one is allowed to become one.
INTRUDER = """
import asyncio, logging, os, sys
from distributed import Security
from distributed.comm import connect

async def talk(address, security):
    comm = await connect(address, timeout=2, **security.get_connection_args("client"))
    await comm.write({"op": "identity", "reply": True})
    return await comm.read()

logging.disable()
ways = {"tcp": Security(), "tls": Security.temporary()}

async def attempt(port, scheme):
    try:
        await asyncio.wait_for(talk(f"{scheme}://127.0.0.1:{port}", ways[scheme]), 5)
    except (OSError, TimeoutError, ValueError):  # the last one: a port without TLS
        return
    print("got in at", port)

async def main(ports):
    await asyncio.gather(*(attempt(port, scheme) for port in ports for scheme in ways))

asyncio.run(main(["1"]))  # imports what is needed, from files that the other user may not read
if hasattr(os, "getuid") and os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
asyncio.run(main(sys.argv[1:]))
"""


def intruded(ports: Iterable[int]) -> str:
    """What the intruder reports."""
    command = [sys.executable, "-c", INTRUDER, *map(str, ports)]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=120).stdout


def test_the_intruder_gets_into_an_open_scheduler(address):
    """Otherwise the next test would prove nothing."""
    port = int(address.rpartition(":")[2])
    assert intruded([port]) == f"got in at {port}\n"


def test_no_one_else_can_run_code_in_the_workers(patients, model, tmp_path):
    before = listening_here()
    with closing(lgg.segment_cohort(patients, tmp_path / "out", model, OPTIONS, workers=2)) as events:
        next(event for event in events if isinstance(event, PatientProgress) and event.worker)
        ports = listening_here() - before
        assert len(ports) >= 3  # a scheduler and two workers
        assert intruded(sorted(ports)) == ""


def listening_here() -> set[int]:
    """Ports at which this process and its children wait for connections."""
    mine = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return {port for process in mine for port in listening(process)}


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="needs the extra openvino")
def test_workers_compute_with_openvino(patients, model, expected, tmp_path, monkeypatch):
    for name in ("HOME", "USERPROFILE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    options = dataclasses.replace(OPTIONS, engine="openvino")
    events = list(lgg.segment_cohort(patients, tmp_path / "out", model, options, workers=2))
    assert {e.runs_on for e in events if isinstance(e, PatientSegmented)} == {"CPU (OpenVINO)"}
    assert names(events, PatientSegmented) == [NAMES[0], NAMES[1], NAMES[2], NAMES[4]]
    for name in names(events, PatientSegmented):
        provenance = json.loads((tmp_path / "out" / name / ".lgg-masks.json").read_text())
        assert provenance["provenance"]["engine"] == "openvino"
    found = contents(tmp_path / "out")
    assert found.keys() == expected.keys()
    assert sum(found[f] != expected[f] for f in found if f.endswith(".tif")) < 0.1 * len(found)


@needs_signals
def test_a_patient_that_kills_workers_is_given_up(patients, model, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster_pool, "ATTEMPTS", 2)
    killed, events = set(), []
    for event in lgg.segment_cohort(patients, tmp_path / "out", model, OPTIONS, workers=2):
        events.append(event)
        if isinstance(event, PatientProgress) and event.folder.name == NAMES[0] and event.worker:
            if event.worker not in killed:
                worker_process(event.worker).send_signal(signal.SIGKILL)
            killed.add(event.worker)
    assert len(killed) == 2
    (sentence,) = (e.sentence for e in events if isinstance(e, PatientFailed) and e.folder.name == NAMES[0])
    assert sentence.startswith(f"{patients / NAMES[0]} was given up: 2 workers were lost")
    assert names(events, PatientSegmented) == [NAMES[1], NAMES[2], NAMES[4]]
    assert names(events, PatientFailed) == [NAMES[0], NAMES[3]]
    assert contents(tmp_path / "out") == {k: v for k, v in expected.items() if not k.startswith(NAMES[0])}
    shutil.rmtree(tmp_path / "out")
