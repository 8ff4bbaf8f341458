"""Console, progress bar and files of the commands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from ..core.evaluation.metrics import Summary

#: Exit code of a program that Ctrl-C ended.
INTERRUPTED = 130


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
    """A console that prints text as it is, without highlighting."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, quiet=quiet)


def make_progress(console: Console) -> Progress:
    """A progress bar with the share that is done and the time left."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=console,
    )


def dice_summary(summary: Summary) -> str:
    """The Dice of a cohort in one line."""
    return (
        f"{summary.patients} patients: mean Dice {summary.mean:.4f}, median {summary.median:.4f}, "
        f"{len(summary.below_half)} below 0.5, {len(summary.missed)} missed"
    )
