"""Identifies processes, so that files left by a dead session can be told from those of a running one."""

from __future__ import annotations

import os
from typing import Annotated

from annotated_types import Ge, Lt

#: Process id and start time, which together are unique on this machine.
Process = tuple[Annotated[int, Ge(0), Lt(2**31)], float]


def this_process() -> Process:
    """Describe this process; JSON-serializable."""
    import psutil

    return os.getpid(), psutil.Process().create_time()


def is_running(process: Process) -> bool:
    """Whether the process that :func:`this_process` described is still running."""
    import psutil

    try:
        return bool(psutil.Process(process[0]).create_time() == process[1])
    except psutil.Error:
        return False
