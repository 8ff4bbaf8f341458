"""Read the next patient in a thread while the current one is processed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def read_ahead(
    read: Callable[[Item], Result], items: Iterable[Item]
) -> Generator[tuple[Item, Future[Result]], None, None]:
    """Yield each item with a future of what is read for it; the next item is read in the meantime.

    At most one item is read ahead, so that memory does not grow with their number.

    Parameters
    ----------
    read : callable
        Called in a thread with one item at a time, in their order.
    items : iterable
        For instance patients' folders.

    Yields
    ------
    tuple of item and Future
        Its ``result`` waits for the value, or raises what ``read`` raised. Close the generator to stop: a
        read in progress is not waited for, and no further one is started.
    """
    thread = ThreadPoolExecutor(1, "napari-lgg-seg-read")
    started: deque[tuple[Item, Future[Result]]] = deque()
    try:
        for item in items:
            started.append((item, thread.submit(read, item)))
            if len(started) > 1:
                yield started.popleft()
        if started:
            yield started.popleft()
    finally:
        thread.shutdown(wait=False, cancel_futures=True)
