"""The table of open patients: which ones to train on, and which labels are their ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QComboBox, QHeaderView, QTableWidget, QTableWidgetItem

from ..shared.plain_text import literal
from ..shared.result_layers import Subject
from .labelled import LabelledPatient

if TYPE_CHECKING:
    from napari.layers import Labels

_NO_LABELS = "(no labels)"
_MOST_ROWS_SHOWN = 5
_LABELS_WIDTH = 130  # pixels: fits "ground truth" and leaves room for a TCGA name


class PatientTable(QTableWidget):
    """One row per patient: a tick, the name, and a menu of labels layers.

    The user's choices for a patient are kept as long as the patient and the layer exist.
    """

    #: Emitted when the user has changed anything.
    changed = Signal()

    def __init__(self) -> None:
        super().__init__(0, 2)
        self.setHorizontalHeaderLabels(["Patient", "Labels"])
        self.verticalHeader().hide()
        self.setSelectionMode(self.SelectionMode.NoSelection)
        self.setEditTriggers(self.EditTrigger.NoEditTriggers)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setShowGrid(False)
        self.setTextElideMode(Qt.TextElideMode.ElideRight)
        self.setToolTip("Tick the patients to train on, and choose the labels that are their ground truth.")
        header = self.horizontalHeader()
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        header.setSectionResizeMode(1, QHeaderView.ResizeMode.Fixed)
        header.resizeSection(1, _LABELS_WIDTH)
        self._rows: list[LabelledPatient] = []
        self._shown: list[tuple[LabelledPatient, list[str]]] | None = None
        self._ticks: dict[Subject, bool] = {}
        self._picked: dict[Subject, Labels | None] = {}
        self.itemChanged.connect(self._item_changed)

    # --- showing -------------------------------------------------------------------------------

    def show_patients(self, rows: Sequence[LabelledPatient]) -> None:
        """Replace all patients."""
        shown = [(row, [layer.name for layer in row.labels]) for row in rows]
        if shown == self._shown:
            return
        self._rows, self._shown = list(rows), shown
        self.blockSignals(True)
        self.setRowCount(0)  # also removes the menus
        self.setRowCount(len(rows))
        for index, row in enumerate(rows):
            self._show(index, row)
        self.blockSignals(False)
        self._fit_height()

    def _show(self, index: int, row: LabelledPatient) -> None:
        labels = self._labels_of(row)
        item = QTableWidgetItem(str(row.subject))
        item.setToolTip(literal("\n".join([str(row.subject), *row.elsewhere])))
        combo = QComboBox()
        combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        combo.setMinimumContentsLength(6)
        combo.addItem(_NO_LABELS)
        for layer in row.labels:  # the patient's name is in the first column
            combo.addItem(layer.name.removeprefix(f"{row.subject} "))
        combo.setCurrentIndex(row.labels.index(labels) + 1 if labels is not None else 0)
        combo.setToolTip(literal(combo.currentText()))
        combo.activated.connect(lambda chosen: self._labels_picked(row, chosen))
        self.setItem(index, 0, item)
        self.setCellWidget(index, 1, combo)
        self._show_tick(index)

    def _show_tick(self, index: int) -> None:
        row, item = self._rows[index], self.item(index, 0)
        usable = self._labels_of(row) is not None
        flags = Qt.ItemFlag.ItemIsUserCheckable | Qt.ItemFlag.ItemIsEnabled
        item.setFlags(flags if usable else Qt.ItemFlag.ItemIsUserCheckable)
        ticked = usable and self._ticks.get(row.subject, True)
        item.setCheckState(Qt.CheckState.Checked if ticked else Qt.CheckState.Unchecked)

    def showEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Fit the height again: the style sheet changes it when the table is first shown."""
        super().showEvent(event)
        self._fit_height()

    def _fit_height(self) -> None:
        rows = min(max(self.rowCount(), 1), _MOST_ROWS_SHOWN)
        height = self.horizontalHeader().sizeHint().height() + 2 * self.frameWidth()
        self.setFixedHeight(height + rows * self.verticalHeader().defaultSectionSize())

    # --- choosing ------------------------------------------------------------------------------

    def chosen(self) -> list[tuple[Subject, Labels]]:
        """The ticked patients with their labels."""
        return [
            (row.subject, labels)
            for index, row in enumerate(self._rows)
            if self.item(index, 0).checkState() == Qt.CheckState.Checked
            and (labels := self._labels_of(row)) is not None
        ]

    def tick(self, patient: Subject | str, ticked: bool = True) -> None:
        """Use a patient, given by name if only one has it, or do not, like a click on its tick."""
        self.item(self._index(patient), 0).setCheckState(
            Qt.CheckState.Checked if ticked else Qt.CheckState.Unchecked
        )

    def pick(self, patient: Subject | str, labels: Labels | None) -> None:
        """Choose a patient's labels, like its menu does; a name will do if only one patient has it."""
        index = self._index(patient)
        row = self._rows[index]
        chosen = 0 if labels is None else row.labels.index(labels) + 1
        self.cellWidget(index, 1).setCurrentIndex(chosen)
        self._labels_picked(row, chosen)

    def _index(self, patient: Subject | str) -> int:
        """The row of a patient; patients from different folders can have the same name."""
        subjects = [row.subject for row in self._rows]
        return (
            list(map(str, subjects)).index(patient) if isinstance(patient, str) else subjects.index(patient)
        )

    def _labels_of(self, row: LabelledPatient) -> Labels | None:
        picked = self._picked.get(row.subject, row.proposed)
        return picked if picked in row.labels else row.proposed if picked is not None else None

    def _labels_picked(self, row: LabelledPatient, chosen: int) -> None:
        self._picked[row.subject] = row.labels[chosen - 1] if chosen else None
        self._ticks.pop(row.subject, None)
        index = self._index(row.subject)
        self.cellWidget(index, 1).setToolTip(literal(self.cellWidget(index, 1).currentText()))
        self.blockSignals(True)
        self._show_tick(index)
        self.blockSignals(False)
        self.changed.emit()

    def _item_changed(self, item: Any) -> None:
        self._ticks[self._rows[item.row()].subject] = item.checkState() == Qt.CheckState.Checked
        self.changed.emit()
