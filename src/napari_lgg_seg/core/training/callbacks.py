"""What happens around the steps of a training: each callback is one concern, and the loop knows none.

To add one, derive from :class:`Callback`, override what it needs, and hand it to
:func:`napari_lgg_seg.core.training.train.train`.
"""

from __future__ import annotations

import csv
import io
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ..atomic import replacing
from ..model.checkpoint import save_model
from .state import save_state

if TYPE_CHECKING:
    from .history import EpochRecord
    from .run import Run


class Callback:
    """Called by the training at each turn; whatever is not overridden does nothing.

    ``run`` is the whole training: read what you need, and call ``run.stop(reason)`` to end it.
    """

    def at_start(self, run: Run) -> None:
        """Before the first step, once patients are read and the network is on its device."""

    def before_step(self, run: Run) -> None:
        """Before each optimiser step."""

    def after_step(self, run: Run) -> None:
        """After each optimiser step."""

    def after_epoch(self, run: Run, record: EpochRecord) -> None:
        """After each epoch, and after a validation outside of one: before the first, or at a stop."""

    def at_end(self, run: Run) -> None:
        """Whatever ended the training: its last epoch, a stop, an error, or the caller."""


class LearningRate(Callback):
    """Linear warm-up to the peak, then a cosine to 0, over all steps of the training."""

    def before_step(self, run: Run) -> None:
        """Set the optimiser's rate for the step to come."""
        options = run.options
        rate = learning_rate_at(run.progress, options.learning_rate or 0.0, options.warm_up)
        for group in run.learner.optimiser.param_groups:
            group["lr"] = rate


def learning_rate_at(progress: float, peak: float, warm_up: float = 0.05) -> float:
    """Learning rate at a share of the training: linear warm-up, then a cosine to 0."""
    if progress < warm_up:
        return peak * progress / warm_up
    return peak * 0.5 * (1 + math.cos(math.pi * (progress - warm_up) / (1 - warm_up)))


class KeepBest(Callback):
    """Keep the model with the best mean Dice per validation patient in a file.

    Parameters
    ----------
    path : Path
        The model file; replaced atomically.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def after_epoch(self, run: Run, record: EpochRecord) -> None:
        """Write the model if it is the best so far."""
        if record.validation is not None and run.is_best(record):
            save_model(self._path, run.averaged, run.card(record))

    def at_end(self, run: Run) -> None:
        """A training that ends before its first validation leaves its model, too."""
        if run.steps_done and not self._path.exists():
            save_model(self._path, run.averaged, run.card(None))


class EarlyStopping(Callback):
    """Stop when the mean Dice per validation patient has not risen for a number of validations.

    Parameters
    ----------
    patience : int
        That number.
    """

    def __init__(self, patience: int) -> None:
        self._patience = patience

    def at_start(self, run: Run) -> None:
        """A resumed training may have come to its end before."""
        self._check(run)

    def after_epoch(self, run: Run, record: EpochRecord) -> None:
        """Count the validations since the best one."""
        self._check(run)

    def _check(self, run: Run) -> None:
        # A validation at a stop belongs to the epoch that was cut: many short calls are not many epochs.
        by_epoch: dict[int, float] = {}
        for record in run.history:
            if record.validation is not None:
                by_epoch[record.epoch] = max(record.validation.mean, by_epoch.get(record.epoch, -1.0))
        scores = list(by_epoch.values())
        if scores and len(scores) - 1 - scores.index(max(scores)) >= self._patience:
            run.stop(f"No better Dice in {self._patience} validations.")


class TimeBudget(Callback):
    """Stop so that the training, its last validation included, ends about in time.

    Parameters
    ----------
    minutes : float
        Counted from now.
    """

    def __init__(self, minutes: float) -> None:
        self._minutes = minutes
        self._deadline = time.monotonic() + 60 * minutes

    def after_step(self, run: Run) -> None:
        """Look at the clock."""
        if time.monotonic() + run.validation_seconds > self._deadline:
            run.stop(f"The {self._minutes:g} minutes are over.")


class HistoryCsv(Callback):
    """Keep a row for each epoch in a CSV file: loss, learning rate, Dice, time.

    Parameters
    ----------
    path : Path
        Written anew each time, atomically, so that a resumed training has no row twice.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def after_epoch(self, run: Run, record: EpochRecord) -> None:
        """Write all rows so far."""
        rows = [row.as_row() for row in run.history]
        text = io.StringIO()
        writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        with replacing(self._path) as temporary:
            temporary.write_text(text.getvalue(), encoding="utf-8")


class KeepState(Callback):
    """Keep on disk what a training needs to go on: every minute, after each epoch, and at the end.

    Parameters
    ----------
    path : Path
        Replaced atomically.
    seconds : float
        At most so long between two savings, as far as steps are shorter.
    """

    def __init__(self, path: Path, seconds: float = 45) -> None:
        self._path, self._seconds = path, seconds
        self._saved = (0, 0)
        self._time = time.monotonic()

    def at_start(self, run: Run) -> None:
        """What was resumed is on disk already."""
        self._saved = (run.steps_done, run.epoch)

    def after_step(self, run: Run) -> None:
        """Save once the time is over, and before a validation, which takes a while."""
        if time.monotonic() - self._time > self._seconds or run.at_end_of_epoch:
            self._save(run)

    def after_epoch(self, run: Run, record: EpochRecord) -> None:
        """Save the state with the validation in it."""
        self._save(run)

    def at_end(self, run: Run) -> None:
        """Save the steps since the last saving, unless a step failed on its way."""
        if run.is_between_steps and (run.steps_done, run.epoch) != self._saved:
            self._save(run)

    def _save(self, run: Run) -> None:
        save_state(run, self._path)
        self._saved = (run.steps_done, run.epoch)
        self._time = time.monotonic()
