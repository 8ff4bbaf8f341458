"""One run of the Fine-tune widget: what it takes from the window, and its work in the worker's thread."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from napari.qt.threading import GeneratorWorker

from ...core.cohort.corrected import CorrectedPatient
from ...core.data.patients import Patient
from ...core.model.checkpoint import ModelCard, read_card
from ...core.training.events import Ended, EpochDone, PatientValidated, SlicesDone, StepDone, TrainEvent
from ...core.training.options import TrainOptions
from ..shared.worker import returns_failure
from .labelled import Taken, to_patient

#: Seconds between two reports of steps: more often nobody can look.
_REPORT_SECONDS = 0.1


@dataclass(frozen=True)
class TrainJob:
    """What one training needs, taken from the window when Start is clicked.

    Attributes
    ----------
    training, validation : tuple of Taken, Path or CorrectedPatient
        Patients from the viewer, their folders, or a cohort's with corrected labels.
    output : Path
        Where the model goes.
    options : TrainOptions
        See there.
    resume : bool
        Whether to go on with the training whose state is beside the output.
    show_patient : Path, CorrectedPatient or None
        The validation patient whose images are wanted for the preview, since none is open.
    stop : Event
        Set to end the training after its current step.
    """

    training: tuple[Taken | Path | CorrectedPatient, ...]
    validation: tuple[Taken | Path | CorrectedPatient, ...]
    output: Path
    options: TrainOptions
    resume: bool = False
    show_patient: Path | CorrectedPatient | None = None
    stop: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class StepsDone:
    """Steps since the last report: the number of the last, how many there are, its epoch, their losses."""

    step: int
    steps: int
    epoch: int
    losses: tuple[float, ...]


@dataclass(frozen=True)
class PatientToShow:
    """The images of a validation patient that is not open, for the preview."""

    patient: Patient


@dataclass(frozen=True)
class Outcome:
    """How a training ended.

    Attributes
    ----------
    stopped : bool
        Whether somebody stopped it.
    reason : str
        Why it ended by itself, in one sentence.
    epochs_done : int
        How many.
    card : ModelCard or None
        Header of the best model, if one was kept.
    path : Path
        The model file.
    """

    stopped: bool
    reason: str
    epochs_done: int
    card: ModelCard | None
    path: Path


JobEvent = TrainEvent | StepsDone | PatientToShow


class TrainWorker(GeneratorWorker):
    """A worker that, asked to quit, lets the training come to its end in its own thread.

    napari's own abandons the generator, which then writes its state wherever the last reference to
    it is dropped: in the window's thread, which would stand still, or not at all.
    """

    def __init__(self, work: Any, job: TrainJob) -> None:
        super().__init__(work, job)
        self._stop = job.stop

    def quit(self) -> None:
        """End after the current step; what was reached is returned."""
        self._stop.set()


@returns_failure
def run_training(job: TrainJob) -> Generator[JobEvent, None, Outcome]:
    """The training, in the worker's thread."""
    from ...core.training.patients import load_patient
    from ...core.training.train import train

    training, validation = _opened(job.training), _opened(job.validation)
    ended, epochs_done, to_show = "", 0, job.show_patient
    work = train(training, validation, job.output, job.options, resume=job.resume)
    with closing(work) as events:  # closing it, in this thread, keeps the best model and the state
        for event in _in_reports(events, job.stop):
            if isinstance(event, Ended):
                ended = event.reason
            elif isinstance(event, EpochDone):
                epochs_done = event.epoch
            elif isinstance(event, PatientValidated) and to_show is not None:
                yield PatientToShow(load_patient(to_show))
                to_show = None
            yield event
    card = read_card(job.output) if job.output.exists() else None
    return Outcome(not ended, ended, epochs_done, card, job.output)


def _opened(sources: Sequence[Taken | Path | CorrectedPatient]) -> list[Patient | Path | CorrectedPatient]:
    return [to_patient(source) if isinstance(source, Taken) else source for source in sources]


def _in_reports(events: Iterator[TrainEvent], stop: threading.Event) -> Iterator[TrainEvent | StepsDone]:
    """The events up to a stop; those that come too often gathered, so that the window is not flooded."""
    steps: list[StepDone] = []
    reported = 0.0
    for event in events:
        if isinstance(event, StepDone):
            steps.append(event)
        often = isinstance(event, StepDone | SlicesDone)
        if not often or monotonic() - reported > _REPORT_SECONDS:
            if steps:
                last = steps[-1]
                yield StepsDone(last.step, last.steps, last.epoch, tuple(s.loss for s in steps))
            if not isinstance(event, StepDone):
                yield event
            steps, reported = [], monotonic()
        if stop.is_set():
            return
