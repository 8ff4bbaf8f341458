"""Notice that somebody changes the layers of a comparison: paints, undoes, gives other values or sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .pair import Pair

if TYPE_CHECKING:
    from napari.components import ViewerModel

_CHANGES = ("paint", "data", "scale", "units")


class Watch:
    """Follows the two layers of a comparison.

    Parameters
    ----------
    viewer : Viewer
        Whose slice tells a change from a mere look at another slice.
    changed : callable
        Called with True when a layer has changed, with False when it may have.
    """

    def __init__(self, viewer: ViewerModel, changed: Callable[[bool], None]) -> None:
        self._viewer, self._changed = viewer, changed
        self._pair: Pair | None = None
        self._view: Any = None

    def follow(self, pair: Pair | None) -> None:
        """Follow these layers, or none, and no others."""
        if pair == self._pair:
            return
        for layer in self._pair.layers if self._pair is not None else ():
            for name in _CHANGES:
                getattr(layer.events, name).disconnect(self._has_changed)
            layer.events.set_data.disconnect(self._was_drawn)
        self._pair, self._view = pair, self._view_now()
        for layer in pair.layers if pair is not None else ():
            for name in _CHANGES:
                getattr(layer.events, name).connect(self._has_changed)
            layer.events.set_data.connect(self._was_drawn)

    def _has_changed(self, _: Any = None) -> None:
        self._changed(True)

    def _was_drawn(self, _: Any = None) -> None:
        """Undoing has no event of its own: the layer is drawn anew, as it is when the slice changes."""
        before, self._view = self._view, self._view_now()
        if before == self._view:
            self._changed(False)

    def _view_now(self) -> Any:
        dims = self._viewer.dims
        return tuple(dims.point), tuple(dims.order), dims.ndisplay
