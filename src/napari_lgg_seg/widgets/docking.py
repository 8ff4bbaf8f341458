"""Notice what happens to a dock widget: closed, napari takes it out of its dock and leaves it alive."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import QEvent, QObject
from qtpy.QtWidgets import QWidget


class WhenUndocked(QObject):
    """Calls a function when a widget is taken out of its dock.

    Parameters
    ----------
    widget : QWidget
        The docked widget; it owns this object.
    act : callable
        Takes nothing.
    """

    def __init__(self, widget: QWidget, act: Callable[[], None]) -> None:
        super().__init__(widget)
        self._act = act
        widget.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        """Qt's hook: sees every event of the widget first and lets all of them pass."""
        if event.type() == QEvent.Type.ParentChange and watched.parent() is None:
            self._act()
        return False


class WhenEntered(QObject):
    """Calls a function when the mouse comes into a widget: layers may have been painted in meanwhile.

    Parameters
    ----------
    widget : QWidget
        The widget; it owns this object.
    act : callable
        Takes nothing.
    """

    def __init__(self, widget: QWidget, act: Callable[[], None]) -> None:
        super().__init__(widget)
        self._act = act
        widget.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        """Qt's hook: sees every event of the widget first and lets all of them pass."""
        if event.type() == QEvent.Type.Enter:
            self._act()
        return False
