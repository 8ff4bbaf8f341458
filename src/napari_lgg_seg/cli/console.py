"""What the commands print with, and write to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..core.choices import OptionsError, Threshold, parse_threshold

if TYPE_CHECKING:
    from ..core.evaluation.metrics import Summary
if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


def write_text(path: Path, text: str) -> None:
    """Write a file whole, or leave the old one.

    Raises
    ------
    ExportError
        If it cannot be written.
    """
    from ..core.atomic import replacing

    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def make_console(*, stderr: bool = False, quiet: bool = False) -> Console:
    """A console that colours nothing by itself."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, quiet=quiet)


def make_progress(console: Console, *, left: bool = False) -> Progress:
    """A progress bar; ``left`` says what its time is."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        *([TextColumn("left")] if left else []),
        console=console,
    )


#: Exit code of a program that Ctrl-C ended.
INTERRUPTED = 130


def threshold_option(text: str) -> Any:
    """The option ``--threshold``: a number or auto."""

    def parsed(value: str) -> Threshold:
        try:
            return parse_threshold(value)
        except OptionsError as error:
            raise typer.BadParameter(str(error)) from error

    return typer.Option(parser=parsed, metavar="auto|NUMBER", help=text)


def in_a_line(summary: Summary) -> str:
    """A cohort's Dice in one line."""
    return (
        f"{summary.patients} patients: mean Dice {summary.mean:.4f}, median {summary.median:.4f}, "
        f"{len(summary.below_half)} below 0.5, {len(summary.missed)} missed"
    )
