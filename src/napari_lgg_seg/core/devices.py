"""Every decision about devices: which one to use, its number format, batch size and engine.

torch is imported inside functions so that importing the package does not load it.
"""

from __future__ import annotations

import importlib.util
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, get_args

from .errors import DeviceError, reason

if TYPE_CHECKING:
    import torch
    from torch import Tensor

#: Devices to choose from; ``auto`` takes the first of cuda, mps and cpu that is available.
DeviceChoice = Literal["auto", "cuda", "mps", "cpu"]
DEVICE_CHOICES: tuple[str, ...] = get_args(DeviceChoice)

#: Engines to choose from; ``auto`` takes OpenVINO on the CPU if it is installed, otherwise PyTorch.
EngineChoice = Literal["auto", "torch", "openvino", "openvino-int8"]
ENGINE_CHOICES: tuple[str, ...] = get_args(EngineChoice)
#: Less precise than the other engines: its labels agree with theirs, but are not taken for the same result.
INT8_ENGINE = "openvino-int8"
#: Display names of the engines.
ENGINE_NAMES = {
    "torch": "PyTorch",
    "openvino": "OpenVINO",
    "openvino-int8": "OpenVINO, 8 bits",
}


def available_devices() -> tuple[str, ...]:
    """Available kinds of device, fastest first; the last one is always ``"cpu"``."""
    import torch

    present = []
    if torch.cuda.is_available():
        present.append("cuda")
    if torch.backends.mps.is_available():
        present.append("mps")
    return (*present, "cpu")


def choose_device(name: str = "auto", engine: str = "auto") -> torch.device:
    """Resolve a user's choice to a torch device; with OpenVINO, "auto" is the CPU.

    Raises
    ------
    DeviceError
        If the device is unknown or not available.
    """
    import torch

    present = available_devices()
    if name == "auto":
        return torch.device(present[-1] if engine.startswith("openvino") else present[0])
    if name not in DEVICE_CHOICES:
        raise DeviceError(f"Device {name!r} is not known; choose one of {', '.join(DEVICE_CHOICES)}.")
    if name not in present:
        raise DeviceError(f"Device {name!r} is not present here; choose one of auto, {', '.join(present)}.")
    return torch.device(name)


def describe_device(device: torch.device) -> str:
    """Display name of a device, for instance ``CUDA: NVIDIA H100`` or ``CPU``."""
    import torch

    if device.type == "cuda":
        return f"CUDA: {torch.cuda.get_device_name(device)}"
    return device.type.upper()


def available_engines() -> tuple[str, ...]:
    """Installed engines that "auto" may choose, the preferred one first; none is imported.

    OpenVINO int8 is not among them: its labels differ slightly, so it has to be chosen explicitly.
    """
    return ("openvino", "torch") if importlib.util.find_spec("openvino") is not None else ("torch",)


def offered_engines() -> tuple[str, ...]:
    """Engines to offer in a menu: the installed ones, and int8 if OpenVINO is installed."""
    installed = available_engines()
    return (*installed, INT8_ENGINE) if "openvino" in installed else installed


def choose_engine(name: str, device: torch.device) -> str:
    """Resolve a user's choice to an engine for a device.

    Raises
    ------
    DeviceError
        If the engine is unknown, not installed, or does not run on this device.
    """
    if name not in ENGINE_CHOICES:
        raise DeviceError(f"Engine {name!r} is not known; choose one of {', '.join(ENGINE_CHOICES)}.")
    if name == "auto":
        return available_engines()[0] if device.type == "cpu" else "torch"
    if name.startswith("openvino") and "openvino" not in available_engines():
        raise DeviceError(
            f"Engine {name!r} is not installed; install napari-lgg-seg[openvino], or choose another engine."
        )
    if name.startswith("openvino") and device.type != "cpu":
        raise DeviceError(
            f"OpenVINO runs on the CPU, not on {device.type.upper()}; choose device cpu or engine torch."
        )
    return name


def openvino_settings() -> dict[str, str | int | bool]:
    """OpenVINO's configuration: the number format and thread count that PyTorch uses on the CPU."""
    import torch

    return {
        "INFERENCE_PRECISION_HINT": "bf16" if _cpu_has_bf16() else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
        # Pinned threads of several processes would compete for the same first cores.
        "ENABLE_CPU_PINNING": False,
        # oneDNN caches its primitives itself, see memory.bound_caches.
        "CPU_RUNTIME_CACHE_CAPACITY": 0,
    }


def inference_dtype(device: torch.device) -> torch.dtype:
    """Number format for inference: bf16 if the hardware supports it, else fp16 on GPUs, fp32 on CPUs."""
    import torch

    if device.type == "cpu":
        return torch.bfloat16 if _cpu_has_bf16() else torch.float32
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float16


def matrix_dtype(device: torch.device) -> torch.dtype:
    """Number format for matrix products that need range more than precision: bf16, else fp32."""
    import torch

    return torch.bfloat16 if inference_dtype(device) == torch.bfloat16 else torch.float32


def autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Mixed precision where it is faster: bf16 if supported, else fp16 on CUDA, else none."""
    import torch

    if device.type == "cpu":
        return torch.autocast("cpu", torch.bfloat16) if _cpu_has_bf16() else nullcontext()
    if device.type == "cuda":
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.autocast("cuda", torch.bfloat16 if bf16 else torch.float16)
    return nullcontext()


def gradient_scaler(device: torch.device) -> torch.amp.GradScaler:
    """Gradient scaler, enabled only for fp16 on CUDA because of its small range."""
    import torch

    needed = device.type == "cuda" and inference_dtype(device) == torch.float16
    return torch.amp.GradScaler(device.type if needed else "cpu", enabled=needed)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy to a device; to CUDA from pinned memory, so that the copy overlaps with computation."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=device.type == "cuda")


def join_device(name: str, local_rank: int) -> str:
    """Assign one of a machine's processes its GPU; returns the backend for torch.distributed."""
    import torch

    if choose_device(name).type != "cuda":
        return "gloo"
    torch.cuda.set_device(local_rank % torch.cuda.device_count())
    return "nccl"


@lru_cache
def _cpu_has_bf16() -> bool:
    """Whether the processor has bf16 instructions; emulated, bf16 would be slower than fp32."""
    import torch

    amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    avx512 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return bool(amx() or avx512())


def automatic_batch_size(device: torch.device, size: int) -> int:
    """Slices per batch for inference: few on the CPU, as many as fit into memory on a GPU.

    Parameters
    ----------
    device : torch.device
        Where the network runs.
    size : int
        Height and width of a slice in pixels.
    """
    import torch

    if device.type == "cpu":
        # Larger batches are no faster per slice, and a window around fewer slices holds less air.
        return 2 if size <= 512 else 1
    if device.type != "cuda":
        return max(1, 8 * 256**2 // size**2) if size > 256 else 8
    free, _ = torch.cuda.mem_get_info(device)
    # Memory that PyTorch has cached is free, too; otherwise batches would shrink from volume to volume.
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    # The widest level holds a few hundred channels of 2 bytes per pixel; 2 kB is a safe bound.
    return int(min(64, max(1, 0.5 * free // (2048 * size**2))))


def failure(device: torch.device, error: BaseException) -> DeviceError:
    """Error message for a device that failed while computing."""
    return DeviceError(
        f"{describe_device(device)} failed ({reason(error)}); choose another device or a smaller batch."
    )
