from __future__ import annotations

import dataclasses
import math
import shutil
from itertools import pairwise

import numpy as np
import pytest
import torch

pytest.importorskip("monai")

from napari_lgg_seg.core import train as train_module
from napari_lgg_seg.core.checkpoint import load_model, read_card
from napari_lgg_seg.core.errors import ExportError, TrainingError
from napari_lgg_seg.core.losses import BceDiceLoss
from napari_lgg_seg.core.preprocess import PreprocessOptions
from napari_lgg_seg.core.train import (
    EpochDone,
    StepDone,
    TrainOptions,
    epoch_seed,
    learning_rate_at,
    train,
)

OPTIONS = TrainOptions(
    epochs=2, slices_per_epoch=8, batch_size=4, small_size=32, validate_every=1, seed=5, device="cpu"
)
PREPROCESS = PreprocessOptions(working_size=32)


@pytest.fixture(scope="module")
def patients(make_patient):
    """One for training, one for validation."""
    return [make_patient("first", shape=(4, 64, 64))], [make_patient("second", shape=(3, 64, 64), seed=1)]


@pytest.fixture
def output(tmp_path):
    """Where the model goes; the large training state beside it is removed at the end."""
    yield tmp_path / "my model.safetensors"
    shutil.rmtree(tmp_path)


def start(patients, output, resume=False, **options):
    return train(*patients, output, dataclasses.replace(OPTIONS, **options), PREPROCESS, resume=resume)


def until_epoch(work, epoch):
    """Events up to the end of an epoch; then the training is stopped."""
    events = []
    for event in work:
        events.append(event)
        if isinstance(event, EpochDone) and event.epoch == epoch:
            break
    work.close()
    return events


def step_losses(events):
    return [event.loss for event in events if isinstance(event, StepDone)]


@pytest.fixture(scope="module")
def whole_run(patients, tmp_path_factory):
    """An uninterrupted training: its events and its model file."""
    path = tmp_path_factory.mktemp("train") / "whole.safetensors"
    events = list(start(patients, path))
    shutil.rmtree(path.with_name("whole.state"))
    return events, path


# --- a whole training --------------------------------------------------------------------------


def test_events(whole_run):
    events, _ = whole_run
    assert [type(event) for event in events] == 2 * [StepDone, StepDone, EpochDone]
    assert [(e.step, e.steps) for e in events if isinstance(e, StepDone)] == [(n, 4) for n in (1, 2, 3, 4)]
    epochs = [event for event in events if isinstance(event, EpochDone)]
    assert [(event.epoch, event.epochs) for event in epochs] == [(1, 2), (2, 2)]
    losses = step_losses(events)
    assert all(math.isfinite(loss) and loss > 0 for loss in losses)
    assert [event.loss for event in epochs] == pytest.approx([sum(losses[:2]) / 2, sum(losses[2:]) / 2])
    assert all(event.validation.patients == 1 for event in epochs)
    assert [event.best for event in epochs] == [
        epochs[0].validation.mean,
        max(event.validation.mean for event in epochs),
    ]


def test_model_file_says_how_it_was_made(whole_run):
    events, path = whole_run
    model = load_model(path)
    card = model.card
    assert card == read_card(path)
    assert card.training_patients == ("first",)
    assert card.validation_patients == ("second",)
    assert card.preprocess == PREPROCESS
    assert card.architecture == "unet"
    assert dataclasses.asdict(OPTIONS).items() <= card.training.items()
    assert card.figures["validation"] == {"second": pytest.approx(events[-1].best)}
    assert card.training["history"][0]["mean"] == events[2].validation.mean
    assert card.created
    assert all(torch.isfinite(tensor).all() for tensor in model.network.state_dict().values())


