"""The view of a cohort: rows to sort, to select, and to open with a double click."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QFontMetrics, QKeySequence
from qtpy.QtWidgets import QHeaderView, QShortcut, QTableView

from .table_model import PATIENT, CohortModel, SortedCohort

_THUMBNAIL = 40  # pixels
_PADDING = 16


class CohortTable(QTableView):
    """A table of patients that can be sorted and filtered.

    Parameters
    ----------
    model : CohortModel
        All patients.
    visible_columns : int
        How many columns should be visible at first.
    thumbnails : bool
        Whether rows are high enough for thumbnails.
    """

    #: Name of the patient to open.
    patient_requested = Signal(str)

    def __init__(self, model: CohortModel, visible_columns: int, *, thumbnails: bool = False) -> None:
        super().__init__()
        self._columns, self._visible_columns = model.columns, visible_columns
        self._thumbnail = _THUMBNAIL if thumbnails else 0
        self.sorted = SortedCohort(model, self)
        self.setModel(self.sorted)
        self.setSelectionBehavior(self.SelectionBehavior.SelectRows)
        self.setSelectionMode(self.SelectionMode.ExtendedSelection)
        self.setEditTriggers(self.EditTrigger.NoEditTriggers)
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.setIconSize(QSize(_THUMBNAIL, _THUMBNAIL))
        self.setHorizontalScrollMode(self.ScrollMode.ScrollPerPixel)
        self._set_up_headers()
        self.sort(PATIENT)
        self.setSortingEnabled(True)
        self.doubleClicked.connect(lambda index: self.patient_requested.emit(self.sorted.name_at(index)))
        for key in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            shortcut = QShortcut(QKeySequence(key), self)
            shortcut.setContext(Qt.ShortcutContext.WidgetShortcut)
            shortcut.activated.connect(self._request_current)

    def _set_up_headers(self) -> None:
        rows, header = self.verticalHeader(), self.horizontalHeader()
        rows.hide()
        rows.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        rows.setDefaultSectionSize(
            self._thumbnail + 4 if self._thumbnail else self.fontMetrics().height() + 8
        )
        header.setSectionsMovable(True)
        header.setHighlightSections(False)
        font = self.font()
        font.setBold(True)  # the font of the open patient
        metrics = QFontMetrics(font)
        for index, column in enumerate(self._columns):
            width = max(
                metrics.horizontalAdvance(text) for text in (*column.title.split("\n"), column.widest)
            )
            header.resizeSection(index, width + _PADDING + self._thumbnail * (index == PATIENT))

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Wide enough for the most important columns."""
        return QSize(sum(map(self.columnWidth, range(self._visible_columns))) + 20, 320)

    def minimumSizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Wide enough for names and the column next to them."""
        return QSize(self.columnWidth(PATIENT) + self.columnWidth(PATIENT + 1), 140)

    # --- order and selection -------------------------------------------------------------------

    def sort(self, column: int, *, descending: bool = False) -> None:
        """Sort by a column, like a click on its title."""
        order = Qt.SortOrder.DescendingOrder if descending else Qt.SortOrder.AscendingOrder
        self.sortByColumn(column, order)

    def selected(self) -> list[str]:
        """Names of the selected patients, in the order shown."""
        names, indices = self.sorted.names(), set[int]()
        for block in self.selectionModel().selection():
            indices.update(range(block.top(), block.bottom() + 1))
        return [names[index] for index in sorted(indices)]

    def select(self, names: list[str]) -> None:
        """Select these patients, as far as they are shown, and no others."""
        self.clearSelection()
        selection = self.selectionModel()
        flags = selection.SelectionFlag.Select | selection.SelectionFlag.Rows
        for index, name in enumerate(self.sorted.names()):
            if name in names:
                selection.select(self.sorted.index(index, 0), flags)

    def show_current(self, name: str) -> None:
        """Make a patient the current one, and scroll to it."""
        index = self.sorted.index_of(name)
        if index.isValid():
            self.setCurrentIndex(index)
            self.scrollTo(index)

    def neighbour(self, name: str | None, step: int, accepts: Callable[[str], bool]) -> str | None:
        """The next patient (step 1) or the previous one (-1) in the order shown.

        Parameters
        ----------
        name : str or None
            Where to start; None for the first, or the last, patient. For a patient that is no longer shown,
            the current row of the view.
        step : int
            1 or -1.
        accepts : callable
            Takes a name; patients that are not accepted are skipped.
        """
        names = self.sorted.names()
        if name in names:
            start = names.index(name) + step
        elif name is None:
            start = 0 if step > 0 else len(names) - 1
        else:  # filtered out: Qt has moved the current row to its neighbour
            start = max(self.currentIndex().row(), 0) - (step < 0)
        if start < 0:
            return None
        ahead = names[start:] if step > 0 else names[: start + 1][::-1]
        return next((other for other in ahead if accepts(other)), None)

    def _request_current(self) -> None:
        index: Any = self.currentIndex()
        if index.isValid():
            self.patient_requested.emit(self.sorted.name_at(index))
