"""Work on many patients in the background: segment them, export their masks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from qtpy.QtWidgets import QMessageBox

from ...core.cohort.patient_job import PatientFailed, PatientProgress, PatientSegmented, PatientSkipped
from ...core.cohort.patient_summary import PatientSummary
from ...core.cohort.status import PatientStatus
from ...core.cohort.store import ResultStore
from ...core.inference.predict import Notice
from ...core.options import SegmentOptions
from ...preferences import preferences
from ..shared.plain_text import literal
from ..shared.worker import Failure, create_worker, unexpected
from . import messages
from .columns import BrowserModel, PatientRow
from .controls import CohortControls
from .jobs import MasksExist, PatientExported, PatientRefreshed, SegmentJob, run_export, run_segment

#: The remaining time is shown once this many patients are done: before, it would be a guess.
_LEAST_DONE = 0.2


@dataclass(frozen=True)
class RunSettings:
    """What a run uses, as it is in the window at the click; what is changed later does not count.

    Attributes
    ----------
    results : ResultStore or None
        Where the results go; None if no cohort is chosen.
    model : Path
        The model file.
    options : SegmentOptions
        Threshold, test-time augmentation and device.
    """

    results: ResultStore | None
    model: Path
    options: SegmentOptions


@dataclass
class CohortRun:
    """State of one run over patients.

    Attributes
    ----------
    verb : str
        What is done to the patients, for instance "segmented".
    patients : dict of Path to str
        The patients' folders and names.
    notice : str
        A remark for the user.
    output : Path
        Where masks are exported to.
    done, corrected, foreign, finished : int
        Numbers of patients that were processed, that were skipped because their labels were corrected, or
        made or changed by another program, and that were finished before.
    failed : dict of str to str
        Messages by patient.
    existing : list of str
        Patients whose masks exist already.
    job : SegmentJob or None
        The input of a worker that segments.
    settings : RunSettings or None
        What an export uses.
    cancelled : bool
        Whether the user has cancelled the run.
    failure : str
        Why the run ended early; empty if it did not.
    started : float
        When the first patient was started, as from :func:`time.monotonic`.
    """

    verb: str = ""
    patients: dict[Path, str] = field(default_factory=dict)
    notice: str = ""
    output: Path = field(default_factory=Path)
    done: int = 0
    corrected: int = 0
    foreign: int = 0
    finished: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    existing: list[str] = field(default_factory=list)
    job: SegmentJob | None = None
    settings: RunSettings | None = None
    cancelled: bool = False
    failure: str = ""
    started: float = field(default_factory=monotonic)


class Runs:
    """Runs over patients, one at a time, and their progress in the window.

    Parameters
    ----------
    controls : CohortControls
        Model and options are read from it, progress is shown in it.
    model : BrowserModel
        The table, which is updated.
    cache_file : Path
        The cache of patients' summaries.
    has_unsaved_corrections : callable
        Takes a row: whether the patient is open with corrections that are not saved yet.
    segmented : callable
        Called with the row of each patient that has a new result.
    changed : callable
        Called when states of patients have changed.
    """

    def __init__(
        self,
        controls: CohortControls,
        model: BrowserModel,
        cache_file: Path,
        has_unsaved_corrections: Callable[[PatientRow], bool],
        segmented: Callable[[PatientRow], None],
        changed: Callable[[], None],
    ) -> None:
        self._controls, self._model, self._cache_file = controls, model, cache_file
        self._has_unsaved_corrections = has_unsaved_corrections
        self._segmented, self._changed = segmented, changed
        self._worker: Any = None
        self._preferred = preferences()
        self._results: ResultStore | None = None
        self._run = CohortRun()

    @property
    def is_running(self) -> bool:
        """Whether patients are being segmented or exported."""
        return self._worker is not None

    def use(self, results: ResultStore) -> None:
        """Read and write these results from now on."""
        self._results = results

    def _set_status(self, text: str) -> None:
        self._controls.run_status.value = text

    # --- segmenting ----------------------------------------------------------------------------

    def settings(self) -> RunSettings:
        """The settings as they are now."""
        preferred = self._preferred
        options = SegmentOptions(
            threshold=preferred.threshold_to_use, tta=self._controls.tta.value, device=preferred.device
        )
        return RunSettings(self._results, self._controls.model.path, options)

    def _can_start(self, settings: RunSettings) -> bool:
        """Whether nothing runs, and the cohort is still that of the click."""
        if self._worker is not None:
            return False
        if settings.results is not self._results:
            self._set_status(messages.OTHER_COHORT)
            return False
        return True

    def segment_all(self, settings: RunSettings) -> None:
        """Segment all patients except those with corrected labels and those that are done."""
        if not self._can_start(settings):
            return
        rows = self._model.rows
        left = [row for row in rows if not self._is_kept(row)]
        foreign = sum(self._is_foreign(row) for row in rows)
        corrected = len(rows) - len(left) - foreign
        if not left:
            self._set_status(messages.nothing_to_do(corrected, foreign, 0))
            return
        self._segment(left, settings, corrected=corrected, foreign=foreign, skip_finished=True)

    def segment_selected(self, names: list[str], settings: RunSettings) -> None:
        """Segment patients, after asking whether corrected labels among them may be replaced."""
        if not self._can_start(settings):
            return
        rows = [row for name in names if (row := self._model.row_of(name)) is not None]
        if not rows:
            self._set_status(messages.NOTHING_SELECTED)
            return
        others = [row for row in rows if not self._is_kept(row)]
        foreign = [row.name for row in rows if self._is_foreign(row)]
        corrected = [row.name for row in rows if self._is_kept(row) and row.name not in foreign]
        if corrected or foreign:
            question = messages.ask_to_replace(corrected, foreign, len(others))
            answer = self._ask(question, with_cancel=bool(others))
            if answer is None:
                return
            if not answer:
                rows, corrected, foreign = others, [], []
        if rows:
            self._segment(rows, settings, replaceable=frozenset([*corrected, *foreign]))

    def _is_kept(self, row: PatientRow) -> bool:
        """Whether a prediction may not replace a patient's labels without permission."""
        return row.status.by_hand or self._has_unsaved_corrections(row)

    def _is_foreign(self, row: PatientRow) -> bool:
        """Whether another program made or changed a patient's labels, and the user has not corrected them."""
        return row.status.state == "foreign" and not self._has_unsaved_corrections(row)

    def _ask(self, question: str, *, with_cancel: bool = True) -> bool | None:
        """True for Yes, False for No, None for Cancel; without Cancel, No returns None."""
        buttons = QMessageBox.StandardButton
        choices = buttons.Yes | buttons.No
        if with_cancel:
            choices |= buttons.Cancel
        parent = self._controls.table.window()
        answer = QMessageBox.question(parent, "Cohort", literal(question), choices, buttons.No)
        if answer == buttons.Yes:
            return True
        return False if answer == buttons.No and with_cancel else None

    def _segment(
        self,
        rows: list[PatientRow],
        settings: RunSettings,
        *,
        corrected: int = 0,
        foreign: int = 0,
        skip_finished: bool = False,
        replaceable: frozenset[str] = frozenset(),
    ) -> None:
        assert settings.results is not None  # there are no rows without results
        patients, failed = _split(rows)
        job = SegmentJob(
            patients,
            settings.results,
            settings.model,
            settings.options,
            skip_finished,
            replaceable,
            self._cache_file,
        )
        self._run = CohortRun(
            "segmented", patients, corrected=corrected, foreign=foreign, failed=failed, job=job
        )
        if not patients:
            self._finished()
            return
        self._set_status(messages.LOADING)
        self._start(run_segment, job)

    # --- exporting -----------------------------------------------------------------------------

    def export(
        self, names: list[str], output: Path, settings: RunSettings, *, overwrite: bool = False
    ) -> None:
        """Write the saved labels of patients as masks into a folder; asks before masks are replaced."""
        if settings.results is None or not self._can_start(settings):
            return
        rows = [row for name in names if (row := self._model.row_of(name)) is not None]
        if not rows:
            self._set_status(messages.NOTHING_SELECTED)
            return
        patients, failed = _split(rows)
        self._run = CohortRun(
            f"exported to {output}", patients, output=output, failed=failed, settings=settings
        )
        if not patients:
            self._finished()
            return
        self._start(run_export, patients, settings.results, output, overwrite=overwrite)

    # --- while it runs -------------------------------------------------------------------------

    def _start(self, work: Any, *args: Any, **kwargs: Any) -> None:
        self._controls.show_running(running=True)
        self._controls.progress.max, self._controls.progress.value = 100 * len(self._run.patients), 0
        connect = {
            "yielded": self._show,
            "returned": self._returned,
            "errored": self._errored,
            "finished": self._finished,
        }
        self._worker = create_worker(work, *args, **kwargs, _connect=connect)

    def cancel(self) -> None:
        """Stop; results of finished patients are kept."""
        if self._worker is not None and not self._run.cancelled:
            self._run.cancelled = True
            self._controls.cancel.text, self._controls.cancel.enabled = "Cancelling...", False
            if self._run.job is not None:
                self._run.job.cancelled.set()  # the worker then waits for a result that is being written
            else:
                self._worker.quit()

    def _show(self, event: Any) -> None:
        """Count an event, and update the table and the progress."""
        run = self._run
        if isinstance(event, Notice):
            run.notice = event.text
            return
        if isinstance(event, MasksExist):
            run.existing.append(event.name)
            return
        name = run.patients.get(getattr(event, "folder", Path()), "")
        if isinstance(event, PatientProgress):
            self._show_progress(name, event.share)
        elif isinstance(event, PatientSegmented):
            run.done += 1
            self._update(name, event.status, event.details)
        elif isinstance(event, PatientRefreshed):
            self._update(name, event.status, event.summary)
        elif isinstance(event, PatientExported):
            run.done += 1
            self._model.update(name, status=event.status)
            self._changed()
        elif isinstance(event, PatientSkipped):
            run.corrected += event.corrected
            run.finished += not event.corrected
        elif isinstance(event, PatientFailed):
            run.failed[name or str(event.folder)] = event.sentence

    def _update(self, name: str, status: PatientStatus, summary: PatientSummary | None) -> None:
        """Show a patient's new result."""
        self._model.update(name, status=status, summary=summary)
        if (row := self._model.row_of(name)) is not None:
            self._segmented(row)
        self._changed()

    def _show_progress(self, name: str, share: float) -> None:
        """Show how far a run is; ``share`` is how much of the current patient is done, from 0 to 1."""
        run = self._run
        number, of = list(run.patients.values()).index(name) + 1, len(run.patients)
        self._controls.progress.value = round(100 * (number - 1 + share))
        elapsed, done = monotonic() - run.started, run.done + share
        left = elapsed / done * (of - number + 1 - share) if done >= _LEAST_DONE else None
        text = messages.progress(number, of, name, share, left)
        self._set_status(f"{run.notice} {text}".strip())

    def _returned(self, result: Any) -> None:
        if isinstance(result, Failure):
            self._run.failure = result.message

    def _errored(self, error: Exception) -> None:
        self._run.failure = unexpected(error)

    def _finished(self) -> None:
        self._worker = None
        self._controls.show_running(running=False)
        run = self._run
        text = run.failure
        if not (text or run.done or run.failed or run.existing or run.cancelled):
            text = messages.nothing_to_do(run.corrected, run.foreign, run.finished)
        elif not text or run.done:
            skipped = messages.skipped(run.corrected, run.foreign, run.finished)
            text += " " + messages.ended(run.verb, run.done, skipped, run.failed, cancelled=run.cancelled)
        self._set_status(f"{text} {run.notice}".strip())
        self._changed()
        if run.existing and not run.cancelled:
            question = messages.ask_to_overwrite(len(run.existing), str(run.output))
            if self._ask(question, with_cancel=False) and run.settings is not None:
                self.export(run.existing, run.output, run.settings, overwrite=True)

    def close(self) -> None:
        """Stop and disconnect; the widget is gone."""
        worker, self._worker = self._worker, None
        if self._run.job is not None:
            self._run.job.cancelled.set()
        if worker is not None:
            for signal in (worker.yielded, worker.returned, worker.errored, worker.finished):
                signal.disconnect()
            worker.quit()


def _split(rows: Iterable[PatientRow]) -> tuple[dict[Path, str], dict[str, str]]:
    """Folder -> name of the patients that can be processed, and name -> reason of those that cannot."""
    rows = list(rows)
    # The folders as a run reports them; links stay.
    patients = {Path(os.path.abspath(row.folder)): row.name for row in rows if not row.unusable}  # noqa: PTH100
    return patients, {row.name: row.unusable for row in rows if row.unusable}
