"""Qt models for tables of patients: one for the rows and columns, one for their order and selection.

Nothing here reads files or knows layers; each widget defines its own rows and columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from qtpy.QtCore import QAbstractTableModel, QModelIndex, QSortFilterProxyModel, Qt
from qtpy.QtGui import QFont, QIcon

from .plain_text import literal

_RIGHT = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
#: The column with patients' names and thumbnails.
PATIENT = 0

Key = Any  # what a column is sorted by: text or a number


class Row(Protocol):
    """One patient of a table."""

    #: Sort key of each column, cached because sorting asks for it thousands of times.
    keys: tuple[Key | None, ...]

    @property
    def name(self) -> str:
        """Name, unique in the table."""

    @property
    def problem(self) -> str:
        """Why the patient cannot be used; empty if it can."""

    @property
    def search_text(self) -> str:
        """Text that the filter searches."""

    @property
    def tooltip(self) -> str:
        """Tooltip of the name."""

    @property
    def icon(self) -> QIcon | None:
        """Thumbnail next to the name."""


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes
    ----------
    title, tooltip : str
        Header and its explanation.
    key : callable
        Takes a row and returns its sort key; None if unknown.
    text : callable
        Takes a key and returns the text of the cell.
    widest : str
        The widest text expected, so that thousands of cells need not be measured.
    is_number : bool
        Whether cells are right-aligned.
    nothing, broken : str
        Text for unknown values, and for patients with a problem.
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
        """The text of a cell."""
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
        The owner.
    """

    def __init__(self, columns: Sequence[Column], parent: Any = None) -> None:
        super().__init__(parent)
        self.columns = tuple(columns)
        self.rows: list[Any] = []
        self._indices: dict[str, int] = {}
        self._open: str | None = None
        self._bold, self._italic = QFont(), QFont()
        self._bold.setBold(True)
        self._italic.setItalic(True)

    # --- rows ----------------------------------------------------------------------------------

    def show_rows(self, rows: Sequence[Row]) -> None:
        """Replace all rows."""
        self.beginResetModel()
        self.rows = list(rows)
        for row in self.rows:
            self._cache_keys(row)
        self._indices = {row.name: index for index, row in enumerate(self.rows)}
        self.endResetModel()

    def add(self, row: Row) -> None:
        """Append a row."""
        index = len(self.rows)
        self.beginInsertRows(QModelIndex(), index, index)
        self._cache_keys(row)
        self.rows.append(row)
        self._indices[row.name] = index
        self.endInsertRows()

    def row_of(self, name: str) -> Any:
        """The row of a patient; None if there is none."""
        index = self._indices.get(name)
        return None if index is None else self.rows[index]

    def refresh(self, name: str) -> None:
        """Update the display of a patient whose row has changed."""
        self._cache_keys(self.rows[self._indices[name]])
        self._redraw(name)

    def mark_open(self, name: str | None) -> None:
        """Show which patient is open."""
        before, self._open = self._open, name
        for changed in (before, name):
            self._redraw(changed)

    def _cache_keys(self, row: Row) -> None:
        row.keys = tuple(column.key(row) for column in self.columns)

    def _redraw(self, name: str | None) -> None:
        index = self._indices.get(name) if name is not None else None
        if index is not None:
            self.dataChanged.emit(self.index(index, 0), self.index(index, len(self.columns) - 1))

    # --- Qt's interface ------------------------------------------------------------------------

    def rowCount(self, parent: QModelIndex | None = None) -> int:  # noqa: N802 - Qt's name
        """Number of patients."""
        return 0 if parent is not None and parent.isValid() else len(self.rows)

    def columnCount(self, parent: QModelIndex | None = None) -> int:  # noqa: N802 - Qt's name
        """Number of columns."""
        return 0 if parent is not None and parent.isValid() else len(self.columns)

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Content and appearance of a cell."""
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
            return literal(row.problem or (row.tooltip if index.column() == PATIENT else column.tooltip))
        return None

    def headerData(  # noqa: N802 - Qt's name
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        """Titles and tooltips of the columns."""
        if orientation != Qt.Orientation.Horizontal:
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return self.columns[section].title
        return self.columns[section].tooltip if role == Qt.ItemDataRole.ToolTipRole else None


class SortedCohort(QSortFilterProxyModel):
    """The patients in the order shown, without those filtered out.

    Unknown values are sorted last, in either direction.

    Parameters
    ----------
    model : CohortModel
        All patients.
    parent : QObject, optional
        The owner.
    """

    def __init__(self, model: CohortModel, parent: Any = None) -> None:
        super().__init__(parent)
        self._cohort = model
        self._search_words: list[str] = []
        self._accepts: Callable[[Any], bool] | None = None
        self.setSourceModel(model)
        self.setDynamicSortFilter(True)

    def set_filter(self, text: str, accepts: Callable[[Any], bool] | None = None) -> None:
        """Show only rows that are accepted and contain all words of a text."""
        self._search_words, self._accepts = text.lower().split(), accepts
        self.invalidateFilter()

    def names(self) -> list[str]:
        """Names of the patients shown, in order."""
        rows = self._cohort.rows
        return [rows[self.mapToSource(self.index(i, 0)).row()].name for i in range(self.rowCount())]

    def name_at(self, index: QModelIndex) -> str:
        """The patient of a cell in the view."""
        name: str = self._cohort.rows[self.mapToSource(index).row()].name
        return name

    def index_of(self, name: str) -> QModelIndex:
        """A patient's first cell in the view; not valid if the patient is not shown."""
        return next(
            (self.index(i, 0) for i, shown in enumerate(self.names()) if shown == name), QModelIndex()
        )

    def filterAcceptsRow(self, row: int, parent: QModelIndex) -> bool:  # noqa: N802 - Qt's name
        """Whether a patient is shown."""
        patient = self._cohort.rows[row]
        if self._accepts is not None and not self._accepts(patient):
            return False
        text = patient.search_text.lower()
        return all(word in text for word in self._search_words)

    def lessThan(self, left: QModelIndex, right: QModelIndex) -> bool:  # noqa: N802 - Qt's name
        """Whether a patient comes before another one in ascending order."""
        column, rows = left.column(), self._cohort.rows
        first, second = rows[left.row()].keys[column], rows[right.row()].keys[column]
        if first is None or second is None:
            last = second if self.sortOrder() == Qt.SortOrder.AscendingOrder else first
            return last is None and first is not second
        return bool(first < second)
