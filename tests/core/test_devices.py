from __future__ import annotations

import ctypes
import gc
import os
import sys
import weakref
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from napari_lgg_seg.core import devices, memory
from napari_lgg_seg.core.errors import DeviceError
from napari_lgg_seg.core.inference import transfer

CPU = torch.device("cpu")


@pytest.fixture
def pretend(monkeypatch):
    """Make torch report these devices."""

    def set_present(*, cuda, mps):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return set_present


def test_auto_is_the_first_of_what_is_here():
    device = devices.choose_device()
    assert device.type == devices.available_devices()[0]
    torch.zeros(1, device=device)


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [
        (True, True, ("cuda", "mps", "cpu")),
        (True, False, ("cuda", "cpu")),
        (False, True, ("mps", "cpu")),
        (False, False, ("cpu",)),
    ],
)
def test_order_of_devices(pretend, cuda, mps, expected):
    pretend(cuda=cuda, mps=mps)
    assert devices.available_devices() == expected
    assert devices.choose_device("auto").type == expected[0]
    for name in expected:
        assert devices.choose_device(name).type == name


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_absent_device_is_refused_with_the_choices(pretend, name):
    pretend(cuda=False, mps=False)
    with pytest.raises(DeviceError, match=rf"'{name}' is not present here; choose one of auto, cpu\.$"):
        devices.choose_device(name)


@pytest.mark.parametrize("name", ["tpu", "", "CPU", "cuda:7"])
def test_unknown_device_is_refused_with_the_choices(name):
    with pytest.raises(DeviceError, match=r"is not known; choose one of auto, cuda, mps, cpu\.$"):
        devices.choose_device(name)


@pytest.mark.parametrize(
    ("name", "engine", "expected"),
    [
        ("auto", "auto", "cuda"),
        ("auto", "torch", "cuda"),
        ("auto", "openvino", "cpu"),
        ("cuda", "openvino", "cuda"),
    ],
)
def test_openvino_takes_auto_to_the_cpu(pretend, name, engine, expected):
    pretend(cuda=True, mps=False)
    assert devices.choose_device(name, engine).type == expected


@pytest.mark.parametrize(
    ("installed", "name", "device", "expected"),
    [
        (True, "auto", "cpu", "openvino"),
        (True, "auto", "cuda", "torch"),
        (True, "auto", "mps", "torch"),
        (True, "torch", "cpu", "torch"),
        (True, "openvino", "cpu", "openvino"),
        (False, "auto", "cpu", "torch"),
        (False, "torch", "cuda", "torch"),
        (False, "torch-compile", "cuda", "torch-compile"),
        (True, "torch-compile", "cpu", "torch-compile"),
    ],
)
def test_engine_for_a_device(monkeypatch, installed, name, device, expected):
    monkeypatch.undo()  # of what conftest.py says is installed
    monkeypatch.setattr(devices.importlib.util, "find_spec", lambda name: object() if installed else None)
    assert devices.choose_engine(name, torch.device(device)) == expected


@pytest.mark.parametrize(
    ("name", "device", "words"),
    [
        (
            "openvino",
            "cpu",
            r"not installed; install napari-lgg-seg\[openvino\], or choose another engine\.$",
        ),
        (
            "onnx",
            "cpu",
            r"is not known; choose one of auto, torch, openvino, torch-compile, openvino-int8\.$",
        ),
        ("", "cuda", "is not known"),
    ],
)
def test_engine_that_is_not_there_is_refused(name, device, words):
    with pytest.raises(DeviceError, match=words):
        devices.choose_engine(name, torch.device(device))


@pytest.mark.parametrize(("bf16", "expected"), [(True, "bf16"), (False, "f32")])
def test_openvino_computes_with_the_format_and_the_threads_of_pytorch(monkeypatch, bf16, expected):
    monkeypatch.setattr(devices, "_cpu_has_bf16", lambda: bf16)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    settings = devices.openvino_settings()
    assert settings["INFERENCE_PRECISION_HINT"] == expected
    assert settings["INFERENCE_NUM_THREADS"] == 5
    assert settings["ENABLE_CPU_PINNING"] is False


def test_names_for_people(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100")
    assert devices.describe_device(CPU) == "CPU"
    assert devices.describe_device(torch.device("mps")) == "MPS"
    assert devices.describe_device(torch.device("cuda")) == "CUDA: NVIDIA H100"


@pytest.mark.parametrize(("bf16", "expected"), [(True, torch.bfloat16), (False, torch.float16)])
def test_number_format_on_cuda(monkeypatch, bf16, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: bf16)
    assert devices.inference_dtype(torch.device("cuda")) == expected


@pytest.mark.parametrize(("amx", "avx", "bf16"), [(1, 0, True), (0, 1, True), (0, 0, False)])
def test_number_format_on_the_cpu(monkeypatch, amx, avx, bf16):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: bool(amx), raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bool(avx), raising=False)
    devices._cpu_has_bf16.cache_clear()
    try:
        assert devices.inference_dtype(CPU) == (torch.bfloat16 if bf16 else torch.float32)
        with devices.autocast(CPU):
            product = torch.ones(2, 2) @ torch.ones(2, 2)
        assert product.dtype == devices.inference_dtype(CPU)
    finally:
        devices._cpu_has_bf16.cache_clear()


