"""One run of the Fine-tune widget: its input, its work in a worker, and its outcome."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
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
from .labelled import PatientArrays, to_patient

#: Seconds between two reports of steps.
_REPORT_SECONDS = 0.1


@dataclass(frozen=True)
class TrainJob:
    """The input of a training, taken from the window when Start is clicked.

    Attributes
    ----------
    training, validation : tuple of PatientArrays, Path or CorrectedPatient
        Patients from the viewer, their folders, or a cohort's patients with corrected labels.
    output : Path
        The model file to write.
    options : TrainOptions
        Options of the training.
    resume : bool
        Whether to resume the training whose state is next to the output.
    show_patient : Path, CorrectedPatient or None
        The validation patient to open for the preview; None if one is open, or there is no preview.
    subjects : mapping of str to str
        Ids of the patients whose images are in the viewer, by name.
    stop : Event
        Set to end the training after its current step.
    """

    training: tuple[PatientArrays | Path | CorrectedPatient, ...]
    validation: tuple[PatientArrays | Path | CorrectedPatient, ...]
    output: Path
    options: TrainOptions
    resume: bool = False
    show_patient: Path | CorrectedPatient | None = None
    subjects: Mapping[str, str] = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class StepsDone:
    """Steps since the last report.

    Attributes
    ----------
    step, steps : int
        Number of the last step, and number of all steps.
    epoch : int
        The last step's epoch.
    losses : tuple of float
        One per step.
    """

    step: int
    steps: int
    epoch: int
    losses: tuple[float, ...]


@dataclass(frozen=True)
class PatientToShow:
    """A validation patient that is not open, for the preview."""

    patient: Patient


@dataclass(frozen=True)
class Outcome:
    """The outcome of a training.

    Attributes
    ----------
    stopped : bool
        Whether the user stopped it.
    reason : str
        Otherwise, why it ended.
    epochs_done : int
        Number of complete epochs.
    card : ModelCard or None
        Header of the best model, if one was saved.
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
    """A worker that, asked to quit, lets the training end in its own thread.

    napari's own worker abandons the generator, which then writes its state wherever the last reference to
    it is dropped: in the main thread, where the window would freeze, or not at all.
    """

    def __init__(self, work: Any, job: TrainJob) -> None:
        super().__init__(work, job)
        self._stop = job.stop

    def quit(self) -> None:
        """End after the current step; the outcome so far is returned."""
        self._stop.set()


@returns_failure
def run_training(job: TrainJob) -> Generator[JobEvent, None, Outcome]:
    """Train in a worker."""
    from ...core.training.patients import load_patient
    from ...core.training.train import train

    training, validation = _patients(job.training), _patients(job.validation)
    ended, epochs_done, to_show = "", 0, job.show_patient
    work = train(training, validation, job.output, job.options, resume=job.resume)
    with closing(work) as events:  # closing it in this thread saves the best model and the state
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


def _patients(
    sources: Sequence[PatientArrays | Path | CorrectedPatient],
) -> list[Patient | Path | CorrectedPatient]:
    return [to_patient(source) if isinstance(source, PatientArrays) else source for source in sources]


def _in_reports(events: Iterator[TrainEvent], stop: threading.Event) -> Iterator[TrainEvent | StepsDone]:
    """The events until a stop; frequent ones are gathered, so as not to flood the window."""
    steps: list[StepDone] = []
    reported = 0.0
    for event in events:
        if isinstance(event, StepDone):
            steps.append(event)
        is_frequent = isinstance(event, StepDone | SlicesDone)
        if not is_frequent or monotonic() - reported > _REPORT_SECONDS:
            if steps:
                last = steps[-1]
                yield StepsDone(last.step, last.steps, last.epoch, tuple(s.loss for s in steps))
            if not isinstance(event, StepDone):
                yield event
            steps, reported = [], monotonic()
        if stop.is_set():
            return
