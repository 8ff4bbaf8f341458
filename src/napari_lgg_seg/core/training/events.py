"""Events that a training yields."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..evaluation.metrics import Summary
from ..inference.predict import Notice as Notice
from ..inference.predict import SlicesDone as SlicesDone


@dataclass(frozen=True)
class PatientRead:
    """A training patient was read, or left out.

    Attributes
    ----------
    name : str
        The patient.
    done, total : int
        Number of patients read so far, and of all.
    """

    name: str
    done: int
    total: int


@dataclass(frozen=True)
class StepDone:
    """An optimiser step was completed.

    Attributes
    ----------
    step, steps : int
        Number of the step, from 1, and of all steps.
    epoch : int
        Number of its epoch, from 1.
    loss : float
        Loss of its batch.
    """

    step: int
    steps: int
    epoch: int
    loss: float


@dataclass(frozen=True)
class PatientValidated:
    """A validation patient was segmented with the current weights.

    Attributes
    ----------
    name : str
        The patient.
    dice : float
        Dice over the whole volume.
    labels : ndarray of uint8
        Shape (z, y, x), 0 and 1.
    done, total : int
        Number of patients segmented so far, and of all.
    """

    name: str
    dice: float
    labels: npt.NDArray[np.uint8]
    done: int
    total: int


@dataclass(frozen=True)
class Validated:
    """A validation outside of an epoch: of the initial model, or after the training was stopped.

    Attributes
    ----------
    step, epoch : int
        Completed steps and epochs.
    summary : Summary
        Dice of the validation patients.
    best : float
        The highest mean Dice per validation patient so far.
    """

    step: int
    epoch: int
    summary: Summary
    best: float


@dataclass(frozen=True)
class EpochDone:
    """An epoch was completed.

    Attributes
    ----------
    epoch, epochs : int
        Number of the epoch, from 1, and of all epochs.
    loss : float
        Mean loss of its steps.
    validation : Summary or None
        Dice of the validation patients, if the epoch was validated.
    best : float
        The highest mean Dice per validation patient so far; -1 before the first validation.
    """

    epoch: int
    epochs: int
    loss: float
    validation: Summary | None
    best: float


@dataclass(frozen=True)
class Ended:
    """The training has ended; the best model is in its file.

    Attributes
    ----------
    reason : str
        A sentence for the user.
    """

    reason: str


TrainEvent = PatientRead | StepDone | SlicesDone | PatientValidated | Validated | EpochDone | Notice | Ended
