"""Write files atomically: to a temporary name first, then renamed into place."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import BusyError, ExportError

if TYPE_CHECKING:
    from filelock import BaseFileLock

#: Characters that are not allowed in file names on some systems, or stand for bytes that are no text.
NOT_IN_NAMES = r'[/\\:*?"<>|\x00-\x1f\ud800-\udfff]'
#: Names that are hidden, that name devices on Windows, or that it would change.
_UNSAFE_NAME = re.compile(r"\..*|.*[ .]|(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
#: Seconds to wait for another thread or process that is writing to the same folder.
LOCK_TIMEOUT = 60.0

_LOCK, _STAGING, _COMMITTED, _REMOVED = ".lgg-lock", ".lgg-staging", ".lgg-committed", ".removed.json"
_SOFT_LOCK = ".lgg-lock-file"

#: Errors of file systems that lack an operation, for instance locks or fsync on a network share.
_UNSUPPORTED = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY}
NO_LOCKS = {errno.ENOLCK, *_UNSUPPORTED}
#: What to do about an error of the system.
_ADVICE: tuple[tuple[tuple[str, ...], str], ...] = (
    (("ENOSPC", "EDQUOT", "EFBIG"), "free space or choose another folder"),
    (
        ("EACCES", "EPERM"),
        "change its permissions, close other programs that use it, or choose another folder",
    ),
    (("EROFS",), "the drive is read-only, so choose another folder"),
    (("ENAMETOOLONG",), "the name is too long, so choose a shorter one"),
    (("EILSEQ", "EINVAL"), "choose another name or another folder"),
    (("ENOTDIR", "EISDIR", "EEXIST", "ENOTEMPTY"), "choose another name, or remove what is in its place"),
    (
        ("EIO", "ESTALE", "ENXIO", "ENODEV", "ENOTCONN", "ETIMEDOUT", "EHOSTDOWN", "EREMOTEIO"),
        "check the drive or the network connection, then try again",
    ),
)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path in the folder of ``path`` that replaces it if the block succeeds.

    Temporary files that killed processes left for the same ``path`` are removed.

    Raises
    ------
    ExportError
        If it cannot be written, or the path is a folder, a pipe or a device; the old file is left unchanged.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise ExportError(f"{path} is a pipe or a device; choose the name of a file.")
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_temporaries(path.parent, path.name)  # first: they may be what fills the disk
        prefix = f".{_shortened(path.name)}.{os.getpid()}-"
        handle, name = tempfile.mkstemp(prefix=prefix, suffix=".tmp", dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise cannot_write(path, error) from error
    temporary = Path(name)
    try:
        yield temporary
        _finish_file(temporary)
        temporary.replace(path)
    except (OSError, UnicodeEncodeError) as error:
        raise cannot_write(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def remove_temporaries(folder: Path, name: str | None = None) -> None:
    """Remove temporary files of :func:`replacing` whose process has ended.

    Parameters
    ----------
    folder : Path
        Where they are; need not exist.
    name : str, optional
        The file that they were to replace; any by default.
    """
    import psutil

    target = ".+" if name is None else re.escape(_shortened(name))
    pattern = re.compile(rf"\.{target}\.(?:(\d{{1,9}})-)?[a-z0-9_]{{8}}\.tmp")
    files: list[Path] = []
    with suppress(OSError):  # a folder that may be written but not listed
        files += folder.glob(".*.tmp")
    for file in files:
        if found := pattern.fullmatch(file.name):
            with suppress(OSError):
                # Version 0.1.0 did not record the process, but never took an hour to write a file.
                old = time.time() - file.stat().st_mtime > 3600
                if not psutil.pid_exists(int(found[1])) if found[1] else old:
                    file.unlink()


def _shortened(name: str) -> str:
    """A name for temporary files, which must not be too long for the system where ``name`` is not."""
    encoded = os.fsencode(name)
    return name if len(encoded) <= 200 else hashlib.sha256(encoded).hexdigest()


@contextmanager
def locked(folder: Path, timeout: float = LOCK_TIMEOUT) -> Iterator[None]:
    """Hold the lock of a folder, which other threads and processes respect; a thread may take it twice.

    Parameters
    ----------
    folder : Path
        Need not exist. The lock itself is a hidden file next to it, or inside it if its parent is read-only,
        which is removed afterwards. On file systems without locks, the file's existence is the lock.
    timeout : float
        Seconds to wait.

    Raises
    ------
    BusyError
        If another thread or process holds it for longer.
    ExportError
        If the lock cannot be created.
    """
    from filelock import Timeout

    try:
        real = Path(os.path.realpath(folder))  # one lock for all links to it
        real.parent.mkdir(parents=True, exist_ok=True)
        where = real.parent if os.access(real.parent, os.W_OK) else real
        lock = _acquired(where / f".{_shortened(real.name)}", timeout)
    except Timeout as error:
        advice = "try again when it has finished"
        if str(error.lock_file).endswith(_SOFT_LOCK):  # left by a crash on another machine, perhaps
            advice += f", or remove {error.lock_file} if there is no such program"
        raise BusyError(f"{folder} is being written by another window or program; {advice}.") from error
    except OSError as error:
        raise cannot_write(folder, error) from error
    try:
        yield
    finally:
        if lock is not None:
            if lock.lock_counter == 1 and str(lock.lock_file).endswith(_LOCK):
                # Whoever is waiting for the removed file notices that, and creates it again.
                with suppress(OSError):  # Windows removes it later
                    Path(lock.lock_file).unlink()
            with suppress(OSError):  # the drive is gone
                lock.release()


def _acquired(path: Path, timeout: float) -> BaseFileLock | None:
    """The lock at a path without ending; None where the file system has no kind of locks.

    Writing there without one is better than not at all: files still appear at once.
    """
    from filelock import FileLock, SoftFileLock

    for ending in (_LOCK, _SOFT_LOCK):
        file = path.with_name(path.name + ending)
        # As a singleton, it may be taken again in the same thread.
        native = partial(FileLock, fallback_to_soft=False)
        lock = (native if ending == _LOCK else SoftFileLock)(file, is_singleton=True)
        try:
            lock.acquire(timeout=timeout, poll_interval=0.01)
            return lock
        except OSError as error:
            if isinstance(error, TimeoutError) or error.errno not in NO_LOCKS:
                raise
            with suppress(OSError):
                file.unlink()
    return None


@contextmanager
def filling(folder: Path) -> Iterator[Filling]:
    """Change several files of a folder at once: after a crash, all of them are new, or none.

    New files are written to a hidden folder, and one rename commits them. If ``folder`` is new, that rename
    makes it appear with all of its files. Otherwise the committed files are then moved into it one by one;
    whoever reads the folder next calls :func:`settle`, which completes what a killed program left.

    Parameters
    ----------
    folder : Path
        Created if it does not exist. Locked until the files are in place.

    Yields
    ------
    Filling
        The hidden folder, to be filled with the new files, and names of files to be removed.

    Raises
    ------
    ExportError
        If the disk is full or the folder cannot be written; it is left unchanged.
    BusyError
        If another thread or process has been writing to it for too long.
    """
    with locked(folder):
        settle(folder)
        staging: Path | None = None
        try:
            new = not folder.exists()
            staging = _staging_folder(folder, new=new)
            staging.mkdir()
            files = Filling(staging)
            yield files
            if files.removed and not new:
                removed = files.removed - {file.name for file in staging.iterdir()}
                (staging / _REMOVED).write_text(json.dumps(sorted(removed)), encoding="utf-8")
            for file in staging.iterdir():
                _sync(file)
            for name in (*files.removed, *(file.name for file in staging.iterdir())):
                if (folder / name).is_dir():  # before the commit, which must be possible to complete
                    raise IsADirectoryError(errno.EISDIR, f"{name} is a folder")
            _sync_folder(staging)
            staging.rename(folder if new else folder / _COMMITTED)
            _sync_folder(folder.parent if new else folder)
            if not new:
                _complete(folder)
        except (OSError, UnicodeEncodeError) as error:
            raise cannot_write(folder, error) from error
        finally:
            if staging is not None:
                shutil.rmtree(staging, ignore_errors=True)


@dataclass
class Filling:
    """Files that are about to replace those of a folder.

    Attributes
    ----------
    staging : Path
        Hidden folder for the new files.
    removed : set of str
        Names of files to remove from the folder.
    """

    staging: Path
    removed: set[str] = field(default_factory=set)


def settle(folder: Path) -> None:
    """Complete a change of a folder that a killed program had committed, and remove what it left otherwise.

    Costs next to nothing if there is no such change. To be called before a folder is read that
    :func:`filling` may have written.

    Raises
    ------
    ExportError
        If there is one and the folder cannot be written.
    """
    if os.path.lexists(folder / _COMMITTED):
        with locked(folder):
            try:
                _complete(folder, after_a_crash=True)
            except OSError as error:
                raise cannot_write(folder, error) from error
    for leftover in (_staging_folder(folder, new=False), _staging_folder(folder, new=True)):
        if os.path.lexists(leftover):
            with suppress(ExportError), locked(folder, timeout=0):  # otherwise it is being written
                shutil.rmtree(leftover, ignore_errors=True)


def _staging_folder(folder: Path, *, new: bool) -> Path:
    if not new:
        return folder / _STAGING
    there = Path(os.path.abspath(folder))  # noqa: PTH100 - "." and "/" have no name of their own
    return there.parent / f".{_shortened(there.name)}{_STAGING}"


def _complete(folder: Path, *, after_a_crash: bool = False) -> None:
    """Move committed files into the folder, under its lock; may be repeated after a crash at any point."""
    committed = folder / _COMMITTED
    if committed.is_symlink() or not committed.is_dir():
        return
    removed = committed / _REMOVED
    for file in sorted(committed.iterdir()):
        if file == removed:
            continue
        if after_a_crash and _is_younger(folder / file.name, file):
            file.unlink()  # another program has written it since; it differs from its record then
        else:
            file.replace(folder / file.name)
    if os.path.lexists(removed):
        for name in _names_in(removed):
            (folder / name).unlink(missing_ok=True)
        removed.unlink()
    committed.rmdir()


def _is_younger(path: Path, other: Path) -> bool:
    return path.is_file() and path.stat().st_mtime_ns > other.stat().st_mtime_ns


def _names_in(file: Path) -> list[str]:
    """Names of files from a JSON file; nothing else is trusted in it."""
    if not file.is_file():  # a pipe would block
        return []
    try:
        names = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return []
    names = names if isinstance(names, list) else []
    return [
        n for n in names if isinstance(n, str) and n not in ("", "..") and Path(n).name == n and "\0" not in n
    ]


@contextmanager
def locked_for_reading(folder: Path) -> Iterator[None]:
    """As :func:`locked`, but go on without the lock if the folder is read-only."""
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(folder))
        except BusyError:
            raise
        except ExportError:
            pass
        yield


def _finish_file(path: Path) -> None:
    """Sync to disk, and set the usual permissions instead of the private ones of mkstemp."""
    _sync(path)
    umask = os.umask(0)
    os.umask(umask)
    with suppress(OSError):  # drives without permissions, such as network shares and USB sticks
        path.chmod(0o666 & ~umask)


def _sync(path: Path) -> None:
    """Flush to disk, where the system can, so that a file that exists after a power failure is complete."""
    with path.open("rb+") as file:
        try:
            os.fsync(file.fileno())
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise


def _sync_folder(path: Path) -> None:
    """Flush a folder's entries to disk, where the system can."""
    with suppress(OSError), ExitStack() as stack:
        handle = os.open(path, os.O_RDONLY)
        stack.callback(os.close, handle)
        os.fsync(handle)


