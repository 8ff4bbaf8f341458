"""What a training tells its caller, step by step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..evaluation.metrics import Summary
from ..inference.predict import Notice as Notice
from ..inference.predict import SlicesDone as SlicesDone


@dataclass(frozen=True)
class PatientRead:
    """A patient was read: its name, how many are, and of how many."""

    name: str
    done: int
    total: int


@dataclass(frozen=True)
class StepDone:
    """One optimiser step: its number, how many there are, the epoch it belongs to, and the batch's loss."""

    step: int
    steps: int
    epoch: int
    loss: float


@dataclass(frozen=True)
class PatientValidated:
    """A validation patient was segmented with the weights as they are.

    Attributes
    ----------
    name : str
        The patient.
    dice : float
        Over the whole volume.
    labels : ndarray of uint8
        Shape (z, y, x), 0 and 1.
    done, total : int
        How many patients are done, of how many.
    """

    name: str
    dice: float
    labels: npt.NDArray[np.uint8]
    done: int
    total: int


@dataclass(frozen=True)
class Validated:
    """All validation patients: after ``step`` steps, in ``epoch`` (0: before the first step)."""

    step: int
    epoch: int
    summary: Summary
    best: float


@dataclass(frozen=True)
class EpochDone:
    """One epoch: its number (from 1), how many there are, mean loss, and the validation if there was one.

    ``best`` is the best mean Dice per validation patient so far, -1 before the first validation.
    """

    epoch: int
    epochs: int
    loss: float
    validation: Summary | None
    best: float


@dataclass(frozen=True)
class Ended:
    """The training is over, for this reason; the best model is on disk."""

    reason: str


TrainEvent = PatientRead | StepDone | SlicesDone | PatientValidated | Validated | EpochDone | Notice | Ended
