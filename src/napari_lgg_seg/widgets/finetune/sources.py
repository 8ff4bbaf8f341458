"""The part of the Fine-tune widget that says on whom to train: patients, and old ones beside them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer

from ...core.cohort.corrected import CorrectedPatient
from ...core.cohort.edits import SavedEdits
from ...core.cohort.results import default_results_folder
from ...core.training.split import draw_rehearsal
from ..review.review_session import session_of
from ..shared.worker import Failure
from . import messages
from .controls import CORRECTED, FOLDER, OPEN_PATIENTS, FineTuneControls
from .folder_scan import FolderScan, look_for_corrected
from .labelled import Taken, labelled_in, take
from .patient_table import PatientTable

if TYPE_CHECKING:
    from napari.components import ViewerModel

#: Milliseconds after the last key until a folder is looked into.
_TYPING = 300


class Sources:
    """What the user chose to train on.

    Parameters
    ----------
    viewer : Viewer
        Where patients are looked for.
    controls : FineTuneControls
        Of which it takes "Train on", the folders, and what was found in them.
    changed : callable
        Called when something else is chosen or found.
    """

    def __init__(self, viewer: ViewerModel, controls: FineTuneControls, changed: Callable[[], None]) -> None:
        self._viewer, self._controls, self._changed = viewer, controls, changed
        self.table = PatientTable()
        self._scans = {
            FOLDER: FolderScan(self._show_found),
            CORRECTED: FolderScan(self._show_found, look_for_corrected),
        }
        self._old = FolderScan(self._show_old)
        self._soon = QTimer(self.table, singleShot=True, interval=_TYPING)
        self._old_soon = QTimer(self.table, singleShot=True, interval=_TYPING)
        self._proposed = (controls.patients.value, controls.results.value)
        self._session = session_of(viewer)
        self._connect()
        self._show_source()
        self._show_rehearsal()
        if self._session.cohort is not None:
            self._propose(*self._session.cohort)

    def _connect(self) -> None:
        c = self._controls
        self._soon.timeout.connect(self._look)
        self._old_soon.timeout.connect(self._look_for_old)
        self.table.changed.connect(self._changed)
        c.source.changed.connect(self._source_chosen)
        c.folder.changed.connect(self._folder_chosen)
        c.patients.changed.connect(self._cohort_typed)
        c.results.changed.connect(self._folder_chosen)
        c.old.changed.connect(self._old_chosen)
        c.old_share.changed.connect(self._changed)
        self._session.cohort_chosen.connect(self._propose)
        self._session.kept.connect(self._kept)

    @property
    def from_files(self) -> bool:
        """Whether the patients are read from files, instead of taken from the viewer."""
        return bool(self._controls.source.value != OPEN_PATIENTS)

    @property
    def _scan(self) -> FolderScan:
        """That of the chosen kind of folder."""
        return self._scans[self._controls.source.value]

    def names(self) -> list[str]:
        """The patients chosen, as far as they are known; without old ones."""
        if self.from_files:
            return list(self._scan.patients)
        return [str(subject) for subject, _ in self.table.chosen()]

    def old(self, training: int, seed: int) -> list[Path]:
        """The old patients that train beside so many new ones; none of those chosen is among them.

        Raises
        ------
        TrainingError
            If their share is outside its limits.
        """
        chosen = self.names()
        others = {n: p for n, p in self._old.patients.items() if n not in chosen and isinstance(p, Path)}
        return [others[n] for n in draw_rehearsal(others, training, self._controls.old_share.value, seed)]

    def problem(self) -> str:
        """Why nobody can be trained on yet; empty if there are two patients or more."""
        count = len(self.names())
        if count >= 2:
            return self._problem_with_old()
        if not self.from_files:
            return messages.too_few(count) if labelled_in(self._viewer.layers) else messages.NO_PATIENTS
        missing = messages.NO_FOLDER if self._controls.source.value == FOLDER else messages.NO_COHORT
        if self._scan.found is None or isinstance(self._scan.found, Failure):
            return self._scan.summary() or missing
        return f"Training needs two patients at least. {missing}"

    def _problem_with_old(self) -> str:
        """Old patients that are wanted must be known: without them the model would forget."""
        if not self._controls.old.value.name or self._old.patients:
            return ""
        return self._old.summary() or messages.LOOKING_FOR_OLD

    def take(self) -> dict[str, Taken | Path | CorrectedPatient]:
        """The chosen patients, by name: their arrays as they are now, or where they are.

        Raises
        ------
        ImageError
            If a patient's images cannot be used.
        """
        if self.from_files:
            return dict(self._scan.patients)
        layers = self._viewer.layers
        return {str(subject): take(layers, subject, labels) for subject, labels in self.table.chosen()}

    def keep_first(self, say: Callable[[str], None], then: Callable[[], None]) -> None:
        """Go on once the corrections of the patient that is open are in the file that is trained on."""
        if self._controls.source.value == CORRECTED:
            self._session.keep_first(self, say, then)
        else:
            then()

    def is_open(self, name: str) -> bool:
        """Whether a patient's images are in the viewer."""
        return name in [str(row.subject) for row in labelled_in(self._viewer.layers)]

    def look_at_layers(self) -> None:
        """Show the patients that are open now."""
        self.table.show_patients(labelled_in(self._viewer.layers))

    def close(self) -> None:
        """Look no further."""
        self._session.cohort_chosen.disconnect(self._propose)
        self._session.kept.disconnect(self._kept)
        self._session.drop(self)
        for scan in (*self._scans.values(), self._old):
            scan.forget()

    # --- what is shown, and looked into --------------------------------------------------------

    def _show_source(self) -> None:
        c = self._controls
        c.folder.visible = c.source.value == FOLDER
        c.patients.visible = c.results.visible = c.source.value == CORRECTED
        c.found.visible = self.from_files
        self.table.setVisible(not self.from_files)

    def _source_chosen(self, _: Any = None) -> None:
        self._show_source()
        if self.from_files and self._scan.found is None:
            self._look()
        else:
            self._show_found()

    def _cohort_typed(self, folder: Path) -> None:
        with self._controls.results.changed.blocked():
            self._controls.results.value = default_results_folder(folder)
        self._folder_chosen()

    def _folder_chosen(self, _: Any = None) -> None:
        if self.from_files:
            self._scan.forget()
            self._soon.start()
            self._show_found()

    def _look(self) -> None:
        if self.from_files:
            c = self._controls
            folders = [c.folder] if c.source.value == FOLDER else [c.patients, c.results]
            self._scan.look(*(folder.value for folder in folders))
            self._show_found()

    def _show_found(self) -> None:
        if self.from_files:
            self._controls.found.value = self._scan.summary()
        self._changed()

    def _old_chosen(self, _: Any = None) -> None:
        self._old.forget()
        self._old_soon.start()
        self._show_old()

    def _look_for_old(self) -> None:
        self._old.look(self._controls.old.value)
        self._show_old()

    def _show_rehearsal(self) -> None:
        c = self._controls
        c.old_share.visible = c.old_found.visible = bool(c.old.value.name)
        c.old_found.value = self._old.summary()

    def _show_old(self) -> None:
        self._show_rehearsal()
        self._changed()

    # --- what the cohort browser does ----------------------------------------------------------

    def _propose(self, dataset: Path, results: Path) -> None:
        """Fill in the folders of a cohort that somebody goes through, unless the user chose others."""
        c = self._controls
        if (c.patients.value, c.results.value) != self._proposed or not c.patients.enabled:
            return
        self._proposed = dataset, results
        with c.patients.changed.blocked(), c.results.changed.blocked():
            c.patients.value, c.results.value = self._proposed
        self._look_again()

    def _kept(self, kept: SavedEdits) -> None:
        """Another patient of the cohort may be corrected now."""
        known = [
            p.folder.name for p in self._scans[CORRECTED].patients.values() if isinstance(p, CorrectedPatient)
        ]
        ours = kept.results.folder == self._controls.results.value
        if ours and kept.status.by_hand and kept.name not in known:
            self._look_again()

    def _look_again(self) -> None:
        self._scans[CORRECTED].forget()
        if self._controls.source.value == CORRECTED:
            self._look()
