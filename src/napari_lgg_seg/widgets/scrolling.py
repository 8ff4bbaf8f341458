"""A column of controls that scrolls where the window is too low for it, and never sideways."""

from __future__ import annotations

from qtpy.QtCore import QPoint, QSize, Qt, QTimer
from qtpy.QtWidgets import QFrame, QScrollArea, QWidget

_PREFERRED_WIDTH = 330


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

    def show_from(self, widget: QWidget) -> None:
        """Scroll so that a part of the column, and what is below it, can be seen: what matters now."""
        # Only when what was shown or hidden just now has its place.
        QTimer.singleShot(0, self, lambda: self._scroll_to(widget))

    def _scroll_to(self, widget: QWidget) -> None:
        content = self.widget()
        if content.isAncestorOf(widget):
            content.layout().activate()
            self.verticalScrollBar().setValue(widget.mapTo(content, QPoint(0, 0)).y())

    def minimumSizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Qt's hook: the content's width, which changes with what is shown."""
        content = self.widget().minimumSizeHint()
        return QSize(content.width() + self.verticalScrollBar().sizeHint().width(), 200)

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Qt's hook: all of the content, and room for most texts."""
        return QSize(max(self.minimumSizeHint().width(), _PREFERRED_WIDTH), self.widget().sizeHint().height())
