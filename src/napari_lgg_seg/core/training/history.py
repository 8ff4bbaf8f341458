"""The history of a training: a record of each epoch, and of each validation outside of one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..data.json_files import Count, Fraction, NotNegative
from ..evaluation.metrics import Summary, summarise


@dataclass(frozen=True)
class EpochRecord:
    """A row of a training's history.

    Attributes
    ----------
    epoch, step : int
        Epochs and steps done so far.
    loss : float or None
        Mean loss of the epoch's steps so far; None before the first step.
    learning_rate : float
        Learning rate of the last step.
    minutes : float
        Training time so far, including the time before it was resumed.
    waiting : float
        Fraction of the epoch's time that the device waited for slices.
    scores : mapping of str to float
        Dice of each validation patient; empty without a validation.
    """

    epoch: Count
    step: Count
    loss: float | None
    learning_rate: NotNegative
    minutes: NotNegative
    waiting: NotNegative
    scores: Mapping[str, Fraction] = field(default_factory=dict)

    @property
    def validation(self) -> Summary | None:
        """Summary of the scores; None without a validation."""
        return summarise(self.scores) if self.scores else None

    def as_row(self) -> dict[str, Any]:
        """Return the record as a table row, with a summary in place of each patient's Dice."""
        row = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "scores"}
        summary = self.validation
        row["dice_mean"] = summary.mean if summary else None
        row["dice_median"] = summary.median if summary else None
        row["below_half"] = len(summary.below_half) if summary else None
        row["missed"] = len(summary.missed) if summary else None
        return row
