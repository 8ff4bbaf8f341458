"""Whole trainings of a narrow network on small patients: what happens, what is kept, how it goes on."""

from __future__ import annotations

import csv
import dataclasses
import gc
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from narrow_network import narrow_network

pytest.importorskip("monai")

from napari_lgg_seg.core.data.masks import write_patient
from napari_lgg_seg.core.errors import DeviceError, ExportError, TrainingError
from napari_lgg_seg.core.evaluation.metrics import dice
from napari_lgg_seg.core.inference.postprocess import postprocess
from napari_lgg_seg.core.inference.predict import Notice, Predictor, run_to_end
from napari_lgg_seg.core.model.checkpoint import DEFAULT_MODEL, ModelCard, load_model, read_card, save_model
from napari_lgg_seg.core.model.networks import UNet, build_network
from napari_lgg_seg.core.model.preprocess import PreprocessOptions
from napari_lgg_seg.core.options import SegmentOptions
from napari_lgg_seg.core.training import losses, run
from napari_lgg_seg.core.training.callbacks import Callback
from napari_lgg_seg.core.training.events import (
    Ended,
    EpochDone,
    PatientRead,
    PatientValidated,
    SlicesDone,
    StepDone,
    Validated,
)
from napari_lgg_seg.core.training.losses import LOSSES
from napari_lgg_seg.core.training.muon import Muon
from napari_lgg_seg.core.training.options import TrainOptions
from napari_lgg_seg.core.training.train import train

#: Three steps an epoch, of 4, 3 and 3 slices.
OPTIONS = TrainOptions(
    init="scratch",
    epochs=2,
    slices_per_epoch=10,
    batch_size=4,
    small_size=16,
    small_share=0.2,
    validate_every=1,
    seed=5,
    device="cpu",
)
PREPROCESS = PreprocessOptions(working_size=32)
TESTS = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def _quick():
    """Narrow networks; and each training ends with a garbage collection, which leaves out what is there."""
    gc.freeze()
    with narrow_network():
        yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def patients(make_patient):
    """One for training, one for validation."""
    return [make_patient("first", shape=(4, 64, 64))], [make_patient("second", shape=(3, 64, 64), seed=1)]


@pytest.fixture
def output(tmp_path):
    """Where the model goes; the training state beside it is removed at the end."""
    yield tmp_path / "my model.safetensors"
    shutil.rmtree(tmp_path)


@pytest.fixture
def state(output):
    """The training state's file."""
    return output.with_name("my model.state") / "last.pt"


def start(patients, output, *, resume=False, callbacks=(), **options):
    options = dataclasses.replace(OPTIONS, **options)
    return train(*patients, output, options, PREPROCESS, callbacks=callbacks, resume=resume)


def until(work, kind, number=1):
    """Events up to the number-th of a kind; then the training is closed."""
    events = []
    for event in work:
        events.append(event)
        if isinstance(event, kind) and len(of(events, kind)) == number:
            break
    work.close()
    return events


def of(events, kind):
    return [event for event in events if isinstance(event, kind)]


def step_losses(events):
    return [event.loss for event in of(events, StepDone)]


def about(losses):
    """The same but for rounding; another slice or another weight would differ by far more."""
    return pytest.approx(losses, rel=1e-5)


def notices(events):
    return [event.text for event in of(events, Notice)]