def cannot_write(path: Path, error: OSError | UnicodeEncodeError) -> ExportError:
    """Error message for a file that could not be written, with the advice that fits the error."""
    if isinstance(error, UnicodeEncodeError):
        return ExportError(
            f"{path} could not be written (a name has characters that are not Unicode); rename the file or "
            "folder with that name."
        )
    return ExportError(
        f"{path} could not be written ({error.strerror or error}); {_advice(error, 'choose another folder')}."
    )


def cannot_read(path: Path, error: OSError) -> ExportError:
    """Error message for results that could not be read, which therefore cannot be replaced either."""
    advice = _advice(error, "check that it is there")
    return ExportError(f"{path} could not be read ({error.strerror or error}); {advice}.")


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Raise an :class:`ExportError` about a folder of results for any error of the system."""
    try:
        yield
    except OSError as error:
        raise cannot_read(folder, error) from error


def _advice(error: OSError, otherwise: str) -> str:
    name = errno.errorcode.get(error.errno or 0, "")
    return next((advice for names, advice in _ADVICE if name in names), otherwise)


def check_name(name: str) -> None:
    """Raise an :class:`ExportError` if files cannot have a patient's name on every system."""
    if not name or re.search(NOT_IN_NAMES, name) or _UNSAFE_NAME.fullmatch(name):
        raise ExportError(f"{name!r} cannot be used in file names on every system; rename the patient.")


def safe_name(name: str) -> str:
    """Replace characters of a name that are not allowed in file names."""
    return re.sub(NOT_IN_NAMES, "_", name).strip(" .") or "labels"
