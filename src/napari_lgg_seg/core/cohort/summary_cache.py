"""Cache of patient summaries on disk, so that a cohort opens immediately the second time.

If the cache cannot be read or written, everything works without it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from annotated_types import Ge, Le

from ..choices import SequenceName
from ..data.json_files import Fraction, JsonError, build, parse
from ..data.regular_files import check_regular
from ..errors import LggSegError
from .patient_results import PatientResults
from .patient_summary import THUMBNAIL_SIZE, PatientSummary, TumourExtent, read_summary, signature

ThumbnailSide = Annotated[int, Ge(1), Le(THUMBNAIL_SIZE)]
T = TypeVar("T")

_TABLE = (
    "CREATE TABLE IF NOT EXISTS cases (folder TEXT PRIMARY KEY, signature TEXT, details TEXT, thumbnail BLOB)"
)
#: Seconds to wait for another window that is writing.
_LOCK_TIMEOUT = 2.0


def default_cache_file() -> Path:
    """The cache file in the user's cache folder."""
    from platformdirs import user_cache_path

    return user_cache_path("napari-lgg-seg", appauthor=False) / "patients.sqlite"


class SummaryCache:
    """An open cache; use it in one thread, in a ``with`` block.

    Parameters
    ----------
    path : Path
        The database file; created anew if it is missing or damaged.
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
        """A patient's cached summary, if its files have not changed since."""
        query = "SELECT details, thumbnail FROM cases WHERE folder = ? AND signature = ?"
        row = self._try(lambda database: database.execute(query, (_key(folder), signature)).fetchone())
        return _summary_from(*row) if row is not None else None

    def put(self, folder: Path, signature: str, summary: PatientSummary) -> None:
        """Store a patient's summary, replacing an earlier one."""
        values = asdict(summary)
        picture = values.pop("thumbnail")
        if picture is not None:
            values["shape"] = picture.shape
            picture = picture.tobytes()
        row = (_key(folder), signature, json.dumps(values), picture)
        statement = "INSERT OR REPLACE INTO cases VALUES (?, ?, ?, ?)"
        self._try(lambda database: database.execute(statement, row))

    def update(self, folder: Path, results: PatientResults, summary: PatientSummary) -> None:
        """Store the summary of a patient whose labels have just changed."""
        self.put(folder, signature(folder, results.stamps()), summary)

    def _try(self, act: Callable[[sqlite3.Connection], T]) -> T | None:
        """Run an action on the database; after an error it returns None and closes the database."""
        if self._database is None:
            return None
        try:
            return act(self._database)
        except sqlite3.Error as error:
            self._database.close()
            self._database = None
            if not isinstance(error, sqlite3.OperationalError):
                _remove(self._path)
            return None


def cached_summary(folder: Path, results: PatientResults, cache: SummaryCache) -> PatientSummary:
    """A patient's summary, from the cache if its files have not changed, else read and cached."""
    mark = signature(folder, results.stamps())
    known = cache.get(folder, mark)
    if known is not None:
        return known
    try:
        summary = read_summary(folder, results.read_labels())
    except LggSegError as error:  # the labels are broken
        summary = PatientSummary(problem=str(error))
    if not summary.problem:  # a repaired file may keep its size and time
        cache.put(folder, mark, summary)
    return summary


def _open(path: Path) -> sqlite3.Connection | None:
    for _ in range(2):
        database = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                check_regular(path)
            # A cancelled worker may be closed from the GUI thread.
            database = sqlite3.connect(
                path, timeout=_LOCK_TIMEOUT, isolation_level=None, check_same_thread=False
            )
            database.text_factory = lambda text: text.decode(errors="replace")  # a damaged row is read again
            # What a power failure destroys is read again; syncing for each patient would cost more.
            database.execute("PRAGMA synchronous = OFF")
            database.execute(_TABLE)
            database.execute("SELECT folder, signature, details, thumbnail FROM cases LIMIT 1")
            return database
        except (OSError, sqlite3.Error) as error:
            if database is not None:
                database.close()
            if isinstance(error, OSError | sqlite3.OperationalError):  # full disk, locked by another window
                return None
            _remove(path)
    return None


def _key(folder: Path) -> str:
    """A folder's path as text; bytes of its name that are none are escaped, since SQLite refuses them."""
    return str(folder).encode(errors="backslashreplace").decode()


def _remove(path: Path) -> None:
    """Remove a damaged database, to start again with a new one."""
    with suppress(OSError):
        path.unlink()


@dataclass(frozen=True)
class _Row:
    """What a row holds besides the thumbnail, as JSON; see :class:`PatientSummary`."""

    slices: Annotated[int, Ge(1)]
    missing: tuple[SequenceName, ...]
    truth: TumourExtent | None
    predicted: TumourExtent | None
    dice: Fraction | None
    problem: Literal[""]
    shape: tuple[ThumbnailSide, ThumbnailSide] | None = None


def _summary_from(text: Any, picture: Any) -> PatientSummary | None:
    """A row's summary; None if the row was damaged."""
    try:
        row = build(_Row, parse(text))
        thumbnail = None
        if picture is not None:
            thumbnail = np.frombuffer(picture, np.uint8).reshape(row.shape or ())
    except (JsonError, TypeError, ValueError):
        return None
    return PatientSummary(row.slices, row.missing, row.truth, row.predicted, row.dice, thumbnail)