def rows(output):
    with (output.with_name(f"{output.stem}.state") / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def tensors(value):
    """All tensors in a state."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [t for item in value for t in tensors(item)] if isinstance(value, list) else []


def weights(path):
    return load_model(path).network.state_dict()


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture
def scores(monkeypatch):
    """Make the validations of one patient come out as told."""

    def tell(*values):
        told = iter(values)
        monkeypatch.setattr(run, "dice", lambda labels, truth: next(told))

    return tell


@pytest.fixture(scope="module")
def whole_run(patients, tmp_path_factory):
    """An uninterrupted training: its events, and its model file with all that lies beside it."""
    path = tmp_path_factory.mktemp("train") / "whole.safetensors"
    yield list(start(patients, path)), path
    shutil.rmtree(path.parent)


@pytest.fixture(scope="module")
def initial(tmp_path_factory):
    """A model to fine-tune, with everything in its header that must be kept."""
    path = tmp_path_factory.mktemp("initial") / "older.safetensors"
    torch.manual_seed(3)
    card = ModelCard(
        "Older",
        preprocess=PreprocessOptions(working_size=32, clip_percentile=98.0),
        threshold=0.3,
        training_patients=("first", "somebody"),
        earlier_patients=("long ago", "second"),
        data="made patients",
        licence="CC0",
    )
    save_model(path, build_network("unet", 3), card)
    yield path
    shutil.rmtree(path.parent)


# --- a whole training --------------------------------------------------------------------------


def test_events(whole_run, patients):
    events, _ = whole_run
    epoch = [StepDone, StepDone, StepDone, PatientValidated, EpochDone]
    kinds = [type(event) for event in events if not isinstance(event, SlicesDone)]
    assert kinds == [PatientRead, *epoch, *epoch, Ended]
    assert events[0] == PatientRead("first", 1, 1)
    assert [(e.step, e.steps, e.epoch) for e in of(events, StepDone)] == [
        (n, 6, 1 + (n > 3)) for n in range(1, 7)
    ]
    epochs = of(events, EpochDone)
    assert [(event.epoch, event.epochs) for event in epochs] == [(1, 2), (2, 2)]
    losses = step_losses(events)
    assert all(math.isfinite(loss) and loss > 0 for loss in losses)
    assert [event.loss for event in epochs] == pytest.approx([sum(losses[:3]) / 3, sum(losses[3:]) / 3])
    means = [event.validation.mean for event in epochs]
    assert [event.best for event in epochs] == [means[0], max(means)]
    assert [event.validation.patients for event in epochs] == [1, 1]
    assert events[-1].reason == "All 2 epochs are done."


def test_validation_shows_each_patients_labels_and_progress(whole_run, patients):
    events, _ = whole_run
    truth = patients[1][0].truth
    for event, epoch in zip(of(events, PatientValidated), of(events, EpochDone), strict=True):
        assert (event.name, event.done, event.total) == ("second", 1, 1)
        assert event.labels.dtype == np.uint8
        assert event.dice == dice(event.labels, truth) == epoch.validation.mean
    progress = [(event.done, event.total) for event in of(events, SlicesDone)]
    assert progress == 2 * [(0, 3), (2, 3), (3, 3)]


def test_model_file_says_how_it_was_made(whole_run):
    events, path = whole_run
    model = load_model(path)
    card = model.card
    assert card == read_card(path)
    assert (card.name, card.architecture) == ("whole", "unet")
    assert (card.threshold, card.clean_up) == ("auto", "minor")
    assert (card.training_patients, card.validation_patients) == (("first",), ("second",))
    assert card.earlier_patients == ()
    assert card.preprocess == PREPROCESS
    complete = OPTIONS.complete(fine_tuning=False)
    wanted = {**vars(complete), "device": "CPU"}
    assert {name: card.training[name] for name in wanted} == wanted
    assert card.training["initial_model"] is None
    assert card.results["validation"] == {"second": pytest.approx(events[-2].best)}
    assert card.results["summary"]["mean"] == pytest.approx(events[-2].best)
    assert (card.results["before"], card.results["seen_before"]) == ({}, [])
    first = of(events, EpochDone)[0]
    assert card.training["history"][0]["dice_mean"] == first.validation.mean
    assert card.training["history"][0]["loss"] == first.loss
    assert card.created
    assert all(torch.isfinite(tensor).all() for tensor in model.network.state_dict().values())


def test_model_state_and_history_are_all_that_is_left(whole_run):
    _, path = whole_run
    assert files(path.parent) == [
        "whole.safetensors",
        "whole.state",
        str(Path("whole.state") / "history.csv"),
        str(Path("whole.state") / "last.pt"),
    ]


def test_history_has_a_row_for_each_epoch(whole_run):
    events, path = whole_run
    for row, event in zip(rows(path), of(events, EpochDone), strict=True):
        assert (int(row["epoch"]), int(row["step"])) == (event.epoch, 3 * event.epoch)
        assert float(row["loss"]) == event.loss
        assert float(row["dice_mean"]) == float(row["dice_median"]) == event.validation.mean
        assert int(row["below_half"]) == len(event.validation.below_half)
        assert 0 < float(row["learning_rate"]) < 2e-3
    minutes = [float(row["minutes"]) for row in rows(path)]
    assert 0 < minutes[0] < minutes[1]


def test_waiting_for_slices_is_recorded_and_small(whole_run):
    assert all(0 < float(row["waiting"]) < 0.5 for row in rows(whole_run[1]))


def test_another_seed_gives_another_training(patients, output, whole_run):
    events = until(start(patients, output, seed=6), StepDone)
    assert step_losses(events)[0] != pytest.approx(step_losses(whole_run[0])[0], rel=1e-3)


def test_validation_only_when_due(patients, output):
    events = list(start(patients, output, epochs=3, slices_per_epoch=4, validate_every=2))
    epochs = of(events, EpochDone)
    assert [event.validation is not None for event in epochs] == [False, True, True]
    assert epochs[0].best == -1
    assert [row["dice_mean"] == "" for row in rows(output)] == [True, False, False]


def test_only_a_better_model_replaces_the_file(patients, output, scores):
    scores(0.6, 0.4, 0.6, 0.8)
    kept, best = [], []
    for event in start(patients, output, epochs=4, slices_per_epoch=4):
        if isinstance(event, EpochDone):
            kept.append(read_card(output).training["epoch"])
            best.append(event.best)
    assert kept == [1, 1, 1, 4]
    assert best == [0.6, 0.6, 0.6, 0.8]


def sizes_of_batches(monkeypatch):
    """The shapes that the network is trained on, in a list that fills."""
    shapes, forward = [], UNet.forward

    def noted(network, slices):
        if network.training:
            shapes.append(tuple(slices.shape))
        return forward(network, slices)

    monkeypatch.setattr(UNet, "forward", noted)
    return shapes


def test_small_slices_first_then_the_working_size(patients, output, monkeypatch):
    shapes = sizes_of_batches(monkeypatch)
    list(start(patients, output, epochs=1, slices_per_epoch=16, small_share=0.5))
    assert shapes == [(4, 3, 16, 16), (4, 3, 16, 16), (4, 3, 32, 32), (4, 3, 32, 32)]


def test_every_epoch_and_every_step_is_drawn_anew(patients, output, monkeypatch):
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
def test_every_loss_trains(patients, output, loss):
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


# --- fine-tuning -------------------------------------------------------------------------------


def test_fine_tuning_validates_the_initial_model_first(patients, output, initial, scores):
    scores(0.5, 0.4, 0.7)
    events = list(start(patients, output, init=str(initial)))
    kinds = [type(event) for event in events if not isinstance(event, SlicesDone)]
    assert kinds[:4] == [PatientRead, Notice, PatientValidated, Validated]
    assert events[-1] == Ended("All 2 epochs are done.")
    [before] = of(events, Validated)
    assert (before.step, before.epoch, before.best, before.summary.mean) == (0, 0, 0.5, 0.5)
    assert [event.best for event in of(events, EpochDone)] == [0.5, 0.7]
    assert [(row["epoch"], row["step"], row["loss"] == "") for row in rows(output)] == [
        ("0", "0", True),
        ("1", "3", False),
        ("2", "6", False),
    ]
    card = read_card(output)
    assert card.training["epoch"] == 2
    assert card.results["before"] == {"second": 0.5}
    assert card.results["validation"] == {"second": 0.7}
    assert card.results["summary"]["mean"] == 0.7
    assert not same(weights(output), weights(initial))


def test_fine_tuning_keeps_the_initial_model_if_none_is_better(patients, output, initial, scores):
    scores(0.9, 0.5, 0.9)
    list(start(patients, output, init=str(initial)))
    assert same(weights(output), weights(initial))
    card = read_card(output)
    assert card.training["epoch"] == card.training["step"] == 0
    assert card.results["validation"] == card.results["before"] == {"second": 0.9}


def test_the_first_figures_are_those_of_the_initial_model(patients, output, initial):
    """What is validated before the first step is the file as it is used anywhere else."""
    [event] = of(until(start(patients, output, init=str(initial)), PatientValidated), PatientValidated)
    probability = run_to_end(Predictor(load_model(initial), "cpu").predict(patients[1][0].volume))
    np.testing.assert_array_equal(event.labels, probability >= 0.3)


def test_the_initial_models_header_lives_on(patients, output, initial):
    events = list(start(patients, output, init=str(initial), epochs=1))
    card, before = read_card(output), read_card(initial)
    assert card.preprocess == before.preprocess != PREPROCESS
    assert card.threshold == before.threshold == 0.3
    assert (card.licence, card.data) == ("CC0", "made patients")
    assert card.training["initial_model"] == "Older"
    assert card.training_patients == ("first",)
    assert card.earlier_patients == ("long ago", "second", "somebody")
    assert card.results["seen_before"] == ["second"]
    assert any("second" in text and "flatters" in text for text in notices(events))


def test_fine_tuning_has_options_of_its_own(patients, output, initial):
    [step] = of(until(start(patients, output, init=str(initial), epochs=None), StepDone), StepDone)
    assert step.steps == 10 * 3


def test_the_average_begins_with_the_initial_model(patients, output, initial, scores):
    """Weights and statistics of batch normalisation: one step of full rate hardly changes it."""
    scores(0.1, 0.2)
    options = {"average_decay": 0.9999, "warm_up": 0, "learning_rate": 1e-2, "max_minutes": 1e-6}
    list(start(patients, output, init=str(initial), **options))
    before, after = weights(initial), weights(output)
    assert read_card(output).training["step"] == 1
    for name in before:
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(after[name], before[name], rtol=1e-3, atol=1e-4, msg=name)


def test_resumed_fine_tuning_validates_the_initial_model_once(patients, output, initial):
    first = until(start(patients, output, init=str(initial)), StepDone, 2)
    second = list(start(patients, output, init=str(initial), resume=True))
    assert (len(of(first, Validated)), len(of(second, Validated))) == (1, 0)
    assert [event.step for event in of(second, StepDone)] == [3, 4, 5, 6]
    assert len(rows(output)) == 3
    assert set(read_card(output).results["before"]) == {"second"}


def test_freezing_leaves_the_encoder_as_it_is(patients, output, initial, state, scores):
    scores(0.1, 0.2, 0.3)
    list(start(patients, output, init=str(initial), freeze_encoder=True, warm_up=0))
    before, after = weights(initial), weights(output)
    found = torch.load(state, weights_only=True)
    trained, average = found["network"], found["average"]
    encoder = [name for name in before if name.startswith("down.")]
    assert any(name.endswith("running_var") for name in encoder)
    for name in encoder:
        assert torch.equal(before[name], after[name]), name
        assert torch.equal(before[name], trained[name]), name
        assert torch.equal(before[name], average[f"module.{name}"]), name
    for name in set(before) - set(encoder):
        assert not torch.equal(before[name], trained[name]), name


@pytest.mark.parametrize(
    ("options", "channels"),
    [({"network": "buda"}, 3), ({"sequences": "flair"}, 1), ({"network": "buda", "sequences": "flair"}, 1)],
)
def test_other_networks_and_sequences(patients, output, options, channels):
    """Without a wish for a start: from scratch, since the shipped model is another one."""
    events = list(start(patients, output, init=None, epochs=1, slices_per_epoch=4, **options))
    assert any("starting from scratch" in text for text in notices(events))
    model = load_model(output)
    assert model.card.architecture == options.get("network", "unet")
    assert len(model.card.sequences) == channels
    assert "FLAIR" in model.card.sequences
    assert model.card.training["initial_model"] is None
    probability = run_to_end(Predictor(model, "cpu").predict(patients[1][0].volume))
    assert probability.shape == patients[1][0].truth.shape
    # Fine-tuned in its turn, it stays what it is, whether that is asked for or not.
    again = output.with_name("again.safetensors")
    until(start(patients, again, init=str(output), **options), StepDone)
    assert read_card(again).sequences == model.card.sequences
    assert read_card(again).architecture == model.card.architecture


# --- neighbouring slices -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def with_neighbours(make_patient, tmp_path_factory):
    """A training with a neighbour on each side, of a patient with unmarked slices; and its patients."""
    first = dataclasses.replace(make_patient("first", shape=(6, 64, 64)), slices_without_mask=(2, 5))
    patients = [first], [make_patient("second", shape=(4, 64, 64), seed=1)]
    path = tmp_path_factory.mktemp("neighbours") / "neighbours.safetensors"
    events = list(start(patients, path, neighbouring_slices=1, epochs=4, slices_per_epoch=16))
    yield events, path, patients
    shutil.rmtree(path.parent)


def test_neighbouring_slices_from_scratch(with_neighbours):
    events, path, (_, [patient]) = with_neighbours
    losses = step_losses(events)
    assert len(losses) == 16
    assert np.mean(losses[-4:]) < 0.9 * np.mean(losses[:4])
    model = load_model(path)
    assert model.card.neighbouring_slices == model.card.training["neighbouring_slices"] == 1
    assert model.network.down[0][0].in_channels == 9
    # Used from its file, it does what it did in its validation.
    probability = run_to_end(Predictor(model, "cpu").predict(patient.volume))
    labels = postprocess(probability, model.card.complete(SegmentOptions()))
    assert dice(labels, patient.truth) == pytest.approx(model.card.results["validation"]["second"], abs=0.02)
    # What it says about a slice depends on those beside it, and on no other.
    other = run_to_end(Predictor(model, "cpu").predict(patient.volume[[1, 0, 2, 3]]))
    assert not np.allclose(other[2], probability[2], atol=1e-3)
    np.testing.assert_allclose(other[3], probability[3], atol=1e-4)


def test_the_network_learns_from_slice_and_neighbours(patients, output, monkeypatch):
    shapes = sizes_of_batches(monkeypatch)
    options = {"neighbouring_slices": 2, "sequences": "flair", "epochs": 1, "slices_per_epoch": 8}
    list(start(patients, output, small_share=0.5, crop_share=0.5, **options))
    assert shapes == [(4, 5, 16, 16), (4, 5, 32, 32)]


def test_fine_tuning_keeps_the_neighbouring_slices(with_neighbours, output):
    _, initial, patients = with_neighbours
    events = list(start(patients, output, init=str(initial), epochs=1))
    assert len(of(events, Validated)) == 1
    card = read_card(output)
    assert (card.neighbouring_slices, card.training["neighbouring_slices"]) == (1, None)
    assert load_model(output).network.down[0][0].in_channels == 9


@pytest.mark.parametrize("neighbours", [0, 2])
def test_fine_tuning_with_other_neighbouring_slices_is_refused(with_neighbours, output, neighbours):
    _, initial, patients = with_neighbours
    with pytest.raises(TrainingError, match=r"with 1 neighbouring slice on each side, not .*\.$"):
        list(start(patients, output, init=str(initial), neighbouring_slices=neighbours))
    assert not output.exists()


def test_the_shipped_model_has_no_neighbouring_slices(patients, output):
    events = until(start(patients, output, init=None, neighbouring_slices=1), StepDone)
    assert any("neighbouring slice on each side: starting from scratch." in text for text in notices(events))


def test_a_training_with_neighbours_goes_on_as_if_never_stopped(with_neighbours, output):
    events, _, patients = with_neighbours
    options = {"neighbouring_slices": 1, "epochs": 4, "slices_per_epoch": 16}
    before = until(start(patients, output, **options), StepDone, 6)
    after = list(start(patients, output, resume=True, **options))
    assert step_losses(before) + step_losses(after) == about(step_losses(events))
    with pytest.raises(TrainingError, match=r"of a training with neighbouring slices 1, not None; .*\.$"):
        list(start(patients, output, resume=True, epochs=4, slices_per_epoch=16))


def test_no_neighbouring_slices_are_the_default(patients, output, whole_run):
    events = list(start(patients, output, neighbouring_slices=0))
    assert step_losses(events) == step_losses(whole_run[0])
    assert same(weights(output), weights(whole_run[1]))
    assert read_card(output).neighbouring_slices == read_card(whole_run[1]).neighbouring_slices == 0


# --- the shipped model -------------------------------------------------------------------------


def test_the_shipped_model_is_fine_tuned_by_default(patients, output):
    with pytest.MonkeyPatch.context() as patch:
        from napari_lgg_seg.core.model import networks

        patch.setattr(networks, "_WIDTHS", (64, 128, 256, 512))
        events = until(
            start(patients, output, init=None, slices_per_epoch=2, batch_size=2, small_share=1), StepDone
        )
    assert len(of(events, Validated)) == 1
    card, shipped = read_card(output), read_card(DEFAULT_MODEL)
    assert card.training["initial_model"] == shipped.name
    assert card.preprocess == shipped.preprocess
    assert card.earlier_patients == tuple(sorted(shipped.seen_patients()))
    assert card.licence == shipped.licence


# --- stopping, and going on --------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5])
def test_resumed_training_goes_on_as_if_never_stopped(patients, output, whole_run, step):
    expected, whole = whole_run
    first = until(start(patients, output), StepDone, step)
    second = list(start(patients, output, resume=True))
    assert [event.step for event in of(second, StepDone)] == list(range(step + 1, 7))
    # The same seed gives the same training, and so does the second part on its own.
    assert step_losses(first) + step_losses(second) == about(step_losses(expected))
    assert second[-2].best == expected[-2].best
    assert second[-2].loss == about(expected[-2].loss)
    found = weights(output)
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(found[name], tensor, msg=name)
    assert [row["step"] for row in rows(output)] == ["3", "6"]


def test_resuming_after_the_end_does_nothing(patients, output):
    list(start(patients, output))
    before = output.read_bytes()
    again = list(start(patients, output, resume=True))
    assert [type(event) for event in again] == [PatientRead, Ended]
    assert output.read_bytes() == before
    assert len(rows(output)) == 2
    # More epochs may be asked for later.
    more = list(start(patients, output, resume=True, epochs=3))
    assert [event.step for event in of(more, StepDone)] == [7, 8, 9]
    assert len(rows(output)) == 3


@pytest.mark.parametrize("kind", [SlicesDone, PatientValidated])
def test_resuming_after_a_stop_in_a_validation(patients, output, whole_run, kind):
    until(start(patients, output), kind)
    events = list(start(patients, output, resume=True))
    kinds = [type(event) for event in events if not isinstance(event, SlicesDone)]
    assert kinds[:3] == [PatientRead, PatientValidated, EpochDone]
    expected = of(whole_run[0], EpochDone)[0]
    assert of(events, EpochDone)[0].loss == about(expected.loss)
    assert of(events, EpochDone)[0].validation == expected.validation
    assert step_losses(events) == about(step_losses(whole_run[0])[3:])
    assert [row["step"] for row in rows(output)] == ["3", "6"]


def test_resuming_without_a_state_starts_anew_and_keeps_an_older_model(patients, output, whole_run):
    output.write_bytes(b"precious")
    output.with_name("my model-before-1.safetensors").write_bytes(b"more precious")
    events = until(start(patients, output, resume=True), StepDone)
    assert step_losses(events) == about(step_losses(whole_run[0])[:1])
    first, second = notices(events)
    assert "no training state" in first
    assert "starting anew" in first
    assert "my model-before-2.safetensors" in second
    assert output.with_name("my model-before-1.safetensors").read_bytes() == b"more precious"
    assert output.with_name("my model-before-2.safetensors").read_bytes() == b"precious"
    assert read_card(output).name == "my model"


@pytest.mark.parametrize("what", ["model", "state"])
def test_nothing_is_replaced_without_being_told(patients, output, state, what):
    path = output if what == "model" else state
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"precious")
    with pytest.raises(TrainingError, match=r"exists already; .*--resume\.$"):
        next(start(patients, output))
    assert path.read_bytes() == b"precious"


def test_a_model_needs_the_ending_of_one(patients, tmp_path):
    with pytest.raises(TrainingError, match=r"must end in \.safetensors"):
        next(start(patients, tmp_path / "model.pt"))


@pytest.fixture
def one_step(patients, output):
    """A training that was stopped after its first step."""
    until(start(patients, output), StepDone)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seed": 6}, "seed 5, not 6"),
        ({"batch_size": 5}, "batch size 4, not 5"),
        ({"loss": "dice"}, "loss bce, not dice"),
        ({"learning_rate": 1e-3}, "learning rate 0.002, not 0.001"),
        ({"freeze_encoder": True}, "freeze encoder False, not True"),
        ({"slices_per_epoch": 9}, "slices per epoch 10, not 9"),
    ],
)
@pytest.mark.usefixtures("one_step")
def test_other_options_are_refused(patients, output, options, words):
    before = output.read_bytes()
    with pytest.raises(TrainingError, match=rf"last\.pt is of a training with {words}; .*\.$"):
        list(start(patients, output, resume=True, **options))
    assert output.read_bytes() == before


@pytest.mark.usefixtures("one_step")
def test_a_state_from_before_an_option_goes_on_with_its_default(patients, output, state):
    found = torch.load(state, weights_only=True)
    del found["options"]["neighbouring_slices"]
    torch.save(found, state)
    with pytest.raises(TrainingError, match=r"with neighbouring slices None, not 1; .*\.$"):
        list(start(patients, output, resume=True, neighbouring_slices=1))
    events = until(start(patients, output, resume=True), StepDone)
    assert [event.step for event in of(events, StepDone)] == [2]


@pytest.mark.usefixtures("one_step")
def test_a_state_from_before_muon_goes_on_with_adamw_alone(patients, output, state):
    found = torch.load(state, weights_only=True)
    del found["options"]["optimiser"]
    torch.save(found, state)
    with pytest.raises(TrainingError, match=r"with optimiser adamw, not muon; .*\.$"):
        list(start(patients, output, resume=True))


@pytest.mark.usefixtures("one_step")
def test_another_initial_model_is_refused(patients, output, initial):
    with pytest.raises(TrainingError, match="with init scratch, not "):
        list(start(patients, output, resume=True, init=str(initial)))


@pytest.mark.usefixtures("one_step")
def test_another_working_size_is_refused(patients, output):
    options = dataclasses.replace(OPTIONS)
    work = train(*patients, output, options, PreprocessOptions(working_size=48), resume=True)
    with pytest.raises(TrainingError, match=r"working size 32, not 48"):
        list(work)


@pytest.mark.usefixtures("one_step")
def test_other_patients_are_refused(patients, output, make_patient):
    others = patients[0], [make_patient("third")]
    with pytest.raises(TrainingError, match=r"of a training with other patients; .*\.$"):
        list(start(others, output, resume=True))
    with pytest.raises(TrainingError, match=r"of a training with other patients; .*\.$"):
        list(start(patients[::-1], output, resume=True))


@pytest.mark.usefixtures("one_step")
def test_some_options_may_change(patients, output):
    changed = {"epochs": 1, "patience": 3, "validate_every": 5, "max_minutes": 60.0, "device": "auto"}
    events = list(start(patients, output, resume=True, **changed))
    assert [event.step for event in of(events, StepDone)] == [2, 3]
    assert events[-1] == Ended("All 1 epochs are done.")


KILLED = """
import os, signal, sys
from pathlib import Path

import torch
from narrow_network import narrow_network

from napari_lgg_seg.core.training import callbacks
from napari_lgg_seg.core.training.events import StepDone
from napari_lgg_seg.core.training.options import TrainOptions
from napari_lgg_seg.core.model.preprocess import PreprocessOptions
from napari_lgg_seg.core.training.train import train

moment, data, output = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
calls = []

def die(*_):
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))

