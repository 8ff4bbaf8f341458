"""Devices that run out of memory, fail or are not available, with and without a batch ahead."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from bright_flair import BrightFlair, Neighbour, model_of, out_of_memory, predict
from noted_network import finish
from torch import nn

from napari_lgg_seg.core import devices
from napari_lgg_seg.core.errors import DeviceError
from napari_lgg_seg.core.inference import transfer
from napari_lgg_seg.core.inference.predict import Notice, Predictor, SlicesDone

# --- failures ----------------------------------------------------------------------------------


@pytest.mark.parametrize("at_most", [1, 2, 3, 7])
@pytest.mark.parametrize("error", [out_of_memory, MemoryError, lambda: RuntimeError("CUDA out of memory.")])
def test_out_of_memory_halves_the_batch(make_head, at_most, error):
    volume, _ = make_head((9, 48, 48))
    _, expected = predict(volume)
    events, probability = predict(volume, BrightFlair(at_most, error), batch_size=8)
    notices = [event for event in events if isinstance(event, Notice)]
    assert len(notices) == {1: 3, 2: 2, 3: 2, 7: 1}[at_most]
    assert notices[0].text == "Out of memory: continuing with 4 instead of 8 slices per batch."
    done = [event.done for event in events if isinstance(event, SlicesDone)]
    assert max(np.diff(done)) <= at_most
    assert done[-1] == 9
    np.testing.assert_allclose(probability, expected, atol=1e-6)


@pytest.mark.parametrize("error", [out_of_memory, MemoryError])
def test_no_memory_for_one_slice_on_the_cpu(make_head, error):
    with pytest.raises(DeviceError, match=r"not enough memory for a single slice; .*\.$"):
        predict(make_head((4, 32, 32))[0], BrightFlair(0, error))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            lambda: RuntimeError("CUDA error: device lost\nCompile with TORCH_USE_CUDA_DSA"),
            "CUDA error: device lost",
        ),
        (RuntimeError, "RuntimeError"),
        (lambda: NotImplementedError("no such operator"), "no such operator"),
    ],
)
def test_failure_of_the_device(make_head, error, reason):
    with pytest.raises(DeviceError) as caught:
        predict(make_head((4, 32, 32))[0], BrightFlair(1, error))
    assert str(caught.value) == f"CPU failed ({reason}); choose another device or a smaller batch."


@pytest.mark.usefixtures("other_device")
def test_the_cpu_takes_over_if_a_slice_does_not_fit_on_the_gpu(make_head):
    volume, _ = make_head((5, 48, 48))
    network = BrightFlair(0, out_of_memory, only_on="meta")
    predictor = Predictor(model_of(network), batch_size=4)
    events, probability = finish(predictor.predict(volume))
    assert [event.text for event in events if isinstance(event, Notice)] == [
        "Out of memory: continuing with 2 instead of 4 slices per batch.",
        "Out of memory: continuing with 1 instead of 2 slices per batch.",
        "META is out of memory: continuing on the CPU.",
    ]
    assert predictor.device.type == "cpu"
    np.testing.assert_allclose(probability, predict(volume)[1], atol=1e-6)


@pytest.mark.usefixtures("other_device")
def test_a_device_that_does_not_respond(monkeypatch, make_head):
    def fail(*arguments):
        raise RuntimeError("CUDA error: unknown error")

    steps = Predictor(model_of(BrightFlair())).predict(make_head((2, 32, 32))[0])
    monkeypatch.setattr(devices, "automatic_batch_size", fail)
    with pytest.raises(DeviceError, match="META failed"):
        finish(steps)


def test_a_device_without_memory_for_the_network(monkeypatch):
    def fail(*arguments, **options):
        raise out_of_memory()

    monkeypatch.setattr(nn.Module, "to", fail)
    with pytest.raises(DeviceError, match=r"CPU failed \(Tried to allocate 1 GiB\)"):
        Predictor(model_of(BrightFlair()), "cpu")


@pytest.mark.parametrize("device", ["cuda", "tpu"])
def test_absent_device_is_refused(monkeypatch, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match=device):
        Predictor(model_of(BrightFlair()), device)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_the_cpu(unet, make_head):
    volume, _ = make_head((9, 64, 64))
    expected = predict(volume, unet)[1]
    _, probability = finish(Predictor(model_of(unet), "cuda").predict(volume))
    np.testing.assert_allclose(probability, expected, atol=0.05)


# --- one batch ahead ---------------------------------------------------------------------------


class Ahead(transfer.DeviceTransfer):
    """Transfer to a device that computes asynchronously.

    Parameters
    ----------
    fail_at : sequence of int
        Numbers of the results that are lost, counted from 0.
    error : callable
        Makes the exception.
    """

    ahead = 1

    def __init__(self, device, fail_at=(), error=out_of_memory):
        super().__init__(device)
        self.fail_at, self.error = fail_at, error
        self.fetched = 0
        self.raw, self.order = [], []

    def send_raw(self, tensor):
        self.raw.append(tensor.dtype)
        return tensor

    def fetch(self, tensor):
        number, self.fetched = self.fetched, self.fetched + 1
        self.order.append(f"started {number}")

        def wait():
            self.order.append(f"waited {number}")
            if number in self.fail_at:
                raise self.error()
            return tensor.cpu()

        return wait


@pytest.fixture
def ahead(monkeypatch):
    """Factory: a predictor on such a device, and its transfer."""

    def make(network=None, batch_size=2, device="cpu", card=None, **options):
        made = []

        def transfer_to(device):
            made.append(Ahead(device, **options) if not made else transfer.DeviceTransfer(device))
            return made[-1]

        monkeypatch.setattr(transfer, "transfer_to", transfer_to)
        predictor = Predictor(model_of(network or BrightFlair(), **(card or {})), device, batch_size)
        return predictor, made[0]

    return make


@pytest.mark.parametrize("batch_size", [1, 2, 5, 6, 11, 100])
@pytest.mark.parametrize("neighbours", [0, 1])
def test_the_next_batch_starts_before_waiting_for_a_result(uneven, ahead, batch_size, neighbours):
    network, card = Neighbour(0, neighbours), {"neighbouring_slices": neighbours}
    expected_events, expected = predict(uneven, network, batch_size, **card)
    predictor, copies = ahead(network, batch_size, card=card)
    events, probability = finish(predictor.predict(uneven))
    np.testing.assert_array_equal(probability, expected)
    assert events == expected_events
    batches = -(-9 // batch_size)
    order = [f"started {n}" for n in range(min(2, batches))]
    for n in range(batches):
        order += [f"waited {n}"] + ([f"started {n + 2}"] if n + 2 < batches else [])
    assert copies.order == order
    assert set(copies.raw) == {torch.uint8}, "slices are sent as uint8"


def test_closing_with_a_pending_batch(uneven, ahead):
    predictor, copies = ahead()
    steps = predictor.predict(uneven)
    while next(steps) != SlicesDone(2, 9):
        pass
    assert copies.order == ["started 0", "started 1", "waited 0"]
    steps.close()
    assert copies.order == ["started 0", "started 1", "waited 0"]
    np.testing.assert_array_equal(finish(predictor.predict(uneven))[1], predict(uneven)[1])


@pytest.mark.parametrize("fail_at", [(0,), (1,), (0, 2)])
def test_results_lost_to_lack_of_memory_are_computed_again(uneven, ahead, fail_at):
    predictor, _ = ahead(batch_size=5, fail_at=fail_at)
    events, probability = finish(predictor.predict(uneven))
    notices = [event.text for event in events if isinstance(event, Notice)]
    assert len(notices) == len(fail_at)
    assert all(text.startswith("Out of memory: continuing with") for text in notices)
    done = [event.done for event in events if isinstance(event, SlicesDone)]
    assert done == sorted(done)
    assert done[-1] == 9
    np.testing.assert_allclose(probability, predict(uneven)[1], atol=1e-6)


def test_running_out_of_memory_with_a_pending_batch(uneven, ahead):
    """The second batch does not fit in addition to the first: both are computed again, smaller."""

    class Second(BrightFlair):
        calls = 0

        def forward(self, slices):
            self.__class__.calls += 1
            if self.calls == 2:
                raise out_of_memory()
            return super().forward(slices)

    predictor, _ = ahead(Second(), batch_size=4)
    events, probability = finish(predictor.predict(uneven))
    assert [e.text for e in events if isinstance(e, Notice)] == [
        "Out of memory: continuing with 2 instead of 4 slices per batch."
    ]
    assert [e.done for e in events if isinstance(e, SlicesDone)] == [0, 2, 4, 6, 8, 9]
    np.testing.assert_allclose(probability, predict(uneven)[1], atol=1e-6)


@pytest.mark.usefixtures("other_device")
def test_the_cpu_takes_over_with_a_pending_batch(uneven, ahead):
    network = BrightFlair(0, out_of_memory, only_on="meta")
    predictor, _ = ahead(network, 4, "auto")
    events, probability = finish(predictor.predict(uneven))
    assert [e.text for e in events if isinstance(e, Notice)][-1].startswith("META is out of memory")
    np.testing.assert_allclose(probability, predict(uneven)[1], atol=1e-6)


def test_a_device_that_fails_while_waiting_for_a_result(uneven, ahead):
    predictor, _ = ahead(fail_at=(1,), error=lambda: RuntimeError("CUDA error: device lost"))
    with pytest.raises(DeviceError, match=r"failed \(CUDA error: device lost\)"):
        finish(predictor.predict(uneven))


# --- values that are not plausible -------------------------------------------------------------


class Spoiled(BrightFlair):
    """Computes one value that is not plausible in the n-th batch."""

    def __init__(self, value, at=1):
        super().__init__()
        self.value, self.at, self.calls = value, at, []

    def forward(self, slices):
        logits = super().forward(slices)
        self.calls.append(1)
        if len(self.calls) == self.at:
            logits[0, 0, 12, 12] = self.value
        return logits


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 65000, -2000, -4e10])
@pytest.mark.parametrize(("at", "options"), [(1, {}), (3, {}), (2, {"tta": True}), (4, {"tta": True})])
def test_values_that_are_not_finite_are_refused(make_head, value, at, options):
    predictor = Predictor(model_of(Spoiled(value, at)), "cpu", 2, **options)
    with pytest.raises(
        DeviceError, match=r"^CPU computed values that are not finite .*test\.safetensors; .*\.$"
    ):
        finish(predictor.predict(make_head((6, 48, 48))[0]))


def test_values_that_are_not_finite_are_refused_in_the_coarse_pass(make_head):
    model = model_of(Spoiled(np.nan), coarse_threshold=0.01)
    steps = Predictor(model, "cpu", 2, coarse_to_fine=True).predict(make_head((12, 48, 48))[0])
    with pytest.raises(DeviceError, match="not finite"):
        finish(steps)


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_weights_that_overflow_are_not_taken_for_no_tumour(request, unet, make_head, engine):
    """In bf16, a ReLU may turn NaN into 0, so that the output is finite."""
    if engine == "openvino":
        request.getfixturevalue("openvino")
    network = deepcopy(unet)
    for values in network.state_dict().values():
        if values.is_floating_point():
            values.mul_(5e3)
    predictor = Predictor(model_of(network), "cpu", 2, engine=engine)
    with pytest.raises(DeviceError, match="not finite or too large"):
        finish(predictor.predict(make_head((2, 48, 48))[0]))
