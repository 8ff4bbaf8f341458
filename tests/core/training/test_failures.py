"""Trainings that fail: memory, devices, and losses that are not finite."""

from __future__ import annotations

import math
from typing import get_args, get_type_hints

import pytest
import torch
from training_runs import notices, of, start, step_losses, until

from napari_lgg_seg.core.choices import OptionsError
from napari_lgg_seg.core.errors import DeviceError, ModelError, TrainingError
from napari_lgg_seg.core.model.checkpoint import load_model, read_card, save_model
from napari_lgg_seg.core.model.networks import UNet
from napari_lgg_seg.core.options import SegmentOptions
from napari_lgg_seg.core.training import losses, run
from napari_lgg_seg.core.training.callbacks import Callback
from napari_lgg_seg.core.training.events import Ended, EpochDone, StepDone
from napari_lgg_seg.core.training.muon import Muon
from napari_lgg_seg.core.training.options import TrainOptions

pytestmark = pytest.mark.usefixtures("narrow")


# --- values that are not finite ----------------------------------------------------------------


class Spoiled(torch.nn.Module):
    """A loss that is not finite from the fifth step on: itself, or its gradient."""

    def __init__(self, loss, what):
        super().__init__()
        self.loss, self.what, self.calls = loss, what, 0

    def forward(self, logits, masks):
        self.calls += 1
        value = self.loss(logits, masks)
        if self.calls < 5:
            return value
        return value * math.nan if self.what == "loss" else value + (0 * logits.sum()).sqrt()


@pytest.fixture(params=["loss", "gradient", "activations"])
def spoiled(request, monkeypatch):
    """Make the loss, its gradient, or the network's input infinite or NaN in the fifth step."""
    make_loss, augment, calls = losses.make_loss, run.augment, []

    def spoiled_augment(*arguments):
        calls.append(arguments)
        images, masks = augment(*arguments)
        return (images * math.inf if len(calls) == 5 else images), masks

    if request.param == "activations":
        monkeypatch.setattr(run, "augment", spoiled_augment)
    else:
        monkeypatch.setattr(losses, "make_loss", lambda name: Spoiled(make_loss(name), request.param))