def test_number_format_on_mps():
    assert devices.inference_dtype(torch.device("mps")) == torch.float16


def test_batch_on_the_cpu_shrinks_with_the_area_of_large_slices():
    sizes = [devices.automatic_batch_size(CPU, size) for size in (32, 192, 256, 512, 4096)]
    assert sizes == [2, 2, 2, 2, 1]


@pytest.mark.parametrize("free", [0, 2**28, 2**33, 2**37])
def test_batch_on_a_gpu_fits_its_free_memory(monkeypatch, free):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 2**37))
    size = devices.automatic_batch_size(torch.device("cuda"), 192)
    assert 1 <= size <= 64
    assert size == 1 or size * 2048 * 192**2 <= free
    if free == 2**37:
        assert size == 64


def test_memory_that_pytorch_keeps_is_free_for_the_next_volume(monkeypatch):
    """Else the batches of a cohort's patients would shrink from one to the next."""
    device, gigabyte = torch.device("cuda"), 2**30
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (6 * gigabyte, 8 * gigabyte))
    first = devices.automatic_batch_size(device, 192)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * gigabyte, 8 * gigabyte))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 5 * gigabyte)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: gigabyte)
    assert devices.automatic_batch_size(device, 192) == first > 1


# --- the way to a device and back --------------------------------------------------------------


class Stream:
    """A queue of a GPU that only notes what is asked of it."""

    def __init__(self, name, asked):
        self.name, self.asked = name, asked

    def wait_stream(self, other):
        self.asked.append(f"{self.name} waits for {other.name}")


@pytest.fixture
def asked(monkeypatch):
    """What is asked of CUDA, one thing after the other; the CPU's memory stands in for the GPU's."""
    notes, names = [], iter(("there", "back"))
    computing, now = Stream("computing", notes), []
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream(next(names), notes))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: now[-1] if now else computing)

    @contextmanager
    def stream(chosen):
        now.append(chosen)
        yield
        now.pop()

    class Event:
        def __init__(self, blocking):
            assert blocking, "it would spin, and keep a core from what is done beside"

        def record(self):
            notes.append(f"event in {now[-1].name}")

        def synchronize(self):
            notes.append("waited")

    def noted(name, make):
        real = getattr(torch.Tensor, name)

        def method(self, *arguments, **options):
            notes.append(make(*arguments, **options))
            return real(self, *arguments, **options) if name in ("to", "copy_") else self

        return method

    where = lambda: now[-1].name if now else "computing"  # noqa: E731
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    for name, make in {
        "pin_memory": lambda: "pinned",
        "to": lambda _, non_blocking=False: f"sent in {where()}, {non_blocking=}",
        "copy_": lambda _, non_blocking=False: f"fetched in {where()}, {non_blocking=}",
        "record_stream": lambda stream: f"kept for {stream.name}",
    }.items():
        monkeypatch.setattr(torch.Tensor, name, noted(name, make))
    empty = torch.empty
    monkeypatch.setattr(
        torch,
        "empty",
        lambda *shape, pin_memory, **options: notes.append(f"{pin_memory=}") or empty(*shape, **options),
    )
    return notes


def test_copies_to_and_from_cuda_wait_for_nothing(asked):
    copies = transfer.CudaTransfer(CPU)
    sent = copies.send_raw(torch.arange(3))
    assert sent.tolist() == [0, 1, 2]
    assert asked == [
        "pinned",
        "sent in there, non_blocking=True",
        "computing waits for there",
        "kept for computing",
    ]
    asked.clear()
    result = copies.fetch(torch.arange(3.0))
    assert asked == [
        "back waits for computing",
        "pin_memory=True",
        "fetched in back, non_blocking=True",
        "event in back",
        "kept for back",
    ]
    assert result().tolist() == [0, 1, 2]
    assert asked[5:] == ["waited"]


def test_a_transfer_for_each_device(asked):
    assert transfer.transfer_to(torch.device("cuda")).ahead == 1
    for name in ("cpu", "mps", "meta"):
        assert transfer.transfer_to(torch.device(name)).ahead == 0
    assert asked == []


def test_on_the_cpu_nothing_is_copied():
    copies, tensor = transfer.transfer_to(CPU), torch.arange(3)
    assert copies.send(copies.send_raw(tensor)) is tensor
    assert copies.fetch(tensor)() is tensor


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (np.exceptions.AxisError("x"), False),
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("Exception from src/infer.cpp:1:\nstd::bad_alloc\n"), True),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_out_of_memory_is_recognised(error, expected):
    assert memory.is_out_of_memory(error) is expected


