"""The cohort browser: a table of a dataset's patients, in which each is opened, segmented and reviewed.

What the table says is :mod:`.browser_rows`' business, the open patient :mod:`.desk`'s, work on many
patients :mod:`.cohort_runs`', and all computing is the core's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicgui.widgets import Container
from napari.qt.threading import create_worker
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QFileDialog

from ...core.cohort.edits import SavedEdits
from ...core.cohort.patient_summary import PatientSummary
from ...core.cohort.results import CohortResults, default_results_folder
from ...core.cohort.sources import CohortSource, Opened, Source
from ...core.cohort.summary_cache import default_cache_file
from ...preferences import dataset_folder
from ..review.review_session import session_of
from ..shared.docking import WhenUndocked, WhenWindowCloses, WindowKeys
from ..shared.messages import counted
from ..shared.table_model import PATIENT
from ..shared.table_view import CohortTable
from ..shared.worker import Failure
from . import messages
from .columns import ALL_STATES, UNCERTAINTY, BrowserModel, PatientRow
from .controls import NEXT_KEYS, PREVIOUS_KEYS, CohortControls
from .jobs import Listing, Looked, look_through
from .resume_banner import ResumeBanner
from .runs import Runs

if TYPE_CHECKING:
    import napari.viewer

#: Milliseconds after the last change of a folder's name until it is looked into.
_TYPING = 400


class CohortBrowser(Container):
    """Dock widget: lists the patients of a dataset, opens one at a time, segments many.

    Parameters
    ----------
    napari_viewer : napari.viewer.Viewer
        Where patients are shown.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__(labels=False)
        self._worker: Any = None
        self._folders: tuple[Path, Path] | None = None
        self._results: CohortResults | None = None
        self._unread = 0
        self._problem = self._wanted = ""
        self._cache_file = default_cache_file()
        self.patients = BrowserModel(self.native)
        self.table = CohortTable(self.patients, wide=UNCERTAINTY + 1, pictures=True)
        self.controls = CohortControls(self.table, self._set_status)
        self.session = session_of(napari_viewer)
        self.session.join(self)
        self.runs = Runs(
            self.controls,
            self.patients,
            self._cache_file,
            lambda row: self.session.is_corrected(self._source(row)),
            self._segmented,
            self._show_overview,
        )
        self.go_on = ResumeBanner(self.open_dataset)
        self._column = self.controls.column()
        self.native.layout().addWidget(self.go_on.row.native)
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
        self._soon = QTimer(self.native, singleShot=True, interval=_TYPING)
        self._soon.timeout.connect(self._folders_chosen)
        c.dataset.changed.connect(self._dataset_typed)
        c.results.changed.connect(self._typed)
        c.text.changed.connect(self._filter)
        c.state.changed.connect(self._filter)
        c.uncertain_first.clicked.connect(self._sort_by_uncertainty)
        c.accept.clicked.connect(self.accept)
        c.segment_all.clicked.connect(lambda: self._keep_first(self.runs.segment_all))
        c.segment_selected.clicked.connect(
            lambda: self._keep_first(lambda: self.runs.segment_selected(self.table.selected()))
        )
        c.export.clicked.connect(self._export)
        c.cancel.clicked.connect(self.runs.cancel)
        self.table.wanted.connect(self.open_patient)
        steps = {PREVIOUS_KEYS: partial(self.step, -1), NEXT_KEYS: partial(self.step, 1)}
        c.previous.clicked.connect(steps[PREVIOUS_KEYS])
        c.following.clicked.connect(steps[NEXT_KEYS])
        WindowKeys(self.native, steps)
        for signal, method in self._heard():
            signal.connect(method)
        self.native.destroyed.connect(self._closed)
        WhenUndocked(self.native, self._undocked)
        WhenWindowCloses(self.native, self._may_close)

    def _heard(self) -> list[tuple[Any, Callable[..., None]]]:
        """What this widget is told by the desk."""
        session = self.session
        return [
            (session.changed, self._show_open),
            (session.kept, self._kept),
            (session.was_read, self._read),
            (session.was_broken, self._broken),
        ]

    # --- which cohort ----------------------------------------------------------------------------

    def open_dataset(self, folder: Path, results: Path | None = None, patient: str = "") -> None:
        """List the patients of a dataset's folder; what choosing it does.

        Parameters
        ----------
        folder : Path
            Holds the patients' folders.
        results : Path, optional
            Where results are, or will be; ``<folder>-results`` by default.
        patient : str, optional
            The folder name of the patient to open.
        """
        self.go_on.dismiss()
        self._wanted = patient
        self._show_folders(folder, results or default_results_folder(folder))
        self._folders_chosen()

    def _dataset_typed(self, folder: Path) -> None:
        with self.controls.results.changed.blocked():
            self.controls.results.value = default_results_folder(folder)
        self._typed()

    def _typed(self, _: Any = None) -> None:
        self.go_on.dismiss()
        self._soon.start()

    def _folders_chosen(self) -> None:
        """Leave the open patient, whose labels are kept where they came from; then look."""
        self._soon.stop()
        chosen = self.controls.dataset.value, self.controls.results.value
        if self._folders is not None and (self.runs.is_running or self.open_name is not None):
            self._show_folders(*self._folders)  # until that one is left
        if self.runs.is_running:
            return
        if self.open_name is not None:
            self.session.leave(self, self._set_status, partial(self._look, *chosen))
        else:
            self._keep_first(partial(self._look, *chosen))

    def _show_folders(self, dataset: Path, results: Path) -> None:
        c = self.controls
        with c.dataset.changed.blocked(), c.results.changed.blocked():
            c.dataset.value, c.results.value = dataset, results

    def _look(self, dataset: Path, folder: Path) -> None:
        """List the patients, then look at their files, in a worker."""
        self._stop_looking()
        self._show_listing(Listing([], {}))
        if not dataset.name:
            return
        self._folders = dataset, folder
        self._show_folders(dataset, folder)
        self._problem = messages.LISTING
        self._show_overview()
        self._results = results = CohortResults(folder)
        self.runs.use(results)
        self.session.choose_cohort(dataset, folder)
        self._worker = create_worker(
            look_through,
            dataset,
            results,
            self._cache_file,
            _connect={"yielded": self._show_looked, "returned": self._looked, "errored": self._look_failed},
        )

    def _stop_looking(self) -> None:
        worker, self._worker = self._worker, None
        self._unread = 0
        if worker is not None:
            for signal in (worker.yielded, worker.returned, worker.errored):
                signal.disconnect()
            worker.quit()

    def _show_looked(self, found: Listing | Looked) -> None:
        if isinstance(found, Listing):
            self._show_listing(found)
            self._unread = len(found.folders)
            wanted, self._wanted = self._wanted, ""
            self.open_patient(wanted)
        else:
            for name, details in found.items():
                row = self.patients.row_of(name)
                if row is not None and row.details is None:  # else somebody has newer ones
                    self.patients.update(name, details=details)
            self._unread -= len(found)
        self._show_overview()

    def _show_listing(self, listing: Listing) -> None:
        self._problem = ""
        self.patients.show_patients(listing.folders, listing.statuses)
        self.table.sort(PATIENT)

    def _looked(self, result: Failure | None) -> None:
        self._stop_looking()
        self._problem = result.sentence if isinstance(result, Failure) else ""
        self._show_overview()

    def _look_failed(self, error: Exception) -> None:
        self._looked(Failure(f"{error} ({type(error).__name__})."))

    # --- what is said ----------------------------------------------------------------------------

    def _set_status(self, text: str) -> None:
        self.controls.status.value = text

    def _filter(self, _: Any = None) -> None:
        state = self.controls.state.value
        fits = None if state == ALL_STATES else (lambda row: row.state == state)
        self.table.order.choose(self.controls.text.value, fits)
        self._show_overview()

    def _sort_by_uncertainty(self) -> None:
        self.table.sort(UNCERTAINTY, descending=True)
        self.table.scrollToTop()

    def _show_overview(self) -> None:
        """Say how many patients there are, and offer what can be done with them."""
        c, rows = self.controls, self.patients.rows
        text = self._problem or (messages.overview(self.patients.counts(), self._unread) if rows else "")
        shown = self.table.order.rowCount()
        if rows and shown < len(rows):
            text += f" {shown:,} shown."
        c.found.value = text or messages.NO_COHORT
        for control in (c.previous, c.following, c.segment_all, c.segment_selected, c.export):
            control.enabled = bool(rows)
        c.uncertain_first.enabled = any(row.uncertainty is not None for row in rows)
        c.accept.enabled = self.open_name is not None

    def _show_open(self) -> None:
        """Mark the open patient, and say what is known of it."""
        name = self.open_name
        self.go_on.is_open(name)
        self.patients.mark_open(name)
        self._show_overview()
        row = self.patients.row_of(name) if name is not None else None
        if row is not None:
            self._set_status(messages.opened(row))

    # --- what the desk tells ---------------------------------------------------------------------

    def _kept(self, kept: SavedEdits) -> None:
        if self._results is not None and kept.results.folder == self._results.folder:
            self.patients.update(kept.name, status=kept.status, details=kept.summary)
            if kept.edits.by_hand and self._folders is not None:
                self.go_on.note(self._folders, kept.name)

    def _read(self, opened: Opened) -> None:
        if self._is_ours(opened.source):
            self.patients.update(opened.source.name, status=opened.status, details=opened.summary)

    def _broken(self, source: Source, sentence: str) -> None:
        if self._is_ours(source):
            self.patients.update(source.name, details=PatientSummary(problem=sentence))

    def _is_ours(self, source: Source) -> bool:
        row = self.patients.row_of(source.name)
        return row is not None and self._source(row).key == source.key

    # --- one patient -----------------------------------------------------------------------------

    def _source(self, row: PatientRow) -> CohortSource:
        assert self._results is not None  # there are no rows without
        return CohortSource(row.folder, self._results, self._cache_file)

    @property
    def open_name(self) -> str | None:
        """The folder name of the patient of this table that is open."""
        return self._name_of(self.session.source)

    def _name_of(self, source: Source | None) -> str | None:
        return source.name if source is not None and self._is_ours(source) else None

    def _keep_first(self, then: Callable[[], None]) -> None:
        """Keep what was done to the open patient, and go on; not if it cannot be kept."""
        self.session.keep_first(self, self._set_status, then)

    def open_patient(self, name: str) -> None:
        """Open a patient in place of the one that is open; what a double click does."""
        row = self.patients.row_of(name)
        if row is not None:
            self.table.show_current(name)
            self.session.open(self._source(row), self, self._set_status)

    def step(self, direction: int) -> None:
        """Open the next patient in the table (1), or the one before (-1); broken ones are passed over."""
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
        """Keep the open patient's labels as they are now, as corrected; what Accept does."""
        name = self.open_name
        if name is None:
            self._set_status(messages.NOTHING_OPEN)
        elif self.session.case is None or self.session.case.labels is None:
            self._set_status(messages.NOTHING_TO_ACCEPT)
        else:
            self.session.accept(self, self._set_status, partial(self._accepted, name))

    def _accepted(self, name: str) -> None:
        corrected = sum(row.status.by_hand for row in self.patients.rows)
        self._set_status(f"{messages.accepted(name)} {messages.to_learn_from(corrected)}")

    def _segmented(self, row: PatientRow) -> None:
        self.session.refresh(self._source(row), self, self._set_status)

    # --- many patients ---------------------------------------------------------------------------

    def _export(self) -> None:
        names = self.table.selected()
        if not names:
            self.controls.run_status.value = messages.NOTHING_SELECTED
            return
        title = f"Export masks of {counted(len(names), 'patient')}: a folder for each is made in"
        folder = QFileDialog.getExistingDirectory(self.native, title)
        if folder:
            self._keep_first(lambda: self.runs.export(names, Path(folder)))

    # --- the end ---------------------------------------------------------------------------------

    def _may_close(self) -> bool:
        """Whether the window may be closed; then nothing is left to go on with."""
        if not self.session.may_close(self.native.window()):
            return False
        self.go_on.forget()
        return True

    def _undocked(self) -> None:
        """Out of its dock the widget is out of sight; the layers stay, and the work in them is kept."""
        self.runs.cancel()
        self.session.put_away(self)
        self.go_on.forget()

    def _closed(self) -> None:
        """The widget is gone: stop all work and forget the viewer."""
        self._stop_looking()
        for signal, method in self._heard():
            signal.disconnect(method)
        self.session.drop(self)
        self.go_on.forget()
        self.runs.close()
        self.controls.model.close()
