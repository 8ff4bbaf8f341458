"""Where dock widgets are, and what happens to them: closed, napari takes one out and leaves it alive."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from weakref import ref

from qtpy.QtCore import QEvent, QObject, QTimer
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import QApplication, QDockWidget, QMainWindow, QShortcut, QWidget


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


class InWindow(QObject):
    """Follows a widget to the main window in which it is docked.

    Parameters
    ----------
    widget : QWidget
        The docked widget; it owns this object.
    """

    def __init__(self, widget: QWidget) -> None:
        super().__init__(widget)
        self._widget = widget
        # Weak: who holds the widget for longer than the window lives is not to hold that.
        self._window: ref[QWidget] | None = None
        # A widget gets its parents one by one: the window is theirs once all of them are there.
        self._soon = QTimer(self, singleShot=True, interval=0)
        self._soon.timeout.connect(self._follow)
        self._soon.start()
        widget.installEventFilter(self)

    @property
    def window(self) -> QWidget | None:
        """The main window, while the widget is docked in one."""
        return self._window() if self._window is not None else None

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        """Qt's hook: notices that the widget was put somewhere else."""
        if watched is self._widget and event.type() in (QEvent.Type.ParentChange, QEvent.Type.Show):
            if watched.parent() is None:
                self._follow()
            else:
                self._soon.start()
        return False

    def _follow(self) -> None:
        window = self._widget
        while window.parentWidget() is not None:  # past a dock that floats as a window of its own
            window = window.parentWidget()
        found = None if window is self._widget else window
        if found is not self.window:
            self.moved(self.window, found)
            self._window = ref(found) if found is not None else None

    def moved(self, before: QWidget | None, now: QWidget | None) -> None:
        """The widget is in another window, or in none."""


class WhenWindowCloses(InWindow):
    """Asks a function before the main window, in which a widget is docked, is closed.

    Parameters
    ----------
    widget : QWidget
        The docked widget; it owns this object.
    may_close : callable
        Takes nothing; False keeps the window open.
    """

    def __init__(self, widget: QWidget, may_close: Callable[[], bool]) -> None:
        super().__init__(widget)
        self._may_close = may_close

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        """Qt's hook: sees the window's events first."""
        if watched is self.window and event.type() == QEvent.Type.Close and not self._may_close():
            event.ignore()
            return True
        return super().eventFilter(watched, event)

    def moved(self, before: QWidget | None, now: QWidget | None) -> None:
        """Watch the window where the widget is."""
        if before is not None:
            before.removeEventFilter(self)
        if now is not None:
            now.installEventFilter(self)


class WindowKeys(InWindow):
    """Keys that work in the whole window of a docked widget, also while another dock hides that.

    Parameters
    ----------
    widget : QWidget
        The docked widget; it owns this object.
    actions : mapping of str to callable
        By their keys in Qt's words.
    """

    def __init__(self, widget: QWidget, actions: Mapping[str, Callable[[], object]]) -> None:
        super().__init__(widget)
        self._actions = actions
        self._shortcuts: list[QShortcut] = []

    def moved(self, before: QWidget | None, now: QWidget | None) -> None:
        """Bind the keys where the widget is, and no longer where it was."""
        while self._shortcuts:
            self._shortcuts.pop().deleteLater()
        for keys, act in self._actions.items() if now is not None else ():
            shortcut = QShortcut(QKeySequence(keys), now)
            shortcut.activated.connect(act)
            self._shortcuts.append(shortcut)


class Tabbed(InWindow):
    """Docks a widget as a tab beside the others of its kind, where napari would stack them to a tower.

    Only when it comes into a window: what the user makes of it later stays. A tower may have made the window
    higher than the screen: then it gets its size back.

    Parameters
    ----------
    widget : QWidget
        The docked widget, which is docked right after it is made; it owns this object.
    """

    def __init__(self, widget: QWidget) -> None:
        super().__init__(widget)
        windows = [w for w in QApplication.topLevelWidgets() if isinstance(w, QMainWindow)]
        self._sizes = [(ref(window), window.size()) for window in windows]

    def moved(self, before: QWidget | None, now: QWidget | None) -> None:
        """Join another one that is docked there."""
        own = _dock_of(self._widget)
        if own is None or not isinstance(now, QMainWindow) or own.isFloating():
            return
        area = now.dockWidgetArea(own)
        for other in now.findChildren(Tabbed):
            dock = _dock_of(other._widget)
            if dock is None or dock is own or dock.isFloating() or now.dockWidgetArea(dock) != area:
                continue
            if dock not in now.tabifiedDockWidgets(own):
                now.tabifyDockWidget(dock, own)
            own.raise_()
            QTimer.singleShot(0, self._give_size_back)
            return

    def _give_size_back(self) -> None:
        here = self.window
        if here is None or here.isMaximized() or here.isFullScreen():
            return
        for size in [size for known, size in self._sizes if known() is here]:
            here.resize(size)


def _dock_of(widget: QWidget) -> QDockWidget | None:
    """The dock that holds a widget."""
    above: QWidget | None = widget
    while above is not None and not isinstance(above, QDockWidget):
        above = above.parentWidget()
    return above
