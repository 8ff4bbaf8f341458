"""What the desk is asked for, and what it does about it in a worker: keep one patient, read another."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass

from ...core.cohort.edits import Kept, Work
from ...core.cohort.sources import Opened, Source
from ...core.errors import LggSegError, PatientError
from ..shared.worker import Failure, failing_softly
from .open_patient import OpenCase


@dataclass(frozen=True)
class Broken(Failure):
    """A patient whose files cannot be read."""


@dataclass(frozen=True)
class Move:
    """What came of leaving one patient for another.

    Attributes
    ----------
    kept : Kept, Failure or None
        The work on the patient that is left; None if there was nothing to keep.
    opened : Opened, Failure or None
        The patient to be seen; None if none was wanted, or the work could not be kept.
    """

    kept: Kept | Failure | None
    opened: Opened | Failure | None


@failing_softly
def keep_and_open(
    work: Work | None, case: OpenCase | None, wanted: Source | None
) -> Generator[None, None, Move]:
    """Keep what was done to one patient; only then read the next, if one is wanted."""
    yield
    kept: Kept | Failure | None = None
    if work is not None and case is not None:
        try:
            kept = case.keep(work)
        except LggSegError as error:
            return Move(Failure(str(error)), None)
    if wanted is None:
        return Move(kept, None)
    try:
        return Move(kept, wanted.read())
    except PatientError as error:
        return Move(kept, Broken(str(error)))
    except LggSegError as error:
        return Move(kept, Failure(str(error)))


def say_nothing(_: str) -> None:
    """What is said to a widget that is gone."""


@dataclass(frozen=True)
class Wish:
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
