"""The view of a cohort's patients: rows to sort, to choose, and to open with a double click."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QFontMetrics, QKeySequence
from qtpy.QtWidgets import QHeaderView, QShortcut, QTableView

from .table_model import PATIENT, CohortModel, CohortOrder

_PICTURE = 40  # pixels
_PADDING = 16


class CohortTable(QTableView):
    """A sortable, filterable table of patients.

    Parameters
    ----------
    model : CohortModel
        All patients.
    wide : int
        How many columns should be in sight at first.
    pictures : bool
        Whether rows are high enough for a picture.
    """

    #: The name of a patient that somebody wants to see.
    wanted = Signal(str)

    def __init__(self, model: CohortModel, wide: int, *, pictures: bool = False) -> None:
        super().__init__()
        self._columns, self._wide = model.columns, wide
        self._picture = _PICTURE if pictures else 0
        self.order = CohortOrder(model, self)
        self.setModel(self.order)
        self.setSelectionBehavior(self.SelectionBehavior.SelectRows)
        self.setSelectionMode(self.SelectionMode.ExtendedSelection)
        self.setEditTriggers(self.EditTrigger.NoEditTriggers)
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.setIconSize(QSize(_PICTURE, _PICTURE))
        self.setHorizontalScrollMode(self.ScrollMode.ScrollPerPixel)
        self._set_up_headers()
        self.sort(PATIENT)
        self.setSortingEnabled(True)
        self.doubleClicked.connect(lambda index: self.wanted.emit(self.order.name_at(index)))
        for key in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            shortcut = QShortcut(QKeySequence(key), self)
            shortcut.setContext(Qt.ShortcutContext.WidgetShortcut)
            shortcut.activated.connect(self._want_current)

    def _set_up_headers(self) -> None:
        rows, header = self.verticalHeader(), self.horizontalHeader()
        rows.hide()
        rows.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        rows.setDefaultSectionSize(self._picture + 4 if self._picture else self.fontMetrics().height() + 8)
        header.setSectionsMovable(True)
        header.setHighlightSections(False)
        font = self.font()
        font.setBold(True)  # as the open patient is written
        metrics = QFontMetrics(font)
        for place, column in enumerate(self._columns):
            width = max(
                metrics.horizontalAdvance(text) for text in (*column.title.split("\n"), column.widest)
            )
            header.resizeSection(place, width + _PADDING + self._picture * (place == PATIENT))

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Qt's hook: wide enough for what is looked at most."""
        return QSize(sum(map(self.columnWidth, range(self._wide))) + 20, 320)

    def minimumSizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Qt's hook: names and what stands beside them stay in sight."""
        return QSize(self.columnWidth(PATIENT) + self.columnWidth(PATIENT + 1), 140)

    # --- order and choice ----------------------------------------------------------------------

    def sort(self, column: int, *, descending: bool = False) -> None:
        """Sort by a column; what a click on its title does."""
        order = Qt.SortOrder.DescendingOrder if descending else Qt.SortOrder.AscendingOrder
        self.sortByColumn(column, order)

    def selected(self) -> list[str]:
        """Names of the selected patients, in the order in which they are shown."""
        names, places = self.order.names(), set[int]()
        for block in self.selectionModel().selection():
            places.update(range(block.top(), block.bottom() + 1))
        return [names[place] for place in sorted(places)]

    def select(self, names: list[str]) -> None:
        """Select these patients, as far as they are shown, and no others."""
        self.clearSelection()
        selection = self.selectionModel()
        flags = selection.SelectionFlag.Select | selection.SelectionFlag.Rows
        for place, name in enumerate(self.order.names()):
            if name in names:
                selection.select(self.order.index(place, 0), flags)

    def show_current(self, name: str) -> None:
        """Make a patient the current one, and scroll to it."""
        index = self.order.place_of(name)
        if index.isValid():
            self.setCurrentIndex(index)
            self.scrollTo(index)

    def neighbour(self, name: str | None, step: int, fits: Callable[[str], bool]) -> str | None:
        """The next patient (step 1) or the one before (-1), as they are shown now.

        Parameters
        ----------
        name : str or None
            From which to go; None for the first, or the last. One that is no longer shown counts as
            where the view's current row is.
        step : int
            1 or -1.
        fits : callable
            Takes a name; patients that do not fit are passed over.
        """
        names = self.order.names()
        if name in names:
            place = names.index(name) + step
        elif name is None:
            place = 0 if step > 0 else len(names) - 1
        else:  # it was filtered away: Qt has moved the current row to its neighbour
            place = max(self.currentIndex().row(), 0) - (step < 0)
        ahead = names[place:] if step > 0 else names[: place + 1][::-1]
        if place < 0:
            return None
        return next((other for other in ahead if fits(other)), None)

    def _want_current(self) -> None:
        index: Any = self.currentIndex()
        if index.isValid():
            self.wanted.emit(self.order.name_at(index))