def test_resumed_training_goes_on_as_if_never_stopped(patients, output, whole_run):
    expected, whole = whole_run
    first = until_epoch(start(patients, output), 1)
    second = list(start(patients, output, resume=True))
    assert [type(event) for event in second] == [StepDone, StepDone, EpochDone]
    assert [event.step for event in second[:2]] == [3, 4]
    # The same seed gives the same training, and so does the second half on its own.
    assert step_losses(first) == pytest.approx(step_losses(expected[:3]), rel=1e-3)
    assert step_losses(second) == pytest.approx(step_losses(expected[3:]), rel=1e-3)
    assert second[-1].best == pytest.approx(expected[-1].best, abs=0.01)
    assert len(read_card(output).training["history"]) == len(read_card(whole).training["history"])
    # Nothing is left to do after the last epoch.
    assert list(start(patients, output, resume=True)) == []


def test_resuming_without_a_state_starts_anew(patients, output, whole_run):
    work = start(patients, output, resume=True)
    assert next(work).loss == pytest.approx(step_losses(whole_run[0])[0], rel=1e-3)
    work.close()


def test_another_seed_gives_another_training(patients, output, whole_run):
    work = start(patients, output, seed=6)
    assert next(work).loss != pytest.approx(step_losses(whole_run[0])[0], rel=1e-3)
    work.close()
    assert not output.exists()


def test_validation_only_when_due(patients, output):
    events = list(start(patients, output, epochs=3, slices_per_epoch=4, validate_every=2))
    epochs = [event for event in events if isinstance(event, EpochDone)]
    assert [event.validation is not None for event in epochs] == [False, True, True]
    assert epochs[0].best < 0


def test_only_a_better_model_replaces_the_file(patients, output, monkeypatch):
    scores = iter([0.6, 0.4, 0.8])
    monkeypatch.setattr(train_module, "dice", lambda prediction, truth: next(scores))
    kept, best = [], []
    for event in start(patients, output, epochs=3, slices_per_epoch=4):
        if isinstance(event, EpochDone):
            kept.append(read_card(output).training["epoch"])
            best.append(event.best)
    assert kept == [1, 1, 3]
    assert best == [0.6, 0.6, 0.8]


def test_time_limit_stops_after_an_epoch_and_can_be_resumed(patients, output):
    events = list(start(patients, output, slices_per_epoch=4, max_minutes=1e-6))
    assert [type(event) for event in events] == [StepDone, EpochDone]
    assert events[-1].epoch == 1
    work = start(patients, output, slices_per_epoch=4, resume=True)
    assert next(work).step == 2
    work.close()


def test_small_slices_first_then_the_working_size(patients, output, monkeypatch):
    sizes = []
    forward = BceDiceLoss.forward

    def noted(self, logits, masks):
        assert logits.shape == masks.shape
        sizes.append(logits.shape[-1])
        return forward(self, logits, masks)

    monkeypatch.setattr(BceDiceLoss, "forward", noted)
    list(start(patients, output, epochs=1, slices_per_epoch=16, small_size=16, small_share=0.5))
    assert sizes == [16, 16, 32, 32]


def test_every_epoch_is_drawn_anew(patients, output, monkeypatch):
    seen = []
    forward = BceDiceLoss.forward

    def noted(self, logits, masks):
        seen.append(masks)
        return forward(self, logits, masks)

    monkeypatch.setattr(BceDiceLoss, "forward", noted)
    work = start(patients, output, slices_per_epoch=4, validate_every=2)
    until_epoch(work, 1)
    next(start(patients, output, slices_per_epoch=4, resume=True))
    first, second = seen
    assert first.shape == second.shape
    assert not torch.equal(first, second)


def test_training_learns(patients, output):
    events = list(
        start(
            patients, output, epochs=1, slices_per_epoch=128, batch_size=8, learning_rate=1e-3, tumour_share=1
        )
    )
    losses = step_losses(events)
    assert np.mean(losses[-4:]) < 0.7 * np.mean(losses[:4])
    assert events[-1].best > 0.5


# --- refusals and failures ---------------------------------------------------------------------


def test_patient_in_both_sets_is_refused(patients, output):
    training, validation = patients
    with pytest.raises(TrainingError, match=r"^first is in both training and validation; .*\.$"):
        next(start((training, validation + training), output))
    assert not output.exists()


