"""A column of controls that scrolls where the window is too low for it, and never sideways."""

from __future__ import annotations

from qtpy.QtCore import QSize, Qt
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

    def minimumSizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Qt's hook: the content's width, which changes with what is shown."""
        content = self.widget().minimumSizeHint()
        return QSize(content.width() + self.verticalScrollBar().sizeHint().width(), 200)

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Qt's hook: all of the content, and room for most texts."""
        return QSize(max(self.minimumSizeHint().width(), _PREFERRED_WIDTH), self.widget().sizeHint().height())
