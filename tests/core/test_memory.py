"""Out-of-memory errors, freeing memory, and the limits of other libraries' caches."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import weakref

import numpy as np
import pytest
import torch

from napari_lgg_seg.core import memory

CPU = torch.device("cpu")


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


def test_reference_cycles_are_collected_only_by_reclaim_memory():
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
def test_other_c_libraries_are_not_changed(monkeypatch, system, tune):
    asked = []

    def absent(name):
        asked.append(name)
        raise OSError("no such library")

    monkeypatch.setattr(memory.platform, "system", lambda: system)
    monkeypatch.setattr(ctypes, "CDLL", absent)
    monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_", raising=False)
    tune()
    assert bool(asked) == (system == "Linux")


def test_malloc_settings_of_the_user_are_not_changed(monkeypatch):
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "1")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: pytest.fail("malloc was changed"))
    memory.keep_memory_mapped()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="others do it by themselves")
def test_freed_memory_is_returned_to_the_system():
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
def test_cache_sizes_set_by_the_user_are_not_changed(monkeypatch, name):
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
