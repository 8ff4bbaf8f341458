"""Ways to do the same work, each in a process of its own, that take turns: A B C A B C ...

So drift of the machine hits all alike, no way disturbs another one's threads or memory, and one that is not
installed or fails becomes a sentence in the table. What a process serves is made by a function of the other
``speed_*`` modules, named ``module:function``. This module imports nothing large, since it watches programs
too.
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

#: Beside this file; run with the words "serve" or "call", a function and its options.
WORKER = Path(__file__).with_name("speed_worker.py")


@dataclasses.dataclass(frozen=True)
class Group:
    """Ways that share a process.

    Attributes
    ----------
    names : tuple of str
        Of the ways, as the tables call them, in the order of the function's.
    function : str
        ``module:function``; gives a list of callables, each of which does the work once and says what it
        took: ``{"seconds": ...}`` of a slice, a patient or whatever is compared, and what else there is.
    options : mapping
        Of the function, ready for JSON.
    """

    names: tuple[str, ...]
    function: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class FailedError(Exception):
    """A process ended before its time; the message is one sentence."""


class _Process:
    """A child that serves a group."""

    def __init__(self, group: Group, stack: ExitStack) -> None:
        self._errors = stack.enter_context(tempfile.TemporaryFile("w+"))  # noqa: SIM115 - the stack closes it
        self._process = stack.enter_context(_child("serve", group.function, group.options, self._errors))
        self._read()  # it is ready, and has done everything once

    def __call__(self, index: int) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{index}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise FailedError(reason_in(self._errors, self._process.wait())) from None
        return self._read()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise FailedError(reason_in(self._errors, self._process.wait()))
        return json.loads(line)


def take_turns(groups: Sequence[Group], rounds: int) -> dict[str, dict[str, Any]]:
    """Let all ways do their work ``rounds`` times, in turn.

    Returns
    -------
    dict
        For each way ``{"seconds": [...]}`` and lists of what else its calls said, or
        ``{"problem": sentence}``.
    """
    found: dict[str, dict[str, Any]] = {name: {} for group in groups for name in group.names}
    with ExitStack() as stack:
        serving: list[tuple[Group, _Process]] = []
        for group in groups:
            try:
                serving.append((group, _Process(group, stack)))
            except FailedError as failure:
                found |= {name: {"problem": str(failure)} for name in group.names}
        for _ in range(rounds):
            for group, process in serving:
                for index, name in enumerate(group.names):
                    if "problem" not in found[name]:
                        _turn(process, index, found[name])
    return found


def _turn(process: _Process, index: int, found: dict[str, Any]) -> None:
    try:
        for key, value in process(index).items():
            found.setdefault(key, []).append(value)
    except FailedError as failure:
        found["problem"] = str(failure)


def call(function: str, options: Mapping[str, Any]) -> Any:
    """What a function returns, in a process of its own.

    Raises
    ------
    FailedError
        If it fails.
    """
    with tempfile.TemporaryFile("w+") as errors, _child("call", function, options, errors) as process:
        out, _ = process.communicate()
        if process.returncode:
            raise FailedError(reason_in(errors, process.returncode))
    return json.loads(out)


def _child(word: str, function: str, options: Mapping[str, Any], errors: IO[str]) -> subprocess.Popen[str]:
    command = [sys.executable, str(WORKER), word, function, json.dumps(dict(options))]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, encoding="utf-8"
    )


# --- whole programs ----------------------------------------------------------------------------


def run_program(command: Sequence[str], **environment: str) -> dict[str, Any]:
    """Start a program and wait for it: seconds from start to end, and its peak memory in MB.

    The system counts what a process had before it became the program as well, which is a copy of its parent:
    so a small process of its own is the parent, however large this one has grown.

    Raises
    ------
    FailedError
        If it fails.
    """
    found: dict[str, Any] = call(
        "speed_turns:watch_program", {"command": list(command), "environment": environment}
    )
    if "problem" in found:
        raise FailedError(found["problem"])
    return found


def watch_program(command: Sequence[str], environment: Mapping[str, str]) -> dict[str, Any]:
    """What :func:`run_program` gives, or ``{"problem": sentence}``; for a process that is small."""
    with tempfile.TemporaryFile("w+") as errors:
        began = time.perf_counter()
        child = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=errors, env=os.environ | environment
        )
        peak = _wait(child)
        seconds = time.perf_counter() - began
        if child.returncode:
            return {"problem": reason_in(errors, child.returncode)}
    return {"seconds": seconds} | ({"peak_mb": peak} if peak is not None else {})


def _wait(child: subprocess.Popen[Any]) -> float | None:
    """Wait for the end; the most memory that the child had, in MB, where the system tells it."""
    if not hasattr(os, "wait4"):
        child.wait()
        return None
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def programs_in_turn(
    commands: Mapping[str, Callable[[Path], Sequence[str]]], rounds: int, **environment: str
) -> dict[str, dict[str, Any]]:
    """:func:`take_turns` for whole programs, start-up and end counted.

    Parameters
    ----------
    commands : mapping
        From a way's name to what makes its command, given an empty folder for its output.
    rounds : int
        How often each is run.
    **environment : str
        Further variables.
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


def reason_in(errors: IO[str], code: int) -> str:
    """Why a process ended, in one sentence, from what it wrote to its standard error."""
    errors.seek(0)
    lines = [line.strip() for line in errors.read().splitlines() if line.strip()]
    last = lines[-1] if lines else ""
    missing = "ModuleNotFoundError: No module named "
    if last.startswith(missing):
        return f"{last.removeprefix(missing).strip(chr(39))} is not installed"
    if code < 0:
        return f"ended by signal {-code}, which is often for want of memory"
    return last.rstrip(".") or f"ended with code {code}"
