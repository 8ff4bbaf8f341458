"""The history of a training: a record for each epoch and each validation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..evaluation.metrics import Summary, summarise


@dataclass(frozen=True)
class EpochRecord:
    """A row of a training's history.

    Attributes
    ----------
    epoch, step : int
        How many were done.
    loss : float or None
        Mean of the epoch so far.
    learning_rate : float
        Of the last step.
    minutes : float
        Since the start, over all calls.
    waiting : float
        Share of the epoch's time that the device waited for slices.
    scores : dict
        Dice of each validation patient; empty without a validation.
    """

    epoch: int
    step: int
    loss: float | None
    learning_rate: float
    minutes: float
    waiting: float
    scores: Mapping[str, float] = field(default_factory=dict)

    @property
    def validation(self) -> Summary | None:
        """Mean, median and failures, if there was a validation."""
        return summarise(self.scores) if self.scores else None

    def as_row(self) -> dict[str, Any]:
        """For tables: without the single patients."""
        row = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "scores"}
        found = self.validation
        row["dice_mean"] = found.mean if found else None
        row["dice_median"] = found.median if found else None
        row["below_half"] = len(found.below_half) if found else None
        row["missed"] = len(found.missed) if found else None
        return row
