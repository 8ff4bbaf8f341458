"""The program as the tests see it from outside."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Done:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str
