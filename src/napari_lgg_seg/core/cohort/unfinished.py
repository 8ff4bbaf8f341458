"""Which patient was being corrected when a session ended before its time.

The corrections themselves are among the cohort's results; this says where to go on.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..atomic import replacing
from .processes import runs, this_process


@dataclass(frozen=True)
class Unfinished:
    """A patient that somebody was correcting.

    Attributes
    ----------
    dataset, results : Path
        The cohort's folders.
    patient : str
        The patient's folder name.
    saved : float
        When the labels were last kept, in seconds since the epoch.
    """

    dataset: Path
    results: Path
    patient: str
    saved: float


def default_folder() -> Path:
    """Where notes are kept: one file for each session, in the user's data folder of this program."""
    from platformdirs import user_data_path

    return user_data_path("napari-lgg-seg", appauthor=False) / "sessions"


def note(folder: Path, dataset: Path, results: Path, patient: str) -> None:
    """Note that a patient is being corrected in this session, and was kept just now.

    Raises
    ------
    ExportError
        If it cannot be written.
    """
    values = {
        "dataset": str(dataset.absolute()),
        "results": str(results.absolute()),
        "patient": patient,
        "saved": time.time(),
        "process": this_process(),
    }
    with replacing(_file(folder)) as temporary:
        temporary.write_text(json.dumps(values), encoding="utf-8")


def forget(folder: Path) -> None:
    """Nothing is being corrected in this session."""
    _remove(_file(folder))


def take(folder: Path) -> Unfinished | None:
    """What the last session that ended before its time left behind; it is said only once.

    Returns
    -------
    Unfinished or None
        None if there is nothing, or its folders are gone.
    """
    found = []
    for file in folder.glob("*.json"):
        unfinished = _read(file)
        if unfinished is not None:
            _remove(file)
            found.append(unfinished)
    there = [u for u in found if (u.dataset / u.patient).is_dir() and (u.results / u.patient).is_dir()]
    return max(there, key=lambda unfinished: unfinished.saved, default=None)


def _read(file: Path) -> Unfinished | None:
    """A session's note; None if the session goes on, or the file is no note."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        if runs(values["process"]):
            return None
        folders = Path(values["dataset"]), Path(values["results"])
        return Unfinished(*folders, str(values["patient"]), float(values["saved"]))
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None


def _remove(file: Path) -> None:
    with suppress(OSError):  # what cannot be removed is said again, no more
        file.unlink()


def _file(folder: Path) -> Path:
    return folder / f"{os.getpid()}.json"
