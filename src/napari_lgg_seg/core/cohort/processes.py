"""Tells this session from others, so that what a dead one left behind is known for what it is."""

from __future__ import annotations

import os


def this_process() -> list[float]:
    """Number and time of start, which together no other process of this machine has; ready for JSON."""
    import psutil

    return [os.getpid(), psutil.Process().create_time()]


def runs(process: list[float]) -> bool:
    """Whether the process of which :func:`this_process` said that is still there."""
    import psutil

    try:
        return bool(psutil.Process(int(process[0])).create_time() == process[1])
    except psutil.Error:
        return False
