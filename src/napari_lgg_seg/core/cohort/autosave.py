"""Unsaved edits, autosaved to disk so that they survive a crash.

Each labels layer with unsaved edits has one file in the user's data folder. It is rewritten a few seconds
after the last stroke and removed once the labels are saved. Files that exist when the program starts were
left by a session that crashed or was closed too early.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import IO, Annotated, Any

import numpy as np
import numpy.typing as npt
from annotated_types import MinLen

from .. import memory
from ..atomic import remove_temporaries, replacing, safe_name
from ..data.json_files import JsonError, Time, build, parse
from ..data.regular_files import MAX_TEXT, NotRegularError, read_bytes
from ..errors import DamagedEditsError, RecoveryError, reason
from .processes import Process, is_running, this_process

_ENDING = ".npz"
#: Largest labels in bytes, far more than an MRI volume: a small file must not be able to fill the memory.
_LARGEST = 2**32


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
    layer : str
        Identifies the layer in this session: another one with the same title has a file of its own.
    """

    patient: str
    title: str
    labels: npt.NDArray[np.integer]
    source: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)
    layer: str = ""


@dataclass(frozen=True)
class _Header:
    """What a file says about its labels, as JSON; see :class:`Edit`."""

    patient: Annotated[str, MinLen(1)]
    title: str
    source: str
    about: Mapping[str, Any]
    saved: Time
    process: Process


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
    path = _path(edit)
    header = _Header(edit.patient, edit.title, edit.source, dict(edit.about), time.time(), this_process())
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, header=np.array(json.dumps(asdict(header))), labels=edit.labels)
    return path


def forget(path: Path) -> None:
    """Remove the file of an edit that has been saved or discarded."""
    path.unlink(missing_ok=True)


def leftovers() -> list[Leftover]:
    """Autosaved edits of sessions that have ended, newest first; files that cannot be read are skipped.

    Temporary files of sessions that were killed while they autosaved are removed.
    """
    remove_temporaries(recovery_folder())
    return sorted(_leftovers(), key=lambda leftover: -leftover.saved)


def _leftovers() -> Iterator[Leftover]:
    for path in _files():
        with suppress(RecoveryError):
            header = _header(path)
            if not is_running(header.process):
                yield Leftover(path, header.patient, header.title, header.source, header.saved)


def set_aside_damaged() -> list[str]:
    """Rename damaged files, so that they are kept but not found again; returns a sentence about each."""
    sentences = []
    for path in _files():
        try:
            _header(path)
        except DamagedEditsError as error:
            sentences.append(set_aside(path, error))
        except RecoveryError as error:
            sentences.append(str(error))
    return sentences


def set_aside(path: Path, error: DamagedEditsError) -> str:
    """Rename a damaged file, so that it is kept but not found again; returns a sentence about it."""
    new = next(n for i in count(1) if not os.path.lexists(n := path.with_name(f"{path.name}.damaged{i}")))
    try:
        path.rename(new)
    except OSError:  # it is named again at the next start
        return str(error)
    return f"{str(error).rstrip('.')}; it is kept as {new.name}, and not offered again."


def read(path: Path) -> Edit:
    """Read an autosaved edit.

    Raises
    ------
    DamagedEditsError
        If the file is damaged.
    RecoveryError
        If it cannot be opened, or memory is short.
    """
    header = _header(path)
    labels = _member(path, "labels", _check_labels)
    return Edit(header.patient, header.title, labels, header.source, header.about)


def _files() -> list[Path]:
    return sorted(recovery_folder().glob(f"*{_ENDING}"))


def _header(path: Path) -> _Header:
    text = str(_member(path, "header", _check_header))
    try:
        return build(_Header, parse(text))
    except JsonError as error:
        raise _damaged(path, str(error)) from error


def _member(path: Path, name: str, check: Callable[[tuple[int, ...], np.dtype[Any]], None]) -> Any:
    """An array of a file; shape and dtype are checked before memory is taken for it."""
    try:
        content = BytesIO(read_bytes(path, _LARGEST))
    except (NotRegularError, IsADirectoryError) as error:
        raise _damaged(path, error.strerror or str(error)) from error
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    try:
        with zipfile.ZipFile(content) as archive:
            member = archive.getinfo(f"{name}.npy")
            with archive.open(member) as stream:
                shape, dtype = _read_npy_header(stream)
                check(shape, dtype)
                size = math.prod(shape) * dtype.itemsize
                if stream.tell() + size != member.file_size:
                    raise ValueError(f"the size of its {name} is wrong")
            free = memory.free_main_memory()
            if free is not None and size > free // 2:
                raise MemoryError
            with archive.open(member) as stream:
                return np.lib.format.read_array(stream, allow_pickle=False)
    except MemoryError as error:
        raise _unreadable(path, "there is not enough memory") from error
    except Exception as error:  # zipfile, zlib and NumPy raise almost anything about damaged data
        raise _damaged(path, reason(error)) from error


def _read_npy_header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, _, dtype = read_header(stream)
    return shape, dtype


def _check_header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if shape != () or dtype.kind != "U" or not 0 < dtype.itemsize <= MAX_TEXT:
        raise ValueError("its header is not text")


def _check_labels(shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if len(shape) not in (2, 3) or min(shape) < 1 or dtype.kind not in "iub":
        raise ValueError("it does not hold labels")
    if math.prod(shape) * dtype.itemsize > _LARGEST:
        raise ValueError("its labels are too large to be a patient's")


def _damaged(path: Path, why: str) -> DamagedEditsError:
    return DamagedEditsError(f"{path} does not contain readable edits ({why}).")


def _unreadable(path: Path, why: str) -> RecoveryError:
    return RecoveryError(f"{path} cannot be opened ({why}); its edits are offered again at the next start.")


def _path(edit: Edit) -> Path:
    # Edits of another session or layer must not be replaced: they may still be wanted.
    key = json.dumps([edit.title, edit.source, edit.layer, this_process()])
    digest = hashlib.sha256(key.encode()).hexdigest()[:12]
    return recovery_folder() / f"{safe_name(edit.patient)}-{digest}{_ENDING}"
