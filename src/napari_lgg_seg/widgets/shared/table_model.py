"""Patients as Qt sees them: a table of any columns, and the order and choice in which it is shown.

Nothing here reads files or knows layers; what the columns say is :mod:`.browser_rows`' business, or
:mod:`.compare_rows`'.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from qtpy.QtCore import QAbstractTableModel, QModelIndex, QSortFilterProxyModel, Qt
from qtpy.QtGui import QFont, QIcon

_RIGHT = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
#: The column with patients' names and pictures.
PATIENT = 0

Key = Any  # whatever a column is sorted by: text or a number


class Row(Protocol):
    """One patient of a table."""

    #: What the row is sorted by in each column, kept since sorting asks for it ten thousand times.
    keys: tuple[Key | None, ...]

    @property
    def name(self) -> str:
        """What no other patient of the table is called."""

    @property
    def problem(self) -> str:
        """Why the patient cannot be used, in a sentence; empty if it can."""

    @property
    def search_text(self) -> str:
        """What a filter looks in."""

    @property
    def tooltip(self) -> str:
        """What is said about the name."""

    @property
    def icon(self) -> QIcon | None:
        """A picture beside the name."""


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes
    ----------
    title, tooltip : str
        What it is called, and what that means.
    key : callable
        By what a row is sorted; None where that is not known.
    text : callable
        What is shown of a key.
    widest : str
        As much as it will ever show, so that it need not be measured by its thousand cells.
    is_number : bool
        Whether it is aligned to the right.
    nothing, broken : str
        What is shown where nothing is known, and of patients with a problem.
    """

    title: str
    tooltip: str
    key: Callable[[Any], Key | None]
    text: Callable[[Key], str] = str
    widest: str = "000,000"
    is_number: bool = True
    nothing: str = ""
    broken: str = ""

    def cell(self, row: Row, key: Key | None) -> str | None:
        """What a cell shows."""
        if key is not None:
            return self.text(key)
        return (self.broken if row.problem else self.nothing) or None


class CohortModel(QAbstractTableModel):
    """A table of patients.

    Parameters
    ----------
    columns : sequence of Column
        The first one holds the names.
    parent : QObject, optional
        With which it goes.
    """

    def __init__(self, columns: Sequence[Column], parent: Any = None) -> None:
        super().__init__(parent)
        self.columns = tuple(columns)
        self.rows: list[Any] = []
        self._places: dict[str, int] = {}
        self._open: str | None = None
        self._bold, self._italic = QFont(), QFont()
        self._bold.setBold(True)
        self._italic.setItalic(True)

    # --- what is in it -------------------------------------------------------------------------

    def show_rows(self, rows: Sequence[Row]) -> None:
        """Hold these patients instead of those before."""
        self.beginResetModel()
        self.rows = list(rows)
        for row in self.rows:
            self._take_keys(row)
        self._places = {row.name: place for place, row in enumerate(self.rows)}
        self.endResetModel()

    def add(self, row: Row) -> None:
        """Hold one more patient."""
        place = len(self.rows)
        self.beginInsertRows(QModelIndex(), place, place)
        self._take_keys(row)
        self.rows.append(row)
        self._places[row.name] = place
        self.endInsertRows()

    def row_of(self, name: str) -> Any:
        """The patient of a name; None if there is none."""
        place = self._places.get(name)
        return None if place is None else self.rows[place]

    def has_changed(self, name: str) -> None:
        """Show a patient anew, of whom something else is known now."""
        self._take_keys(self.rows[self._places[name]])
        self._draw(name)

    def mark_open(self, name: str | None) -> None:
        """Show which patient is open."""
        before, self._open = self._open, name
        for changed in (before, name):
            self._draw(changed)

    def _take_keys(self, row: Row) -> None:
        row.keys = tuple(column.key(row) for column in self.columns)

    def _draw(self, name: str | None) -> None:
        place = self._places.get(name) if name is not None else None
        if place is not None:
            self.dataChanged.emit(self.index(place, 0), self.index(place, len(self.columns) - 1))

    # --- Qt's questions ------------------------------------------------------------------------

    def rowCount(self, parent: QModelIndex | None = None) -> int:  # noqa: N802 - Qt's name
        """Qt's hook: how many patients."""
        return 0 if parent is not None and parent.isValid() else len(self.rows)

    def columnCount(self, parent: QModelIndex | None = None) -> int:  # noqa: N802 - Qt's name
        """Qt's hook: how many columns."""
        return 0 if parent is not None and parent.isValid() else len(self.columns)

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Qt's hook: what a cell shows."""
        row, column = self.rows[index.row()], self.columns[index.column()]
        if role == Qt.ItemDataRole.DisplayRole:
            return column.cell(row, row.keys[index.column()])
        if role == Qt.ItemDataRole.DecorationRole and index.column() == PATIENT:
            return row.icon
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return int(_RIGHT) if column.is_number else None
        if role == Qt.ItemDataRole.FontRole:
            return self._bold if row.name == self._open else self._italic if row.problem else None
        if role == Qt.ItemDataRole.ToolTipRole:
            return row.problem or (row.tooltip if index.column() == PATIENT else column.tooltip)
        return None

    def headerData(  # noqa: N802 - Qt's name
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        """Qt's hook: titles of the columns."""
        if orientation != Qt.Orientation.Horizontal:
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return self.columns[section].title
        return self.columns[section].tooltip if role == Qt.ItemDataRole.ToolTipRole else None


class CohortOrder(QSortFilterProxyModel):
    """The patients that are shown, in the order in which they are.

    What is not known of a patient comes last, whichever way a column is sorted.
    """

    def __init__(self, model: CohortModel, parent: Any = None) -> None:
        super().__init__(parent)
        self._cohort = model
        self._words: list[str] = []
        self._fits: Callable[[Any], bool] | None = None
        self.setSourceModel(model)
        self.setDynamicSortFilter(True)

    def choose(self, text: str, fits: Callable[[Any], bool] | None = None) -> None:
        """Show only rows that fit and hold all words of a text."""
        self._words, self._fits = text.lower().split(), fits
        self.invalidateFilter()

    def names(self) -> list[str]:
        """Names of the patients that are shown, in their order."""
        rows = self._cohort.rows
        return [rows[self.mapToSource(self.index(i, 0)).row()].name for i in range(self.rowCount())]

    def name_at(self, index: QModelIndex) -> str:
        """The patient behind a cell of the view."""
        name: str = self._cohort.rows[self.mapToSource(index).row()].name
        return name

    def place_of(self, name: str) -> QModelIndex:
        """A patient's first cell in the view; not valid if it is not shown."""
        return next(
            (self.index(i, 0) for i, shown in enumerate(self.names()) if shown == name), QModelIndex()
        )

    def filterAcceptsRow(self, row: int, parent: QModelIndex) -> bool:  # noqa: N802 - Qt's name
        """Qt's hook: whether a patient is shown."""
        patient = self._cohort.rows[row]
        if self._fits is not None and not self._fits(patient):
            return False
        text = patient.search_text.lower()
        return all(word in text for word in self._words)

    def lessThan(self, left: QModelIndex, right: QModelIndex) -> bool:  # noqa: N802 - Qt's name
        """Qt's hook: whether one patient comes before another in ascending order."""
        column, rows = left.column(), self._cohort.rows
        first, second = rows[left.row()].keys[column], rows[right.row()].keys[column]
        if first is None or second is None:
            last = second if self.sortOrder() == Qt.SortOrder.AscendingOrder else first
            return last is None and first is not second
        return bool(first < second)
