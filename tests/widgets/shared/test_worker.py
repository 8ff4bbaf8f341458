"""Warnings about the data reach the user from wherever they are raised."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from napari_lgg_seg.core.errors import LggSegWarning
from napari_lgg_seg.widgets.shared.worker import create_worker, returns_failure, show_warnings


def warn(text: str) -> None:
    warnings.warn(text, LggSegWarning, stacklevel=2)


@pytest.fixture
def run_in_worker(viewer, wait_until):
    """Factory: run functions in workers and wait for all of them."""

    def run(*works):
        done = []
        for work in works:
            create_worker(work, _connect={"finished": lambda: done.append(1)})
        wait_until(lambda: len(done) == len(works))

    return run


def test_warnings_of_a_worker_are_shown_once(run_in_worker, notices):
    def generator():
        warn("soft")
        yield
        warn("soft")
        with ThreadPoolExecutor(1) as thread:
            thread.submit(warn, "from a thread of its own").result()
        warnings.warn("for developers", UserWarning, stacklevel=1)

    run_in_worker(generator)
    assert notices == ["soft", "from a thread of its own"]
    run_in_worker(lambda: warn("soft"))
    assert notices == ["soft", "from a thread of its own", "soft"]


def test_workers_that_overlap_lose_no_warning(run_in_worker, notices):
    """The last one to start hears all warnings; the first one to end restores what was before."""
    first, second = Event(), Event()

    def short():
        second.wait(20)
        warn("short")
        first.set()

    def long():
        second.set()
        first.wait(20)
        warn("long")

    run_in_worker(short, long)
    warn("main")
    assert sorted(notices) == ["long", "main", "short"]


def test_warnings_of_the_main_thread_are_shown(notices, viewer, monkeypatch):
    others = []
    monkeypatch.setattr(warnings, "showwarning", lambda message, *_: others.append(str(message)))
    warnings.simplefilter("always")
    show_warnings()
    for _ in range(2):
        warn("soft")
        warnings.warn("others", UserWarning, stacklevel=1)
    assert notices == ["soft"]
    assert set(others) == {"others"}
    show_warnings()
    warn("soft")
    assert notices == ["soft", "soft"]


def test_the_reader_shows_warnings(viewer, patient_on_disk, monkeypatch, notices):
    from napari_lgg_seg.widgets.shared import open_folder

    read = open_folder.read_patient

    def read_and_warn(folder):
        warn(f"{folder.name} has soft masks.")
        return read(folder)

    monkeypatch.setattr(open_folder, "read_patient", read_and_warn)
    folder = patient_on_disk()
    viewer.open(str(folder), plugin="napari-lgg-seg")
    assert notices == [f"{folder.name} has soft masks."]


def test_refusals_of_the_system_are_one_sentence():
    @returns_failure
    def work():
        yield
        raise PermissionError(13, "Permission denied", "/some/folder")

    result = run_to_result(work())
    assert result.message == (
        "/some/folder cannot be read (Permission denied); check its name and permissions."
    )


def run_to_result(generator):
    while True:
        try:
            next(generator)
        except StopIteration as stop:
            return stop.value
