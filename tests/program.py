"""The command line as seen from outside."""

from __future__ import annotations

from typing import NamedTuple


class Done(NamedTuple):
    """Exit code and output of a command."""

    code: int
    out: str
    err: str
