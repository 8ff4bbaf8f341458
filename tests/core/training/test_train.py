"""Whole trainings of a narrow network on small patients: events, model file and history."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from training_runs import (
    about,
    files,
    history_rows,
    note_batch_shapes,
    notices,
    of,
    same_weights,
    start,
    step_losses,
    until,
    weights,
)

from napari_lgg_seg.core.choices import LOSSES
from napari_lgg_seg.core.errors import TrainingError
from napari_lgg_seg.core.evaluation.metrics import dice
from napari_lgg_seg.core.model.checkpoint import read_card
from napari_lgg_seg.core.training import run
from napari_lgg_seg.core.training.events import (
    Ended,
    EpochDone,
    PatientRead,
    PatientValidated,
    SlicesDone,
    StepDone,
)

pytestmark = pytest.mark.usefixtures("narrow")


# --- a whole training --------------------------------------------------------------------------


def test_events_come_in_order(whole_run):
    events, _ = whole_run
    epoch = [StepDone, StepDone, StepDone, PatientValidated, EpochDone]
    kinds = [type(event) for event in events if not isinstance(event, SlicesDone)]
    assert kinds == [PatientRead, *epoch, *epoch, Ended]
    assert events[0] == PatientRead("first", 1, 1)
    steps = [(event.step, event.steps, event.epoch) for event in of(events, StepDone)]
    assert steps == [(n, 6, 1 + (n > 3)) for n in range(1, 7)]
    assert events[-1].reason == "All 2 epochs are done."


def test_epochs_report_mean_loss_and_best_dice(whole_run):
    events, _ = whole_run
    epochs, losses = of(events, EpochDone), step_losses(events)
    assert [(event.epoch, event.epochs) for event in epochs] == [(1, 2), (2, 2)]
    assert all(math.isfinite(loss) and loss > 0 for loss in losses)
    assert [event.loss for event in epochs] == pytest.approx([sum(losses[:3]) / 3, sum(losses[3:]) / 3])
    means = [event.validation.mean for event in epochs]
    assert [event.best for event in epochs] == [means[0], max(means)]
    assert [event.validation.patients for event in epochs] == [1, 1]


def test_validation_yields_labels_and_progress(whole_run, patients):
    events, _ = whole_run
    truth = patients[1][0].truth
    for event, epoch in zip(of(events, PatientValidated), of(events, EpochDone), strict=True):
        assert (event.name, event.done, event.total) == ("second", 1, 1)
        assert event.labels.dtype == np.uint8
        assert event.dice == dice(event.labels, truth) == epoch.validation.mean
    progress = [(event.done, event.total) for event in of(events, SlicesDone)]
    assert progress == 2 * [(0, 3), (2, 3), (3, 3)]


def test_only_model_state_and_history_are_left(whole_run):
    _, path = whole_run
    assert files(path.parent) == [
        "whole.safetensors",
        "whole.state",
        str(Path("whole.state") / ".lock"),
        str(Path("whole.state") / "history.csv"),
        str(Path("whole.state") / "last.pt"),
    ]


def test_history_has_a_row_for_each_epoch(whole_run):
    events, path = whole_run
    for row, event in zip(history_rows(path), of(events, EpochDone), strict=True):
        assert (int(row["epoch"]), int(row["step"])) == (event.epoch, 3 * event.epoch)
        assert float(row["loss"]) == event.loss
        assert float(row["dice_mean"]) == float(row["dice_median"]) == event.validation.mean
        assert int(row["below_half"]) == len(event.validation.below_half)
        assert 0 < float(row["learning_rate"]) < 2e-3
    minutes = [float(row["minutes"]) for row in history_rows(path)]
    assert 0 < minutes[0] < minutes[1]


def test_history_says_how_long_the_device_waited_for_slices(whole_run):
    assert all(0 < float(row["waiting"]) < 0.5 for row in history_rows(whole_run[1]))


def test_another_seed_gives_another_training(patients, output, whole_run):
    events = until(start(patients, output, seed=6), StepDone)
    assert step_losses(events)[0] != pytest.approx(step_losses(whole_run[0])[0], rel=1e-3)


def test_epochs_are_validated_when_due(patients, output):
    events = list(start(patients, output, epochs=3, slices_per_epoch=4, validate_every=2))
    epochs = of(events, EpochDone)
    assert [event.validation is not None for event in epochs] == [False, True, True]
    assert epochs[0].best == -1
    assert [row["dice_mean"] == "" for row in history_rows(output)] == [True, False, False]


def test_only_a_better_model_replaces_the_file(patients, output, scores):
    scores(0.6, 0.4, 0.6, 0.8)
    saved, best = [], []
    for event in start(patients, output, epochs=4, slices_per_epoch=4):
        if isinstance(event, EpochDone):
            saved.append(read_card(output).training["epoch"])
            best.append(event.best)
    assert saved == [1, 1, 1, 4]
    assert best == [0.6, 0.6, 0.6, 0.8]


def test_slices_are_small_at_first(patients, output, monkeypatch):
    shapes = note_batch_shapes(monkeypatch)
    list(start(patients, output, epochs=1, slices_per_epoch=16, small_share=0.5))
    assert shapes == [(4, 3, 16, 16), (4, 3, 16, 16), (4, 3, 32, 32), (4, 3, 32, 32)]


def test_each_step_has_its_own_slices_and_augmentation(patients, output, monkeypatch):
    seen, augment = [], run.augment

    def noted(*arguments):
        images, masks = augment(*arguments)
        seen.append(images)
        return images, masks

    monkeypatch.setattr(run, "augment", noted)
    list(start(patients, output, slices_per_epoch=8, small_share=0.0))
    assert len(seen) == 4
    for number, images in enumerate(seen):
        assert not any(torch.equal(images, other) for other in seen[:number])


@pytest.mark.parametrize("loss", LOSSES)
def test_each_loss_trains(patients, output, loss):
    if "dice" in loss:
        pytest.importorskip("monai")
    events = list(
        start(
            patients,
            output,
            loss=loss,
            epochs=1,
            slices_per_epoch=128,
            batch_size=8,
            optimiser="adamw",
            learning_rate=1e-2,
            tumour_share=1,
            small_share=0,
            average_decay=0.8,
            threshold=0.5,
            clean_up="off",
        )
    )
    losses = step_losses(events)
    assert np.mean(losses[-4:]) < 0.9 * np.mean(losses[:4])
    assert read_card(output).training["loss"] == loss
    if loss == "bce+dice":
        assert of(events, EpochDone)[0].validation.mean > 0.5


def test_neighbouring_slices_are_off_by_default(patients, output, whole_run):
    events = list(start(patients, output, neighbouring_slices=0))
    assert step_losses(events) == step_losses(whole_run[0])
    assert same_weights(weights(output), weights(whole_run[1]))
    assert read_card(output).neighbouring_slices == read_card(whole_run[1]).neighbouring_slices == 0


# --- the output --------------------------------------------------------------------------------


@pytest.mark.parametrize("existing", ["model", "state"])
def test_existing_files_are_not_replaced(patients, output, state, existing):
    path = output if existing == "model" else state
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"precious")
    with pytest.raises(TrainingError, match=r"exists already; .*--resume\.$"):
        next(start(patients, output))
    assert path.read_bytes() == b"precious"


def test_a_model_file_must_end_in_safetensors(patients, tmp_path):
    with pytest.raises(TrainingError, match=r"must end in \.safetensors"):
        next(start(patients, tmp_path / "model.pt"))


def test_resuming_without_a_state_renames_an_existing_model(patients, output, whole_run):
    output.write_bytes(b"precious")
    output.with_name("my model-before-1.safetensors").write_bytes(b"more precious")
    events = until(start(patients, output, resume=True), StepDone)
    assert step_losses(events) == about(step_losses(whole_run[0])[:1])
    first, second = notices(events)
    assert first == "There is no training state next to my model.safetensors; starting a new training."
    assert second == "The existing my model.safetensors was renamed to my model-before-2.safetensors."
    assert output.with_name("my model-before-1.safetensors").read_bytes() == b"more precious"
    assert output.with_name("my model-before-2.safetensors").read_bytes() == b"precious"
    assert read_card(output).name == "my model"