@pytest.mark.parametrize("empty", [0, 1])
def test_empty_set_is_refused(patients, output, empty):
    sets = list(patients)
    sets[empty] = []
    with pytest.raises(TrainingError, match="at least one patient"):
        next(start(sets, output))


@pytest.mark.parametrize("missing", ["truth", "volume"])
@pytest.mark.parametrize("where", [0, 1])
def test_patient_without_masks_or_images_is_refused(patients, output, where, missing):
    sets = list(patients)
    sets[where] = [dataclasses.replace(sets[where][0], **{missing: None})]
    with pytest.raises(TrainingError, match=f"{sets[where][0].name} has no images or no masks"):
        next(start(sets, output))


def test_loss_that_is_no_number_ends_the_training_and_keeps_the_best(patients, output, monkeypatch):
    forward, calls = BceDiceLoss.forward, []

    def failing(self, logits, masks):
        calls.append(logits)
        return forward(self, logits, masks) * (math.nan if len(calls) > 2 else 1)

    monkeypatch.setattr(BceDiceLoss, "forward", failing)
    work = start(patients, output)
    until_validated = [next(work) for _ in range(3)]
    best = output.read_bytes()
    with pytest.raises(TrainingError, match=r"no longer a number at step 3; .*\.$"):
        next(work)
    assert output.read_bytes() == best
    figures = load_model(output).card.figures
    assert figures["validation"] == {"second": pytest.approx(until_validated[-1].best)}


@pytest.mark.parametrize("content", [b"", b"no state", "cut"])
def test_damaged_state_is_refused(patients, output, content):
    state = output.with_name("my model.state") / "last.pt"
    state.parent.mkdir()
    if content == "cut":
        torch.save({"network": {"weight": torch.zeros(1000)}}, state)
        content = state.read_bytes()[:2000]
    state.write_bytes(content)
    with pytest.raises(TrainingError, match=r"last\.pt is damaged; .*\.$"):
        next(start(patients, output, resume=True))


def test_state_of_another_network_is_refused(patients, output):
    state = output.with_name("my model.state") / "last.pt"
    state.parent.mkdir()
    torch.save({"network": {"weight": torch.zeros(1)}}, state)
    with pytest.raises(TrainingError, match=r"last\.pt is damaged; .*\.$"):
        next(start(patients, output, resume=True))


def test_full_disk_leaves_the_model_and_the_old_state_whole(patients, output):
    """The system's limit on the size of files stands in for a full disk; only the model fits."""
    resource = pytest.importorskip("resource")
    state = output.with_name("my model.state") / "last.pt"
    state.parent.mkdir()
    state.write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40 * 2**20, limits[1]))
    try:
        with pytest.raises(ExportError, match=r"last\.pt could not be written"):
            list(start(patients, output, slices_per_epoch=4))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert read_card(output).name == "my model"
    assert state.read_bytes() == b"old"
    assert list(state.parent.iterdir()) == [state]


# --- schedule ----------------------------------------------------------------------------------


def test_learning_rate_rises_and_falls():
    assert learning_rate_at(0, 0.01) == 0
    assert learning_rate_at(0.025, 0.01) == pytest.approx(0.005)
    assert learning_rate_at(0.05, 0.01) == pytest.approx(0.01)
    assert learning_rate_at(0.525, 0.01) == pytest.approx(0.005)
    assert learning_rate_at(1, 0.01) == pytest.approx(0)
    rates = [learning_rate_at(step / 200, 0.01) for step in range(201)]
    assert all(a < b for a, b in pairwise(rates[:11]))
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert max(rates) == pytest.approx(0.01)


def test_learning_rate_without_warm_up():
    assert learning_rate_at(0, 0.01, warm_up=0) == 0.01


def test_every_epoch_and_seed_has_its_own_randomness():
    seeds = {epoch_seed(TrainOptions(seed=seed), epoch) for seed in range(10) for epoch in range(1, 200)}
    assert len(seeds) == 10 * 199
