"""After a crash: says which patient was being corrected, and offers to go on with it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from magicgui.widgets import Container, Label, PushButton

from ...core.cohort import unfinished
from ...core.cohort.unfinished import Unfinished
from ...core.errors import ExportError
from ..shared.forms import wrap


class ResumeBanner:
    """Notes what is being corrected, and at the next start offers what a crash interrupted.

    Parameters
    ----------
    open_again : callable
        Takes the folders of dataset and results, and the patient's name.
    """

    def __init__(self, open_again: Callable[[Path, Path, str], None]) -> None:
        self._open_again = open_again
        self._folder = unfinished.default_folder()
        self._noted: str | None = None
        self._found: Unfinished | None = unfinished.take(self._folder)
        self.text = Label(value="")
        self.button = PushButton(text="", tooltip="Open that cohort, and the patient in it.")
        self.button.clicked.connect(self._go_on)
        wrap(self.text, 1)
        self.row = Container(widgets=[self.text, self.button], labels=False)
        self.row.margins = (0, 0, 0, 0)
        if self._found is not None:
            when = time.strftime("%H:%M on %d %B", time.localtime(self._found.saved))
            self.text.value = (
                f"napari ended while {self._found.patient} was being corrected. "
                f"What was painted until {when} is kept."
            )
            self.button.text = f"Go on with {self._found.patient}"
        self.row.visible = self._found is not None

    def dismiss(self) -> None:
        """Somebody does something else."""
        self._found = None
        self.row.visible = False

    def _go_on(self) -> None:
        found = self._found
        self.dismiss()
        if found is not None:
            self._open_again(found.dataset, found.results, found.patient)

    def note(self, folders: tuple[Path, Path], patient: str) -> None:
        """A patient that is open was kept with somebody's corrections."""
        with suppress(ExportError):  # the corrections are kept all the same
            unfinished.note(self._folder, *folders, patient)
            self._noted = patient

    def is_open(self, patient: str | None) -> None:
        """Which patient is open now: another one than was noted was left as it should be."""
        if self._noted is not None and patient != self._noted:
            self.forget()

    def forget(self) -> None:
        """The session ends as it should."""
        if self._noted is not None:
            self._noted = None
            unfinished.forget(self._folder)
