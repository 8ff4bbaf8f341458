"""Writing what a user will keep: to a temporary name first, then renamed, never over something silently."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from .errors import ExportError

#: Characters that some system does not allow in a file's name.
NOT_IN_NAMES = r'[/\\:*?"<>|\x00-\x1f]'


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place if the block succeeds.

    Raises
    ------
    ExportError
        If the disk is full or the folder cannot be written; the old file stays as it was.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise cannot_write(path, error) from error
    temporary = Path(name)
    try:
        yield temporary
        _like_a_new_file(temporary)
        temporary.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def filling(
    folder: Path, provenance_file: str | None = None, provenance: str | None = None
) -> Iterator[Path]:
    """A temporary folder whose files go into ``folder`` if the block succeeds.

    A folder that is not there yet appears with all its files at once, so that a program that is killed
    leaves none or a whole one. Into one that is there, they are moved one by one.

    Parameters
    ----------
    folder : Path
        A patient's.
    provenance_file : str, optional
        Name of the file in ``folder`` that says how older files were made: it is removed before the first of
        them is replaced.
    provenance : str, optional
        The new text of that file, which is written last.

    Raises
    ------
    ExportError
        If the disk is full or the folder cannot be written.
    """
    temporary: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        new = not folder.exists()
        hidden = (folder.parent if new else folder) / f".lgg-{uuid4().hex[:8]}"
        hidden.mkdir()
        temporary = hidden
        yield temporary
        files = sorted(temporary.iterdir())
        if provenance_file is not None and provenance is not None:
            files.append(temporary / provenance_file)
            files[-1].write_text(provenance, encoding="utf-8")
        for file in files:
            _sync(file)
        if new:
            temporary.rename(folder)
        else:
            if provenance_file is not None:
                (folder / provenance_file).unlink(missing_ok=True)
            for file in files:
                file.replace(folder / file.name)
    except OSError as error:
        raise cannot_write(folder, error) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _like_a_new_file(path: Path) -> None:
    """Sync the bytes, and the usual permissions instead of mkstemp's private ones."""
    _sync(path)
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(0o666 & ~umask)


def _sync(path: Path) -> None:
    """Let the bytes reach the disk, so that a name that is there after a power failure has its content."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def cannot_write(path: Path, error: OSError) -> ExportError:
    """What to tell the user about a file that could not be written."""
    return ExportError(
        f"{path} could not be written ({error.strerror or error}); free space or choose another folder."
    )


def safe_name(name: str) -> str:
    """A name, for instance a layer's, as it can stand in a file's name on any system."""
    return re.sub(NOT_IN_NAMES, "_", name).strip(" .") or "labels"
