"""Run methods alternately, each group of them in a process of its own: A B C A B C ...

A drift of the machine then affects all methods alike, no method disturbs the threads or memory of another,
and a method that is not installed or fails becomes a sentence in the table. What a process runs is built by a
function of this package, named ``module:function``. This module imports nothing large, because it also
measures the memory of programs.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

_BENCHMARKS = Path(__file__).parents[1]


def package_path() -> dict[str, str]:
    """The environment variables with which a child process can import this package."""
    inherited = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join([str(_BENCHMARKS), *([inherited] if inherited else [])])}


@dataclasses.dataclass(frozen=True)
class Group:
    """Methods that share a process.

    Attributes
    ----------
    names : tuple of str
        Names of the methods as in the tables, in the order in which the function returns them.
    function : str
        ``module:function``. It returns a list of callables; each does the work once and returns what it
        measured: ``{"seconds": ...}`` per slice, patient or whatever is compared, and further values.
    options : mapping
        Arguments of the function; they must be JSON.
    """

    names: tuple[str, ...]
    function: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class FailedError(Exception):
    """A child process failed; the message is one sentence."""


class _Process:
    """A child process that runs the methods of a group."""

    def __init__(self, group: Group, stack: ExitStack) -> None:
        self._errors = stack.enter_context(tempfile.TemporaryFile("w+"))  # noqa: SIM115 - the stack closes it
        self._process = stack.enter_context(_child("serve", group.function, group.options, self._errors))
        self._read()  # "ready": every method has run once

    def __call__(self, index: int) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{index}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise FailedError(failure_reason(self._errors, self._process.wait())) from None
        return self._read()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise FailedError(failure_reason(self._errors, self._process.wait()))
        return json.loads(line)


def run_alternately(groups: Sequence[Group], rounds: int) -> dict[str, dict[str, Any]]:
    """Run all methods ``rounds`` times, alternately.

    Returns
    -------
    dict
        For each method ``{"seconds": [...]}`` with one value per round, and lists of whatever else its calls
        returned, or ``{"problem": sentence}``.
    """
    found: dict[str, dict[str, Any]] = {name: {} for group in groups for name in group.names}
    with ExitStack() as stack:
        running: list[tuple[Group, _Process]] = []
        for group in groups:
            try:
                running.append((group, _Process(group, stack)))
            except FailedError as failure:
                found |= {name: {"problem": str(failure)} for name in group.names}
        for _ in range(rounds):
            for group, process in running:
                for index, name in enumerate(group.names):
                    if "problem" not in found[name]:
                        _run_once(process, index, found[name])
    return found


def _run_once(process: _Process, index: int, found: dict[str, Any]) -> None:
    try:
        for key, value in process(index).items():
            found.setdefault(key, []).append(value)
    except FailedError as failure:
        found["problem"] = str(failure)


def call(function: str, options: Mapping[str, Any]) -> Any:
    """Call ``module:function`` in a process of its own and return its result.

    Raises
    ------
    FailedError
        If it fails.
    """
    with tempfile.TemporaryFile("w+") as errors, _child("call", function, options, errors) as process:
        out, _ = process.communicate()
        if process.returncode:
            raise FailedError(failure_reason(errors, process.returncode))
    return json.loads(out)


def _child(mode: str, function: str, options: Mapping[str, Any], errors: IO[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "speed.worker", mode, function, json.dumps(dict(options))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        encoding="utf-8",
        env=os.environ | package_path(),
    )


# --- whole programs ----------------------------------------------------------------------------


def run_program(command: Sequence[str], **environment: str) -> dict[str, Any]:
    """Run a program: seconds from start to end, and its peak memory in MB.

    The system's peak also covers the moment before the program is loaded, when the process is still a copy of
    its parent. The parent is therefore a small process of its own, however large this one is.

    Raises
    ------
    FailedError
        If it fails.
    """
    options = {"command": list(command), "environment": environment}
    found: dict[str, Any] = call("speed.rounds:watch_program", options)
    if "problem" in found:
        raise FailedError(found["problem"])
    return found


def watch_program(command: Sequence[str], environment: Mapping[str, str]) -> dict[str, Any]:
    """Measure a program in this small process; ``{"problem": sentence}`` if it fails."""
    with tempfile.TemporaryFile("w+") as errors:
        began = time.perf_counter()
        child = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=errors, env=os.environ | environment
        )
        peak = _wait(child)
        seconds = time.perf_counter() - began
        if child.returncode:
            return {"problem": failure_reason(errors, child.returncode)}
    return {"seconds": seconds} | ({"peak_mb": peak} if peak is not None else {})


def _wait(child: subprocess.Popen[Any]) -> float | None:
    """Wait for the end and return the child's peak memory in MB, where the system reports it."""
    if not hasattr(os, "wait4"):
        child.wait()
        return None
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def run_programs_alternately(
    commands: Mapping[str, Callable[[Path], Sequence[str]]], rounds: int, **environment: str
) -> dict[str, dict[str, Any]]:
    """Like :func:`run_alternately` for whole programs, start-up and exit included.

    Parameters
    ----------
    commands : mapping
        For each method a function that takes an empty output folder and returns the command.
    rounds : int
        How often each program runs.
    **environment : str
        Additional environment variables.
    """
    found: dict[str, dict[str, Any]] = {name: {} for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            if "problem" in found[name]:
                continue
            with tempfile.TemporaryDirectory() as output:
                try:
                    for key, value in run_program(command(Path(output)), **environment).items():
                        found[name].setdefault(key, []).append(value)
                except FailedError as failure:
                    found[name]["problem"] = str(failure)
    return found


def failure_reason(errors: IO[str], code: int) -> str:
    """Why a process failed, in one sentence, from its standard error and exit code."""
    errors.seek(0)
    lines = [line.strip() for line in errors.read().splitlines() if line.strip()]
    last = lines[-1] if lines else ""
    missing = "ModuleNotFoundError: No module named "
    if last.startswith(missing):
        return f"{last.removeprefix(missing).strip(chr(39))} is not installed"
    if code < 0:
        return f"ended by signal {-code}, often a sign of too little memory"
    return last.rstrip(".") or f"ended with code {code}"
