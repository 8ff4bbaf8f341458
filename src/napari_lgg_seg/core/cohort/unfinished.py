"""Remembers which patient was being corrected, in case the session ends unexpectedly.

The corrections themselves are among the cohort's results; this only records where to resume.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import MinLen

from ..atomic import replacing
from ..data.json_files import JsonError, Time, build, read_values
from .processes import Process, is_running, this_process


@dataclass(frozen=True)
class _Note:
    """The content of a session's file."""

    dataset: Annotated[str, MinLen(1)]
    results: Annotated[str, MinLen(1)]
    patient: Annotated[str, MinLen(1)]
    saved: Time
    process: Process


@dataclass(frozen=True)
class Unfinished:
    """A patient whose correction was interrupted.

    Attributes
    ----------
    dataset, results : Path
        The cohort's folders.
    patient : str
        The patient's name.
    saved : float
        When the labels were last saved, in seconds since the epoch.
    """

    dataset: Path
    results: Path
    patient: str
    saved: float


def default_folder() -> Path:
    """Folder of the notes, one file per session, in the program's user data folder."""
    from platformdirs import user_data_path

    return user_data_path("napari-lgg-seg", appauthor=False) / "sessions"


def note(folder: Path, dataset: Path, results: Path, patient: str) -> None:
    """Record that a patient is being corrected in this session and has just been saved.

    Raises
    ------
    ExportError
        If the note cannot be written.
    """
    folders = str(dataset.absolute()), str(results.absolute())
    values = _Note(*folders, patient, time.time(), this_process())
    with replacing(_file(folder)) as temporary:
        temporary.write_text(json.dumps(asdict(values)), encoding="utf-8")


def forget(folder: Path) -> None:
    """Remove this session's note: no patient is being corrected any more."""
    _remove(_file(folder))


def take(folder: Path) -> Unfinished | None:
    """The patient of the last session that ended unexpectedly; its note is removed.

    Returns
    -------
    Unfinished or None
        None if there is no note, or if its folders no longer exist.
    """
    found = []
    for file in folder.glob("*.json"):
        unfinished = _read(file)
        if unfinished is not None:
            _remove(file)
            found.append(unfinished)
    there = [u for u in found if all(map(os.path.isdir, (u.dataset, u.results / u.patient)))]
    return max(there, key=lambda unfinished: unfinished.saved, default=None)


def _read(file: Path) -> Unfinished | None:
    """A session's note; None if the session is still running or the file is not a note."""
    try:
        note = build(_Note, read_values(file))
    except JsonError:
        return None
    if is_running(note.process) or Path(note.patient).name != note.patient:
        return None
    return Unfinished(Path(note.dataset), Path(note.results), note.patient, note.saved)


def _remove(file: Path) -> None:
    with suppress(OSError):  # at worst it is offered again
        file.unlink()


def _file(folder: Path) -> Path:
    return folder / f"{os.getpid()}.json"
