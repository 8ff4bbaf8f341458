"""OpenVINO: the cache of converted networks, threads, and disabled telemetry."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from narrow_network import make_narrow, random_slices
from user_home import at_home, python

from napari_lgg_seg.core.inference import openvino as openvino_engine
from napari_lgg_seg.core.inference.engines import make_engine

CPU = torch.device("cpu")


def close(first, second, atol=1e-4):
    np.testing.assert_allclose(first, second, atol=atol)


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


# --- cache -------------------------------------------------------------------------------------


def test_a_network_is_converted_once(conversions, tmp_path):
    x = random_slices(2, 3, 32, 32)
    first = make_engine("openvino", make_narrow(), 3, CPU).logits(x)
    kept = {path: path.stat().st_mtime_ns for path in files(tmp_path / "cache")}
    assert {path.suffix for path in kept} == {".bin", ".xml", ".sha256"}
    second = make_engine("openvino", make_narrow(), 3, CPU).logits(x)
    assert len(conversions) == 1
    assert torch.equal(first, second)
    assert {path: path.stat().st_mtime_ns for path in files(tmp_path / "cache")} == kept


def test_other_weights_are_converted_separately(conversions):
    x = random_slices(2, 3, 32, 32)
    first, second = (make_engine("openvino", make_narrow(seed=seed), 3, CPU).logits(x) for seed in (0, 1))
    assert len(conversions) == 2
    assert not torch.allclose(first, second)


@pytest.mark.parametrize("damage", ["emptied", "cut", "garbage", "removed"])
@pytest.mark.parametrize("suffix", [".xml", ".bin"])
def test_damaged_cache_files_are_replaced(conversions, tmp_path, suffix, damage):
    x = random_slices(2, 3, 32, 32)
    expected = make_engine("openvino", make_narrow(), 3, CPU).logits(x)
    damaged = [path for path in files(tmp_path / "cache") if path.suffix == suffix]
    assert damaged
    for path in damaged:
        content = path.read_bytes()
        path.chmod(0o644)
        path.unlink()
        if damage != "removed":
            wrong = {"emptied": b"", "cut": content[: len(content) // 2], "garbage": 1000 * b"garbage"}
            path.write_bytes(wrong[damage])
    for _ in range(3):
        close(make_engine("openvino", make_narrow(), 3, CPU).logits(x), expected, atol=1e-6)
    assert len(conversions) == 2, "the repaired cache is not used"


@pytest.mark.parametrize("suffix", [".xml", ".bin", ".sha256"])
def test_flipped_bits_in_the_cache_are_noticed(conversions, tmp_path, suffix):
    x = random_slices(2, 3, 32, 32)
    expected = make_engine("openvino", make_narrow(), 3, CPU).logits(x)
    [path] = [path for path in files(tmp_path / "cache") if path.suffix == suffix]
    content = np.fromfile(path, np.uint8)
    content[:: max(1, len(content) // 20)] ^= 1
    content.tofile(path)
    for _ in range(2):
        assert torch.equal(make_engine("openvino", make_narrow(), 3, CPU).logits(x), expected)
    assert len(conversions) == 2, "the repaired cache is not used"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no named pipes in folders")
@pytest.mark.parametrize("name", ["network.bin", "network.xml", "network.sha256", "."])
def test_a_pipe_in_the_cache_is_replaced_rather_than_waited_for(conversions, tmp_path, name):
    make_engine("openvino", make_narrow(), 3, CPU)
    [entry] = (tmp_path / "cache" / "openvino").iterdir()
    shutil.rmtree(entry)
    if name != ".":
        entry.mkdir()
        for other in {"network.bin", "network.xml", "network.sha256"} - {name}:
            (entry / other).write_text("")
    os.mkfifo(entry / name if name != "." else entry)
    for _ in range(2):
        make_engine("openvino", make_narrow(), 3, CPU)
    assert len(conversions) == 2, "the repaired cache is not used"
    assert (entry / "network.bin").is_file()


def test_a_file_in_place_of_a_cached_network_is_replaced(conversions, tmp_path):
    make_engine("openvino", make_narrow(), 3, CPU)
    [entry] = (tmp_path / "cache" / "openvino").iterdir()
    shutil.rmtree(entry)
    entry.write_text("a file")
    for _ in range(2):
        make_engine("openvino", make_narrow(), 3, CPU)
    assert len(conversions) == 2
    assert entry.is_dir()


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), RuntimeError("no home")])
def test_a_closed_cache_does_not_matter(conversions, monkeypatch, error):
    """Looking for a file in a folder without permission fails as well."""

    def refuse(*arguments, **options):
        raise error

    if isinstance(error, OSError):
        for name in ("stat", "mkdir", "utime", "rename"):
            monkeypatch.setattr(Path, name, refuse, raising=False)
        monkeypatch.setattr(Path, "read_text", refuse)
    else:
        monkeypatch.setattr(openvino_engine, "cache_folder", refuse)
    engine = make_engine("openvino", make_narrow(), 3, CPU)
    assert engine.logits(random_slices(1, 3, 32, 32)).shape == (1, 32, 32)
    assert len(conversions) == 1


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_nothing_is_cached_without_a_writable_folder(conversions, monkeypatch, tmp_path, place):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(openvino_engine, "cache_folder", lambda: tmp_path / place)
    engine = make_engine("openvino", make_narrow(), 3, CPU)
    assert engine.logits(random_slices(1, 3, 32, 32)).shape == (1, 32, 32)
    assert len(conversions) == 1
    assert (tmp_path / "file").read_text() == ""


def test_a_full_disk_does_not_matter(openvino, conversions, monkeypatch, tmp_path):
    def fail(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(openvino, "save_model", fail)
    assert make_engine("openvino", make_narrow(), 3, CPU).logits(random_slices(1, 3, 32, 32)).shape == (
        1,
        32,
        32,
    )
    assert len(conversions) == 1
    assert files(tmp_path / "cache") == []


def test_a_read_only_cache_is_used(conversions, monkeypatch):
    x = random_slices(1, 3, 32, 32)
    expected = make_engine("openvino", make_narrow(), 3, CPU).logits(x)

    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    for name in ("utime", "mkdir", "rename", "unlink", "rmdir"):
        monkeypatch.setattr(os, name, refuse)
    assert torch.equal(make_engine("openvino", make_narrow(), 3, CPU).logits(x), expected)
    assert len(conversions) == 1


def test_another_version_of_openvino_converts_again(openvino, conversions, monkeypatch, tmp_path):
    make_engine("openvino", make_narrow(), 3, CPU)
    before = files(tmp_path / "cache")
    monkeypatch.setattr(openvino, "__version__", "2031.1.0")
    make_engine("openvino", make_narrow(), 3, CPU)
    assert len(conversions) == 2
    assert set(before) < set(files(tmp_path / "cache"))


def test_leftovers_of_a_killed_program_are_removed_after_a_day(openvino, tmp_path):
    for name, age in ((".old", 2 * 86400), (".new", 60)):
        folder = tmp_path / "cache" / "openvino" / name
        folder.mkdir(parents=True)
        (folder / "network.bin").write_bytes(b"half")
        os.utime(folder, (time.time() - age,) * 2)
    make_engine("openvino", make_narrow(), 3, CPU)
    assert [f.name for f in folder.parent.iterdir() if f.name.startswith(".")] == [".new"]


CONVERT = """
import sys, time, torch
from narrow_network import narrow_network
from napari_lgg_seg.core.inference.engines import make_engine
from napari_lgg_seg.core.model.networks import build_network

