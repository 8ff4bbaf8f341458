"""Reading ahead: in order, one item at most, and stopped immediately."""

from __future__ import annotations

import threading
import time
from contextlib import closing

import pytest

from napari_lgg_seg.core.prefetch import read_ahead


def test_only_the_next_item_is_read_ahead(wait_until):
    begun = []

    def read(item):
        begun.append(item)
        return 10 * item

    for item, reading in read_ahead(read, range(5)):
        assert reading.result() == 10 * item
        wait_until(lambda item=item: len(begun) == min(item + 2, 5))
        time.sleep(0.01)
        assert begun == list(range(min(item + 2, 5)))


def test_items_are_read_one_at_a_time_in_another_thread():
    reading_now, threads = threading.Lock(), set()

    def read(item):
        threads.add(threading.get_ident())
        alone = reading_now.acquire(blocking=False)
        time.sleep(0.005)
        if alone:
            reading_now.release()
        return alone

    assert all(reading.result() for _, reading in read_ahead(read, range(20)))
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_an_error_is_raised_when_the_items_turn_comes():
    def read(item):
        if item % 2:
            raise ValueError(item)
        return item

    for item, reading in read_ahead(read, range(4)):
        if item % 2:
            with pytest.raises(ValueError, match=f"^{item}$"):
                reading.result()
        else:
            assert reading.result() == item


@pytest.mark.parametrize("items", [[], [7]])
def test_few_items(items):
    assert [(item, reading.result()) for item, reading in read_ahead(str, items)] == [
        (i, str(i)) for i in items
    ]


def test_closing_neither_waits_nor_reads_on(wait_until):
    begun, resume = [], threading.Event()

    def read(item):
        begun.append(item)
        if item:
            resume.wait(30)

    try:
        with closing(read_ahead(read, range(5))) as items:
            next(items)[1].result()
            wait_until(lambda: len(begun) == 2)
            started = time.monotonic()
        assert time.monotonic() - started < 5, "closing waited for a read that hangs"
    finally:
        resume.set()
    time.sleep(0.05)
    assert begun == [0, 1]
