"""Methods and programs that run alternately, in processes of their own."""

from __future__ import annotations

import os
import sys

import pytest
from speed.rounds import Group, run_alternately, run_programs_alternately

_METHODS = """
from pathlib import Path

def methods(letters, log):
    def method(letter):
        def work():
            with Path(log).open("a") as file:
                file.write(letter)
            if letter == "x" and Path(log).read_text().count("x") > 2:
                raise ValueError("x is broken")
            print("output of a library")
            return {"seconds": 1.0, "letter": letter}
        return work
    return [method(letter) for letter in letters]

def missing():
    import a_package_that_is_not_there
"""


@pytest.fixture
def log(tmp_path, monkeypatch):
    """Methods that child processes can import; gives the file in which each call leaves a letter."""
    (tmp_path / "tiny_methods.py").write_text(_METHODS)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, sys.path)]))
    return tmp_path / "log"


def test_methods_run_alternately_and_failures_become_sentences(log):
    groups = [
        Group(("A", "B"), "tiny_methods:methods", {"letters": "ab", "log": str(log)}),
        Group(("not there",), "tiny_methods:missing"),
        Group(("X",), "tiny_methods:methods", {"letters": "x", "log": str(log)}),
    ]
    found = run_alternately(groups, 3)
    # The first round is the warm-up; x fails in its third call.
    assert log.read_text() == "abx" + "abx" + "abx" + "ab"
    assert found["A"] == {"seconds": [1.0] * 3, "letter": ["a"] * 3}
    assert found["B"]["letter"] == ["b"] * 3
    assert found["not there"] == {"problem": "a_package_that_is_not_there is not installed"}
    assert found["X"]["problem"] == "ValueError: x is broken"


def test_programs_are_measured_from_start_to_end():
    work = "import sys, time; block = b'1' * 200_000_000; time.sleep(0.2); assert 'speed' in sys.argv[1]"
    large = b"1" * 1_000_000_000  # must not count: it belongs to this process
    found = run_programs_alternately(
        {
            "good": lambda output: [sys.executable, "-c", work, f"speed {output}"],
            "bad": lambda _: [sys.executable, "-c", "raise SystemExit('no such patient')"],
        },
        2,
    )
    assert found["bad"] == {"problem": "no such patient"}
    assert all(seconds > 0.2 for seconds in found["good"]["seconds"])
    if hasattr(os, "wait4"):
        assert all(200 < peak < 500 for peak in found["good"]["peak_mb"])
    assert len(large)  # kept until here
