"""Open only regular files: reading from a named pipe, socket or device may block forever or never end.

Links are followed. Everything here raises OSError, whose ``strerror`` is a phrase for an error message.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import ExitStack
from io import BufferedReader

#: Largest text file that is read, in bytes. The largest one that is written takes a few megabytes.
MAX_TEXT = 64 * 2**20


class NotRegularError(OSError):
    """Something that is not a regular file: a named pipe, a socket or a device."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(errno.EINVAL, "it is not a regular file", os.fspath(path))


class TooLargeError(OSError):
    """A file that is larger than any that this package writes."""

    def __init__(self, path: str | os.PathLike[str], limit: int) -> None:
        super().__init__(errno.EFBIG, f"it is larger than {limit:,} bytes", os.fspath(path))


def check_regular(path: str | os.PathLike[str]) -> None:
    """Refuse a path that is not a regular file or a link to one.

    Raises
    ------
    NotRegularError
        If it is a named pipe, a socket or a device.
    OSError
        If it is a folder or missing, or its folder cannot be read.
    """
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 - also for paths that are strings
    except ValueError as error:  # a null character
        raise OSError(errno.EINVAL, "its name is invalid", os.fspath(path)) from error
    _check_mode(path, mode)


def open_regular(path: str | os.PathLike[str]) -> BufferedReader:
    """Open a regular file for reading bytes; never blocks.

    Raises
    ------
    NotRegularError
        If it is a named pipe, a socket or a device.
    OSError
        If it cannot be opened.
    """
    check_regular(path)  # first: opening a device may have effects
    # It may have been replaced by a pipe since; these flags do not exist on Windows.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    handle = os.open(path, flags)
    with ExitStack() as stack:
        stack.callback(os.close, handle)
        _check_mode(path, os.fstat(handle).st_mode)
        file = os.fdopen(handle, "rb")
        stack.pop_all()
    return file


def read_bytes(path: str | os.PathLike[str], limit: int = MAX_TEXT) -> bytes:
    """Read a regular file of at most ``limit`` bytes.

    Raises
    ------
    TooLargeError
        If it is larger.
    OSError
        As :func:`open_regular`.
    """
    with open_regular(path) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise TooLargeError(path, limit)
    return content


def read_text(path: str | os.PathLike[str], limit: int = MAX_TEXT) -> str:
    """Read a regular UTF-8 file of at most ``limit`` bytes; a byte order mark is skipped.

    Raises
    ------
    UnicodeDecodeError
        If it is not UTF-8; a ValueError.
    OSError
        As :func:`read_bytes`.
    """
    return read_bytes(path, limit).decode("utf-8-sig")


def _check_mode(path: str | os.PathLike[str], mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", os.fspath(path))
    if not stat.S_ISREG(mode):
        raise NotRegularError(path)
