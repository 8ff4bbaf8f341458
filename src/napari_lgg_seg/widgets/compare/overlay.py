"""The layer that shows where two others agree: one for each pair, updated in place, one in sight at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ...layers import (
    COMPARISON,
    COMPARISON_KEY,
    METADATA_KEY,
    comparison_properties,
    described,
    is_comparison,
)
from .pair import Pair

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels


class Overlay:
    """Where the pair that was compared last agrees, in three colours.

    While it is in sight the two layers themselves are hidden, since they would lie under it.

    Parameters
    ----------
    viewer : Viewer
        Where it is shown.
    changed : callable
        Called when it comes into sight or goes out of it, whoever did that.
    """

    def __init__(self, viewer: ViewerModel, changed: Callable[[], None]) -> None:
        self._viewer, self._changed = viewer, changed
        self._layer: Labels | None = None
        self._pair: Pair | None = None
        self._hidden: list[Labels] = []
        self._was_shown = False

    @property
    def is_open(self) -> bool:
        """Whether the layer is in the viewer."""
        return self._layer is not None and self._layer in self._viewer.layers

    @property
    def is_shown(self) -> bool:
        """Whether the layer is in sight."""
        return self.is_open and bool(self._layer.visible)  # type: ignore[union-attr]

    def show(self, pair: Pair, labels: npt.NDArray[np.uint8]) -> None:
        """Show a comparison that was asked for, in the pair's layer, made if it is not there."""
        hidden: list[Labels] = []
        if self._pair != pair:
            # What one comparison hides, the next one hides as well: it would lie under that, too.
            hidden, self._hidden = self._hidden, []
            self.switch(shown=False)
            self.forget()
        self._remove_orphans()
        if self._layer is not None:
            self._layer.events.visible.disconnect(self._seen)
        self._pair, self._layer = pair, self._find(pair)
        if self._layer is None:
            self._layer = self._add(pair, labels)
        else:
            self._layer.data = labels
        self._layer.events.visible.connect(self._seen)
        self._layer.visible = True
        self._seen()
        self._hidden += hidden

    def update(self, labels: npt.NDArray[np.uint8]) -> None:
        """Show what has become of the comparison, if its layer is still there; in sight or not."""
        if self.is_open and self._layer.data.shape == labels.shape:  # type: ignore[union-attr]
            self._layer.data = labels  # type: ignore[union-attr]

    def switch(self, *, shown: bool) -> None:
        """Bring the layer into sight, or the two layers that it compares."""
        if self.is_open:
            self._layer.visible = shown  # type: ignore[union-attr]

    def layers_changed(self) -> None:
        """Bring the two layers back into sight if the layer was removed."""
        if self._layer is not None and not self.is_open:
            self.forget()
            self._unhide()
            self._changed()

    def forget(self) -> None:
        """Follow the layer no longer; it stays as it is."""
        if self._layer is not None:
            self._layer.events.visible.disconnect(self._seen)
        self._layer = self._pair = None

    def _seen(self, _: Any = None) -> None:
        """Hide the two layers when this one comes into sight, and show them again when it goes."""
        if self.is_shown == self._was_shown:
            return
        self._was_shown = self.is_shown
        if self._was_shown and self._pair is not None:
            # If neither is visible, an earlier comparison has hidden them.
            self._hidden = [layer for layer in self._pair.layers if layer.visible] or [*self._pair.layers]
            for layer in self._hidden:
                layer.visible = False
        else:
            self._unhide()
        self._changed()

    def _unhide(self) -> None:
        hidden, self._hidden, self._was_shown = self._hidden, [], False
        for layer in hidden:
            layer.visible = True

    def _find(self, pair: Pair) -> Labels | None:
        for layer in list(self._viewer.layers):
            if is_comparison(layer) and layer.metadata[COMPARISON_KEY] == _ids(pair):
                if layer.data.shape == pair.truth.data.shape:
                    return layer
                self._viewer.layers.remove(layer)
        return None

    def _add(self, pair: Pair, labels: npt.NDArray[np.uint8]) -> Labels:
        # Whoever paints in another layer meanwhile goes on painting there.
        active = self._viewer.layers.selection.active
        grid = _grid(pair)
        patient = grid["metadata"].get(METADATA_KEY, {}).get("patient")
        names = pair.prediction.name, pair.truth.name
        layer = self._viewer.add_labels(labels, **grid, **comparison_properties(*names, patient))
        layer.editable = False
        if active is not None and active in self._viewer.layers:
            self._viewer.layers.selection.active = active
        return layer

    def _remove_orphans(self) -> None:
        """Comparisons of layers that are gone make room."""
        present = {str(layer.unique_id) for layer in self._viewer.layers}
        for layer in [layer for layer in self._viewer.layers if is_comparison(layer)]:
            if not set(layer.metadata[COMPARISON_KEY]) <= present:
                self._viewer.layers.remove(layer)


def _ids(pair: Pair) -> list[str]:
    return [str(layer.unique_id) for layer in pair.layers]


def _grid(pair: Pair) -> dict[str, Any]:
    """Place and metadata of the pair's comparison: those of the prediction."""
    like = pair.prediction
    metadata: dict[str, Any] = {COMPARISON_KEY: _ids(pair)}
    info = next((info for layer in pair.layers if (info := described(layer)) is not None), None)
    if info is not None:
        metadata[METADATA_KEY] = {
            key: info[key]
            for key in ("schema", "patient", "slice_numbers", "filled_sequences", "affine", "folder")
        } | {"role": COMPARISON}
    return {
        "scale": like.scale,
        "translate": like.translate,
        "rotate": like.rotate,
        "shear": like.shear,
        "units": like.units,
        "axis_labels": like.axis_labels,
        "metadata": metadata,
    }