with narrow_network():
    torch.manual_seed(0)
    network = build_network("unet", 3).eval()
time.sleep(max(0, float(sys.argv[1]) - time.time()))
logits = make_engine("openvino", network, 3, torch.device("cpu")).logits(torch.ones(1, 3, 32, 32))
print(f"{float(logits.abs().sum()):.6f}")
"""


@pytest.mark.usefixtures("openvino")
def test_several_processes_can_start_at_the_same_time(tmp_path):
    command = [sys.executable, "-c", CONVERT, str(time.time() + 10)]
    environment = at_home(tmp_path)
    processes = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    said = [process.communicate(timeout=600) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, said
    assert len({out for out, _ in said}) == 1
    kept = [f.name for f in files(tmp_path / "home") if "openvino" in f.parts]
    assert sorted(kept) == ["network.bin", "network.sha256", "network.xml"]


@pytest.mark.usefixtures("openvino")
def test_only_the_most_recently_used_networks_are_kept(tmp_path):
    kept = []
    for seed in range(6):
        make_engine("openvino", make_narrow(seed=seed), 3, CPU)
        make_engine("openvino", make_narrow(seed=0), 3, CPU)  # used all the time
        kept.append({path.parent for path in files(tmp_path / "cache")})
    assert [len(folders) for folders in kept] == [1, 2, 3, 4, 4, 4]
    assert kept[0] < kept[-1]


# --- threads -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("openvino")
@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="needs Linux and two cores",
)
def test_threads_are_not_pinned_to_cores():
    """Otherwise all workers of a machine would compete for its first cores."""
    engine = make_engine("openvino", make_narrow(), 3, CPU)
    everywhere, seen, done = os.sched_getaffinity(0), set(), threading.Event()

    def watch():
        while not done.is_set():
            for thread in Path("/proc/self/task").iterdir():
                with suppress(ProcessLookupError):
                    seen.add(frozenset(os.sched_getaffinity(int(thread.name))))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for _ in range(30):
            engine.logits(random_slices(2, 3, 192, 192))
    finally:
        done.set()
        watcher.join()
    assert seen == {frozenset(everywhere)}


# --- telemetry ---------------------------------------------------------------------------------


WATCHED = """
import os, sys

