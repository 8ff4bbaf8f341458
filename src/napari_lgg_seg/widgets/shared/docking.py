"""How dock widgets follow their window. napari removes a closed widget from its dock but keeps it alive."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from weakref import ref

from qtpy.QtCore import QEvent, QObject, QTimer
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import QApplication, QDockWidget, QMainWindow, QShortcut, QWidget


class _EventCallback(QObject):
    """Calls a function on some of a widget's events. The widget owns this object."""

    def __init__(
        self, widget: QWidget, matches: Callable[[QObject, QEvent], bool], callback: Callable[[], object]
    ) -> None:
        super().__init__(widget)
        self._matches, self._callback = matches, callback
        widget.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        if self._matches(watched, event):
            self._callback()
        return False


def on_undocked(widget: QWidget, callback: Callable[[], object]) -> None:
    """Call a function when a widget is removed from its dock."""

    def undocked(watched: QObject, event: QEvent) -> bool:
        return bool(event.type() == QEvent.Type.ParentChange and watched.parent() is None)

    _EventCallback(widget, undocked, callback)


def on_mouse_enter(widget: QWidget, callback: Callable[[], object]) -> None:
    """Call a function when the mouse enters a widget: layers may have been edited in the meantime."""
    _EventCallback(widget, lambda _, event: bool(event.type() == QEvent.Type.Enter), callback)


class WindowTracker(QObject):
    """Follows a widget to the main window in which it is docked.

    Parameters
    ----------
    widget : QWidget
        The docked widget; it owns this object.
    """

    def __init__(self, widget: QWidget) -> None:
        super().__init__(widget)
        self._widget = widget
        # Weak, so that a widget that outlives its window does not keep the window alive.
        self._window: ref[QWidget] | None = None
        # A widget gets its parents one by one; the window is known once all of them are there.
        self._timer = QTimer(self, singleShot=True, interval=0)
        self._timer.timeout.connect(self._update)
        self._timer.start()
        widget.installEventFilter(self)

    @property
    def window(self) -> QWidget | None:
        """The main window, while the widget is docked in one."""
        return self._window() if self._window is not None else None

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        """Notice that the widget was moved elsewhere."""
        if watched is self._widget and event.type() in (QEvent.Type.ParentChange, QEvent.Type.Show):
            if watched.parent() is None:
                self._update()
            else:
                self._timer.start()
        return False

    def _update(self) -> None:
        window = self._widget
        while window.parentWidget() is not None:  # a floating dock is a window of its own
            window = window.parentWidget()
        found = None if window is self._widget else window
        if found is not self.window:
            self.moved(self.window, found)
            self._window = ref(found) if found is not None else None

    def moved(self, before: QWidget | None, now: QWidget | None) -> None:
        """Called when the widget is in another window, or in none; for subclasses."""


class CloseGuard(WindowTracker):
    """Asks a function before the main window of a docked widget is closed.

    Parameters
    ----------
    widget : QWidget
        The docked widget; it owns this object.
    may_close : callable
        Takes no arguments; the window stays open if it returns False.
    """

    def __init__(self, widget: QWidget, may_close: Callable[[], bool]) -> None:
        super().__init__(widget)
        self._may_close = may_close

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        """Intercept the window's close event."""
        if watched is self.window and event.type() == QEvent.Type.Close and not self._may_close():
            event.ignore()
            return True
        return super().eventFilter(watched, event)

    def moved(self, before: QWidget | None, now: QWidget | None) -> None:
        """Watch the window in which the widget is now."""
        if before is not None:
            before.removeEventFilter(self)
        if now is not None:
            now.installEventFilter(self)


class WindowShortcuts(WindowTracker):
    """Keyboard shortcuts that work in the whole window, even while another dock hides the widget.

    Parameters
    ----------
    widget : QWidget
        The docked widget; it owns this object.
    actions : mapping of str to callable
        Functions by key sequence, in Qt's notation.
    """

    def __init__(self, widget: QWidget, actions: Mapping[str, Callable[[], object]]) -> None:
        super().__init__(widget)
        self._actions = actions
        self._shortcuts: list[QShortcut] = []

    def moved(self, before: QWidget | None, now: QWidget | None) -> None:
        """Bind the keys in the widget's new window only."""
        while self._shortcuts:
            self._shortcuts.pop().deleteLater()
        for keys, action in self._actions.items() if now is not None else ():
            shortcut = QShortcut(QKeySequence(keys), now)
            shortcut.activated.connect(action)
            self._shortcuts.append(shortcut)


class TabbedDock(WindowTracker):
    """Docks a widget as a tab next to others of its kind, where napari would stack them.

    This happens only when the widget enters a window: what the user changes later stays. A stack may have
    made the window higher than the screen, so the window gets its size back.

    Parameters
    ----------
    widget : QWidget
        The docked widget, which is docked right after it is created; it owns this object.
    """

    def __init__(self, widget: QWidget) -> None:
        super().__init__(widget)
        windows = [w for w in QApplication.topLevelWidgets() if isinstance(w, QMainWindow)]
        self._sizes = [(ref(window), window.size()) for window in windows]

    def moved(self, before: QWidget | None, now: QWidget | None) -> None:
        """Join another widget of this kind that is docked in the same area."""
        own = _dock_of(self._widget)
        if own is None or not isinstance(now, QMainWindow) or own.isFloating():
            return
        area = now.dockWidgetArea(own)
        for other in now.findChildren(TabbedDock):
            dock = _dock_of(other._widget)
            if dock is None or dock is own or dock.isFloating() or now.dockWidgetArea(dock) != area:
                continue
            if dock not in now.tabifiedDockWidgets(own):
                now.tabifyDockWidget(dock, own)
            own.raise_()
            QTimer.singleShot(0, self._restore_size)
            return

    def _restore_size(self) -> None:
        here = self.window
        if here is None or here.isMaximized() or here.isFullScreen():
            return
        for size in [size for known, size in self._sizes if known() is here]:
            here.resize(size)


class SingleDock(WindowTracker):
    """Keeps one widget of a kind in a window: a second one is removed, and the first one shown instead.

    napari itself docks a second one after a script has docked the first: it registers the first one by the
    plugin's package name, and the menu looks for the plugin's display name.

    Parameters
    ----------
    widget : QWidget
        The docked widget; it owns this object.
    kind : str
        Widgets of the same kind are docked once in a window.
    viewer : Viewer
        Its window removes the widget.
    """

    def __init__(self, widget: QWidget, kind: str, viewer: Any) -> None:
        super().__init__(widget)
        self._kind, self._viewer = kind, viewer

    def moved(self, before: QWidget | None, now: QWidget | None) -> None:
        """Give way to a widget of this kind that was there before."""
        own = _dock_of(self._widget)
        for other in now.findChildren(SingleDock) if now is not None and own is not None else ():
            first = _dock_of(other._widget)
            if other._kind == self._kind and other.window is now and first is not None and first is not own:
                first.show()
                first.raise_()
                self._viewer.window.remove_dock_widget(self._widget)
                return


def _dock_of(widget: QWidget) -> QDockWidget | None:
    """The dock that holds a widget."""
    above: QWidget | None = widget
    while above is not None and not isinstance(above, QDockWidget):
        above = above.parentWidget()
    return above
