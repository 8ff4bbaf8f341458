"""A column of controls that scrolls vertically when the window is too low, and never sideways."""

from __future__ import annotations

from qtpy.QtCore import QPoint, QSize, Qt, QTimer
from qtpy.QtWidgets import QFrame, QScrollArea, QWidget

_PREFERRED_WIDTH = 330


def scroll_into_view(widget: QWidget) -> None:
    """Scroll a widget in a :class:`ScrollingColumn` to the top of the column."""
    above: QWidget | None = widget
    while above is not None and not isinstance(above, ScrollingColumn):
        above = above.parentWidget()
    if above is not None:
        above.scroll_to(widget)


class ScrollingColumn(QScrollArea):
    """As wide as its content needs, including the scroll bar, and as low as it must be.

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
        self._target: QWidget | None = None
        # Delayed until widgets that were just shown or hidden have their final positions.
        self._timer = QTimer(self, singleShot=True, interval=50)
        self._timer.timeout.connect(self._scroll)

    def scroll_to(self, widget: QWidget) -> None:
        """Scroll so that a part of the column is at the top."""
        self._target = widget
        self._timer.start()

    def _scroll(self) -> None:
        content, widget = self.widget(), self._target
        if widget is not None and content.isAncestorOf(widget):
            content.layout().activate()
            self.verticalScrollBar().setValue(widget.mapTo(content, QPoint(0, 0)).y())
        self._target = None

    def minimumSizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """The content's width, which changes as controls are shown and hidden."""
        content = self.widget().minimumSizeHint()
        return QSize(content.width() + self.verticalScrollBar().sizeHint().width(), 200)

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """All of the content, wide enough for most texts."""
        return QSize(max(self.minimumSizeHint().width(), _PREFERRED_WIDTH), self.widget().sizeHint().height())
