"""Unsaved edits, autosaved to disk so that they survive a crash.

Each labels layer with unsaved edits has one file in the user's data folder. It is rewritten a few seconds
after the last stroke and removed once the labels are saved. Files that exist when the program starts were
left by a session that crashed or was closed too early.
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

from ..atomic import remove_temporaries, replacing, safe_name
from ..errors import RecoveryError
from .processes import is_running, this_process

_ENDING = ".npz"


@dataclass(frozen=True)
class Edit:
    """Labels with unsaved edits.

    Attributes
    ----------
    patient : str
        Name of the patient.
    title : str
        Name of the labels layer.
    labels : ndarray of integers
        Shape (z, y, x) or (y, x).
    source : str
        Where the patient's images are; empty if they were not read from files.
    about : mapping
        What is needed to show the labels again; must be JSON-serializable.
    """

    patient: str
    title: str
    labels: npt.NDArray[np.integer]
    source: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Leftover:
    """An autosaved edit of an earlier session.

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
    """Folder of autosaved edits: ``recovery`` in the program's user data folder."""
    from platformdirs import user_data_path

    return user_data_path("napari-lgg-seg", appauthor=False) / "recovery"


def save(edit: Edit) -> Path:
    """Autosave an edit, replacing this session's earlier file for the same labels.

    Returns
    -------
    Path
        The file; remove it with :func:`forget`.

    Raises
    ------
    ExportError
        If it cannot be written; the earlier file is left unchanged.
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
    """Remove the file of an edit that has been saved or discarded."""
    path.unlink(missing_ok=True)


def leftovers() -> list[Leftover]:
    """Autosaved edits of sessions that have ended, newest first; invalid files are skipped.

    Temporary files of sessions that were killed while they autosaved are removed.
    """
    remove_temporaries(recovery_folder())
    return sorted(_leftovers(), key=lambda leftover: -leftover.saved)


def _leftovers() -> Iterator[Leftover]:
    for path in recovery_folder().glob(f"*{_ENDING}"):
        try:
            header = _header(path)
        except RecoveryError:
            continue
        if not is_running(header["process"]):
            yield Leftover(path, header["patient"], header["title"], header["source"], header["saved"])


def read(path: Path) -> Edit:
    """Read an autosaved edit.

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
            raise ValueError("its header is incomplete")
    except (OSError, ValueError, KeyError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise _broken(path, error) from error
    found: dict[str, Any] = header
    return found


def _broken(path: Path, error: Exception) -> RecoveryError:
    return RecoveryError(f"{path} does not contain readable edits ({error}); delete it.")


def _path(patient: str, title: str, source: str) -> Path:
    # Another session's edits of the same labels must not be replaced: they may still be wanted.
    key = json.dumps([title, source, this_process()])
    digest = hashlib.sha256(key.encode()).hexdigest()[:12]
    return recovery_folder() / f"{safe_name(patient)}-{digest}{_ENDING}"
