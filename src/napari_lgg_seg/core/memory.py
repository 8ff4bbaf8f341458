"""Out-of-memory errors, and memory of the device and of the process."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory ran out, on any device."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    signs = ("out of memory", "can't allocate memory", "bad_alloc")
    return isinstance(error, RuntimeError) and any(sign in text for sign in signs)


def free_memory(device: torch.device) -> None:
    """Return memory that PyTorch has cached on the device to the system.

    After a failure, use :func:`reclaim_memory`.
    """
    import torch

    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def reclaim_memory(device: torch.device) -> None:
    """Like :func:`free_memory`, after collecting reference cycles, such as those of tracebacks.

    Collecting them pauses Python noticeably in napari.
    """
    gc.collect()
    free_memory(device)


def free_main_memory() -> int | None:
    """Available main memory in bytes, or None if unknown."""
    try:
        import psutil
    except ImportError:
        return None
    return int(psutil.virtual_memory().available)


def bound_caches() -> None:
    """Limit the primitive cache of oneDNN, which both PyTorch and OpenVINO use.

    Primitives are created for each size of window. The default capacity is ten times larger, which lets
    memory grow over dozens of patients; yet neighbouring slices have equal sizes, and creating primitives is
    fast. Call it before the first slice, and only in our own process (command line). A user's setting has
    priority.
    """
    if not {"ONEDNN_PRIMITIVE_CACHE_CAPACITY", "DNNL_PRIMITIVE_CACHE_CAPACITY"} & os.environ.keys():
        os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] = "100"  # the network has about 25


def return_main_memory() -> None:
    """Return freed memory from the C library to the system, to avoid fragmentation.

    Needed for glibc; other libraries do it themselves.
    """
    if platform.system() != "Linux":
        return
    with suppress(OSError, AttributeError):  # not glibc, for instance musl
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def keep_memory_mapped() -> None:
    """Let the C library reuse freed memory instead of requesting it again for each batch.

    By default, glibc maps each large tensor anew and the kernel clears its pages. Without that, a training
    step of 8 slices of 192 x 192 takes 0.83 of the time; inference does not change
    (measured on 2 cores with version 0.1.0). Call it only in our own process (command line), not inside
    napari.
    """
    if platform.system() != "Linux" or "MALLOC_MMAP_THRESHOLD_" in os.environ:
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # not glibc, for instance musl
        return
    mmap_threshold, trim_threshold, top_pad = -3, -1, -2
    mallopt(mmap_threshold, 1 << 30)
    mallopt(trim_threshold, (1 << 31) - 1)
    mallopt(top_pad, 1 << 28)
