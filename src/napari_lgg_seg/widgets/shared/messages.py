"""Wording that several widgets use."""

from __future__ import annotations


def time_left(seconds: float) -> str:
    """A rounded remaining time: "40 s left", "4 min left", "1 h 20 min left"."""
    if seconds < 90:
        return f"{max(5, round(seconds / 5) * 5)} s left"
    minutes = round(seconds / 60)
    return f"{minutes} min left" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min left"