def tensors(value):
    """All tensors in a state."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [t for item in value for t in tensors(item)] if isinstance(value, list) else []


@pytest.mark.usefixtures("spoiled")
def test_values_that_are_not_finite_end_the_training_and_are_not_saved(patients, output, state):
    work, events = start(patients, output), []
    while not of(events, EpochDone):
        events.append(next(work))
    best = output.read_bytes()
    with pytest.raises(TrainingError, match=r"not finite at step 5; .*\.$"):
        events.extend(work)
    assert len(of(events, StepDone)) == 4
    assert output.read_bytes() == best
    [epoch] = of(events, EpochDone)
    model = load_model(output)
    assert model.card.results["validation"] == {"second": pytest.approx(epoch.best)}
    assert model.card.training["epoch"] == 1
    found = [*tensors(torch.load(state, weights_only=True)), *model.network.state_dict().values()]
    assert len(found) > 100
    assert all(torch.isfinite(tensor).all() for tensor in found)
    assert not list(output.parent.rglob("slices"))


# --- memory ------------------------------------------------------------------------------------


def fail_in_training(monkeypatch, error, more_than=0):
    """Let the network fail on more slices than that at once; returns the sizes of what went through."""
    forward, done = UNet.forward, []

    def failing(network, slices):
        if network.training and len(slices) > more_than:
            raise error
        if network.training:
            done.append(len(slices))
        return forward(network, slices)

    monkeypatch.setattr(UNet, "forward", failing)
    return done


@pytest.mark.parametrize("error", [RuntimeError("CUDA out of memory. Tried a lot"), MemoryError()])
def test_steps_are_computed_in_parts_if_memory_is_short(patients, output, monkeypatch, error):
    options = {"slices_per_epoch": 16, "batch_size": 8, "small_share": 0}
    done = fail_in_training(monkeypatch, error, more_than=2)
    events = list(start(patients, output, **options))
    assert [(event.step, event.steps) for event in of(events, StepDone)] == [(n, 4) for n in (1, 2, 3, 4)]
    assert done == 4 * [2, 2, 2, 2]
    assert all(math.isfinite(loss) for loss in step_losses(events))
    assert notices(events) == [f"Out of memory: each step now computes {n} slices at a time." for n in (4, 2)]
    assert events[-1] == Ended("All 2 epochs are done.")


def test_parts_of_a_batch_give_its_gradient(patients, output, monkeypatch):
    """Cross-entropy is a mean over slices: in parts it is the same, except for batch normalisation."""
    monkeypatch.setattr(torch.nn.BatchNorm2d, "forward", lambda norm, x: x * norm.weight[:, None, None])

    class Gradients(Callback):
        def after_step(self, run):
            found.append(
                torch.cat([p.grad.flatten() for p in run.network.parameters() if p.grad is not None])
            )

    found = []
    options = {"loss": "bce", "slices_per_epoch": 7, "batch_size": 7, "epochs": 1, "small_share": 0}
    until(start(patients, output, callbacks=[Gradients()], **options), StepDone)
    fail_in_training(monkeypatch, RuntimeError("out of memory"), more_than=3)
    other = output.with_name("other.safetensors")
    until(start(patients, other, callbacks=[Gradients()], **options), StepDone)
    whole, parts = found
    assert float((whole - parts).norm()) < 0.01 * float(whole.norm())


def test_too_little_memory_for_one_slice_is_an_error(patients, output, monkeypatch):
    fail_in_training(monkeypatch, RuntimeError("CUDA out of memory"))
    with pytest.raises(DeviceError, match=r"^CPU has too little memory for a step; .*\.$"):
        list(start(patients, output))


# --- devices -----------------------------------------------------------------------------------


def test_a_failing_device_is_an_error(patients, output, monkeypatch):
    fail_in_training(monkeypatch, RuntimeError("no kernel image\nsecond line"))
    with pytest.raises(DeviceError, match=r"^CPU failed \(no kernel image\); .*\.$"):
        list(start(patients, output))


def test_a_device_that_fails_at_once_is_an_error(patients, output, monkeypatch):
    def fail(module, *args, **kwargs):
        raise RuntimeError("no kernel image is available\nlong trace")

    monkeypatch.setattr(torch.nn.Module, "to", fail)
    with pytest.raises(DeviceError, match=r"^CPU failed \(no kernel image is available\); choose .*\.$"):
        list(start(patients, output))
    assert not output.exists()


@pytest.mark.parametrize("error", [RuntimeError("device-side assert"), torch.OutOfMemoryError("CUDA out of")])
@pytest.mark.parametrize("where", ["augmentation", "optimiser"])
def test_a_device_that_fails_elsewhere_in_a_step_is_an_error(patients, output, monkeypatch, where, error):
    """CUDA reports errors late, and the optimiser allocates its memory in its first step."""

    def fail(*_, **__):
        raise error

    if where == "optimiser":
        monkeypatch.setattr(Muon, "step", fail)
    else:
        monkeypatch.setattr(run, "augment", fail)
    with pytest.raises(DeviceError, match=r"^CPU .*\.$"):
        list(start(patients, output))


def test_the_first_error_is_reported_if_saving_fails_as_well(patients, output, monkeypatch):
    """After an error of CUDA nothing can be read from the device: neither model nor state."""
    work = start(patients, output)
    while not isinstance(next(work), StepDone):
        pass
    fail_in_training(monkeypatch, RuntimeError("device-side assert"))

    def gone(*_, **__):
        raise RuntimeError("nothing can be read from the device")

    monkeypatch.setattr(torch.nn.Module, "state_dict", gone)
    with pytest.raises(DeviceError, match=r"^CPU failed \(device-side assert\)"):
        list(work)


# --- patients without tumour, weights that are not finite ---------------------------------------


def test_training_patients_without_tumour_are_refused(make_patient, patients, output):
    healthy = [make_patient(f"healthy {n}", shape=(4, 64, 64), tumour=False) for n in range(2)]
    with pytest.raises(TrainingError, match=r"^No mask of the 2 training patients marks tumour; .*\.$"):
        list(start((healthy, patients[1]), output))
    assert not output.exists()


def test_validation_patients_without_tumour_are_pointed_out_once(make_patient, patients, output):
    healthy = [make_patient("healthy", shape=(4, 64, 64), tumour=False)]
    [text] = notices(start((patients[0], healthy), output))
    assert text.startswith("No mask of the validation patients marks tumour, so their Dice says nothing")
    assert not notices(start(patients, output.with_name("other.safetensors")))


def test_weights_that_are_not_finite_cannot_be_fine_tuned(patients, output, initial, tmp_path):
    network = load_model(initial).network
    torch.nn.init.constant_(next(network.parameters()), math.nan)
    spoiled = tmp_path / "spoiled.safetensors"
    save_model(spoiled, network, read_card(initial))
    with pytest.raises(ModelError, match=r"spoiled\.safetensors has weights that are NaN or infinite"):
        list(start(patients, output, init=str(spoiled)))
    assert not output.exists()


def test_a_validation_with_values_that_are_not_finite_ends_the_training(patients, output, monkeypatch):
    """The best model so far stays."""
    work = start(patients, output)
    until_epoch = iter(work)
    while not isinstance(next(until_epoch), EpochDone):
        pass
    best, forward = output.read_bytes(), UNet.forward
    monkeypatch.setattr(
        UNet, "forward", lambda net, x: forward(net, x) if net.training else forward(net, x) * math.nan
    )
    with pytest.raises(DeviceError, match="not finite"):
        list(work)
    assert output.read_bytes() == best


# --- options -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", 10**30),
        ("seed", -1),
        ("seed", 1.5),
        ("epochs", 10**30),
        ("epochs", "three"),
        ("batch_size", 10**12),
        ("slices_per_epoch", math.nan),
        ("learning_rate", math.inf),
        ("learning_rate", math.nan),
        ("weight_decay", math.inf),
        ("gradient_clip", math.inf),
        ("max_minutes", math.inf),
        ("patience", 10**12),
        ("validate_every", 10**12),
    ],
)
def test_numbers_beyond_their_limits_are_refused(name, value):
    label = name.replace("_", " ").capitalize()
    with pytest.raises(OptionsError, match=rf"^{label} cannot be .*; choose a .* from .* to .*\.$"):
        TrainOptions(**{name: value})


def test_every_number_has_limits():
    for options in (TrainOptions, SegmentOptions):
        for name, hint in get_type_hints(options).items():
            if {int, float} & set(get_args(hint) or (hint,)) and name != "threshold":
                field = options.__dataclass_fields__[name]
                assert None not in field.metadata["limits"], name
