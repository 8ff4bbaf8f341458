"""Copies to a device and back; the CPU's memory stands in for the GPU's."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch

from napari_lgg_seg.core.inference.transfer import CudaTransfer, transfer_to

CPU = torch.device("cpu")


class Stream:
    """A CUDA stream that only records calls."""

    def __init__(self, name, calls):
        self.name, self.calls = name, calls

    def wait_stream(self, other):
        self.calls.append(f"{self.name} waits for {other.name}")


@pytest.fixture
def calls(monkeypatch):
    """Calls to CUDA in their order; the CPU's memory stands in for the GPU's."""
    recorded, names = [], iter(("upload", "download"))
    computing, now = Stream("computing", recorded), []
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream(next(names), recorded))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: now[-1] if now else computing)

    @contextmanager
    def stream(chosen):
        now.append(chosen)
        yield
        now.pop()

    class Event:
        def __init__(self, blocking):
            assert blocking, "it would spin and occupy a core"

        def record(self):
            recorded.append(f"event in {now[-1].name}")

        def synchronize(self):
            recorded.append("waited")

    def recording(name, make):
        real = getattr(torch.Tensor, name)

        def method(self, *arguments, **options):
            recorded.append(make(*arguments, **options))
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
        monkeypatch.setattr(torch.Tensor, name, recording(name, make))
    empty = torch.empty
    monkeypatch.setattr(
        torch,
        "empty",
        lambda *shape, pin_memory, **options: recorded.append(f"{pin_memory=}") or empty(*shape, **options),
    )
    return recorded


def test_copies_to_and_from_cuda_are_asynchronous(calls):
    copies = CudaTransfer(CPU)
    sent = copies.send_raw(torch.arange(3))
    assert sent.tolist() == [0, 1, 2]
    assert calls == [
        "pinned",
        "sent in upload, non_blocking=True",
        "computing waits for upload",
        "kept for computing",
    ]
    calls.clear()
    result = copies.fetch(torch.arange(3.0))
    assert calls == [
        "download waits for computing",
        "pin_memory=True",
        "fetched in download, non_blocking=True",
        "event in download",
        "kept for download",
    ]
    assert result().tolist() == [0, 1, 2]
    assert calls[5:] == ["waited"]


def test_each_device_gets_its_transfer(calls):
    assert transfer_to(torch.device("cuda")).ahead == 1
    for name in ("cpu", "mps", "meta"):
        assert transfer_to(torch.device(name)).ahead == 0
    assert calls == []


def test_on_the_cpu_nothing_is_copied():
    copies, tensor = transfer_to(CPU), torch.arange(3)
    assert copies.send(copies.send_raw(tensor)) is tensor
    assert copies.fetch(tensor)() is tensor
