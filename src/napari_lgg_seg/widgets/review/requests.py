"""Requests to a review session, and the part of their work that runs in a worker."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass

from ...core.cohort.edits import Edits, SavedEdits
from ...core.cohort.sources import Opened, Source
from ...core.errors import LggSegError, PatientError
from ..shared.worker import Failure, returns_failure
from .open_patient import OpenPatient


@dataclass(frozen=True)
class UnreadablePatient(Failure):
    """The files of a patient cannot be read."""


@dataclass(frozen=True)
class SwitchResult:
    """The outcome of switching from one patient to another.

    Attributes
    ----------
    saved : SavedEdits, Failure or None
        The edits of the patient that is left; None if there was nothing to save.
    opened : Opened, Failure or None
        The next patient; None if none was requested, or the edits could not be saved.
    """

    saved: SavedEdits | Failure | None
    opened: Opened | Failure | None


@returns_failure
def save_and_read(
    edits: Edits | None, patient: OpenPatient | None, source: Source | None
) -> Generator[None, None, SwitchResult]:
    """Save the edits of one patient; only then read the next one, if one is requested."""
    yield
    saved: SavedEdits | Failure | None = None
    if edits is not None and patient is not None:
        try:
            saved = patient.save(edits)
        except LggSegError as error:
            return SwitchResult(Failure(str(error)), None)
    if source is None:
        return SwitchResult(saved, None)
    try:
        return SwitchResult(saved, source.read())
    except PatientError as error:
        return SwitchResult(saved, UnreadablePatient(str(error)))
    except LggSegError as error:
        return SwitchResult(saved, Failure(str(error)))


def ignore_status(_: str) -> None:
    """Takes the messages of requests whose widget is gone."""


@dataclass(frozen=True)
class Request:
    """One step of a review session; steps run one after the other.

    Attributes
    ----------
    owner : object
        The widget that made the request.
    set_status : callable
        Called with messages for the user.
    source : Source or None
        The patient to read.
    close_current : bool
        Whether to remove the open patient; ``source``, if given, takes its place.
    accept : bool
        Save the labels as corrected even if they were not edited.
    then : callable or None
        Called when the step is done, not if it failed.
    """

    owner: object
    set_status: Callable[[str], None] = ignore_status
    source: Source | None = None
    close_current: bool = False
    accept: bool = False
    then: Callable[[], None] | None = None

    @property
    def opens_another(self) -> bool:
        """Whether the request opens another patient."""
        return self.close_current and self.source is not None