def die_while_saving(save):
    def saving(what, path, *rest, **more):
        calls.append(path)
        if len(calls) < 3:
            return save(what, path, *rest, **more)
        Path(path).write_bytes(b"half of it")
        die()
    return saving

if moment == "state":
    torch.save = die_while_saving(torch.save)
with narrow_network():
    work = train([data / "first"], [data / "second"], output, TrainOptions(**OPTIONS), PreprocessOptions(32))
    for event in work:
        if isinstance(event, StepDone):
            print(event.loss, flush=True)
            if moment == "step" and event.step == 5:
                die()
"""


@pytest.mark.parametrize("moment", ["step", "state"])
def test_a_killed_training_goes_on(patients, output, state, tmp_path, whole_run, moment):
    """Killed in the second epoch, after a step or with half of the state written."""
    for [patient] in patients:
        write_patient(tmp_path / patient.name, patient)
    script = tmp_path / "killed.py"
    script.write_text(KILLED.replace("OPTIONS", repr(dataclasses.asdict(OPTIONS)), 1))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
    done = subprocess.run(
        [sys.executable, script, moment, tmp_path, output],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode not in (0, 1), done.stderr
    printed = [float(line) for line in done.stdout.split()]
    assert printed == about(step_losses(whole_run[0])[: len(printed)])
    assert len(printed) == (5 if moment == "step" else 3 + 2)
    leftovers = list(output.parent.rglob("*.tmp"))
    assert bool(leftovers) == (moment == "state")
    assert load_model(output).card.training["epoch"] == 1
    events = list(start([[tmp_path / "first"], [tmp_path / "second"]], output, resume=True))
    assert step_losses(events) == about(step_losses(whole_run[0])[3:])
    assert events[-2].best == whole_run[0][-2].best
    assert load_model(output).card.results["validation"] == {"second": events[-2].best}
    assert files(state.parent) == ["history.csv", "last.pt"]
    assert not list(output.parent.rglob("*.tmp"))


def test_leftovers_of_a_killed_training_are_removed_whatever_its_name(patients, tmp_path):
    output = tmp_path / "model [1].safetensors"
    leftover = tmp_path / ".model [1].safetensors.abc.tmp"
    leftover.write_bytes(b"half of it")
    other = tmp_path / ".model 1.safetensors.abc.tmp"
    other.write_bytes(b"of somebody else")
    until(start(patients, output), StepDone)
    assert not leftover.exists()
    assert other.exists()


def test_a_training_stopped_before_its_first_validation_leaves_a_model(patients, output):
    until(start(patients, output), StepDone, 2)
    card = load_model(output).card
    assert card.results == {}
    assert (card.training["step"], card.training["epoch"]) == (2, 0)
    # The first validation is better than none.
    list(start(patients, output, resume=True, epochs=1))
    assert set(read_card(output).results["validation"]) == {"second"}


def test_a_training_stopped_before_its_first_step_leaves_nothing(patients, output):
    until(start(patients, output), PatientRead)
    assert not output.exists()
    assert not list(output.parent.rglob("last.pt"))


def test_no_better_dice_for_a_while_ends_the_training(patients, output, scores):
    scores(0.5, 0.6, 0.6, 0.55, 0.7)
    events = list(start(patients, output, epochs=9, slices_per_epoch=4, patience=2))
    assert len(of(events, EpochDone)) == 4
    assert events[-1] == Ended("No better Dice in 2 validations.")
    # So it stays, unless more patience is asked for.
    again = list(start(patients, output, epochs=9, slices_per_epoch=4, patience=2, resume=True))
    assert again[-1] == events[-1]
    assert not of(again, StepDone)
    more = start(patients, output, epochs=9, slices_per_epoch=4, patience=3, resume=True)
    assert of(until(more, EpochDone), EpochDone)[0].best == 0.7


def test_a_device_that_fails_at_once_is_a_sentence(patients, output, monkeypatch):
    def fail(module, *args, **kwargs):
        raise RuntimeError("no kernel image is available\nlong trace")

    monkeypatch.setattr(torch.nn.Module, "to", fail)
    with pytest.raises(DeviceError, match=r"^CPU failed \(no kernel image is available\); choose .*\.$"):
        list(start(patients, output))
    assert not output.exists()


def test_without_patience_every_epoch_is_done(patients, output, scores):
    scores(*(1 - n / 10 for n in range(5)))
    events = list(start(patients, output, epochs=5, slices_per_epoch=4, patience=0))
    assert len(of(events, EpochDone)) == 5


def test_a_time_limit_stops_within_an_epoch_and_counts_for_each_call(patients, output, whole_run):
    losses = []
    for step in (1, 2):
        events = list(start(patients, output, max_minutes=1e-6, resume=step > 1))
        assert [event.step for event in of(events, StepDone)] == [step]
        losses += step_losses(events)
        [validated] = of(events, Validated)
        assert (validated.step, validated.epoch) == (step, 0)
        assert events[-1] == Ended("The 1e-06 minutes are over.")
        assert read_card(output).results["summary"]["mean"] == validated.best
    events = list(start(patients, output, resume=True))
    assert losses + step_losses(events) == about(step_losses(whole_run[0]))
    assert [row["step"] for row in rows(output)] == ["1", "2", "3", "6"]


def test_a_time_limit_after_an_epochs_last_step(patients, output, whole_run):
    """The validation at the stop is that of the epoch: it is neither missing nor done twice."""
    options = {"slices_per_epoch": 4, "epochs": 2}
    expected = list(start(patients, output.with_name("other.safetensors"), **options))
    events = list(start(patients, output, max_minutes=1e-6, **options))
    assert len(of(events, PatientValidated)) == 1
    events += list(start(patients, output, resume=True, **options))
    assert step_losses(events) == about(step_losses(expected))
    assert [event.epoch for event in of(events, EpochDone)][-1] == 2
    assert events[-2].best == expected[-2].best


# --- callbacks ---------------------------------------------------------------------------------


class Noting(Callback):
    """Notes each call, with what is done and what is on disk by then."""

    def __init__(self, output, stop_after=None):
        self.calls, self.output, self.stop_after = [], output, stop_after

    def note(self, name, run):
        self.calls.append((name, run.steps_done, self.output.exists()))

    def at_start(self, run):
        self.note("at_start", run)
        assert run.cohort.names == ["first"]

    def before_step(self, run):
        self.note("before_step", run)

    def after_step(self, run):
        self.note("after_step", run)
        if run.steps_done == self.stop_after:
            run.stop("Enough.")

    def after_epoch(self, run, record):
        self.note("after_epoch", run)
        assert record is run.history[-1]
        assert rows(self.output)[-1]["step"] == str(record.step)

    def at_end(self, run):
        self.note("at_end", run)


def test_callbacks_are_called_at_each_turn_after_the_standard_ones(patients, output):
    noting = Noting(output)
    list(start(patients, output, slices_per_epoch=8, callbacks=[noting]))
    expected = [("at_start", 0, False)]
    for step in range(4):
        expected += [("before_step", step, step > 1), ("after_step", step + 1, step > 1)]
        expected += [("after_epoch", step + 1, True)] * (step % 2)
    assert noting.calls == [*expected, ("at_end", 4, True)]


def test_callbacks_are_called_for_the_initial_model(patients, output, initial):
    noting = Noting(output)
    until(start(patients, output, init=str(initial), callbacks=[noting]), StepDone)
    assert [name for name, *_ in noting.calls] == [
        "at_start",
        "after_epoch",
        "before_step",
        "after_step",
        "at_end",
    ]


def test_a_callback_can_stop_the_training(patients, output):
    noting = Noting(output, stop_after=2)
    events = list(start(patients, output, callbacks=[noting]))
    assert len(of(events, StepDone)) == 2
    assert [type(event) for event in events[-2:]] == [Validated, Ended]
    assert events[-1].reason == "Enough."
    assert [name for name, *_ in noting.calls[-3:]] == ["after_step", "after_epoch", "at_end"]
    assert load_model(output).card.results["summary"]["mean"] == events[-2].best


@pytest.mark.parametrize("turn", ["at_start", "after_step", "at_end"])
def test_a_failing_callback_costs_nothing_else(patients, output, monkeypatch, turn):
    class Failing(Callback):
        pass

    def fail(*_):
        raise ZeroDivisionError(turn)

    setattr(Failing, turn, fail)
    monkeypatch.setattr("napari_lgg_seg.core.memory.free_main_memory", lambda: 0)
    noting = Noting(output)
    with pytest.raises(ZeroDivisionError, match=turn):
        list(start(patients, output, epochs=1, callbacks=[Failing(), noting]))
    assert noting.calls[-1][0] == "at_end"
    assert not output.with_name("my model.state").joinpath("slices").exists()
    assert output.exists() == (turn != "at_start")


# --- patients ----------------------------------------------------------------------------------


def test_patient_in_both_sets_is_refused(patients, output):
    training, validation = patients
    with pytest.raises(TrainingError, match=r"^first is in both training and validation; .*\.$"):
        next(start((training, validation + training), output))
    assert not output.exists()


@pytest.mark.parametrize("where", [0, 1])
def test_patient_that_is_there_twice_is_refused(patients, output, where):
    sets = list(patients)
    sets[where] = 2 * sets[where]
    with pytest.raises(TrainingError, match=rf"^{sets[where][0].name} is there twice; .*\.$"):
        next(start(sets, output))


@pytest.mark.parametrize("empty", [0, 1])
def test_empty_set_is_refused(patients, output, empty):
    sets = list(patients)
    sets[empty] = []
    with pytest.raises(TrainingError, match="at least one patient"):
        next(start(sets, output))


@pytest.mark.parametrize("missing", ["truth", "volume"])
@pytest.mark.parametrize("where", [0, 1])
def test_patient_without_masks_or_images_is_left_out(patients, output, where, missing, make_patient):
    sets = [list(patients[0]), list(patients[1])]
    sets[where].append(dataclasses.replace(make_patient("third"), **{missing: None}))
    events = list(start(sets, output, epochs=1, slices_per_epoch=4))
    [text] = notices(events)
    assert text.startswith("Left out: third has no images or no masks")
    assert set(read_card(output).results["validation"]) == {"second"}
    assert read_card(output).training_patients == ("first",)


@pytest.mark.parametrize("where", [0, 1])
def test_no_usable_patient_is_a_sentence(patients, output, where):
    sets = list(patients)
    sets[where] = [dataclasses.replace(sets[where][0], truth=None)]
    with pytest.raises(TrainingError, match=r"patient could be read; .*\.$"):
        list(start(sets, output, epochs=1, slices_per_epoch=4))


def test_folders_are_read_when_they_are_needed_and_broken_ones_left_out(
    patients, output, make_patient, tmp_path, whole_run
):
    broken = make_patient("third", shape=(3, 32, 32))
    for patient in (*patients[0], *patients[1], broken):
        write_patient(tmp_path / patient.name, patient)
    bad = tmp_path / "third" / "third_2.tif"
    bad.write_bytes(bad.read_bytes()[:-50])
    sets = [tmp_path / "third", tmp_path / "first"], [tmp_path / "second"]
    events = until(start(sets, output), StepDone)
    [text] = notices(events)
    assert text.startswith("Left out: ")
    assert str(bad) in text
    assert [(e.name, e.done, e.total) for e in of(events, PatientRead)] == [("third", 1, 2), ("first", 2, 2)]
    # What is read is what was in memory.
    assert step_losses(events) == about(step_losses(whole_run[0])[:1])
    assert read_card(output).training_patients == ("first",)


def test_unmarked_slices_of_a_validation_patient_do_not_count(patients, output, monkeypatch):
    training, [patient] = patients
    truth = patient.truth.copy()
    truth[1:] = 0
    patient = dataclasses.replace(patient, truth=truth, slices_without_mask=patient.slice_numbers[1:])
    monkeypatch.setattr(run, "postprocess", lambda probability, options: np.ones(probability.shape, np.uint8))
    events = until(start((training, [patient]), output, epochs=1, slices_per_epoch=4), PatientValidated)
    assert events[-1].labels[0].all()
    assert not events[-1].labels[1:].any()
    assert events[-1].dice == dice(np.ones_like(truth[0]), truth[0])


# --- failures ----------------------------------------------------------------------------------


class Spoiled(torch.nn.Module):
    """A loss that goes wrong at the fifth step: itself, or its gradient."""

    def __init__(self, loss, what):
        super().__init__()
        self.loss, self.what, self.calls = loss, what, 0

    def forward(self, logits, masks):
        self.calls += 1
        value = self.loss(logits, masks)
        if self.calls < 5:
            return value
        return value * math.nan if self.what == "loss" else value + (0 * logits.sum()).sqrt()


@pytest.mark.parametrize("what", ["loss", "gradient", "activations"])
def test_what_is_no_number_ends_the_training_and_stays_off_the_disk(
    patients, output, state, monkeypatch, what
):
    make_loss, augment, calls = losses.make_loss, run.augment, []

    def spoiled(*arguments):
        calls.append(arguments)
        images, masks = augment(*arguments)
        return (images * math.inf if len(calls) == 5 else images), masks

    if what == "activations":
        monkeypatch.setattr(run, "augment", spoiled)
    else:
        monkeypatch.setattr(losses, "make_loss", lambda name: Spoiled(make_loss(name), what))
    work, events = start(patients, output), []
    while not of(events, EpochDone):
        events.append(next(work))
    best = output.read_bytes()
    with pytest.raises(TrainingError, match=r"no longer a number at step 5; .*\.$"):
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


def fail_in_training(monkeypatch, error, more_than=0):
    """Let the network fail on more than so many slices at once; returns the sizes of what went through."""
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
def test_out_of_memory_takes_each_step_in_parts(patients, output, monkeypatch, error):
    options = {"slices_per_epoch": 16, "batch_size": 8, "small_share": 0}
    done = fail_in_training(monkeypatch, error, more_than=2)
    events = list(start(patients, output, **options))
    assert [(event.step, event.steps) for event in of(events, StepDone)] == [(n, 4) for n in (1, 2, 3, 4)]
    assert done == 4 * [2, 2, 2, 2]
    assert all(math.isfinite(loss) for loss in step_losses(events))
    texts = notices(events)
    assert len(texts) == 2
    assert all(text.startswith("Out of memory") for text in texts)
    assert "4 at a time" in texts[0]
    assert "2 at a time" in texts[1]
    assert events[-1] == Ended("All 2 epochs are done.")


def test_parts_of_a_batch_have_its_gradient(patients, output, monkeypatch):
    """Cross-entropy is a mean over slices: in parts it is the same, but for batch normalisation."""
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


def test_no_memory_for_one_slice_is_a_sentence(patients, output, monkeypatch):
    fail_in_training(monkeypatch, RuntimeError("CUDA out of memory"))
    with pytest.raises(DeviceError, match=r"^CPU has not enough memory for a step; .*\.$"):
        list(start(patients, output))


def test_a_failing_device_is_a_sentence(patients, output, monkeypatch):
    fail_in_training(monkeypatch, RuntimeError("no kernel image\nsecond line"))
    with pytest.raises(DeviceError, match=r"^CPU failed \(no kernel image\); .*\.$"):
        list(start(patients, output))


@pytest.mark.parametrize("error", [RuntimeError("device-side assert"), torch.OutOfMemoryError("CUDA out of")])
@pytest.mark.parametrize("where", ["augmentation", "optimiser"])
def test_a_device_that_fails_elsewhere_in_a_step_is_a_sentence(patients, output, monkeypatch, where, error):
    """CUDA reports what went wrong later, and the optimiser takes its memory at its first step."""

    def fail(*_, **__):
        raise error

    if where == "optimiser":
        monkeypatch.setattr(Muon, "step", fail)
    else:
        monkeypatch.setattr(run, "augment", fail)
    with pytest.raises(DeviceError, match=r"^CPU .*\.$"):
        list(start(patients, output))


def test_a_device_that_is_gone_does_not_hide_why(patients, output, monkeypatch):
    """After an error of CUDA nothing can be read from the device: neither model nor state."""
    work = start(patients, output)
    while not isinstance(next(work), StepDone):
        pass
    fail_in_training(monkeypatch, RuntimeError("device-side assert"))

    def gone(*_, **__):
        raise RuntimeError("device-side assert")

    monkeypatch.setattr(torch.nn.Module, "state_dict", gone)
    with pytest.raises(DeviceError, match=r"^CPU failed \(device-side assert\)"):
        list(work)


@pytest.mark.parametrize("content", [b"", b"no state", "cut", "other"])
def test_damaged_state_is_refused(patients, output, state, content):
    state.parent.mkdir()
    if content in ("cut", "other"):
        torch.save({"network": {"weight": torch.zeros(1000)}}, state)
        content = state.read_bytes()[: 2000 if content == "cut" else None]
    state.write_bytes(content)
    with pytest.raises(TrainingError, match=r"last\.pt is damaged; .*\.$"):
        list(start(patients, output, resume=True))
    assert state.read_bytes() == content


def test_full_disk_leaves_the_model_and_the_old_state_whole(patients, output, state):
    """The system's limit on the size of files stands in for a full disk; only the model fits."""
    resource = pytest.importorskip("resource")
    state.parent.mkdir()
    until(start(patients, output), StepDone)
    old = state.read_bytes()
    assert output.stat().st_size < 2**20 < len(old)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, limits[1]))
    try:
        with pytest.raises(ExportError, match=r"last\.pt could not be written"):
            list(start(patients, output, resume=True))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert read_card(output).name == "my model"
    assert state.read_bytes() == old
    assert files(state.parent) == ["last.pt"]
