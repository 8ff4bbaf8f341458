"""Fine-tuning: what is taken from the initial model, and what is trained."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from training_runs import (
    PREPROCESS,
    history_rows,
    notices,
    of,
    same_weights,
    start,
    until,
    weights,
)

from napari_lgg_seg.core.inference.predict import Notice, Predictor, run_to_end
from napari_lgg_seg.core.model.checkpoint import DEFAULT_MODEL, load_model, read_card
from napari_lgg_seg.core.training.events import (
    Ended,
    EpochDone,
    PatientRead,
    PatientValidated,
    SlicesDone,
    StepDone,
    Validated,
)

pytestmark = pytest.mark.usefixtures("narrow")


def test_the_initial_model_is_validated_first(patients, output, initial, scores):
    scores(0.5, 0.4, 0.7)
    events = list(start(patients, output, init=str(initial)))
    kinds = [type(event) for event in events if not isinstance(event, SlicesDone)]
    assert kinds[:4] == [PatientRead, Notice, PatientValidated, Validated]
    assert events[-1] == Ended("All 2 epochs are done.")
    [before] = of(events, Validated)
    assert (before.step, before.epoch, before.best, before.summary.mean) == (0, 0, 0.5, 0.5)
    assert [event.best for event in of(events, EpochDone)] == [0.5, 0.7]
    assert [(row["epoch"], row["step"], row["loss"] == "") for row in history_rows(output)] == [
        ("0", "0", True),
        ("1", "3", False),
        ("2", "6", False),
    ]


def test_a_better_model_replaces_the_initial_one(patients, output, initial, scores):
    scores(0.5, 0.4, 0.7)
    list(start(patients, output, init=str(initial)))
    card = read_card(output)
    assert card.training["epoch"] == 2
    assert card.results["before"] == {"second": 0.5}
    assert card.results["validation"] == {"second": 0.7}
    assert card.results["summary"]["mean"] == 0.7
    assert not same_weights(weights(output), weights(initial))


def test_the_initial_model_stays_if_no_epoch_is_better(patients, output, initial, scores):
    scores(0.9, 0.5, 0.9)
    list(start(patients, output, init=str(initial)))
    assert same_weights(weights(output), weights(initial))
    card = read_card(output)
    assert card.training["epoch"] == card.training["step"] == 0
    assert card.results["validation"] == card.results["before"] == {"second": 0.9}


def test_the_first_validation_segments_as_the_initial_model_does(patients, output, initial):
    [event] = of(until(start(patients, output, init=str(initial)), PatientValidated), PatientValidated)
    probability = run_to_end(Predictor(load_model(initial), "cpu").predict(patients[1][0].volume))
    np.testing.assert_array_equal(event.labels, probability >= 0.3)


def test_the_card_of_the_initial_model_is_inherited(patients, output, initial):
    events = list(start(patients, output, init=str(initial), epochs=1))
    card, before = read_card(output), read_card(initial)
    assert card.preprocess == before.preprocess != PREPROCESS
    assert card.threshold == before.threshold == 0.3
    assert (card.licence, card.data) == ("CC0", "synthetic patients")
    assert card.training["initial_model"] == "Older"
    assert card.training_patients == ("first",)
    assert card.earlier_patients == ("long ago", "second", "third")
    assert card.results["seen_before"] == ["second"]
    assert notices(events) == [
        "The initial model was trained on 1 of the 1 validation patients (second), so their Dice is too "
        "optimistic."
    ]


def test_fine_tuning_has_its_own_default_options(patients, output, initial):
    [step] = of(until(start(patients, output, init=str(initial), epochs=None), StepDone), StepDone)
    assert step.steps == 10 * 3


def test_the_average_starts_from_the_initial_model(patients, output, initial, scores):
    """Weights and batch normalisation statistics: a step at full learning rate hardly changes them."""
    scores(0.1, 0.2)
    options = {"average_decay": 0.9999, "warm_up": 0, "learning_rate": 1e-2, "max_minutes": 1e-6}
    list(start(patients, output, init=str(initial), **options))
    before, after = weights(initial), weights(output)
    assert read_card(output).training["step"] == 1
    for name in before:
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(after[name], before[name], rtol=1e-3, atol=1e-4, msg=name)


def test_all_layers_are_trained(patients, output, initial, state):
    list(start(patients, output, init=str(initial), warm_up=0))
    before, trained = weights(initial), torch.load(state, weights_only=True)["network"]
    assert not [name for name in before if torch.equal(before[name], trained[name])]


def test_resumed_fine_tuning_does_not_validate_the_initial_model_again(patients, output, initial):
    first = until(start(patients, output, init=str(initial)), StepDone, 2)
    second = list(start(patients, output, init=str(initial), resume=True))
    assert (len(of(first, Validated)), len(of(second, Validated))) == (1, 0)
    assert [event.step for event in of(second, StepDone)] == [3, 4, 5, 6]
    assert len(history_rows(output)) == 3
    assert set(read_card(output).results["before"]) == {"second"}


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


@pytest.mark.parametrize(
    ("options", "channels"),
    [({"network": "buda"}, 3), ({"sequences": "flair"}, 1), ({"network": "buda", "sequences": "flair"}, 1)],
)
def test_other_networks_and_sequences_start_from_scratch(patients, output, options, channels):
    events = list(start(patients, output, init=None, epochs=1, slices_per_epoch=4, **options))
    assert any("starting from scratch" in text for text in notices(events))
    model = load_model(output)
    assert model.card.architecture == options.get("network", "unet")
    assert len(model.card.sequences) == channels
    assert "FLAIR" in model.card.sequences
    assert model.card.training["initial_model"] is None
    probability = run_to_end(Predictor(model, "cpu").predict(patients[1][0].volume))
    assert probability.shape == patients[1][0].truth.shape


@pytest.mark.parametrize("asked", [True, False])
def test_fine_tuning_keeps_network_and_sequences(patients, output, asked):
    options = {"network": "buda", "sequences": "flair"}
    until(start(patients, output, **options), StepDone)
    tuned = output.with_name("tuned.safetensors")
    until(start(patients, tuned, init=str(output), **(options if asked else {})), StepDone)
    assert read_card(tuned).architecture == "buda"
    assert read_card(tuned).sequences == ("FLAIR",)
