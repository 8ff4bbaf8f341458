"""The cohort browser: a table of a dataset's patients to open, segment and review."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicgui.widgets import Container
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QFileDialog

from ...core.cohort.edits import SavedEdits
from ...core.cohort.patient_summary import PatientSummary
from ...core.cohort.sources import CohortSource, Opened, Source
from ...core.cohort.store import ResultStore, default_results_folder
from ...core.cohort.summary_cache import default_cache_file
from ...core.data.listing import ListedPatients
from ...core.errors import counted
from ...preferences import dataset_folder
from ..review.messages import NOTHING_TO_ACCEPT, accepted, corrected_so_far
from ..review.review_session import session_of
from ..shared.docking import CloseGuard, SingleDock, WindowShortcuts, on_undocked
from ..shared.table_model import PATIENT
from ..shared.table_view import CohortTable
from ..shared.worker import Failure, create_worker, unexpected
from . import messages
from .columns import ALL_STATES, UNCERTAINTY, BrowserModel, PatientRow
from .controls import NEXT_KEYS, PREVIOUS_KEYS, CohortControls
from .jobs import Listing, Summaries, scan_dataset
from .resume_banner import ResumeBanner
from .runs import Runs

if TYPE_CHECKING:
    import napari.viewer

#: Milliseconds after the last keystroke in a folder's name until the folder is read.
_TYPING_DELAY = 400


class CohortBrowser(Container):
    """Dock widget: lists the patients of a dataset, opens one at a time, segments many.

    Parameters
    ----------
    napari_viewer : napari.viewer.Viewer
        Where patients are shown.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__(labels=False)
        self._viewer = napari_viewer
        self._worker: Any = None
        self._folders: tuple[Path, Path] | None = None
        self._results: ResultStore | None = None
        self._unread = 0
        self._problem = self._open_next = ""
        self._cache_file = default_cache_file()
        self.patients = BrowserModel(self.native)
        self.table = CohortTable(self.patients, visible_columns=UNCERTAINTY + 1, thumbnails=True)
        self.controls = CohortControls(self.table, self._set_status)
        self.session = session_of(napari_viewer)
        self.session.register(self)
        self.runs = Runs(
            self.controls,
            self.patients,
            self._cache_file,
            lambda row: self.session.has_unsaved_corrections(self._source(row)),
            self._segmented,
            self._show_overview,
        )
        self.resume_banner = ResumeBanner(self.open_dataset)
        self._column = self.controls.column()
        self.native.layout().addWidget(self.resume_banner.row.native)
        self.native.layout().addWidget(self._column.native)
        self._connect()
        self._show_overview()
        self._set_status(self.controls.model.problem)
        preferred = dataset_folder()
        if preferred:
            self._show_folders(Path(preferred), default_results_folder(Path(preferred)))
            self._folders_chosen()

    def _connect(self) -> None:
        c = self.controls
        self._typing_timer = QTimer(self.native, singleShot=True, interval=_TYPING_DELAY)
        self._typing_timer.timeout.connect(self._folders_chosen)
        c.dataset.changed.connect(self._dataset_typed)
        c.results.changed.connect(self._typed)
        c.text.changed.connect(self._filter)
        c.state.changed.connect(self._filter)
        c.uncertain_first.clicked.connect(self._sort_by_uncertainty)
        c.accept.clicked.connect(self.accept)
        c.segment_all.clicked.connect(self._segment_all)
        c.segment_selected.clicked.connect(self._segment_selected)
        c.export.clicked.connect(self._export)
        c.cancel.clicked.connect(self.runs.cancel)
        self.table.patient_requested.connect(self.open_patient)
        steps = {PREVIOUS_KEYS: partial(self.step, -1), NEXT_KEYS: partial(self.step, 1)}
        c.previous.clicked.connect(steps[PREVIOUS_KEYS])
        c.following.clicked.connect(steps[NEXT_KEYS])
        WindowShortcuts(self.native, steps)
        for signal, method in self._session_signals():
            signal.connect(method)
        self.native.destroyed.connect(self._closed)
        on_undocked(self.native, self._undocked)
        CloseGuard(self.native, self._may_close)
        SingleDock(self.native, "Cohort", self._viewer)

    def _session_signals(self) -> list[tuple[Any, Callable[..., None]]]:
        session = self.session
        return [
            (session.changed, self._show_open),
            (session.saved, self._saved),
            (session.patient_read, self._patient_read),
            (session.read_failed, self._read_failed),
        ]

    # --- choosing a cohort -----------------------------------------------------------------------

    def open_dataset(self, folder: Path, results: Path | None = None, patient: str = "") -> None:
        """List the patients of a dataset, as if its folder were chosen in the window.

        Parameters
        ----------
        folder : Path
            Holds the patients' folders.
        results : Path, optional
            Folder of the results; ``<folder>-results`` by default.
        patient : str, optional
            Name of the patient to open; its folder's name is recognised as well.
        """
        self.resume_banner.dismiss()
        self._open_next = patient
        self._show_folders(folder, results or default_results_folder(folder))
        self._folders_chosen()

    def _dataset_typed(self, folder: Path) -> None:
        with self.controls.results.changed.blocked():
            self.controls.results.value = default_results_folder(folder)
        self._typed()

    def _typed(self, _: Any = None) -> None:
        self.resume_banner.dismiss()
        self._typing_timer.start()

    def _folders_chosen(self) -> None:
        """Close the open patient, whose labels are saved in the old results, then list the new cohort."""
        self._typing_timer.stop()
        chosen = self.controls.dataset.value, self.controls.results.value
        if self._folders is not None and (self.runs.is_running or self.open_name is not None):
            self._show_folders(*self._folders)  # until the patient is closed
        if self.runs.is_running:
            return
        if self.open_name is not None:
            self.session.close_patient(self, self._set_status, partial(self._scan, *chosen))
        else:
            self._save_first(partial(self._scan, *chosen))

    def _show_folders(self, dataset: Path, results: Path) -> None:
        c = self.controls
        with c.dataset.changed.blocked(), c.results.changed.blocked():
            c.dataset.value, c.results.value = dataset, results

    def _scan(self, dataset: Path, folder: Path) -> None:
        """List the patients, then read their files, in a worker."""
        self._stop_scanning()
        self._show_listing(Listing(ListedPatients({}, {}), {}))
        if not dataset.name:
            return
        self._folders = dataset, folder
        self._show_folders(dataset, folder)
        self._problem = messages.LISTING
        self._show_overview()
        self._results = results = ResultStore(folder)
        self.runs.use(results)
        self.session.choose_cohort(dataset, folder)
        self._worker = create_worker(
            scan_dataset,
            dataset,
            results,
            self._cache_file,
            _connect={"yielded": self._show_scanned, "returned": self._scanned, "errored": self._scan_failed},
        )

    def _stop_scanning(self) -> None:
        worker, self._worker = self._worker, None
        self._unread = 0
        if worker is not None:
            for signal in (worker.yielded, worker.returned, worker.errored):
                signal.disconnect()
            worker.quit()

    def _show_scanned(self, found: Listing | Summaries) -> None:
        if isinstance(found, Listing):
            self._show_listing(found)
            self._unread = len(found.statuses)
            patient, self._open_next = self._open_next, ""
            self.open_patient(self._listed_name(patient))
        else:
            for name, summary in found.items():
                row = self.patients.row_of(name)
                if row is not None and row.summary is None:  # otherwise the table has a newer one
                    self.patients.update(name, summary=summary)
            self._unread -= len(found)
        self._show_overview()

    def _show_listing(self, listing: Listing) -> None:
        self._problem = ""
        self.patients.show_patients(listing.patients, listing.statuses)
        self.table.sort(PATIENT)

    def _listed_name(self, name: str) -> str:
        """The name of a patient that may be given by its folder's name, as reviews of version 0.1.0 are."""
        if self.patients.row_of(name) is not None:
            return name
        return next((row.name for row in self.patients.rows if row.folder.name == name), name)

    def _scanned(self, result: Failure | None) -> None:
        self._stop_scanning()
        self._problem = result.message if isinstance(result, Failure) else ""
        self._show_overview()

    def _scan_failed(self, error: Exception) -> None:
        self._scanned(Failure(unexpected(error)))

    # --- showing ---------------------------------------------------------------------------------

    def _set_status(self, text: str) -> None:
        self.controls.status.value = text

    def _filter(self, _: Any = None) -> None:
        state = self.controls.state.value
        accepts = None if state == ALL_STATES else (lambda row: row.state == state)
        self.table.sorted.set_filter(self.controls.text.value, accepts)
        self._show_overview()

    def _sort_by_uncertainty(self) -> None:
        self.table.sort(UNCERTAINTY, descending=True)
        self.table.scrollToTop()

    def _show_overview(self) -> None:
        """Show how many patients there are, and enable the controls that apply to them."""
        c, rows = self.controls, self.patients.rows
        text = self._problem or (messages.overview(self.patients.counts(), self._unread) if rows else "")
        shown = self.table.sorted.rowCount()
        if rows and shown < len(rows):
            text += f" {shown:,} shown."
        c.found.value = text or messages.NO_COHORT
        for control in (c.previous, c.following, c.segment_all, c.segment_selected, c.export):
            control.enabled = bool(rows)
        c.uncertain_first.enabled = any(row.uncertainty is not None for row in rows)
        c.accept.enabled = self.open_name is not None

    def _show_open(self) -> None:
        """Mark the open patient, and show what is known of it."""
        name = self.open_name
        self.resume_banner.patient_opened(name)
        self.patients.mark_open(name)
        self._show_overview()
        row = self.patients.row_of(name) if name is not None else None
        if row is not None:
            self._set_status(messages.opened(row))

    # --- following the review session ------------------------------------------------------------

    def _saved(self, saved: SavedEdits) -> None:
        if self._results is not None and saved.results.folder.parent == self._results.folder:
            self.patients.update(saved.name, status=saved.status, summary=saved.summary)
            if saved.edits.by_hand and self._folders is not None:
                self.resume_banner.note(self._folders, saved.name)

    def _patient_read(self, opened: Opened) -> None:
        if self._is_ours(opened.source):
            self.patients.update(opened.source.name, status=opened.status, summary=opened.summary)

    def _read_failed(self, source: Source, message: str) -> None:
        if self._is_ours(source):
            self.patients.update(source.name, summary=PatientSummary(problem=message))

    def _is_ours(self, source: Source) -> bool:
        row = self.patients.row_of(source.name)
        return row is not None and self._source(row).key == source.key

    # --- one patient -----------------------------------------------------------------------------

    def _source(self, row: PatientRow) -> CohortSource:
        assert self._results is not None  # there are no rows without results
        return CohortSource(row.folder, self._results.patient(row.name), self._cache_file)

    @property
    def open_name(self) -> str | None:
        """The name of the patient of this table that is open."""
        return self._name_of(self.session.source)

    def _name_of(self, source: Source | None) -> str | None:
        return source.name if source is not None and self._is_ours(source) else None

    def _save_first(self, then: Callable[[], None]) -> None:
        """Save the open patient's edits and continue; not if they cannot be saved."""
        self.session.save_first(self, self._set_status, then)

    def open_patient(self, name: str) -> None:
        """Open a patient in place of the current one, like a double click."""
        row = self.patients.row_of(name)
        if row is not None:
            self.table.show_current(name)
            if row.unusable:
                self._set_status(row.unusable)
            else:
                self.session.open(self._source(row), self, self._set_status)

    def step(self, direction: int) -> None:
        """Open the next (1) or previous (-1) patient in the table, skipping those that cannot be read."""
        here = self._name_of(self.session.destination)
        name = self.table.neighbour(here, direction, self._can_be_opened)
        if name is not None:
            self.open_patient(name)
        elif self.patients.rows:
            self._set_status(messages.LAST if direction > 0 else messages.FIRST)

    def _can_be_opened(self, name: str) -> bool:
        row = self.patients.row_of(name)
        return row is not None and not row.problem

    def accept(self) -> None:
        """Save the open patient's current labels as corrected, like a click on Accept."""
        name = self.open_name
        if name is None:
            self._set_status(messages.NOTHING_OPEN)
        elif self.session.patient is None or self.session.patient.labels is None:
            self._set_status(NOTHING_TO_ACCEPT)
        else:
            self.session.accept(self, self._set_status, partial(self._accepted, name))

    def _accepted(self, name: str) -> None:
        corrected = sum(row.status.by_hand for row in self.patients.rows)
        self._set_status(f"{accepted(name)} {corrected_so_far(corrected)}")

    def _segmented(self, row: PatientRow) -> None:
        self.session.refresh(self._source(row), self, self._set_status)

    # --- many patients ---------------------------------------------------------------------------

    def _segment_all(self) -> None:
        settings = self.runs.settings()
        self._save_first(partial(self.runs.segment_all, settings))

    def _segment_selected(self) -> None:
        names, settings = self.table.selected(), self.runs.settings()
        self._save_first(partial(self.runs.segment_selected, names, settings))

    def _export(self) -> None:
        names, settings = self.table.selected(), self.runs.settings()
        if not names:
            self.controls.run_status.value = messages.NOTHING_SELECTED
            return
        title = f"Export masks of {counted(len(names), 'patient')}: choose where to create their folders"
        folder = QFileDialog.getExistingDirectory(self.native, title)
        if folder:
            self._save_first(partial(self.runs.export, names, Path(folder), settings))

    # --- closing ---------------------------------------------------------------------------------

    def _may_close(self) -> bool:
        """Whether the window may be closed; then there is nothing to resume."""
        if not self.session.may_close(self.native.window()):
            return False
        self.resume_banner.forget()
        return True

    def _undocked(self) -> None:
        """Cancel runs and save edits, because the widget is out of sight; the layers stay."""
        self.runs.cancel()
        self.session.suspend(self)
        self.resume_banner.forget()

    def _closed(self) -> None:
        """Stop all work and disconnect from the viewer; the widget is gone."""
        self._stop_scanning()
        for signal, method in self._session_signals():
            signal.disconnect(method)
        self.session.release(self)
        self.resume_banner.forget()
        self.runs.close()
        self.controls.model.close()
