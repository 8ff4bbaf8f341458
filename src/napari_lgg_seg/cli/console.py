"""What reaches the terminal: the only place where the commands print text, tables and progress bars."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from ..core.errors import LggSegWarning, counted

if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.table import Table

    from ..core.evaluation.metrics import Summary

#: Exit code of a program that Ctrl-C ended.
INTERRUPTED = 130

#: Characters that a terminal would obey or that would break a line, and halves of characters, which stand
#: for bytes of file names that are not valid Unicode.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: object) -> str:
    r"""Text in one line, with control characters escaped: ``\n``, ``\x1b``."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


class PlainConsole(Console):
    """A console that shows names, paths and messages literally: no markup, emoji, colours or escapes."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Text that is not interpreted; table cells, titles and all that is printed come through here."""
        style = options.get("style") or ""
        return Text(printable(text), style, justify=options.get("justify"), overflow=options.get("overflow"))

    def say(self, text: str, style: str | None = None) -> None:
        """Print a message in one line, however wide the terminal is."""
        self.print(text, style=style, soft_wrap=True)


def make_console(*, stderr: bool = False, quiet: bool = False) -> PlainConsole:
    """The console of standard output or of standard error."""
    return PlainConsole(stderr=stderr, highlight=False, markup=False, emoji=False, quiet=quiet)


def make_table(*columns: str, title: str) -> Table:
    """A table whose cells are wrapped rather than cut in a narrow terminal."""
    from rich.table import Table

    table = Table(title=title)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def show_warnings_plainly() -> None:
    """Print each of this package's warnings once, as one line on stderr; others as Python prints them."""
    before, shown = warnings.showwarning, set[str]()

    def showwarning(message: Any, category: type[Warning], *place: Any, **more: Any) -> None:
        if not issubclass(category, LggSegWarning):
            before(message, category, *place, **more)
        elif str(message) not in shown:
            shown.add(str(message))
            make_console(stderr=True).say(f"Warning: {message}", style="yellow")

    warnings.simplefilter("always", LggSegWarning)
    warnings.showwarning = showwarning


def make_progress(console: Console) -> Progress:
    """A progress bar with what is being done, the share that is done, and the time left."""
    from rich.progress import (
        BarColumn,
        Progress,
        ProgressColumn,
        Task,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    class Description(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(printable(task.description))

    return Progress(
        Description(),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=console,
    )


def dice_summary(summary: Summary) -> str:
    """The Dice of a cohort in one line."""
    return (
        f"{counted(summary.patients, 'patient')}: mean Dice {summary.mean:.4f}, "
        f"median {summary.median:.4f}, {len(summary.below_half)} below 0.5, {len(summary.missed)} missed"
    )
