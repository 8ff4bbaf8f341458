"""Notice edits of labels layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer

from ...layers import mark_used

if TYPE_CHECKING:
    from napari.components import ViewerModel

PAINTED = "paint"
#: Undo has no event of its own, but redraws the layer ("set_data"); so does a change of slice.
_EVENTS = (PAINTED, "data", "set_data")


class LabelsObserver:
    """Forwards the events of all labels layers of a viewer, and notes which one was edited last.

    Parameters
    ----------
    viewer : ViewerModel
        Its layers may come and go.
    callback : callable
        Takes napari's event: ``source`` is the layer, ``type`` is :data:`PAINTED` after a brush stroke.
    """

    def __init__(self, viewer: ViewerModel, callback: Callable[[Any], None]) -> None:
        self._layers, self._callback = viewer.layers, callback
        self._layers.events.inserted.connect(self._inserted)
        for layer in self._layers:
            self._connect(layer)

    def close(self) -> None:
        """Disconnect."""
        self._layers.events.inserted.disconnect(self._inserted)
        for layer in self._layers:
            if _is_labels(layer):
                for name in _EVENTS:
                    getattr(layer.events, name).disconnect(self._changed)

    def _inserted(self, event: Any) -> None:
        self._connect(event.value)

    def _connect(self, layer: Any) -> None:
        if _is_labels(layer):
            for name in _EVENTS:
                getattr(layer.events, name).connect(self._changed)

    def _changed(self, event: Any) -> None:
        if event.type == PAINTED:
            mark_used(event.source)
        self._callback(event)


class StrokeTimer:
    """Calls a function some time after labels of a viewer may have changed.

    Further changes do not restart the delay, so that continuous painting is noticed as well. A change of
    slice also triggers the call: it is up to the function to see whether labels have changed.

    Parameters
    ----------
    viewer : ViewerModel
        Its layers may come and go.
    callback : callable
        Takes no arguments.
    delay : callable
        Returns the delay in milliseconds.
    """

    def __init__(self, viewer: ViewerModel, callback: Callable[[], None], delay: Callable[[], int]) -> None:
        self._delay = delay
        self._timer: QTimer | None = QTimer(singleShot=True)
        self._timer.timeout.connect(callback)
        self._observer = LabelsObserver(viewer, self.restart)

    def restart(self, _: Any = None) -> None:
        """Call the function after the delay, unless a call is pending."""
        if self._timer is not None and not self._timer.isActive():
            self._timer.start(self._delay())

    def close(self) -> None:
        """Disconnect and cancel a pending call."""
        self._timer = None  # deletes the timer, unless Qt has done so at exit
        self._observer.close()


def _is_labels(layer: Any) -> bool:
    return bool(layer._type_string == "labels")


def is_painting(layer: Any) -> bool:
    """Whether an editing tool is active in a layer (or None)."""
    return layer is not None and str(layer.mode) not in ("pan_zoom", "transform")
