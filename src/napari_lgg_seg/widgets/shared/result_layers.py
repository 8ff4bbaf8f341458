"""The layers of a segmentation: created, found again, updated, and never replaced once edited."""

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

#: Metadata key: checksum of the labels that were last written into the layer.
_WRITTEN = "written"


def show_maps(
    viewer: ViewerModel,
    reference: Layer,
    name: str,
    probability: npt.NDArray[np.float32],
    uncertainty: npt.NDArray[np.float32],
    made_with: dict[str, Any],
) -> Image:
    """Show probability and voxel entropy in a subject's layers, which are created if need be.

    Parameters
    ----------
    viewer : ViewerModel
        Where the layers are.
    reference : Layer
        A layer of the subject; the maps lie on its grid.
    name : str
        The subject.
    probability, uncertainty : ndarray of float32
        Shape of the reference layer, 0 to 1.
    made_with : dict
        Model and options of the run, stored in the probability layer for the labels derived from it.

    Returns
    -------
    Image
        The probability layer.
    """
    _show_map(viewer, reference, name, UNCERTAINTY, uncertainty)
    layer = _show_map(viewer, reference, name, PROBABILITY, probability)
    layer.metadata[METADATA_KEY]["made_with"] = made_with
    return layer


def _show_map(
    viewer: ViewerModel, reference: Layer, name: str, role: str, values: npt.NDArray[np.float32]
) -> Image:
    layer = find_layer(viewer.layers, name, role)
    if layer is None or layer.data.shape != values.shape:
        return viewer.add_image(
            values, **grid_properties(reference, name, role), **map_properties(name, role)
        )
    layer.data = values
    return layer


def show_labels(
    viewer: ViewerModel,
    reference: Layer,
    name: str,
    labels: npt.NDArray[np.generic],
    made_with: dict[str, Any],
) -> Labels:
    """Show labels in a subject's newest result layer, or in a new layer if that one was edited.

    Parameters are those of :func:`show_maps`; ``made_with`` is stored for the headers of exported files.
    """
    layer = find_layer(viewer.layers, name, TUMOUR)
    if layer is None or layer.data.shape != labels.shape or is_edited(layer):
        layer = viewer.add_labels(
            labels, **grid_properties(reference, name, TUMOUR), **tumour_properties(name)
        )
    else:
        _replace(layer, labels)
    layer.metadata[METADATA_KEY] |= {_WRITTEN: checksum(labels), "made_with": made_with}
    return layer


def _replace(layer: Labels, labels: npt.NDArray[np.generic]) -> None:
    """Put labels into a layer, in place if possible.

    For a new array napari rebuilds the layer's shader. Without a graphics card that takes as long as the
    rest of the update, at each step of the threshold slider.
    """
    data = layer.data
    if isinstance(data, np.ndarray) and data.dtype == labels.dtype and data.flags.writeable:
        data[...] = labels
        layer.refresh()
    else:
        layer.data = labels


def is_edited(layer: Labels) -> bool:
    """Whether labels differ from those last written into the layer."""
    return is_by_hand(layer.data, {"metadata": layer.metadata})


def is_by_hand(labels: npt.NDArray[np.generic], meta: dict[str, Any]) -> bool:
    """As :func:`is_edited`, from a layer's data and properties."""
    info = meta.get("metadata", {}).get(METADATA_KEY)
    return not isinstance(info, dict) or info.get(_WRITTEN) != checksum(labels)


def mark_edited(layer: Labels) -> None:
    """Treat labels as edited from now on: they were corrected earlier, or have been accepted."""
    layer.metadata[METADATA_KEY].pop(_WRITTEN, None)


def store_measurements(layer: Labels, measurements: TumourMeasurements) -> None:
    """Store measurements as the layer's features."""
    layer.features = {"index": [1], **measurements.as_columns()}


def set_spacing(
    viewer: ViewerModel, name: str, reference: Layer, spacing: tuple[float, float, float]
) -> None:
    """Give all layers of a subject a voxel size in millimetres along z, y and x."""
    for layer in viewer.layers:
        info = described(layer)
        if layer is reference or (info is not None and info["patient"] == name):
            layer.scale = spacing[-layer.ndim :]
            layer.units = ("mm",) * layer.ndim


def spacing_of(layer: Layer) -> tuple[float, float, float] | None:
    """Voxel size of a layer along z, y and x in millimetres; None if its units are not lengths."""
    return spacing_in_mm(layer.scale, layer.units)


def grid_properties(reference: Layer, name: str, role: str) -> dict[str, Any]:
    """Grid and metadata of a new layer on the grid of one of the subject's layers."""
    info = described(reference)
    if info is None:
        slices = range(1, (reference.data.shape[0] if reference.ndim == 3 else 1) + 1)
        metadata = describe(name, role, slices)
    else:
        metadata = describe(
            name, role, info["slice_numbers"], info["filled_sequences"], info["affine"], info["folder"]
        )
    return {
        "scale": reference.scale,
        "translate": reference.translate,
        "rotate": reference.rotate,
        "shear": reference.shear,
        "units": reference.units,
        "axis_labels": reference.axis_labels,
        "metadata": metadata,
    }
