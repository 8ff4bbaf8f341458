"""The program as the tests see it from outside."""

from __future__ import annotations

from typing import NamedTuple


class Done(NamedTuple):
    """How a command ended and what it said."""

    code: int
    out: str
    err: str
