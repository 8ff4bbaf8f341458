"""Callbacks of the training loop: learning rate, saving, and stopping.

To add your own, subclass :class:`Callback`, override the hooks it needs, and pass an instance to
:func:`napari_lgg_seg.core.training.train.train`.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ..evaluation.tables import write_csv
from ..model.checkpoint import save_model
from .card import model_card
from .state import save_state

if TYPE_CHECKING:
    from .history import EpochRecord
    from .run import Run


class Callback:
    """Base class of callbacks; each hook does nothing by default.

    The training is passed to each hook as ``run``; ``run.stop(reason)`` stops it after the current step.
    """

    def at_start(self, run: Run) -> None:
        """Called before the first step, after the patients were read."""

    def before_step(self, run: Run) -> None:
        """Called before each optimiser step."""

    def after_step(self, run: Run) -> None:
        """Called after each optimiser step."""

    def after_epoch(self, run: Run, record: EpochRecord) -> None:
        """Called after each epoch, and after a validation before the first epoch or after a stop."""

    def at_end(self, run: Run) -> None:
        """Called once at the end, also after an error or when the caller closes the training."""


class LearningRate(Callback):
    """Learning rate schedule: linear warm-up to the peak, then a cosine to 0, over all steps."""

    def before_step(self, run: Run) -> None:
        """Set the optimiser's learning rate for the next step."""
        options = run.options
        rate = learning_rate_at(run.progress, options.learning_rate or 0.0, options.warm_up)
        for group in run.learner.optimiser.param_groups:
            group["lr"] = rate


def learning_rate_at(progress: float, peak: float, warm_up: float = 0.05) -> float:
    """Compute the learning rate of a step: linear warm-up, then a cosine to 0.

    Parameters
    ----------
    progress : float
        Fraction of the training's steps that are completed, from 0 to 1.
    peak : float
        The highest learning rate.
    warm_up : float
        Fraction of the steps in which it rises.
    """
    if progress < warm_up:
        return peak * progress / warm_up
    return peak * 0.5 * (1 + math.cos(math.pi * (progress - warm_up) / (1 - warm_up)))


class KeepBest(Callback):
    """Save the model with the highest mean Dice per validation patient.

    Parameters
    ----------
    path : Path
        The model file; replaced atomically.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def after_epoch(self, run: Run, record: EpochRecord) -> None:
        """Save the model if it is the best so far."""
        if record.validation is not None and run.is_best(record):
            save_model(self._path, run.averaged, model_card(run, record))

    def at_end(self, run: Run) -> None:
        """Save the model even if it was never validated."""
        if run.steps_done and not self._path.exists():
            save_model(self._path, run.averaged, model_card(run))


class EarlyStopping(Callback):
    """Stop if the mean Dice per validation patient no longer improves.

    Parameters
    ----------
    patience : int
        Number of validations to wait for an improvement.
    """

    def __init__(self, patience: int) -> None:
        self._patience = patience

    def at_start(self, run: Run) -> None:
        """Stop a resumed training at once if its patience was already exhausted."""
        self._check(run)

    def after_epoch(self, run: Run, record: EpochRecord) -> None:
        """Count the validations since the best one."""
        self._check(run)

    def _check(self, run: Run) -> None:
        # A validation after a stop counts as its epoch's: stopping often must not exhaust the patience.
        by_epoch: dict[int, float] = {}
        for record in run.history:
            if record.validation is not None:
                by_epoch[record.epoch] = max(record.validation.mean, by_epoch.get(record.epoch, -1.0))
        scores = list(by_epoch.values())
        if scores and len(scores) - 1 - scores.index(max(scores)) >= self._patience:
            run.stop(f"No better Dice in {self._patience} validations.")


class TimeBudget(Callback):
    """Stop early enough for the training to end in time, including the last validation.

    Parameters
    ----------
    minutes : float
        Time from now.
    """

    def __init__(self, minutes: float) -> None:
        self._minutes = minutes
        self._deadline = time.monotonic() + 60 * minutes

    def after_step(self, run: Run) -> None:
        """Stop if a validation would end after the deadline."""
        if time.monotonic() + run.validation_seconds > self._deadline:
            run.stop(f"The time limit of {self._minutes:g} minutes was reached.")


class HistoryCsv(Callback):
    """Write the history as a CSV file: loss, learning rate, Dice and time of each epoch.

    Parameters
    ----------
    path : Path
        Rewritten atomically each time, so that a resumed training has no duplicate rows.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def after_epoch(self, run: Run, record: EpochRecord) -> None:
        """Write all rows so far."""
        rows = [row.as_row() for row in run.history]
        write_csv(self._path, list(rows[0]), (list(row.values()) for row in rows))


class KeepState(Callback):
    """Save the state of a training regularly, after each epoch, and at the end, so that it can be resumed.

    Parameters
    ----------
    path : Path
        Replaced atomically.
    seconds : float
        Time between two saves during an epoch.
    """

    def __init__(self, path: Path, seconds: float = 45) -> None:
        self._path, self._seconds = path, seconds
        self._saved = (0, 0)
        self._time = time.monotonic()

    def at_start(self, run: Run) -> None:
        """Remember that the state that was resumed from is already on disk."""
        self._saved = (run.steps_done, run.epoch)

    def after_step(self, run: Run) -> None:
        """Save if the last save was long ago, and before a validation, which takes a while."""
        if time.monotonic() - self._time > self._seconds or run.at_end_of_epoch:
            self._save(run)

    def after_epoch(self, run: Run, record: EpochRecord) -> None:
        """Save the state with the validation in it."""
        self._save(run)

    def at_end(self, run: Run) -> None:
        """Save the steps since the last save, unless a step has failed."""
        if run.is_between_steps and (run.steps_done, run.epoch) != self._saved:
            self._save(run)

    def _save(self, run: Run) -> None:
        save_state(run, self._path)
        self._saved = (run.steps_done, run.epoch)
        self._time = time.monotonic()