def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto",
                 "urllib.Request", "http.client.connect", "subprocess.Popen", "os.fork", "os.posix_spawn"):
        sys.__stderr__.write(f"SEEN {event} {arguments}\\n")
        sys.__stderr__.flush()
        os._exit(7)

sys.addaudithook(watch)
"""
SEGMENT = """
import numpy as np, torch, threading
from pathlib import Path
from narrow_network import narrow_network
from napari_lgg_seg.core.model.checkpoint import Model, ModelCard
from napari_lgg_seg.core.model.networks import build_network
from napari_lgg_seg.core.inference.predict import Predictor, run_to_end
from napari_lgg_seg.core.model.preprocess import PreprocessOptions

with narrow_network():
    network = build_network("unet", 3)
model = Model(network.eval(), ModelCard("test", preprocess=PreprocessOptions(working_size=48)), Path("m"))
predictor = Predictor(model, "cpu")
volume = np.random.default_rng(0).integers(0, 99, (3, 64, 64, 3))
assert run_to_end(predictor.predict(volume)).any()
assert predictor.engine.name == "openvino", predictor.engine.name
for thread in threading.enumerate():
    if thread is not threading.current_thread():
        thread.join(5)
"""


@pytest.fixture
def eager_telemetry(tmp_path):
    """An ``openvino_telemetry`` that prints what it would send, in place of the installed one."""
    package = tmp_path / "packages" / "openvino_telemetry"
    (package / "backend").mkdir(parents=True)
    (package / "__init__.py").write_text(
        "import sys\n"
        "class Telemetry:\n"
        "    def __init__(self, *arguments, **options): pass\n"
        "    def __getattr__(self, name):\n"
        "        if name.startswith('send') or name.endswith('session') or name == 'force_shutdown':\n"
        "            return lambda *what, **options: print('sent', name, *what, flush=True)\n"
        "        raise AttributeError(name)\n"
    )
    (package / "backend" / "__init__.py").write_text("")
    (package / "backend" / "backend_ga4.py").write_text("")
    return package.parent


@pytest.mark.usefixtures("openvino")
def test_no_connection_is_opened_and_no_telemetry_loaded(tmp_path):
    check = "print([name for name in sys.modules if 'telemetry' in name])"
    done = python(f"{WATCHED}{SEGMENT}assert sys.modules['openvino_telemetry'] is None\n{check}", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "SEEN" not in done.stderr, "in a forked process"
    loaded = eval(done.stdout.splitlines()[-1])
    assert "openvino_telemetry" in loaded
    assert not [name for name in loaded if name.startswith("openvino_telemetry.")]
    assert not (tmp_path / "home" / "intel").exists(), "a user id was created"


@pytest.mark.usefixtures("openvino")
def test_the_audit_hook_detects_a_connection(tmp_path):
    done = python(WATCHED + "import socket; socket.create_connection(('127.0.0.1', 9))", tmp_path)
    assert done.returncode == 7, done.stderr
    assert "SEEN socket" in done.stderr


@pytest.mark.usefixtures("openvino")
def test_any_telemetry_package_is_disabled(tmp_path, eager_telemetry):
    done = python(SEGMENT, tmp_path, eager_telemetry)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


@pytest.mark.usefixtures("openvino")
def test_telemetry_stops_even_if_openvino_was_imported_before(tmp_path, eager_telemetry):
    done = python("import openvino\nprint('ours', flush=True)\n" + SEGMENT, tmp_path, eager_telemetry)
    assert done.returncode == 0, done.stderr
    theirs, _, ours = done.stdout.partition("ours\n")
    assert "sent send_event" in theirs, "OpenVINO does not load the test's telemetry"
    assert ours == ""
