"""Notice changes of the two layers of a comparison: painting, undo, new values, another place or name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .pair import LayerPair

if TYPE_CHECKING:
    from napari.components import ViewerModel

_CHANGES = ("paint", "data", "scale", "translate", "rotate", "shear", "affine", "units", "metadata", "name")


class PairObserver:
    """Follows the two layers of a comparison.

    Parameters
    ----------
    viewer : Viewer
        Its slice in view tells an edit from a change of slice.
    changed : callable
        Called with True when a layer has changed, with False when it may have changed.
    """

    def __init__(self, viewer: ViewerModel, changed: Callable[[bool], None]) -> None:
        self._viewer, self._changed = viewer, changed
        self._pair: LayerPair | None = None
        self._view: Any = None

    def follow(self, pair: LayerPair | None) -> None:
        """Follow these layers, or none, instead of those before."""
        if pair == self._pair:
            return
        for layer in self._pair.layers if self._pair is not None else ():
            for name in _CHANGES:
                getattr(layer.events, name).disconnect(self._has_changed)
            layer.events.set_data.disconnect(self._redrawn)
        self._pair, self._view = pair, self._current_view()
        for layer in pair.layers if pair is not None else ():
            for name in _CHANGES:
                getattr(layer.events, name).connect(self._has_changed)
            layer.events.set_data.connect(self._redrawn)

    def _has_changed(self, _: Any = None) -> None:
        self._changed(True)

    def _redrawn(self, _: Any = None) -> None:
        """Undo has no event of its own, but redraws the layer; so does a change of slice."""
        before, self._view = self._view, self._current_view()
        if before == self._view:
            self._changed(False)

    def _current_view(self) -> Any:
        dims = self._viewer.dims
        return tuple(dims.point), tuple(dims.order), dims.ndisplay
