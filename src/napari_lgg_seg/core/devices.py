"""Every decision about devices: which one, which number format, how much memory, how it recovers.

torch is imported inside functions, so that importing the package stays free of it.
"""

from __future__ import annotations

import importlib.util
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from .errors import DeviceError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

#: What a user may ask for; ``auto`` takes the first of cuda, mps, cpu that is there.
DeviceChoice = Literal["auto", "cuda", "mps", "cpu"]
DEVICE_CHOICES: tuple[str, ...] = get_args(DeviceChoice)

#: What may compute the network; ``auto`` takes OpenVINO on the CPU where it is installed, else PyTorch.
EngineChoice = Literal["auto", "torch", "openvino", "torch-compile", "openvino-int8"]
ENGINE_CHOICES: tuple[str, ...] = get_args(EngineChoice)
#: Computes more coarsely than the others: its labels agree with theirs, but count as made otherwise.
INT8_ENGINE = "openvino-int8"
#: Their names for people.
ENGINE_NAMES = {
    "torch": "PyTorch",
    "openvino": "OpenVINO",
    "torch-compile": "compiled PyTorch",
    "openvino-int8": "OpenVINO, 8 bits",
}


def available_devices() -> tuple[str, ...]:
    """The kinds of device present, fastest first; always ends with ``"cpu"``."""
    import torch

    present = []
    if torch.cuda.is_available():
        present.append("cuda")
    if torch.backends.mps.is_available():
        present.append("mps")
    return (*present, "cpu")


def choose_device(name: str = "auto", engine: str = "auto") -> torch.device:
    """The torch device for a user's choice; with OpenVINO, "auto" is the CPU.

    Raises
    ------
    DeviceError
        If that kind of device is not present or not known.
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
    """A device's name for people, for instance ``CUDA: NVIDIA H100`` or ``CPU``."""
    import torch

    if device.type == "cuda":
        return f"CUDA: {torch.cuda.get_device_name(device)}"
    return device.type.upper()


def available_engines() -> tuple[str, ...]:
    """The engines that are installed, the preferred one first; none is imported.

    Compiled PyTorch is not among them: whether there is a compiler shows when it is needed. Neither is
    OpenVINO in 8 bits, whose labels differ a little more: somebody has to want it.
    """
    return ("openvino", "torch") if importlib.util.find_spec("openvino") is not None else ("torch",)


def offered_engines() -> tuple[str, ...]:
    """What a menu has to offer: the engines that are installed, and OpenVINO in 8 bits where that is."""
    installed = available_engines()
    return (*installed, INT8_ENGINE) if "openvino" in installed else installed


def choose_engine(name: str, device: torch.device) -> str:
    """The engine for a user's choice on a device.

    Raises
    ------
    DeviceError
        If that engine is not known, not installed, or not for this device.
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
        raise DeviceError(f"OpenVINO runs on the CPU, not on {device.type.upper()}; choose one of the two.")
    return name


def openvino_settings() -> dict[str, str | int | bool]:
    """How OpenVINO computes: in the number format and with the threads that PyTorch uses on the CPU."""
    import torch

    return {
        "INFERENCE_PRECISION_HINT": "bf16" if _cpu_has_bf16() else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
        # By default each process binds its threads to the first cores: several would share those.
        "ENABLE_CPU_PINNING": False,
        # What is made for one size of windows is kept by the library below as well: see :func:`bound_caches`.
        "CPU_RUNTIME_CACHE_CAPACITY": 0,
    }


def inference_dtype(device: torch.device) -> torch.dtype:
    """Number format that the network computes in: bf16 if the device has it, fp16 on other GPUs."""
    import torch

    if device.type == "cpu":
        return torch.bfloat16 if _cpu_has_bf16() else torch.float32
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float16


def matrix_dtype(device: torch.device) -> torch.dtype:
    """Number format for products of matrices that need range more than precision: bf16, else fp32."""
    import torch

    return torch.bfloat16 if inference_dtype(device) == torch.bfloat16 else torch.float32


def autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Mixed precision where the device gains from it: bf16 if it has it, else fp16 on CUDA, else none."""
    import torch

    if device.type == "cpu":
        return torch.autocast("cpu", torch.bfloat16) if _cpu_has_bf16() else nullcontext()
    if device.type == "cuda":
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.autocast("cuda", torch.bfloat16 if bf16 else torch.float16)
    return nullcontext()


def gradient_scaler(device: torch.device) -> torch.amp.GradScaler:
    """Scaling of gradients, for fp16, whose range is small; elsewhere it does nothing."""
    import torch

    needed = device.type == "cuda" and inference_dtype(device) == torch.float16
    return torch.amp.GradScaler(device.type if needed else "cpu", enabled=needed)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy to a device; to CUDA from pinned memory, so that the copy runs beside the computing."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=device.type == "cuda")


def compiled(network: nn.Module) -> nn.Module:
    """A network that is compiled when it first computes, which takes a minute or so.

    Its code is for slices of any number and size, since windows and last batches differ.
    """
    import torch

    made: Any = torch.compile(network, dynamic=True)
    return cast("nn.Module", made)


def join_device(name: str, local_rank: int) -> str:
    """Give one of several processes of a machine its GPU; returns the backend by which they talk."""
    import torch

    if choose_device(name).type != "cuda":
        return "gloo"
    torch.cuda.set_device(local_rank % torch.cuda.device_count())
    return "nccl"


@lru_cache
def _cpu_has_bf16() -> bool:
    """Whether the processor multiplies bf16 in hardware; emulated, it would be slower than fp32."""
    import torch

    amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    avx512 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return bool(amx() or avx512())


def automatic_batch_size(device: torch.device, size: int) -> int:
    """Slices at once for inference: few on the CPU, more where a GPU has the memory."""
    import torch

    if device.type == "cpu":
        # More are no quicker for a slice, and the fewer they are the closer their window is to the head.
        return 2 if size <= 512 else 1
    if device.type != "cuda":
        return max(1, 8 * 256**2 // size**2) if size > 256 else 8
    free, _ = torch.cuda.mem_get_info(device)
    # What PyTorch keeps of earlier volumes is free, too; else batches would shrink from one to the next.
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    # The widest level holds a few hundred channels of 2 bytes for each pixel; 2 kB is a safe bound.
    return int(min(64, max(1, 0.5 * free // (2048 * size**2))))


def failure(device: torch.device, error: BaseException) -> DeviceError:
    """What to tell the user about a device that failed."""
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return DeviceError(
        f"{describe_device(device)} failed ({reason}); choose another device or a smaller batch."
    )
