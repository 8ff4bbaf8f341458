"""Copies to a device and back; the CPU's memory stands in for the GPU's."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch

from napari_lgg_seg.core.inference.transfer import CudaTransfer, transfer_to

CPU = torch.device("cpu")


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
    copies = CudaTransfer(CPU)
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
    assert transfer_to(torch.device("cuda")).ahead == 1
    for name in ("cpu", "mps", "meta"):
        assert transfer_to(torch.device(name)).ahead == 0
    assert asked == []


def test_on_the_cpu_nothing_is_copied():
    copies, tensor = transfer_to(CPU), torch.arange(3)
    assert copies.send(copies.send_raw(tensor)) is tensor
    assert copies.fetch(tensor)() is tensor
