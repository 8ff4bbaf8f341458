"""A column of controls that scrolls where the window is too low for it, and never sideways."""

from __future__ import annotations

from qtpy.QtCore import QPoint, QSize, Qt, QTimer
from qtpy.QtWidgets import QFrame, QScrollArea, QWidget

_PREFERRED_WIDTH = 330


def show_from(widget: QWidget) -> None:
    """Let a part of a column, and what is below it, be seen: what matters now."""
    above: QWidget | None = widget
    while above is not None and not isinstance(above, ScrollingColumn):
        above = above.parentWidget()
    if above is not None:
        above.scroll_to(widget)


class ScrollingColumn(QScrollArea):
    """As wide as its content needs, scroll bar included, and as low as it must be.

    Parameters
    ----------
    column : QWidget
        The controls.
    """

    def __init__(self, column: QWidget) -> None:
        super().__init__()
        column.layout().setContentsMargins(0, 0, 0, 0)
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setWidget(column)
        self._wanted: QWidget | None = None
        # In a moment, when what was shown or hidden just now has its place.
        self._soon = QTimer(self, singleShot=True, interval=50)
        self._soon.timeout.connect(self._scroll)

    def scroll_to(self, widget: QWidget) -> None:
        """Scroll so that a part of the column is at the top."""
        self._wanted = widget
        self._soon.start()

    def _scroll(self) -> None:
        content, widget = self.widget(), self._wanted
        if widget is not None and content.isAncestorOf(widget):
            content.layout().activate()
            self.verticalScrollBar().setValue(widget.mapTo(content, QPoint(0, 0)).y())
        self._wanted = None

    def minimumSizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Qt's hook: the content's width, which changes with what is shown."""
        content = self.widget().minimumSizeHint()
        return QSize(content.width() + self.verticalScrollBar().sizeHint().width(), 200)

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Qt's hook: all of the content, and room for most texts."""
        return QSize(max(self.minimumSizeHint().width(), _PREFERRED_WIDTH), self.widget().sizeHint().height())
