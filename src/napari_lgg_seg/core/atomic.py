"""Write files atomically: to a temporary name first, then renamed into place."""

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

#: Characters that are not allowed in file names on some systems.
NOT_IN_NAMES = r'[/\\:*?"<>|\x00-\x1f]'


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path in the folder of ``path`` that replaces it if the block succeeds.

    Raises
    ------
    ExportError
        If the disk is full or the folder cannot be written; the old file is left unchanged.
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
        _finish_file(temporary)
        temporary.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def filling(
    folder: Path, provenance_file: str | None = None, provenance: str | None = None
) -> Iterator[Path]:
    """A temporary folder whose files are moved to ``folder`` if the block succeeds.

    A new folder appears with all of its files at once, so that a killed program leaves either nothing or a
    complete folder. If the folder exists already, the files are moved one by one.

    Parameters
    ----------
    folder : Path
        A patient's folder.
    provenance_file : str, optional
        Name of the provenance file in ``folder``; removed before the first of the old files is replaced.
    provenance : str, optional
        New content of that file, which is moved last.

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


def _finish_file(path: Path) -> None:
    """Sync to disk, and set the usual permissions instead of the private ones of mkstemp."""
    _sync(path)
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(0o666 & ~umask)


def _sync(path: Path) -> None:
    """Flush to disk, so that a file that exists after a power failure is complete."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def cannot_write(path: Path, error: OSError) -> ExportError:
    """Error message for a file that could not be written."""
    return ExportError(
        f"{path} could not be written ({error.strerror or error}); free space or choose another folder."
    )


def safe_name(name: str) -> str:
    """Replace characters of a name that are not allowed in file names."""
    return re.sub(NOT_IN_NAMES, "_", name).strip(" .") or "labels"
