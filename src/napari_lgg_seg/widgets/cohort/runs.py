"""Work on many patients in the background: segment them, export their masks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

from napari.qt.threading import create_worker
from qtpy.QtWidgets import QMessageBox

from ...core.cohort.results import CohortResults
from ...core.cohort.run import (
    PatientLeft,
    PatientStarted,
    PatientUnusable,
    PredictionStored,
    describe_run,
    is_done,
)
from ...core.errors import LggSegError
from ...core.inference.predict import Notice, SlicesDone
from ...core.options import SegmentOptions
from ...preferences import preferences
from ..shared.worker import Failure
from . import messages
from .columns import BrowserModel, PatientRow
from .controls import CohortControls
from .jobs import PatientExists, PatientExported, SegmentJob, run_export, run_segment


class Runs:
    """One run over patients at a time, and what is said of it.

    Parameters
    ----------
    controls : CohortControls
        Of which it takes model and options, and shows progress in the others.
    model : BrowserModel
        The table, which is told what became of the patients.
    cache_file : Path
        Where details of patients are kept.
    is_corrected : callable
        Takes a row: whether the patient is open with corrections that are not kept yet.
    segmented : callable
        Called with the row of each patient that has a new result.
    changed : callable
        Called when something became of patients.
    """

    def __init__(
        self,
        controls: CohortControls,
        model: BrowserModel,
        cache_file: Path,
        is_corrected: Callable[[PatientRow], bool],
        segmented: Callable[[PatientRow], None],
        changed: Callable[[], None],
    ) -> None:
        self._controls, self._model, self._cache_file = controls, model, cache_file
        self._is_corrected, self._segmented, self._changed = is_corrected, segmented, changed
        self._worker: Any = None
        self._preferred = preferences()
        self._results: CohortResults | None = None
        self._begin()

    @property
    def is_running(self) -> bool:
        """Whether patients are being segmented or exported."""
        return self._worker is not None

    def use(self, results: CohortResults) -> None:
        """Take and put results there from now on."""
        self._results = results

    def _set_status(self, text: str) -> None:
        self._controls.run_status.value = text

    # --- segmenting ----------------------------------------------------------------------------

    def segment_all(self) -> None:
        """Segment all patients but those with corrected labels and those that are done."""
        run = self._describe()
        if run is None:
            return
        rows = self._model.rows
        corrected = [row for row in rows if self._has_corrections(row)]
        done = [row for row in rows if is_done(row.status, run) and row not in corrected]
        left = [row for row in rows if row not in corrected and row not in done]
        if not left:
            self._set_status(messages.nothing_to_do(len(corrected), len(done)))
            return
        self._segment(left, run, frozenset(), messages.left_out(len(corrected), len(done)))

    def segment_selected(self, names: list[str]) -> None:
        """Segment patients, after asking whether corrected labels among them may be replaced."""
        run = self._describe()
        if run is None:
            return
        rows = [row for name in names if (row := self._model.row_of(name)) is not None]
        if not rows:
            self._set_status(messages.NOTHING_SELECTED)
            return
        corrected = [row.name for row in rows if self._has_corrections(row)]
        others = [row for row in rows if row.name not in corrected]
        if corrected:
            answer = self._ask(messages.ask_to_replace(corrected, len(others)), or_else=bool(others))
            if answer is None:
                return
            if not answer:
                rows, corrected = others, []
        if rows:
            self._segment(rows, run, frozenset(corrected), "")

    def _has_corrections(self, row: PatientRow) -> bool:
        return row.status.by_hand or self._is_corrected(row)

    def _options(self) -> SegmentOptions:
        preferred = self._preferred
        return SegmentOptions(
            threshold=preferred.threshold_to_use, tta=self._controls.tta.value, device=preferred.device
        )

    def _describe(self) -> dict[str, Any] | None:
        """What a run with the chosen model would be; None if there can be none."""
        if self._worker is not None or self._results is None:
            return None
        try:
            return describe_run(self._controls.model.path, self._options())
        except LggSegError as error:
            self._set_status(str(error))
            return None

    def _ask(self, question: str, *, or_else: bool = True) -> bool | None:
        """Yes, No, or None for neither; without ``or_else`` No means the same as Cancel."""
        buttons = QMessageBox.StandardButton
        choices = buttons.Yes | buttons.No | (buttons.Cancel if or_else else buttons.No)
        parent = self._controls.table.window()
        answer = QMessageBox.question(parent, "Cohort", question, choices, buttons.No)
        if answer == buttons.Yes:
            return True
        return False if answer == buttons.No and or_else else None

    def _segment(
        self, rows: list[PatientRow], run: dict[str, Any], replaceable: frozenset[str], notice: str
    ) -> None:
        assert self._results is not None
        job = SegmentJob(
            tuple(row.folder for row in rows),
            self._results,
            self._controls.model.path,
            self._options(),
            run,
            replaceable,
            self._cache_file,
        )
        self._begin("segmented", len(rows), notice)
        self._set_status("Loading the model...")
        self._start(run_segment, job)

    # --- exporting -----------------------------------------------------------------------------

    def export(self, names: list[str], output: Path, *, overwrite: bool = False) -> None:
        """Write the kept labels of patients as masks into a folder; asks before it replaces masks."""
        if self._worker is not None or self._results is None:
            return
        folders = [row.folder for name in names if (row := self._model.row_of(name)) is not None]
        if not folders:
            self._set_status(messages.NOTHING_SELECTED)
            return
        self._begin(f"exported to {output}", len(folders))
        self._output = output
        self._start(run_export, folders, self._results, output, overwrite=overwrite)

    # --- while it runs -------------------------------------------------------------------------

    def _begin(self, verb: str = "", total: int = 0, notice: str = "") -> None:
        """Count from zero."""
        self._verb, self._total, self._notice = verb, total, notice
        self._done = self._skipped = 0
        self._failed: dict[str, str] = {}
        self._exist: list[str] = []
        self._now: PatientStarted | None = None
        self._cancelled, self._ending = False, ""
        self._output = Path()
        self._started = monotonic()

    def _start(self, work: Any, *args: Any, **kwargs: Any) -> None:
        self._controls.show_running(running=True)
        self._controls.progress.max, self._controls.progress.value = 100 * self._total, 0
        connect = {
            "yielded": self._show,
            "returned": self._returned,
            "errored": self._errored,
            "finished": self._finished,
        }
        self._worker = create_worker(work, *args, **kwargs, _connect=connect)

    def cancel(self) -> None:
        """Stop; patients that are done stay done."""
        if self._worker is not None and not self._cancelled:
            self._cancelled = True
            self._controls.cancel.text, self._controls.cancel.enabled = "Cancelling...", False
            self._worker.quit()

    def _show(self, event: Any) -> None:
        """Count an event, and tell the table and the user."""
        if isinstance(event, PatientStarted):
            if self._now is None:
                self._started = monotonic()
            self._now = event
            self._show_progress(event, 0.0)
        elif isinstance(event, SlicesDone) and self._now is not None:
            self._show_progress(
                self._now, event.done / event.total, f", {event.done} of {event.total} slices"
            )
        elif isinstance(event, Notice):
            self._notice = event.text
        elif isinstance(event, PredictionStored):
            self._done += 1
            self._model.update(event.folder.name, status=event.status, details=event.summary)
            if (row := self._model.row_of(event.folder.name)) is not None:
                self._segmented(row)
            self._changed()
        elif isinstance(event, PatientExported):
            self._done += 1
            self._model.update(event.name, status=event.status)
            self._changed()
        elif isinstance(event, PatientExists):
            self._exist.append(event.name)
        elif isinstance(event, PatientLeft):
            self._skipped += 1
        elif isinstance(event, PatientUnusable):
            self._failed[event.name] = event.sentence

    def _show_progress(self, case: PatientStarted, share: float, slices: str = "") -> None:
        done = case.number - 1 + share
        self._controls.progress.value = round(100 * done)
        left = (monotonic() - self._started) / done * (case.of - done) if done >= 0.2 else None
        text = messages.turn(case.number, case.of, case.name, slices, left)
        self._set_status(f"{self._notice} {text}".strip())

    def _returned(self, result: Any) -> None:
        if isinstance(result, Failure):
            self._ending = result.sentence

    def _errored(self, error: Exception) -> None:
        self._ending = f"{error} ({type(error).__name__})."

    def _finished(self) -> None:
        self._worker = None
        self._controls.show_running(running=False)
        text = self._ending
        if not text or self._done:
            counts = (self._done, self._skipped, self._failed)
            text += " " + messages.ended(self._verb, *counts, cancelled=self._cancelled)
        self._set_status(f"{text} {self._notice}".strip())
        self._changed()
        exist, output = self._exist, self._output
        if exist and not self._cancelled and self._ask_to_overwrite(len(exist), output):
            self.export(exist, output, overwrite=True)

    def _ask_to_overwrite(self, count: int, output: Path) -> bool:
        return bool(self._ask(messages.ask_to_overwrite(count, str(output)), or_else=False))

    def close(self) -> None:
        """Stop, and show nothing more."""
        worker, self._worker = self._worker, None
        if worker is not None:
            for signal in (worker.yielded, worker.returned, worker.errored, worker.finished):
                signal.disconnect()
            worker.quit()
