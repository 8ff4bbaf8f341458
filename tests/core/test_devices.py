"""Which device and engine compute, in which number format, and how many slices at once."""

from __future__ import annotations

import pytest
import torch

from napari_lgg_seg.core import devices
from napari_lgg_seg.core.errors import DeviceError

CPU = torch.device("cpu")


@pytest.fixture
def pretend(monkeypatch):
    """Make torch report these devices."""

    def set_present(*, cuda, mps):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return set_present


def test_auto_is_the_first_available_device():
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
def test_an_unavailable_device_is_refused_with_the_choices(pretend, name):
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
def test_auto_is_the_cpu_with_openvino(pretend, name, engine, expected):
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
    ],
)
def test_engine_for_a_device(monkeypatch, installed, name, device, expected):
    monkeypatch.undo()  # of what conftest.py says is installed
    monkeypatch.setattr(devices.importlib.util, "find_spec", lambda name: object() if installed else None)
    assert devices.choose_engine(name, torch.device(device)) == expected


@pytest.mark.parametrize(
    ("name", "device", "message"),
    [
        (
            "openvino",
            "cpu",
            r"not installed; install napari-lgg-seg\[openvino\], or choose another engine\.$",
        ),
        (
            "onnx",
            "cpu",
            r"is not known; choose one of auto, torch, openvino, openvino-int8\.$",
        ),
        ("", "cuda", "is not known"),
    ],
)
def test_unknown_and_missing_engines_are_refused(name, device, message):
    with pytest.raises(DeviceError, match=message):
        devices.choose_engine(name, torch.device(device))


@pytest.mark.parametrize(("bf16", "expected"), [(True, "bf16"), (False, "f32")])
def test_openvino_uses_pytorchs_number_format_and_threads(monkeypatch, bf16, expected):
    monkeypatch.setattr(devices, "_cpu_has_bf16", lambda: bf16)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    settings = devices.openvino_settings()
    assert settings["INFERENCE_PRECISION_HINT"] == expected
    assert settings["INFERENCE_NUM_THREADS"] == 5
    assert settings["ENABLE_CPU_PINNING"] is False


def test_display_names_of_devices(monkeypatch):
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


def test_memory_cached_by_pytorch_counts_as_free(monkeypatch):
    """Else the batches of a cohort's patients would shrink from one to the next."""
    device, gigabyte = torch.device("cuda"), 2**30
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (6 * gigabyte, 8 * gigabyte))
    first = devices.automatic_batch_size(device, 192)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * gigabyte, 8 * gigabyte))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 5 * gigabyte)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: gigabyte)
    assert devices.automatic_batch_size(device, 192) == first > 1


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


def test_a_step_without_scaling_equals_the_optimisers():
    weight = torch.ones(1, requires_grad=True)
    optimiser = torch.optim.SGD([weight], lr=0.5)
    scaler = devices.gradient_scaler(CPU)
    scaler.scale(2 * weight).backward()
    scaler.unscale_(optimiser)
    scaler.step(optimiser)
    scaler.update()
    assert float(weight) == 0


def test_copying_from_the_cpu_to_the_cpu_does_nothing():
    tensor = torch.arange(6, dtype=torch.uint8).reshape(2, 3)
    assert devices.to_device(tensor, CPU) is tensor


@pytest.mark.parametrize(("rank", "gpu"), [(0, 0), (1, 1), (5, 1)])
def test_each_process_gets_its_own_gpu(pretend, monkeypatch, rank, gpu):
    chosen = []
    pretend(cuda=True, mps=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert devices.join_device("auto", rank) == "nccl"
    assert chosen == [gpu]


@pytest.mark.parametrize("name", ["auto", "cpu"])
def test_processes_without_gpus_use_gloo(pretend, monkeypatch, name):
    pretend(cuda=name == "cpu", mps=False)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: pytest.fail("no GPU was asked for"))
    assert devices.join_device(name, 1) == "gloo"
