"""What is done beside the computing: the next patient is read while one is worked on."""

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
    """Each item, and what is read of it in a thread: when its turn comes, the next one is begun.

    Never more than one is read ahead, so that memory does not grow with their number.

    Parameters
    ----------
    read : callable
        Called with one item after the other, in their order.
    items : iterable
        Such as patients' folders.

    Yields
    ------
    tuple of item and Future
        Whose ``result`` waits for what was read, or raises what reading raised. Close the generator to
        stop: a read that has begun is not waited for, and no other one begins.
    """
    thread = ThreadPoolExecutor(1, "napari-lgg-seg-read")
    begun: deque[tuple[Item, Future[Result]]] = deque()
    try:
        for item in items:
            begun.append((item, thread.submit(read, item)))
            if len(begun) > 1:
                yield begun.popleft()
        if begun:
            yield begun.popleft()
    finally:
        thread.shutdown(wait=False, cancel_futures=True)
