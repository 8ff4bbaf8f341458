"""What the Fine-tune widget says before, during and after a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import numpy as np

from ...core.errors import counted
from ...core.training.events import EpochDone, PatientRead, PatientValidated, SlicesDone, Validated
from ..shared.messages import time_left
from .job import JobEvent, Outcome, StepsDone

#: The user is warned up to this number of training patients.
FEW_PATIENTS = 5
#: Measured: docs/fine-tuning.md.
FEW_WARNING = (
    "So few patients may not help: in our measurement, training on 2 changed nothing, and training on 4 "
    "raised the median Dice from 0.82 to 0.86. If no epoch is better than the initial model, that model is "
    "kept."
)
NO_PATIENTS = (
    "Nothing to train on yet: open at least two patients with labels "
    "(File > IO Utilities > Open LGG patient...), or train on a folder of patients."
)
NO_FOLDER = "Choose the folder that holds the patients' folders."
NO_COHORT = "Choose the folder that holds the patients' folders, and the one that holds the results."
NO_TUMOUR = (
    "No training patient has any tumour in the chosen labels, so there is nothing to learn; choose labels "
    "with tumour, or another seed, which picks other patients for validation."
)
FINDING_OLD = "Finding old patients..."
NEEDS_EXTRA = (
    "Fine-tuning needs the optional packages of 'train': pip install 'napari-lgg-seg[train]'. "
    "Install them and restart napari."
)
RESUME = "Resume an unfinished training"
STOPPING = "Stopping after this step; the best model so far is kept..."


def too_few(count: int) -> str:
    """Why a training cannot start with fewer than two patients."""
    start = "No patient is" if count == 0 else "Only one patient is"
    return (
        f"{start} ticked; training needs at least two with labels, one of them for validation. Tick another, "
        "or choose its labels."
    )


def namesakes(names: Sequence[str]) -> str:
    """Why a training cannot start with several patients of one name."""
    return (
        f"More than one ticked patient is named {' or '.join(names)}; training splits patients by name, so "
        "keep only one of each name ticked."
    )


def ready(training: Sequence[str], validation: Sequence[str], old: int = 0, *, resume: bool) -> str:
    """What Start will do; ``old`` is the number of old patients."""
    names = ", ".join(validation[:2]) + (", ..." if len(validation) > 2 else "")
    also = f" and {counted(old, 'old patient')}" if old else ""
    text = (
        f"Ready to {'resume' if resume else 'train'} on {counted(len(training), 'patient')}{also}, "
        f"with {len(validation)} for validation ({names}). Click Start."
    )
    return f"{text} {FEW_WARNING}" if len(training) <= FEW_PATIENTS else text


def exists_already(name: str, *, unfinished: bool) -> str:
    """Why a training does not start over an existing file."""
    if unfinished:
        return f"{name} has an unfinished training: tick '{RESUME}', or choose another name under Save as."
    return f"{name} already exists; choose another name under Save as."


@dataclass
class Progress:
    """Follows the events of a training and describes its progress.

    Attributes
    ----------
    epochs : int
        Number of epochs.
    text : str
        One or two sentences.
    done, total : int
        For a progress bar; ``total`` is 0 where it is unknown.
    notices : list of str
        Remarks for the user.
    """

    epochs: int
    text: str = "Loading..."
    done: int = 0
    total: int = 0
    notices: list[str] = field(default_factory=list)
    _best: float = -1.0
    _loss: float | None = None
    _last: tuple[int, float] | None = None
    _validating: float | None = None
    _validation_seconds: float = 0.0
    _seconds_of_steps: float = 0.0
    _steps_timed: int = 0
    _epoch: int = 0

    def update(self, event: JobEvent) -> None:
        """Take an event into account."""
        if isinstance(event, PatientRead):
            self.done, self.total = event.done, event.total
            self.text = f"Reading patient {event.done} of {event.total}."
        elif isinstance(event, StepsDone):
            self._update_steps(event)
        elif isinstance(event, SlicesDone | PatientValidated):
            self._begin_validation()
        elif isinstance(event, Validated | EpochDone):
            self._end_validation(event)

    def _update_steps(self, event: StepsDone) -> None:
        now = monotonic()
        if self._last is not None:
            self._seconds_of_steps += now - self._last[1]
            self._steps_timed += event.step - self._last[0]
        self._last = (event.step, now)
        recent = float(np.mean(event.losses))
        self._loss = recent if self._loss is None else 0.9 * self._loss + 0.1 * recent
        self.done, self.total, self._epoch = event.step, event.steps, event.epoch - 1
        parts = [f"Epoch {event.epoch} of {self.epochs}", f"loss {self._loss:.2f}", *self._best_summary()]
        left = self._seconds_left(event)
        self.text = ", ".join([*parts, *([time_left(left)] if left is not None else [])]) + "."

    def _begin_validation(self) -> None:
        if self._validating is None:
            self._validating, self._last = monotonic(), None
            what = "the initial model" if not self.done or self._loss is None else f"epoch {self._epoch + 1}"
            self.text = ", ".join([f"Validating {what}", *self._best_summary()]) + "."

    def _end_validation(self, event: Validated | EpochDone) -> None:
        if self._validating is not None:
            self._validation_seconds = monotonic() - self._validating
        self._validating, self._last, self._best, self._epoch = None, None, event.best, event.epoch

    def _best_summary(self) -> list[str]:
        return [f"best Dice {self._best:.2f}"] if self._best >= 0 else []

    def _seconds_left(self, event: StepsDone) -> float | None:
        if not self._steps_timed:
            return None
        steps = (event.steps - event.step) * self._seconds_of_steps / self._steps_timed
        return steps + (self.epochs - event.epoch + 1) * self._validation_seconds


def ended(outcome: Outcome, epochs: int) -> str:
    """How a training ended: its metrics, where the model is, and what to do next."""
    stopped = (
        f"Stopped in epoch {min(outcome.epochs_done + 1, epochs)} of {epochs}." if outcome.stopped else ""
    )
    if outcome.card is None:
        return (
            f"{stopped or outcome.reason} Nothing was saved, because no step was done. Click Start to retry."
        )
    parts = [stopped, _metrics(outcome, epochs), f"The model is {outcome.path}; Segment lists it."]
    if outcome.stopped:
        parts.append(f"To resume later, tick '{RESUME}'.")
    else:
        parts.insert(2, outcome.reason)
    return " ".join(part for part in parts if part)


def labels_changed(names: Sequence[str]) -> str:
    """Which patients' labels were edited, replaced or closed during a training; empty if none were."""
    if not names:
        return ""
    shown = ", ".join(names[:2]) + (f" and {counted(len(names) - 2, 'other')}" if len(names) > 2 else "")
    return f"Trained on the labels as they were at Start: those of {shown} have changed since."


def failed(reason: str, output: Path, *, unfinished: bool) -> str:
    """Why a training failed, and what is left of it."""
    if not output.exists():
        return reason
    text = f"{reason} The best model so far is in {output}."
    return f"{text} Choose another name to start over, or tick '{RESUME}'." if unfinished else text


def _metrics(outcome: Outcome, epochs: int) -> str:
    assert outcome.card is not None
    metrics = outcome.card.results
    if not metrics:
        return "It was not validated yet."
    epoch, before = int(outcome.card.training["epoch"]), metrics["before"]
    patients = counted(len(metrics["validation"]), "validation patient")
    after = metrics["summary"]["mean"]
    if before and epoch == 0:
        return (
            "No epoch was better than the initial model; the saved file is that model "
            f"(Dice {after:.2f} on {patients})."
        )
    earlier = _mean(before) if before else None
    digits = 3 if earlier is not None and f"{earlier:.2f}" == f"{after:.2f}" else 2
    text = f"{earlier:.{digits}f} before, " if earlier is not None else ""
    return f"Dice on {patients}: {text}{after:.{digits}f} after (epoch {epoch} of {epochs})."


def _mean(scores: Mapping[str, float]) -> float:
    return sum(scores.values()) / len(scores)
