"""Edits that nobody saved yet, kept where a crash cannot take them.

Each labels layer that somebody painted in has one file in the user's data folder, written anew a few seconds
after the last stroke, and removed once the labels are saved. What is there when the program starts is
what a crash, or a window that was closed too early, left behind.
"""

from __future__ import annotations

import hashlib
import json
import time
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..atomic import replacing, safe_name
from ..errors import RecoveryError
from .processes import runs, this_process

_ENDING = ".npz"


@dataclass(frozen=True)
class Edit:
    """Labels that somebody painted in.

    Attributes
    ----------
    patient : str
        Whose labels they are.
    title : str
        What the labels are called.
    labels : ndarray of integers
        Shape (z, y, x) or (y, x).
    source : str
        Where the patient's images are; empty if they come from no files.
    about : mapping
        What is needed to show the labels again; ready for JSON.
    """

    patient: str
    title: str
    labels: npt.NDArray[np.integer]
    source: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Leftover:
    """An edit that an earlier session left behind.

    Attributes
    ----------
    path : Path
        Its file.
    patient, title, source : str
        As in :class:`Edit`.
    saved : float
        When it was written, in seconds since the epoch.
    """

    path: Path
    patient: str
    title: str
    source: str
    saved: float


def recovery_folder() -> Path:
    """Where edits are kept: ``recovery`` in the user's data folder of this program."""
    from platformdirs import user_data_path

    return user_data_path("napari-lgg-seg", appauthor=False) / "recovery"


def keep(edit: Edit) -> Path:
    """Write an edit in place of what this process kept of the same labels before.

    Returns
    -------
    Path
        The file; :func:`forget` removes it.

    Raises
    ------
    ExportError
        If it cannot be written; what was kept before is as it was.
    """
    path = _path(edit.patient, edit.title, edit.source)
    header = {
        "patient": edit.patient,
        "title": edit.title,
        "source": edit.source,
        "about": dict(edit.about),
        "saved": time.time(),
        "process": this_process(),
    }
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, header=np.array(json.dumps(header)), labels=edit.labels)
    return path


def forget(path: Path) -> None:
    """Remove an edit that is saved, or no longer wanted."""
    path.unlink(missing_ok=True)


def leftovers() -> list[Leftover]:
    """What sessions that have ended left behind, newest first; files that are no edits are passed over."""
    return sorted(_leftovers(), key=lambda leftover: -leftover.saved)


def _leftovers() -> Iterator[Leftover]:
    for path in recovery_folder().glob(f"*{_ENDING}"):
        try:
            header = _header(path)
        except RecoveryError:
            continue
        if not runs(header["process"]):
            yield Leftover(path, header["patient"], header["title"], header["source"], header["saved"])


def read(path: Path) -> Edit:
    """An edit as it was kept.

    Raises
    ------
    RecoveryError
        If the file cannot be read.
    """
    header = _header(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            labels = file["labels"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise _broken(path, error) from error
    return Edit(header["patient"], header["title"], labels, header["source"], header["about"])


def _header(path: Path) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as file:
            header = json.loads(str(file["header"]))
        if not {"patient", "title", "source", "about", "saved", "process"} <= header.keys():
            raise ValueError("something is missing in it")
    except (OSError, ValueError, KeyError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise _broken(path, error) from error
    found: dict[str, Any] = header
    return found


def _broken(path: Path, error: Exception) -> RecoveryError:
    return RecoveryError(f"{path} does not hold edits that can be read ({error}); delete it.")


def _path(patient: str, title: str, source: str) -> Path:
    # Another session's edits of the same labels are not to be replaced: somebody may still want them.
    key = json.dumps([title, source, this_process()])
    digest = hashlib.sha256(key.encode()).hexdigest()[:12]
    return recovery_folder() / f"{safe_name(patient)}-{digest}{_ENDING}"
