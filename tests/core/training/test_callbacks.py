"""Callbacks: the standard ones, and those of the caller."""

from __future__ import annotations

from itertools import pairwise

import pytest
from training_runs import about, history_rows, of, start, step_losses, until

from napari_lgg_seg.core.model.checkpoint import load_model, read_card
from napari_lgg_seg.core.training.callbacks import Callback, EarlyStopping, learning_rate_at
from napari_lgg_seg.core.training.events import Ended, EpochDone, PatientValidated, StepDone, Validated
from napari_lgg_seg.core.training.history import EpochRecord

pytestmark = pytest.mark.usefixtures("narrow")


# --- learning rate -----------------------------------------------------------------------------


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


def test_learning_rate_of_warm_up_alone():
    assert learning_rate_at(0.5, 0.01, warm_up=1) == pytest.approx(0.005)


# --- early stopping ----------------------------------------------------------------------------


class History:
    """What early stopping sees: a history of (epoch, Dice), and a record of the calls of stop."""

    def __init__(self, *rows):
        self.history = [EpochRecord(epoch, 0, 0.1, 1e-3, 1.0, 0.0, {"a": dice}) for epoch, dice in rows]
        self.reasons = []

    def stop(self, reason):
        self.reasons.append(reason)


@pytest.mark.parametrize(
    ("rows", "stops"),
    [
        ([(0, 0.5), (1, 0.4)], False),
        ([(0, 0.5), (1, 0.4), (2, 0.5)], True),
        ([(0, 0.5), (1, 0.4), (2, 0.6)], False),
        # Several validations in one epoch, of a training that was stopped often, count as one.
        ([(0, 0.5), (1, 0.4), (1, 0.4), (1, 0.3)], False),
        ([(0, 0.5), (1, 0.4), (1, 0.6), (2, 0.5)], False),
    ],
)
def test_patience_counts_epochs(rows, stops):
    run = History(*rows)
    EarlyStopping(2).after_epoch(run, run.history[-1])
    assert bool(run.reasons) == stops


def test_a_training_without_improvement_stops(patients, output, scores):
    scores(0.5, 0.6, 0.6, 0.55, 0.7)
    events = list(start(patients, output, epochs=9, slices_per_epoch=4, patience=2))
    assert len(of(events, EpochDone)) == 4
    assert events[-1] == Ended("No better Dice in 2 validations.")
    # Resumed, it stops at once unless it is given more patience.
    again = list(start(patients, output, epochs=9, slices_per_epoch=4, patience=2, resume=True))
    assert again[-1] == events[-1]
    assert not of(again, StepDone)
    more = start(patients, output, epochs=9, slices_per_epoch=4, patience=3, resume=True)
    assert of(until(more, EpochDone), EpochDone)[0].best == 0.7


def test_without_patience_all_epochs_are_trained(patients, output, scores):
    scores(*(1 - n / 10 for n in range(5)))
    events = list(start(patients, output, epochs=5, slices_per_epoch=4, patience=0))
    assert len(of(events, EpochDone)) == 5


# --- time limit --------------------------------------------------------------------------------


def test_a_time_limit_stops_within_an_epoch_and_applies_to_each_start(patients, output, whole_run):
    losses = []
    for step in (1, 2):
        events = list(start(patients, output, max_minutes=1e-6, resume=step > 1))
        assert [event.step for event in of(events, StepDone)] == [step]
        losses += step_losses(events)
        [validated] = of(events, Validated)
        assert (validated.step, validated.epoch) == (step, 0)
        assert events[-1] == Ended("The time limit of 1e-06 minutes was reached.")
        assert read_card(output).results["summary"]["mean"] == validated.best
    events = list(start(patients, output, resume=True))
    assert losses + step_losses(events) == about(step_losses(whole_run[0]))
    assert [row["step"] for row in history_rows(output)] == ["1", "2", "3", "6"]


def test_a_time_limit_after_the_last_step_of_an_epoch(patients, output):
    """The validation after the stop is that of the epoch: neither missing nor repeated."""
    options = {"slices_per_epoch": 4, "epochs": 2}
    expected = list(start(patients, output.with_name("other.safetensors"), **options))
    events = list(start(patients, output, max_minutes=1e-6, **options))
    assert len(of(events, PatientValidated)) == 1
    events += list(start(patients, output, resume=True, **options))
    assert step_losses(events) == about(step_losses(expected))
    assert [event.epoch for event in of(events, EpochDone)][-1] == 2
    assert events[-2].best == expected[-2].best


# --- callbacks of the caller -------------------------------------------------------------------


class Noting(Callback):
    """Notes each call, with the steps done and whether the model file exists by then."""

    def __init__(self, output, stop_after=None):
        self.calls, self.output, self.stop_after = [], output, stop_after

    def note(self, name, run):
        self.calls.append((name, run.steps_done, self.output.exists()))

    def at_start(self, run):
        self.note("at_start", run)
        assert run.dataset.names == ["first"]

    def before_step(self, run):
        self.note("before_step", run)

    def after_step(self, run):
        self.note("after_step", run)
        if run.steps_done == self.stop_after:
            run.stop("Enough.")

    def after_epoch(self, run, record):
        self.note("after_epoch", run)
        assert record is run.history[-1]
        assert history_rows(self.output)[-1]["step"] == str(record.step)

    def at_end(self, run):
        self.note("at_end", run)


def test_hooks_are_called_after_those_of_the_standard_callbacks(patients, output):
    noting = Noting(output)
    list(start(patients, output, slices_per_epoch=8, callbacks=[noting]))
    expected = [("at_start", 0, False)]
    for step in range(4):
        expected += [("before_step", step, step > 1), ("after_step", step + 1, step > 1)]
        expected += [("after_epoch", step + 1, True)] * (step % 2)
    assert noting.calls == [*expected, ("at_end", 4, True)]


def test_hooks_are_called_for_the_initial_model(patients, output, initial):
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


@pytest.mark.parametrize("hook", ["at_start", "after_step", "at_end"])
def test_a_failing_callback_does_not_keep_others_from_ending(patients, output, monkeypatch, hook):
    class Failing(Callback):
        pass

    def fail(*_):
        raise ZeroDivisionError(hook)

    setattr(Failing, hook, fail)
    monkeypatch.setattr("napari_lgg_seg.core.memory.free_main_memory", lambda: 0)
    noting = Noting(output)
    with pytest.raises(ZeroDivisionError, match=hook):
        list(start(patients, output, epochs=1, callbacks=[Failing(), noting]))
    assert noting.calls[-1][0] == "at_end"
    assert not output.with_name("my model.state").joinpath("slices").exists()
    assert output.exists() == (hook != "at_start")
