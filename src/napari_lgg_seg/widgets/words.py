"""Words that the widgets share."""

from __future__ import annotations


def counted(number: int, noun: str, plural: str = "s") -> str:
    """A number and its noun: "1 patient", "2 patients"."""
    return f"{number} {noun}{plural if number != 1 else ''}"
