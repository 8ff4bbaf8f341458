"""Identifies processes, so that files left by a dead session can be told from those of a running one."""

from __future__ import annotations

import os


def this_process() -> list[float]:
    """Process id and start time, which together are unique on this machine; JSON-serializable."""
    import psutil

    return [os.getpid(), psutil.Process().create_time()]


def is_running(process: list[float]) -> bool:
    """Whether the process that :func:`this_process` described is still running."""
    import psutil

    try:
        return bool(psutil.Process(int(process[0])).create_time() == process[1])
    except psutil.Error:
        return False
