"""Notice that somebody paints in labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer

if TYPE_CHECKING:
    from napari.components import ViewerModel

#: Undoing has no event of its own, but the layer is drawn anew; so it is when the slice changes.
_EVENTS = ("paint", "data", "set_data")


class Strokes:
    """Calls a function some time after any labels of a viewer have changed.

    Further changes do not put it off, or who never rests would never be heard. It is called after mere
    looking at another slice, too: whether anything was painted is to be seen.

    Parameters
    ----------
    viewer : ViewerModel
        Its layers may come and go.
    act : callable
        Takes nothing.
    delay : int
        Milliseconds.
    """

    def __init__(self, viewer: ViewerModel, act: Callable[[], None], delay: int) -> None:
        self._viewer = viewer
        self._soon: QTimer | None = QTimer(singleShot=True, interval=delay)
        self._soon.timeout.connect(act)
        viewer.layers.events.inserted.connect(self._inserted)
        for layer in viewer.layers:
            self._watch(layer)

    def look_again(self, _: Any = None) -> None:
        """Call the function after the delay, unless it is about to be called."""
        if self._soon is not None and not self._soon.isActive():
            self._soon.start()

    def close(self) -> None:
        """Watch no longer."""
        self._soon = None  # which ends it, unless the program's end has already
        self._viewer.layers.events.inserted.disconnect(self._inserted)
        for layer in self._viewer.layers:
            if _is_labels(layer):
                for name in _EVENTS:
                    getattr(layer.events, name).disconnect(self.look_again)

    def _inserted(self, event: Any) -> None:
        self._watch(event.value)

    def _watch(self, layer: Any) -> None:
        if _is_labels(layer):
            for name in _EVENTS:
                getattr(layer.events, name).connect(self.look_again)


def _is_labels(layer: Any) -> bool:
    return bool(layer._type_string == "labels")
