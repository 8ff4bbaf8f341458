"""Which slice of a layer the viewer shows, and how to go to another one."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.errors import ImageError
from ...layers import described, full_data

if TYPE_CHECKING:
    from napari.components import ViewerModel


def slice_in_view(viewer: ViewerModel, layer: Any) -> int:
    """Index of the slice of a layer in view; 0 for a single slice.

    Raises
    ------
    ImageError
        If the viewer does not show one slice along the layer's first axis.
    """
    if layer.ndim < 3:
        return 0
    if viewer.dims.ndim - layer.ndim in viewer.dims.displayed:
        raise ImageError(
            f"The viewer does not show single slices of {layer.name}; switch to 2D and roll the axes "
            "(Ctrl+E) until the slider goes through its slices."
        )
    return nearest_slice(viewer, layer)


def nearest_slice(viewer: ViewerModel, layer: Any) -> int:
    """Index of a layer's slice at the viewer's current position, whichever axes are displayed."""
    position = layer.world_to_data(viewer.dims.point[-layer.ndim :])[0]
    return int(np.clip(round(position), 0, full_data(layer).shape[0] - 1))


def slice_number(layer: Any, index: int) -> int:
    """Number of a slice as in its file's name, or counted from 1."""
    numbers = (described(layer) or {}).get("slice_numbers", ())
    return int(numbers[index]) if index < len(numbers) else index + 1


def go_to_slice(viewer: ViewerModel, layer: Any, index: int) -> None:
    """Show a slice of a three-dimensional layer."""
    position = layer.data_to_world((index, 0, 0))[0]
    viewer.dims.set_point(viewer.dims.ndim - layer.ndim, float(position))


def next_labelled_slice(viewer: ViewerModel, labels: Any, direction: int) -> int | None:
    """Index of the next (1) or previous (-1) slice with labels, wrapping around; None if there is none."""
    slices = np.flatnonzero(np.asarray(full_data(labels)).any(axis=(1, 2)))
    if not len(slices):
        return None
    here = nearest_slice(viewer, labels)
    ahead = slices[slices > here] if direction > 0 else slices[slices < here][::-1]
    return int(ahead[0] if len(ahead) else slices[0] if direction > 0 else slices[-1])


def go_to_largest(viewer: ViewerModel, labels: Any) -> None:
    """Show the slice of a labels layer with the largest labelled area, if there is one."""
    data = full_data(labels)
    if data.ndim == 3 and data.any():
        areas = np.count_nonzero(data, axis=(1, 2))
        go_to_slice(viewer, labels, int(areas.argmax()))


def list_events(viewer: ViewerModel) -> tuple[Any, ...]:
    """Events after which menus of layers are out of date: layers came, went or were renamed."""
    events = viewer.layers.events
    return events.inserted, events.removed, events.renamed


def batched_update(viewer: ViewerModel) -> AbstractContextManager[None]:
    """A context in which many layers are added and removed.

    Recent versions of napari collect garbage and reorder the scene after each removed layer, which can take
    half a second; here once for all of them.
    """
    batch = getattr(viewer.layers, "batched_update", None)
    result: AbstractContextManager[None] = batch() if batch is not None else nullcontext()
    return result
