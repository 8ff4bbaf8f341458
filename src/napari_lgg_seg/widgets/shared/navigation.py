"""Which slice of a layer the viewer shows, and how to go to another one."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from napari.components import ViewerModel


def slice_in_view(viewer: ViewerModel, layer: Any) -> int:
    """Index of the slice of a layer in view; 0 for a single slice."""
    if layer.ndim < 3:
        return 0
    position = layer.world_to_data(viewer.dims.point[-layer.ndim :])[0]
    return int(np.clip(round(position), 0, layer.data.shape[0] - 1))


def go_to_slice(viewer: ViewerModel, layer: Any, index: int) -> None:
    """Show a slice of a three-dimensional layer."""
    position = layer.data_to_world((index, 0, 0))[0]
    viewer.dims.set_point(viewer.dims.ndim - layer.ndim, float(position))


def go_to_largest(viewer: ViewerModel, labels: Any) -> None:
    """Show the slice of a labels layer with the largest labelled area, if there is one."""
    if labels.ndim == 3 and labels.data.any():
        areas = np.count_nonzero(labels.data, axis=(1, 2))
        go_to_slice(viewer, labels, int(areas.argmax()))


def batched_update(viewer: ViewerModel) -> AbstractContextManager[None]:
    """A context in which many layers are added and removed.

    Recent versions of napari collect garbage and reorder the scene after each removed layer, which can take
    half a second; here once for all of them.
    """
    batch = getattr(viewer.layers, "batched_update", None)
    result: AbstractContextManager[None] = batch() if batch is not None else nullcontext()
    return result
