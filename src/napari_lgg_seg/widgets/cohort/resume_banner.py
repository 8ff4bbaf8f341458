"""After a crash: says which patient was being corrected, and offers to resume."""

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
    """Records which patient is being corrected, and offers at the next start to resume after a crash.

    Parameters
    ----------
    reopen : callable
        Takes the folders of dataset and results, and the patient's name.
    """

    def __init__(self, reopen: Callable[[Path, Path, str], None]) -> None:
        self._reopen = reopen
        self._folder = unfinished.default_folder()
        self._noted: str | None = None
        self._found: Unfinished | None = unfinished.take(self._folder)
        self.text = Label(value="")
        self.button = PushButton(text="", tooltip="Open that cohort and the patient in it.")
        self.button.clicked.connect(self._resume)
        wrap(self.text, 1)
        self.row = Container(widgets=[self.text, self.button], labels=False)
        self.row.margins = (0, 0, 0, 0)
        if self._found is not None:
            when = time.strftime("%d %B, %H:%M", time.localtime(self._found.saved))
            self.text.value = (
                f"napari ended while {self._found.patient} was being corrected. Edits up to {when} are saved."
            )
            self.button.text = f"Resume {self._found.patient}"
        self.row.visible = self._found is not None

    def dismiss(self) -> None:
        """Hide the offer, because the user does something else."""
        self._found = None
        self.row.visible = False

    def _resume(self) -> None:
        found = self._found
        self.dismiss()
        if found is not None:
            self._reopen(found.dataset, found.results, found.patient)

    def note(self, folders: tuple[Path, Path], patient: str) -> None:
        """Record that corrections of the open patient were saved."""
        with suppress(ExportError):  # only the offer to resume would be missing
            unfinished.note(self._folder, *folders, patient)
            self._noted = patient

    def patient_opened(self, patient: str | None) -> None:
        """Forget the recorded patient if another one is open now: it was left as it should be."""
        if self._noted is not None and patient != self._noted:
            self.forget()

    def forget(self) -> None:
        """Remove the record, because the session ends as it should."""
        if self._noted is not None:
            self._noted = None
            unfinished.forget(self._folder)
