"""Result layers of the Segment widget: made, found again, updated, and never replaced once edited."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ...core.cohort.saved_labels import checksum
from ...core.evaluation.measurements import TumourMeasurements
from ...layers import (
    METADATA_KEY,
    PROBABILITY,
    TUMOUR,
    UNCERTAINTY,
    describe,
    described,
    find_layer,
    map_properties,
    spacing_in_mm,
    tumour_properties,
)

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels, Layer

_WRITTEN = "written"


def show_maps(
    viewer: ViewerModel,
    like: Layer,
    name: str,
    probability: npt.NDArray[np.float32],
    uncertainty: npt.NDArray[np.float32],
    made_with: dict[str, Any],
) -> Image:
    """Put probability and voxel entropy into the subject's layers, made if they are not there.

    Returns
    -------
    Image
        The probability's layer; it keeps what made it, for the labels that come from it.
    """
    _show_map(viewer, like, name, UNCERTAINTY, uncertainty)
    layer = _show_map(viewer, like, name, PROBABILITY, probability)
    layer.metadata[METADATA_KEY]["made_with"] = made_with
    return layer


def _show_map(
    viewer: ViewerModel, like: Layer, name: str, role: str, values: npt.NDArray[np.float32]
) -> Image:
    layer = find_layer(viewer.layers, name, role)
    if layer is None or layer.data.shape != values.shape:
        return viewer.add_image(values, **like_layer(like, name, role), **map_properties(name, role))
    layer.data = values
    return layer


def show_labels(
    viewer: ViewerModel, like: Layer, name: str, labels: npt.NDArray[np.generic], made_with: dict[str, Any]
) -> Labels:
    """Put labels into the subject's newest result layer; into a new one if somebody painted in it.

    ``made_with``, the model and options that made them, stays with the layer for the headers of files.
    """
    layer = find_layer(viewer.layers, name, TUMOUR)
    if layer is None or layer.data.shape != labels.shape or is_edited(layer):
        layer = viewer.add_labels(labels, **like_layer(like, name, TUMOUR), **tumour_properties(name))
    else:
        _replace(layer, labels)
    layer.metadata[METADATA_KEY] |= {_WRITTEN: checksum(labels), "made_with": made_with}
    return layer


def _replace(layer: Labels, labels: npt.NDArray[np.generic]) -> None:
    """Put labels into a layer, in place where that is possible.

    For a new array napari makes the layer's shader anew, which without a graphics card takes as long as all
    the rest, and happens at each step of the threshold's slider.
    """
    data = layer.data
    if isinstance(data, np.ndarray) and data.dtype == labels.dtype and data.flags.writeable:
        data[...] = labels
        layer.refresh()
    else:
        layer.data = labels


def is_edited(layer: Labels) -> bool:
    """Whether labels differ from what was written into the layer last."""
    info = described(layer)
    return info is None or info.get(_WRITTEN) != checksum(layer.data)


def mark_edited(layer: Labels) -> None:
    """Let labels count as edited from now on, since somebody corrected them before, or accepted them."""
    layer.metadata[METADATA_KEY].pop(_WRITTEN, None)


def note_measurements(layer: Labels, measurements: TumourMeasurements) -> None:
    """Keep figures of labels as the layer's features."""
    layer.features = {"index": [1], **measurements.as_columns()}


def set_spacing(viewer: ViewerModel, name: str, like: Layer, spacing: tuple[float, float, float]) -> None:
    """Give all layers of a subject a voxel size in millimetres along z, y and x."""
    for layer in viewer.layers:
        info = described(layer)
        if layer is like or (info is not None and info["patient"] == name):
            layer.scale = spacing[-layer.ndim :]
            layer.units = ("mm",) * layer.ndim


def spacing_of(layer: Layer) -> tuple[float, float, float] | None:
    """Voxel size of a layer along z, y and x in millimetres, if its units are lengths."""
    return spacing_in_mm(layer.scale, layer.units)


def like_layer(layer: Layer, name: str, role: str) -> dict[str, Any]:
    """Grid and metadata of a new layer that lies over a layer of the subject."""
    info = described(layer)
    if info is not None:
        slices, filled_sequences, affine, folder = (
            info[k] for k in ("slice_numbers", "filled_sequences", "affine", "folder")
        )
    else:
        slices, filled_sequences, affine, folder = (
            range(1, (layer.data.shape[0] if layer.ndim == 3 else 1) + 1),
            (),
            None,
            None,
        )
    return {
        "scale": layer.scale,
        "translate": layer.translate,
        "rotate": layer.rotate,
        "shear": layer.shear,
        "units": layer.units,
        "axis_labels": layer.axis_labels,
        "metadata": describe(name, role, slices, filled_sequences, affine, folder),
    }
