"""What the desk is asked for, and what it does about it in a worker: keep one patient, read another."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass

from ...core.cohort.edits import Edits, SavedEdits
from ...core.cohort.sources import Opened, Source
from ...core.errors import LggSegError, PatientError
from ..shared.worker import Failure, returns_failure
from .open_patient import OpenPatient


@dataclass(frozen=True)
class Broken(Failure):
    """A patient whose files cannot be read."""


@dataclass(frozen=True)
class SwitchResult:
    """What came of leaving one patient for another.

    Attributes
    ----------
    kept : SavedEdits, Failure or None
        The work on the patient that is left; None if there was nothing to keep.
    opened : Opened, Failure or None
        The patient to be seen; None if none was wanted, or the work could not be kept.
    """

    kept: SavedEdits | Failure | None
    opened: Opened | Failure | None


@returns_failure
def keep_and_open(
    work: Edits | None, case: OpenPatient | None, wanted: Source | None
) -> Generator[None, None, SwitchResult]:
    """Keep what was done to one patient; only then read the next, if one is wanted."""
    yield
    kept: SavedEdits | Failure | None = None
    if work is not None and case is not None:
        try:
            kept = case.keep(work)
        except LggSegError as error:
            return SwitchResult(Failure(str(error)), None)
    if wanted is None:
        return SwitchResult(kept, None)
    try:
        return SwitchResult(kept, wanted.read())
    except PatientError as error:
        return SwitchResult(kept, Broken(str(error)))
    except LggSegError as error:
        return SwitchResult(kept, Failure(str(error)))


def say_nothing(_: str) -> None:
    """What is said to a widget that is gone."""


@dataclass(frozen=True)
class Request:
    """Something to do, one after the other.

    Attributes
    ----------
    owner : object
        The widget that asked.
    say : callable
        Takes what its user should know.
    source : Source or None
        The patient to read.
    leave : bool
        Take the open patient away; ``source``, if given, in its place.
    accept : bool
        Keep the labels even if nobody painted in them.
    then : callable or None
        Called when it is done, and not if it failed.
    """

    owner: object
    say: Callable[[str], None] = say_nothing
    source: Source | None = None
    leave: bool = False
    accept: bool = False
    then: Callable[[], None] | None = None

    @property
    def is_opening(self) -> bool:
        """Whether it is to see another patient."""
        return self.leave and self.source is not None