def test_real_failure_to_allocate_is_recognised():
    with pytest.raises((RuntimeError, MemoryError)) as error:
        torch.empty(2**60, dtype=torch.uint8)
    assert memory.is_out_of_memory(error.value)


def test_free_memory_empties_the_cache_of_the_device(monkeypatch):
    emptied = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append("cuda"))
    monkeypatch.setattr(torch.mps, "empty_cache", lambda: emptied.append("mps"))
    for name in ("cpu", "cuda", "mps"):
        memory.free_memory(torch.device(name))
    assert emptied == ["cuda", "mps"]


def test_what_holds_on_to_itself_is_looked_for_only_when_asked():
    class Circle:
        def __init__(self):
            self.itself = self

    gc.disable()
    try:
        lost = weakref.ref(Circle())
        memory.free_memory(CPU)
        assert lost() is not None
        memory.reclaim_memory(CPU)
        assert lost() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("tune", [memory.keep_memory_mapped, memory.return_main_memory])
@pytest.mark.parametrize("system", ["Linux", "Windows", "Darwin"])
def test_other_c_libraries_are_left_alone(monkeypatch, system, tune):
    asked = []

    def absent(name):
        asked.append(name)
        raise OSError("no such library")

    monkeypatch.setattr(devices.platform, "system", lambda: system)
    monkeypatch.setattr(ctypes, "CDLL", absent)
    monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_", raising=False)
    tune()
    assert bool(asked) == (system == "Linux")


def test_the_users_malloc_settings_win(monkeypatch):
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "1")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: pytest.fail("malloc was changed"))
    memory.keep_memory_mapped()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="others do it by themselves")
def test_freed_memory_is_returned():
    pieces = [bytearray(1000) for _ in range(100_000)]
    keep = pieces[::100]  # so that most pages are freed, but none at the end
    before = _resident()
    del pieces
    memory.return_main_memory()
    assert _resident() < before - 50e6
    del keep


def _resident():
    psutil = pytest.importorskip("psutil")
    return psutil.Process().memory_info().rss


@pytest.mark.parametrize("name", ["ONEDNN_PRIMITIVE_CACHE_CAPACITY", "DNNL_PRIMITIVE_CACHE_CAPACITY"])
def test_the_users_caches_are_left_alone(monkeypatch, name):
    for each in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "DNNL_PRIMITIVE_CACHE_CAPACITY"):
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv(name, "7")
    before = dict(os.environ)
    memory.bound_caches()
    assert dict(os.environ) == before


def test_caches_are_bounded(monkeypatch):
    # Both are restored at the end, also if they were not there.
    for each in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "DNNL_PRIMITIVE_CACHE_CAPACITY"):
        monkeypatch.setenv(each, "")
        monkeypatch.delenv(each)
    memory.bound_caches()
    assert 25 < int(os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"]) < 1024


# --- training ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cpu", "mps"])
def test_gradients_are_not_scaled_without_cuda(name):
    scaler = devices.gradient_scaler(torch.device(name))
    assert not scaler.is_enabled()
    loss = torch.tensor(3.0, requires_grad=True)
    assert scaler.scale(loss) is loss
    assert scaler.state_dict() == {}


@pytest.mark.parametrize("bf16", [True, False])
def test_gradients_are_scaled_where_cuda_has_fp16_only(pretend, monkeypatch, bf16):
    pretend(cuda=True, mps=False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: bf16)
    assert devices.gradient_scaler(torch.device("cuda")).is_enabled() is not bf16


def test_a_step_without_scaling_is_the_optimisers():
    weight = torch.ones(1, requires_grad=True)
    optimiser = torch.optim.SGD([weight], lr=0.5)
    scaler = devices.gradient_scaler(CPU)
    scaler.scale(2 * weight).backward()
    scaler.unscale_(optimiser)
    scaler.step(optimiser)
    scaler.update()
    assert float(weight) == 0


def test_what_is_on_the_cpu_stays_as_it_is():
    tensor = torch.arange(6, dtype=torch.uint8).reshape(2, 3)
    assert devices.to_device(tensor, CPU) is tensor


@pytest.mark.parametrize(("rank", "gpu"), [(0, 0), (1, 1), (5, 1)])
def test_each_process_has_its_gpu(pretend, monkeypatch, rank, gpu):
    chosen = []
    pretend(cuda=True, mps=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert devices.join_device("auto", rank) == "nccl"
    assert chosen == [gpu]


@pytest.mark.parametrize("name", ["auto", "cpu"])
def test_processes_without_gpus_talk_by_gloo(pretend, monkeypatch, name):
    pretend(cuda=name == "cpu", mps=False)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: pytest.fail("no GPU was asked for"))
    assert devices.join_device(name, 1) == "gloo"
