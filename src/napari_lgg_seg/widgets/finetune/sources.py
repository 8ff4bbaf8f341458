"""The part of the Fine-tune widget that chooses the patients to train on, including old ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QTimer

from ...core.cohort.corrected import CorrectedPatient
from ...core.cohort.edits import SavedEdits
from ...core.cohort.store import default_results_folder
from ...core.training.split import draw_rehearsal
from ...layers import same_patient
from ..review.review_session import session_of
from ..shared.worker import Failure
from . import messages
from .controls import CORRECTED, FOLDER, OPEN_PATIENTS, FineTuneControls
from .folder_scan import FolderScan, scan_corrected
from .labelled import PatientArrays, labelled_patients, patient_arrays, snapshot
from .patient_table import PatientTable

if TYPE_CHECKING:
    from napari.components import ViewerModel

#: Milliseconds after the last keystroke in a folder's name until the folder is scanned.
_TYPING_DELAY = 300


class Sources:
    """The patients to train on.

    Parameters
    ----------
    viewer : Viewer
        Where open patients are found.
    controls : FineTuneControls
        Its controls for folders are used.
    changed : callable
        Called when other patients are chosen or found.
    """

    def __init__(self, viewer: ViewerModel, controls: FineTuneControls, changed: Callable[[], None]) -> None:
        self._viewer, self._controls, self._changed = viewer, controls, changed
        self.table = PatientTable()
        self._scans = {
            FOLDER: FolderScan(self._show_found),
            CORRECTED: FolderScan(self._show_found, scan_corrected),
        }
        self._old = FolderScan(self._show_old)
        self._typing_timer = QTimer(self.table, singleShot=True, interval=_TYPING_DELAY)
        self._old_typing_timer = QTimer(self.table, singleShot=True, interval=_TYPING_DELAY)
        self._proposed = (controls.patients.value, controls.results.value)
        self._session = session_of(viewer)
        self._connect()
        self._show_source()
        self._show_old_controls()
        if self._session.cohort is not None:
            self._propose(*self._session.cohort)

    def _connect(self) -> None:
        c = self._controls
        self._typing_timer.timeout.connect(self._start_scan)
        self._old_typing_timer.timeout.connect(self._start_old_scan)
        self.table.changed.connect(self._changed)
        c.source.changed.connect(self._source_chosen)
        c.folder.changed.connect(self._folder_chosen)
        c.patients.changed.connect(self._cohort_typed)
        c.results.changed.connect(self._folder_chosen)
        c.old.changed.connect(self._old_chosen)
        c.old_share.changed.connect(self._changed)
        self._session.cohort_chosen.connect(self._propose)
        self._session.saved.connect(self._saved)

    @property
    def from_files(self) -> bool:
        """Whether the patients are read from files instead of the viewer."""
        return bool(self._controls.source.value != OPEN_PATIENTS)

    @property
    def _scan(self) -> FolderScan:
        """The scan of the chosen kind of folder."""
        return self._scans[self._controls.source.value]

    def names(self) -> list[str]:
        """Names of the chosen patients, without old ones."""
        if self.from_files:
            return list(self._scan.patients)
        return [str(subject) for subject, _ in self.table.chosen()]

    def old(self, training: int, seed: int) -> list[Path]:
        """The old patients to train on in addition to a number of chosen ones, and different from these.

        Raises
        ------
        TrainingError
            If their share is outside its limits.
        """
        chosen = self.names()
        others = {n: p for n, p in self._old.patients.items() if n not in chosen and isinstance(p, Path)}
        return [others[n] for n in draw_rehearsal(others, training, self._controls.old_share.value, seed)]

    def problem(self) -> str:
        """Why a training cannot start; empty if there are two patients or more, all of different names."""
        names = self.names()
        count = len(names)
        if count > len(set(names)):
            return messages.namesakes(sorted({name for name in names if names.count(name) > 1}))
        if count >= 2:
            return self._problem_with_old()
        if not self.from_files:
            patients = labelled_patients(self._viewer.layers)
            elsewhere = [text for row in patients for text in row.elsewhere if row.proposed is None]
            return " ".join([messages.too_few(count), *elsewhere[:1]]) if patients else messages.NO_PATIENTS
        missing = messages.NO_FOLDER if self._controls.source.value == FOLDER else messages.NO_COHORT
        if self._scan.found is None or isinstance(self._scan.found, Failure):
            return self._scan.summary() or missing
        return f"Training needs at least two patients. {missing}"

    def _problem_with_old(self) -> str:
        """Why the chosen old patients cannot be used; training without them would be a surprise."""
        if not self._controls.old.value.name or self._old.patients:
            return ""
        return self._old.summary() or messages.FINDING_OLD

    def changed_since(self, patients: Iterable[PatientArrays | Path | CorrectedPatient]) -> list[str]:
        """Names of patients whose labels in the viewer are no longer those of a snapshot."""
        now = {str(subject): labels for subject, labels in self.table.chosen()}
        return [
            patient.name
            for patient in patients
            if isinstance(patient, PatientArrays)
            and isinstance(patient.tumour, np.ndarray)
            and (patient.name not in now or not np.array_equal(patient.tumour, snapshot(now[patient.name])))
        ]

    def patients(self) -> dict[str, PatientArrays | Path | CorrectedPatient]:
        """The chosen patients by name: a snapshot of their layers, or where to read them.

        Raises
        ------
        ImageError
            If a patient's images cannot be used.
        """
        # There are no namesakes: `problem` refuses them.
        if self.from_files:
            return dict(self._scan.patients)
        layers = self._viewer.layers
        return {
            str(subject): patient_arrays(layers, subject, labels) for subject, labels in self.table.chosen()
        }

    def save_first(self, set_status: Callable[[str], None], then: Callable[[], None]) -> None:
        """Save the open patient's corrections, if a training reads them, and continue."""
        if self._controls.source.value == CORRECTED:
            self._session.save_first(self, set_status, then)
        else:
            then()

    def subjects(self) -> dict[str, str]:
        """Ids of the chosen patients whose images are in the viewer, by name."""
        if not self.from_files:
            return {str(subject): subject.id for subject, _ in self.table.chosen()}
        layers = list(self._viewer.layers)
        ids = [row.subject.id for row in labelled_patients(layers)]
        folders = {n: p if isinstance(p, Path) else p.folder for n, p in self._scan.patients.items()}
        found = {name: same_patient(layers, name, str(folder)) for name, folder in folders.items()}
        return {name: subject for name, subject in found.items() if subject in ids and subject is not None}

    def update(self) -> None:
        """Show the patients that are open now."""
        self.table.show_patients(labelled_patients(self._viewer.layers))

    def close(self) -> None:
        """Stop scanning and disconnect; the widget is gone."""
        self._session.cohort_chosen.disconnect(self._propose)
        self._session.saved.disconnect(self._saved)
        self._session.release(self)
        for scan in (*self._scans.values(), self._old):
            scan.reset()

    # --- showing and scanning ------------------------------------------------------------------

    def _show_source(self) -> None:
        c = self._controls
        c.folder.visible = c.source.value == FOLDER
        c.patients.visible = c.results.visible = c.source.value == CORRECTED
        c.found.visible = self.from_files
        self.table.setVisible(not self.from_files)

    def _source_chosen(self, _: Any = None) -> None:
        self._show_source()
        if self.from_files and self._scan.found is None:
            self._start_scan()
        else:
            self._show_found()

    def _cohort_typed(self, folder: Path) -> None:
        with self._controls.results.changed.blocked():
            self._controls.results.value = default_results_folder(folder)
        self._folder_chosen()

    def _folder_chosen(self, _: Any = None) -> None:
        if self.from_files:
            self._scan.reset()
            self._typing_timer.start()
            self._show_found()

    def _start_scan(self) -> None:
        if self.from_files:
            c = self._controls
            folders = [c.folder] if c.source.value == FOLDER else [c.patients, c.results]
            self._scan.start(*(folder.value for folder in folders))
            self._show_found()

    def _show_found(self) -> None:
        if self.from_files:
            self._controls.found.value = self._scan.summary()
        self._changed()

    def _old_chosen(self, _: Any = None) -> None:
        self._old.reset()
        self._old_typing_timer.start()
        self._show_old()

    def _start_old_scan(self) -> None:
        self._old.start(self._controls.old.value)
        self._show_old()

    def _show_old_controls(self) -> None:
        c = self._controls
        c.old_share.visible = c.old_found.visible = bool(c.old.value.name)
        c.old_found.value = self._old.summary()

    def _show_old(self) -> None:
        self._show_old_controls()
        self._changed()

    # --- following the review session ----------------------------------------------------------

    def _propose(self, dataset: Path, results: Path) -> None:
        """Fill in the folders of the cohort under review, unless the user has chosen others."""
        c = self._controls
        if (c.patients.value, c.results.value) != self._proposed or not c.patients.enabled:
            return
        self._proposed = dataset, results
        with c.patients.changed.blocked(), c.results.changed.blocked():
            c.patients.value, c.results.value = self._proposed
        self._scan_again()

    def _saved(self, saved: SavedEdits) -> None:
        """Scan again if another patient of the cohort was corrected."""
        known = self._scans[CORRECTED].patients
        is_ours = saved.results.folder.parent == self._controls.results.value
        if is_ours and saved.status.by_hand and saved.name not in known:
            self._scan_again()

    def _scan_again(self) -> None:
        self._scans[CORRECTED].reset()
        if self._controls.source.value == CORRECTED:
            self._start_scan()
