"""The layer that shows where two others agree: one per pair, updated in place, only one visible at once."""

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
    full_data,
    is_comparison,
)
from .alignment import world_grid
from .pair import LayerPair

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels


class Overlay:
    """Agreement and errors of the pair that was compared last, in three colours.

    While it is visible, the two layers are hidden: they would be drawn below it.

    Parameters
    ----------
    viewer : Viewer
        Where it is shown.
    changed : callable
        Called when it is shown or hidden, by whatever means.
    """

    def __init__(self, viewer: ViewerModel, changed: Callable[[], None]) -> None:
        self._viewer, self._changed = viewer, changed
        self._layer: Labels | None = None
        self._pair: LayerPair | None = None
        self._hidden: list[Labels] = []
        self._was_shown = False
        self._given_name = ""

    @property
    def is_open(self) -> bool:
        """Whether the layer is in the viewer."""
        return self._layer is not None and self._layer in self._viewer.layers

    @property
    def is_shown(self) -> bool:
        """Whether the layer is visible."""
        return self.is_open and bool(self._layer.visible)  # type: ignore[union-attr]

    def show(self, pair: LayerPair, labels: npt.NDArray[np.uint8]) -> None:
        """Show a comparison that was requested, in the pair's layer, which is created if need be."""
        hidden: list[Labels] = []
        if self._pair != pair:
            # Layers that the previous comparison has hidden stay hidden under the new one.
            hidden, self._hidden = self._hidden, []
            self.switch(shown=False)
            self.forget()
        self._remove_orphans()
        if self._layer is not None:
            self._layer.events.visible.disconnect(self._visibility_changed)
        self._pair, self._layer = pair, self._find(pair)
        if self._layer is None:
            self._layer = self._add(pair, labels)
            self._given_name = self._layer.name
        else:
            self._replace(pair, labels)
            self._given_name = _appearance(pair)["name"]
        self._layer.events.visible.connect(self._visibility_changed)
        self._layer.visible = True
        self._visibility_changed()
        self._hidden += hidden

    def update(self, labels: npt.NDArray[np.uint8]) -> None:
        """Update the comparison if its layer still exists, visible or not."""
        if self.is_open and self._pair is not None and self._layer.data.shape == labels.shape:  # type: ignore[union-attr]
            self._replace(self._pair, labels)

    def _replace(self, pair: LayerPair, labels: npt.NDArray[np.uint8]) -> None:
        """Show other labels, where the reference is now."""
        assert self._layer is not None
        if world_grid(self._layer).place != world_grid(pair.truth).place:
            for name, value in _place(pair).items():
                setattr(self._layer, name, value)
        self._layer.data = labels

    def rename(self) -> None:
        """Follow the names of the two layers, unless the user has named the comparison."""
        if self._layer is not None and self._pair is not None and self._layer.name == self._given_name:
            self._layer.name = _appearance(self._pair)["name"]
            self._given_name = self._layer.name

    def switch(self, *, shown: bool) -> None:
        """Show the layer, or the two layers that it compares."""
        if self.is_open:
            self._layer.visible = shown  # type: ignore[union-attr]

    def layers_changed(self) -> None:
        """Show the two layers again if the overlay was removed."""
        if self._layer is not None and not self.is_open:
            self.forget()
            self._unhide()
            self._changed()

    def forget(self) -> None:
        """Stop following the layer; it stays as it is."""
        if self._layer is not None:
            self._layer.events.visible.disconnect(self._visibility_changed)
        self._layer = self._pair = None

    def _visibility_changed(self, _: Any = None) -> None:
        """Hide the two layers while the overlay is visible."""
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

    def _find(self, pair: LayerPair) -> Labels | None:
        for layer in list(self._viewer.layers):
            if is_comparison(layer) and layer.metadata[COMPARISON_KEY] == _ids(pair):
                if layer.data.shape == full_data(pair.truth).shape:
                    return layer
                self._viewer.layers.remove(layer)
        return None

    def _add(self, pair: LayerPair, labels: npt.NDArray[np.uint8]) -> Labels:
        # Adding a layer selects it, which would interrupt painting in another one.
        active = self._viewer.layers.selection.active
        properties = {**_place(pair), "metadata": _metadata(pair), **_appearance(pair)}
        layer = self._viewer.add_labels(labels, **properties)
        layer.editable = False
        if active is not None and active in self._viewer.layers:
            self._viewer.layers.selection.active = active
        return layer

    def _remove_orphans(self) -> None:
        """Remove comparisons of layers that no longer exist."""
        present = {str(layer.unique_id) for layer in self._viewer.layers}
        for layer in [layer for layer in self._viewer.layers if is_comparison(layer)]:
            if not set(layer.metadata[COMPARISON_KEY]) <= present:
                self._viewer.layers.remove(layer)


def _ids(pair: LayerPair) -> list[str]:
    return [str(layer.unique_id) for layer in pair.layers]


def _appearance(pair: LayerPair) -> dict[str, Any]:
    """Name and appearance of a comparison."""
    patient = _metadata(pair).get(METADATA_KEY, {}).get("patient")
    return comparison_properties(pair.prediction.name, pair.truth.name, patient)


def _place(pair: LayerPair) -> dict[str, Any]:
    """Where a comparison is: where its reference is."""
    reference = pair.truth
    names = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")
    return {name: getattr(reference, name) for name in names}


def _metadata(pair: LayerPair) -> dict[str, Any]:
    """Metadata of a comparison: those of the reference, or else of the prediction."""
    metadata: dict[str, Any] = {COMPARISON_KEY: _ids(pair)}
    info = described(pair.truth) or described(pair.prediction)
    if info is not None:
        metadata[METADATA_KEY] = {
            key: info.get(key)
            for key in ("schema", "patient", "slice_numbers", "filled_sequences", "affine", "folder")
        } | {"role": COMPARISON}
    return metadata
