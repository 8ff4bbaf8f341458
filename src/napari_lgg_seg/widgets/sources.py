"""The part of the Fine-tune widget that says on whom to train: open patients, or those of a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer

from . import finetune_words as words
from .finetune_controls import FOLDER, FineTuneControls
from .labelled import Taken, labelled_in, take
from .patient_table import PatientTable
from .training_folder import FolderScan, FoundPatients

if TYPE_CHECKING:
    from napari.components import ViewerModel


class Sources:
    """What the user chose to train on.

    Parameters
    ----------
    viewer : Viewer
        Where patients are looked for.
    controls : FineTuneControls
        Of which it takes "Train on", the folder, and what was found in it.
    changed : callable
        Called when something else is chosen or found.
    """

    def __init__(self, viewer: ViewerModel, controls: FineTuneControls, changed: Callable[[], None]) -> None:
        self._viewer, self._controls, self._changed = viewer, controls, changed
        self.table = PatientTable()
        self._scan = FolderScan(self._show_found)
        self._soon = QTimer(self.table, singleShot=True, interval=300)  # after the last key
        self._soon.timeout.connect(self._look)
        self.table.changed.connect(changed)
        controls.source.changed.connect(self._source_chosen)
        controls.folder.changed.connect(self._folder_chosen)
        self._show_source()

    @property
    def from_folder(self) -> bool:
        """Whether it is a folder."""
        return bool(self._controls.source.value == FOLDER)

    def names(self) -> list[str]:
        """The patients chosen, as far as they are known."""
        if self.from_folder:
            return list(self._scan.patients)
        return [str(subject) for subject, _ in self.table.chosen()]

    def problem(self) -> str:
        """Why nobody can be trained on yet; empty if there are two patients or more."""
        count = len(self.names())
        if count >= 2:
            return ""
        if not self.from_folder:
            return words.too_few(count) if labelled_in(self._viewer.layers) else words.NO_PATIENTS
        if isinstance(self._scan.found, FoundPatients):
            return f"Training needs two patients at least. {words.NO_FOLDER}"
        return self._scan.in_words() or words.NO_FOLDER

    def take(self) -> dict[str, Taken | Path]:
        """The chosen patients, by name: their arrays as they are now, or their folders.

        Raises
        ------
        ImageError
            If a patient's images cannot be used.
        """
        if self.from_folder:
            return dict(self._scan.patients)
        layers = self._viewer.layers
        return {str(subject): take(layers, subject, labels) for subject, labels in self.table.chosen()}

    def is_open(self, name: str) -> bool:
        """Whether a patient's images are in the viewer."""
        return name in [str(row.subject) for row in labelled_in(self._viewer.layers)]

    def look_at_layers(self) -> None:
        """Show the patients that are open now."""
        self.table.show_patients(labelled_in(self._viewer.layers))

    def enable(self, enabled: bool) -> None:
        """Let the user choose, or not."""
        self.table.setEnabled(enabled)
        self._controls.source.enabled = self._controls.folder.enabled = enabled

    def close(self) -> None:
        """Look no further."""
        self._scan.forget()

    def _show_source(self) -> None:
        self._controls.folder.visible = self._controls.found.visible = self.from_folder
        self.table.setVisible(not self.from_folder)

    def _source_chosen(self, _: Any = None) -> None:
        self._show_source()
        if self.from_folder and self._scan.found is None:
            self._look()
        self._changed()

    def _folder_chosen(self, _: Any = None) -> None:
        self._scan.forget()
        self._soon.start()
        self._show_found()

    def _look(self) -> None:
        self._scan.look(self._controls.folder.value)
        self._show_found()

    def _show_found(self) -> None:
        self._controls.found.value = self._scan.in_words()
        self._changed()
