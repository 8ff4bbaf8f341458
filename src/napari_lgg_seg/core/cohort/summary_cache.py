"""Details of patients that were read before, on disk, so that a cohort opens at once the second time.

It is a cache: where it cannot be read or written, everything works without it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np

from ..errors import PatientError
from .patient_summary import Extent, PatientSummary, read_summary, signature
from .results import CohortResults

T = TypeVar("T")

_TABLE = (
    "CREATE TABLE IF NOT EXISTS cases (folder TEXT PRIMARY KEY, signature TEXT, details TEXT, thumbnail BLOB)"
)
#: Seconds to wait for another window that is writing.
_PATIENCE = 2.0


def default_cache_file() -> Path:
    """Where the cache is, in the user's folder for such things."""
    from platformdirs import user_cache_path

    return user_cache_path("napari-lgg-seg", appauthor=False) / "patients.sqlite"


class SummaryCache:
    """An open cache; use it in one thread, in a ``with`` block.

    Parameters
    ----------
    path : Path
        A file; made anew if it is not there or damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._database: sqlite3.Connection | None = None

    def __enter__(self) -> SummaryCache:
        self._database = _open(self._path)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def get(self, folder: Path, signature: str) -> PatientSummary | None:
        """A patient's details, if they were kept and its files have not changed since."""
        question = "SELECT details, thumbnail FROM cases WHERE folder = ? AND signature = ?"
        row = self._try(lambda database: database.execute(question, (str(folder), signature)).fetchone())
        return _details(*row) if row is not None else None

    def put(self, folder: Path, signature: str, details: PatientSummary) -> None:
        """Keep a patient's details in place of those before."""
        values = asdict(details)
        picture = values.pop("thumbnail")
        if picture is not None:
            values["shape"] = picture.shape
            picture = picture.tobytes()
        row = (str(folder), signature, json.dumps(values), picture)
        with_commit = "INSERT OR REPLACE INTO cases VALUES (?, ?, ?, ?)"
        self._try(lambda database: database.execute(with_commit, row))

    def keep(self, folder: Path, results: CohortResults, details: PatientSummary) -> None:
        """Keep details that were measured just now from a patient's files and its new labels."""
        self.put(folder, signature(folder, results.labels_file(folder.name)), details)

    def _try(self, act: Callable[[sqlite3.Connection], T]) -> T | None:
        """What an action gives; None if the database refuses, after which it is left alone."""
        if self._database is None:
            return None
        try:
            return act(self._database)
        except sqlite3.Error:
            self._database.close()
            self._database = None
            return None


def look_at(folder: Path, results: CohortResults, cache: SummaryCache) -> PatientSummary:
    """Details of a patient: those kept before if its files are as they were, else read and kept."""
    name = folder.name
    mark = signature(folder, results.labels_file(name))
    known = cache.get(folder, mark)
    if known is not None:
        return known
    try:
        details = read_summary(folder, results.read_labels(name))
    except PatientError as error:  # the labels are broken
        details = PatientSummary(problem=str(error))
    if not details.problem:  # what is broken may be mended without a trace in sizes and times
        cache.put(folder, mark, details)
    return details


def _open(path: Path) -> sqlite3.Connection | None:
    for _ in range(2):
        database = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # A worker that is cancelled may be closed by the window's thread.
            database = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
            # What a power cut takes is read again; waiting for the disk at each patient would cost more.
            database.execute("PRAGMA synchronous = OFF")
            database.execute(_TABLE)
            database.execute("SELECT folder, signature, details, thumbnail FROM cases LIMIT 1")
            return database
        except (OSError, sqlite3.Error) as error:
            if database is not None:
                database.close()
            if isinstance(error, OSError | sqlite3.OperationalError):  # a full disk, another window, ...
                return None
            with suppress(OSError):  # damaged: begin anew
                path.unlink()
    return None


def _details(text: str, picture: bytes | None) -> PatientSummary:
    values: dict[str, Any] = json.loads(text)
    shape = values.pop("shape", None)
    if picture is not None and shape is not None:
        values["thumbnail"] = np.frombuffer(picture, np.uint8).reshape(shape)
    for name in ("truth", "predicted"):
        values[name] = None if values[name] is None else Extent(**values[name])
    values["missing"] = tuple(values["missing"])
    return PatientSummary(**values)
