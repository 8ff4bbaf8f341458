"""Notice that somebody paints in labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer

if TYPE_CHECKING:
    from napari.components import ViewerModel

PAINTED = "paint"
#: Undoing has no event of its own, but the layer is drawn anew; so it is when the slice changes.
_EVENTS = (PAINTED, "data", "set_data")


class LabelsWatch:
    """Tells of all that happens to any labels of a viewer, whose layers may come and go.

    Parameters
    ----------
    viewer : ViewerModel
        Its layers may come and go.
    heard : callable
        Takes napari's event: its ``source`` is the layer, its ``type`` :data:`PAINTED` after a stroke.
    """

    def __init__(self, viewer: ViewerModel, heard: Callable[[Any], None]) -> None:
        self._layers, self._heard = viewer.layers, heard
        self._layers.events.inserted.connect(self._inserted)
        for layer in self._layers:
            self._watch(layer)

    def close(self) -> None:
        """Watch no longer."""
        self._layers.events.inserted.disconnect(self._inserted)
        for layer in self._layers:
            if _is_labels(layer):
                for name in _EVENTS:
                    getattr(layer.events, name).disconnect(self._heard)

    def _inserted(self, event: Any) -> None:
        self._watch(event.value)

    def _watch(self, layer: Any) -> None:
        if _is_labels(layer):
            for name in _EVENTS:
                getattr(layer.events, name).connect(self._heard)


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
    delay : callable
        Gives the milliseconds to wait.
    """

    def __init__(self, viewer: ViewerModel, act: Callable[[], None], delay: Callable[[], int]) -> None:
        self._delay = delay
        self._soon: QTimer | None = QTimer(singleShot=True)
        self._soon.timeout.connect(act)
        self._watch = LabelsWatch(viewer, self.look_again)

    def look_again(self, _: Any = None) -> None:
        """Call the function after the delay, unless it is about to be called."""
        if self._soon is not None and not self._soon.isActive():
            self._soon.start(self._delay())

    def close(self) -> None:
        """Watch no longer."""
        self._soon = None  # which ends it, unless the program's end has already
        self._watch.close()


def _is_labels(layer: Any) -> bool:
    return bool(layer._type_string == "labels")


def is_painting(layer: Any) -> bool:
    """Whether a layer, or None, has a tool in hand: one that does more than look."""
    return layer is not None and str(layer.mode) not in ("pan_zoom", "transform")
