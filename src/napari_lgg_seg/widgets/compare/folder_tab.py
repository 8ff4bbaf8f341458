"""The tab of the Compare widget for a whole cohort: a folder of predictions against the ground truth."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import Any

from magicgui.widgets import Container, Label, ProgressBar, PushButton
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QFileDialog, QMessageBox, QWidget

from ...core.cohort.sources import Source
from ...core.errors import LggSegError
from ...core.evaluation.compare_folders import FolderEvent, PairCompared, PairsFound, compare_folders
from ...core.evaluation.label_pairs import LabelPair
from ...core.evaluation.patient_metrics import PatientMetrics, measure_cohort, write_table
from ..shared.forms import form, path_edit, wrap
from ..shared.plain_text import literal
from ..shared.scrolling import scroll_into_view
from ..shared.table_model import CohortModel
from ..shared.table_view import CohortTable
from ..shared.worker import Failure, create_worker, returns_failure, unexpected
from . import messages
from .columns import COLUMNS, DICE, ComparedRow

_LABELS_HELP = "a patient's folder or a folder of them, with dataset masks, TIFF or NIfTI labels."
#: Milliseconds after the last keystroke in a folder's name until the button is updated.
_TYPING_DELAY = 300


@returns_failure
def run_folders(
    predictions: Path, truth: Path, images: Path | None
) -> Generator[FolderEvent | None, None, None]:
    """Compare two folders in a worker."""
    yield None
    yield from compare_folders(predictions, truth, images)


class FolderTab:
    """Controls, table and summary of a comparison of two folders.

    Parameters
    ----------
    open_pair : callable
        Called with the :class:`napari_lgg_seg.core.evaluation.label_pairs.LabelPair` of a row that was
        double-clicked.
    save_first : callable
        Takes a function to call once the open patient's labels are saved.
    """

    def __init__(
        self, open_pair: Callable[[LabelPair], None], save_first: Callable[[Callable[[], None]], None]
    ) -> None:
        self._worker: Any = None
        self._found: PairsFound | None = None
        self._failure = ""
        self._proposed = (Path(), Path())
        self._compared: tuple[Path, Path, Path | None] = (Path(), Path(), None)
        self._save_first = save_first
        self.predictions = path_edit("d", "Predictions", f"Predicted labels: {_LABELS_HELP}")
        self.truth = path_edit("d", "Ground truth", f"True labels: {_LABELS_HELP}")
        self.images = path_edit(
            "d", "Images", "The patients' images; leave it empty if they are in the ground truth's folder."
        )
        self.button = PushButton(text="Compare all", tooltip="Compare each patient that is in both folders.")
        self.progress = ProgressBar(min=0, max=0, visible=False)
        self.status = Label(value=messages.NO_FOLDERS)
        self.export = PushButton(
            text="Export CSV...", enabled=False, tooltip="Write the table with all metrics to a file."
        )
        self.patients = CohortModel(COLUMNS)
        self.table = CohortTable(self.patients, visible_columns=6)
        self.table.setToolTip("Double-click a patient to open and compare it.")
        self._column = Container(widgets=[self.button, self.progress, self.status, self.export], labels=False)
        layout = self._column.native.layout()
        layout.insertWidget(0, form(self.predictions, self.truth, self.images))
        layout.insertWidget(4, self.table, 1)
        wrap(self.status, lines=3)
        self._connect(open_pair)

    @property
    def native(self) -> QWidget:
        """The Qt widget."""
        return self._column.native

    def _connect(self, open_pair: Callable[[LabelPair], None]) -> None:
        self.button.clicked.connect(self._clicked)
        self.export.clicked.connect(self.export_csv)
        self.table.patient_requested.connect(lambda name: open_pair(self.patients.row_of(name).compared.pair))
        self._typing_timer = QTimer(self.native, singleShot=True, interval=_TYPING_DELAY)
        self._typing_timer.timeout.connect(self._describe)
        for path in (self.predictions, self.truth, self.images):
            path.changed.connect(lambda _: self._typing_timer.start())
        self._describe()

    @property
    def metrics(self) -> list[PatientMetrics]:
        """Metrics of the patients that could be compared, by name."""
        rows = sorted(self.patients.rows, key=lambda row: row.name)
        return [row.compared.metrics for row in rows if row.compared.metrics is not None]

    # --- choosing folders ----------------------------------------------------------------------

    def _folders(self) -> tuple[Path, Path, Path | None] | None:
        predictions, truth, images = (edit.value for edit in (self.predictions, self.truth, self.images))
        if not predictions.name or not truth.name:
            return None
        return predictions, truth, images if images.name else None

    def _describe(self) -> None:
        if self._worker is None:
            ready = self._folders() is not None
            self.button.enabled = ready
            if self._folders() == self._compared:
                self.show_summary()
            elif self._found is not None:
                self.set_status(messages.other_folders(*self._compared[:2]))
            else:
                self.set_status(messages.COMPARE_ALL if ready else messages.NO_FOLDERS)

    def set_status(self, text: str) -> None:
        """Show a message."""
        self.status.value = text

    def propose(self, dataset: Path, results: Path) -> None:
        """Fill in the folders of the cohort under review, unless the user has chosen others."""
        if (self.predictions.value, self.truth.value) == self._proposed and self._worker is None:
            self._proposed = results, dataset
            self.predictions.value, self.truth.value = self._proposed

    def mark_open(self, source: Source | None) -> None:
        """Show which patient of the table is open, if any."""
        self.patients.mark_open(source.name if source is not None else None)

    # --- running -------------------------------------------------------------------------------

    def _clicked(self) -> None:
        if self._worker is not None:
            self.cancel()
        elif (folders := self._folders()) is not None:
            self._save_first(partial(self._compare, folders))

    def run(self) -> None:
        """Compare the folders, like a click on Compare all."""
        folders = self._folders()
        if folders is None:
            self._describe()
        else:
            self._compare(folders)

    def _compare(self, folders: tuple[Path, Path, Path | None]) -> None:
        if self._worker is not None:
            return
        self._found, self._failure, self._compared = None, "", folders
        self.patients.show_rows([])
        self.table.sort(DICE)
        self.export.enabled = False
        self.button.text, self.button.enabled = "Cancel", True
        self.progress.max, self.progress.value = 0, 0
        self.progress.visible = True
        scroll_into_view(self.button.native)
        self.set_status(messages.FINDING_PATIENTS)
        self._worker = create_worker(
            run_folders,
            *folders,
            _connect={
                "yielded": self._show,
                "returned": self._returned,
                "errored": self._errored,
                "finished": self._finished,
            },
        )

    def cancel(self) -> None:
        """Stop; the patients compared so far stay in the table."""
        if self._worker is not None and self.button.enabled:
            self.button.text, self.button.enabled = "Cancelling...", False
            self._worker.quit()

    def close(self) -> None:
        """Stop and disconnect; the widget is gone."""
        worker, self._worker = self._worker, None
        if worker is not None:
            for signal in (worker.yielded, worker.returned, worker.errored, worker.finished):
                signal.disconnect()
            worker.quit()

    def _show(self, event: FolderEvent | None) -> None:
        if isinstance(event, PairsFound):
            self._found = event
            self.progress.max = len(event.pairs)
        elif isinstance(event, PairCompared):
            self.patients.add(ComparedRow(event))
        if self._found is not None:
            done = len(self.patients.rows)
            self.progress.value = done
            self.set_status(f"{done:,} of {len(self._found.pairs):,} patients compared...")

    def _returned(self, result: Failure | None) -> None:
        if isinstance(result, Failure):
            self._failure = result.message

    def _errored(self, error: Exception) -> None:
        self._failure = f"The comparison failed: {unexpected(error)}"

    def _finished(self) -> None:
        self._worker = None
        self.button.text, self.button.enabled = "Compare all", True
        self.progress.visible = False
        self.export.enabled = bool(self.metrics)
        self._describe()

    def show_summary(self) -> None:
        """Show the metrics of all patients in the table, once there are any."""
        found = self._found
        if self._worker is not None:
            return
        if found is None:
            self.set_status(self._failure or messages.COMPARE_ALL)
        else:
            self.set_status(self._summary(found))

    def _summary(self, found: PairsFound) -> str:
        metrics, done, total = self.metrics, len(self.patients.rows), len(found.pairs)
        incomplete = f"{self._failure or messages.stopped(done, total)} " if done < total else ""
        text = messages.cohort(
            measure_cohort(metrics),
            done - len(metrics),
            found.without_prediction,
            found.without_truth,
            found.problems,
        )
        return f"{incomplete}{text}".strip()

    # --- after the run -------------------------------------------------------------------------

    def export_csv(self) -> None:
        """Ask for a file and write the table there, asking before an existing file is replaced."""
        chosen, _ = QFileDialog.getSaveFileName(
            self.native,
            "Export CSV",
            "comparison.csv",
            "CSV (*.csv)",
            options=QFileDialog.Option.DontConfirmOverwrite,
        )
        if not chosen:
            return
        path = Path(chosen) if Path(chosen).suffix else Path(f"{chosen}.csv")
        if path.exists() and not self._may_replace(path):
            return
        try:
            write_table(path, self.metrics)
        except LggSegError as error:
            self.set_status(str(error))
            return
        text = messages.exported(len(self.metrics), path)
        self.set_status(f"{text} {self._summary(self._found)}" if self._found is not None else text)

    def _may_replace(self, path: Path) -> bool:
        question = f"{path} already exists. Replace it?"
        answer = QMessageBox.question(self.native, "Export CSV", literal(question))
        return bool(answer == QMessageBox.StandardButton.Yes)
