"""Kill a writer before each of its file operations in turn, and see what it leaves on disk.

Two functions of a test module are needed: one prepares a folder, the other writes to it. Both are called with
the folder as their only argument, in another process, which imports the test module by itself::

    def write_old(folder): save(folder / "model", "old")

    def write_new(folder): save(folder / "model", "new")

    def test_a_killed_writer_leaves_the_old_file_or_the_new_one(tmp_path):
        for killed in kills(write_old, write_new, tmp_path):
            assert load(killed.folder / "model") in ("old", "new"), killed

The operations are those of :data:`OPERATIONS`, which pathlib, shutil and tempfile use as well, and opening a
file for writing: a writer is killed before it opens the file and before it writes to it. The last one is
killed after its last operation, which shows what a power failure does to files that were not synced. Files
that compiled code writes by itself (torch, safetensors) are created and renamed by Python, so that a writer
is killed before and after the compiled code, but not within it.
"""

from __future__ import annotations

import builtins
import functools
import importlib.util
import inspect
import io
import json
import os
import shutil
import stat
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

#: Functions of :mod:`os` that change what is on disk.
OPERATIONS = (
    *("rename", "replace", "link", "symlink", "unlink", "remove", "mkdir", "rmdir"),
    *("truncate", "ftruncate", "chmod", "write", "fsync"),
)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_KILLED = 137


class Killed(NamedTuple):
    """What a killed writer left.

    Attributes
    ----------
    number : int
        The operation before which it was killed, counted from 1.
    operation : str
        Name of that operation.
    folder : Path
        Its own copy of the prepared folder.
    """

    number: int
    operation: str
    folder: Path


def kills(
    prepare: Callable[[Path], object],
    write: Callable[[Path], object],
    tmp_path: Path,
    *,
    half_written: bool = False,
) -> Iterator[Killed]:
    """Kill ``write`` before its first file operation, its second, and so on, until it finishes.

    Parameters
    ----------
    prepare, write : function of a Path
        Functions at the top level of a test module. Each ``write`` runs in a process forked after
        ``prepare``, so let ``prepare`` import what ``write`` needs. Neither has pytest's fixtures.
    tmp_path : Path
        Folder for the copies of the prepared folder.
    half_written : bool
        Whether files that were opened for writing but not yet synced to disk lose half of their data when
        the writer is killed, as in a power failure.

    Yields
    ------
    Killed
        For each killed writer; the test is skipped on systems that cannot fork.

    Raises
    ------
    AssertionError
        If ``prepare`` or ``write`` fails, or ``write`` has no file operation.
    """
    import pytest

    if not hasattr(os, "fork"):
        pytest.skip("this system cannot fork")
    work = tmp_path / f"{write.__name__}{'-half' if half_written else ''}"
    work.mkdir()
    functions = [(inspect.getfile(function), function.__name__) for function in (prepare, write)]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    done = subprocess.run(
        [sys.executable, __file__, json.dumps([functions, str(work), half_written])],
        env={**os.environ, **threads, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    found = [Killed(number, operation, Path(folder)) for number, operation, folder in lines]
    assert len(found) > 1, f"{write.__name__} has no file operation"
    yield from found


# --- the process that forks the writers --------------------------------------------------------


def _kill_all(functions: list[tuple[str, str]], work: Path, half_written: bool) -> Iterator[Killed]:
    prepare, write = (getattr(_module(Path(file)), name) for file, name in functions)
    prepared = work / "prepared"
    prepared.mkdir()
    prepare(prepared)
    for number in count(1):
        folder = work / f"killed-{number:03}"
        shutil.copytree(prepared, folder, symlinks=True)
        operation = _kill(write, folder, number, half_written)
        if operation is None:
            shutil.rmtree(folder)
            return
        yield Killed(number, operation, folder)


@functools.cache
def _module(file: Path) -> Any:
    """A test module, which pytest may have imported under a name that is not importable here."""
    name = f"killing_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _kill(write: Callable[[Path], object], folder: Path, number: int, half_written: bool) -> str | None:
    """The operation before which a writer was killed, or None if it finished."""
    reader, told = os.pipe()
    process = os.fork()
    if process == 0:
        status = 1
        try:
            os.close(reader)
            killer = _Killer(number, told, half_written)
            killer.wrap_all()
            write(folder)
            killer.before("end")
            status = 0
        except BaseException:  # noqa: BLE001 - must never return to the parent's code
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    os.close(told)
    with open(reader) as file:  # noqa: PTH123 - a descriptor
        operation = file.read()
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert status in (0, _KILLED), f"the writer failed at operation {number}"
    return operation if status == _KILLED else None


class _Killer:
    """Ends this process before its n-th file operation."""

    def __init__(self, number: int, told: int, half_written: bool) -> None:
        self._left, self._told, self._half_written = number, told, half_written
        self._write, self._truncate, self._sync = os.write, os.ftruncate, os.fsync
        #: Descriptors of our own for files that were opened for writing and not yet synced.
        self._unsynced: dict[tuple[int, int], int] = {}

    def wrap_all(self) -> None:
        for name in OPERATIONS:
            setattr(os, name, self._wrapped(getattr(os, name), name))
        os.fsync = self._wrapped(self._fsync, "fsync")
        os.open = self._opening(os.open, "os.open", lambda flags: bool(flags & _WRITING))
        builtins.open = io.open = self._opening(open, "open", lambda mode: bool(set(mode) & set("wax+")))

    def before(self, name: str) -> None:
        """Called before each operation."""
        self._left -= 1
        if self._left:
            return
        if self._half_written:
            for descriptor in self._unsynced.values():
                self._truncate(descriptor, os.fstat(descriptor).st_size // 2)
        self._write(self._told, name.encode())
        os._exit(_KILLED)

    def _wrapped(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.before(name)
            return function(*args, **kwargs)

        return wrapped

    def _opening(self, function: Callable[..., Any], name: str, writes: Callable[[Any], bool]) -> Any:
        @functools.wraps(function)
        def opening(file: Any, how: Any = "r", *args: Any, **kwargs: Any) -> Any:
            how = kwargs.pop("mode" if name == "open" else "flags", how)
            if not writes(how):
                return function(file, how, *args, **kwargs)
            self.before(name)
            opened = function(file, how, *args, **kwargs)
            self._note(opened if isinstance(opened, int) else opened.fileno())
            self.before(f"write after {name}")
            return opened

        return opening

    def _note(self, descriptor: int) -> None:
        found = os.fstat(descriptor)
        key = found.st_dev, found.st_ino
        if stat.S_ISREG(found.st_mode) and key not in self._unsynced:
            self._unsynced[key] = os.dup(descriptor)

    def _fsync(self, descriptor: Any) -> None:
        self._sync(descriptor)
        found = os.fstat(descriptor)
        own = self._unsynced.pop((found.st_dev, found.st_ino), None)
        if own is not None:
            os.close(own)


if __name__ == "__main__":
    functions, work, half_written = json.loads(sys.argv[1])
    sys.dont_write_bytecode = True
    for number, operation, folder in _kill_all(functions, Path(work), half_written):
        sys.stdout.write(f"{json.dumps([number, operation, str(folder)])}\n")
