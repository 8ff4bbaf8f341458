"""The table of compared patients: one row each, sortable by any figure, the open ones last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableWidget, QTableWidgetItem

from ..core.cases import Case
from ..core.compare_folders import CaseCompared
from ..core.report import PatientFigures
from . import compare_words as words

_NAME_WIDTH, _ROW_HEIGHT = 175, 25  # pixels


@dataclass(frozen=True)
class _Column:
    """One column: its title, the figure's name in a report's row, how it is written, and what it is."""

    title: str
    name: str
    format: str
    help: str

    def text(self, value: Any) -> str:
        return words.NOTHING if value is None else format(value, self.format).replace("-", "\N{MINUS SIGN}")


_COLUMNS = (
    _Column("Dice", "dice", ".3f", "Over the whole volume."),
    _Column("HD95", "hd95", ".1f", "In pixels, with slices one pixel apart."),
    _Column("Volume error", "volume_error", "+.0%", "Predicted less true volume, as a share of the latter."),
    _Column("Missed", "missed_lesions", "d", "Lesions of the truth that no predicted voxel touches."),
    _Column("Invented", "invented_lesions", "d", "Predicted lesions that no true voxel touches."),
    _Column("IoU", "iou", ".3f", "Intersection over union."),
    _Column("Precision", "precision", ".3f", "Share of the predicted voxels that are true."),
    _Column("Recall", "recall", ".3f", "Share of the true voxels that were predicted."),
    _Column("Surface Dice", "surface_dice", ".3f", "Share of both surfaces within 1 pixel of the other."),
    _Column("Voxels", "voxels", ",d", "Predicted volume."),
    _Column("True voxels", "true_voxels", ",d", "True volume."),
    _Column(
        "False alarm", "false_voxels_on_empty_slices", ",d", "Voxels predicted on slices without tumour."
    ),
)


class _Cell(QTableWidgetItem):
    """A text that is sorted by a value; without one it comes last, whichever way is sorted."""

    def __init__(self, text: str, value: Any) -> None:
        super().__init__(text)
        self._value = value
        self.setFlags(Qt.ItemFlag.ItemIsSelectable | Qt.ItemFlag.ItemIsEnabled)
        if not isinstance(value, str):
            self.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)

    def __lt__(self, other: Any) -> bool:
        mine, theirs = self._value, other._value
        if mine is None or theirs is None:
            header = self.tableWidget().horizontalHeader()
            ascending = header.sortIndicatorOrder() == Qt.SortOrder.AscendingOrder
            return (
                (theirs is None and mine is not None) if ascending else (mine is None and theirs is not None)
            )
        return bool(mine < theirs)


class CohortTable(QTableWidget):
    """Figures of patients, worst Dice first until the user sorts otherwise."""

    #: The :class:`napari_lgg_seg.core.cases.Case` of a row that was double-clicked.
    opened = Signal(object)

    def __init__(self) -> None:
        super().__init__(0, len(_COLUMNS) + 1)
        self.setHorizontalHeaderLabels(["Patient", *(column.title for column in _COLUMNS)])
        for place, column in enumerate(_COLUMNS, start=1):
            self.horizontalHeaderItem(place).setToolTip(column.help)
        self.verticalHeader().hide()
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Interactive)
        self.horizontalHeader().setSortIndicator(1, Qt.SortOrder.AscendingOrder)
        self.verticalHeader().setDefaultSectionSize(_ROW_HEIGHT)
        self._fit_columns()
        self.setToolTip("Double-click a patient to open it and to see where its masks agree.")
        self._compared: dict[str, CaseCompared] = {}
        self.cellDoubleClicked.connect(self._double_clicked)

    @property
    def figures(self) -> list[PatientFigures]:
        """Figures of the patients that could be compared, by name."""
        done = sorted(self._compared.items())
        return [compared.figures for _, compared in done if compared.figures is not None]

    @property
    def failed(self) -> list[CaseCompared]:
        """The patients that could not be compared, by name."""
        return [compared for _, compared in sorted(self._compared.items()) if compared.figures is None]

    def start(self) -> None:
        """Forget all patients; rows come in their order until :meth:`end`."""
        self.setSortingEnabled(False)
        self.setRowCount(0)
        self._compared = {}

    def add(self, compared: CaseCompared) -> None:
        """Add a patient's row."""
        name = compared.case.name
        self._compared[name] = compared
        row = self.rowCount()
        self.insertRow(row)
        self.setItem(row, 0, _Cell(name, name))
        figures = compared.figures.as_row() if compared.figures is not None else {}
        for place, column in enumerate(_COLUMNS, start=1):
            value = figures.get(column.name)
            self.setItem(row, place, _Cell(column.text(value), value))
        if compared.problem:
            self.item(row, 1).setText("failed")
        for place in range(self.columnCount()):
            self.item(row, place).setToolTip(compared.problem or name)
        self._fit_columns()

    def end(self) -> None:
        """Sort as the header says."""
        self.setSortingEnabled(True)

    def _fit_columns(self) -> None:
        self.resizeColumnsToContents()
        self.setColumnWidth(0, _NAME_WIDTH)

    def _double_clicked(self, row: int, _: int) -> None:
        case: Case = self._compared[self.item(row, 0).text()].case
        self.opened.emit(case)
