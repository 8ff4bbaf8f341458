"""The layers of a segmentation: created, found again, updated, and never replaced once edited."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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
    current_layer,
    describe,
    described,
    find_layer,
    full_array,
    full_data,
    layers_with,
    map_properties,
    mark_used,
    subject_of,
    tumour_properties,
)
from ...layers import (
    spacing_of as spacing_of,
)

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels, Layer

#: Metadata keys: checksum of the labels that were last written into the layer, and into which layer.
_WRITTEN, _WRITTEN_TO = "written", "written_to"


@dataclass(frozen=True)
class Subject:
    """A patient whose layers are open, or an image layer of no patient; equal if it is the same one.

    Attributes
    ----------
    id : str
        Identifies it, see :func:`napari_lgg_seg.layers.subject_of`.
    name : str
        Name of the patient or of the layer.
    layer : Image or None
        The layer, if it belongs to no patient.
    """

    id: str
    name: str = field(compare=False)
    layer: Image | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return self.name


def show_maps(
    viewer: ViewerModel,
    reference: Layer,
    subject: Subject,
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
        The maps lie on its grid.
    subject : Subject
        What the layers belong to.
    probability, uncertainty : ndarray of float32
        Shape of the reference layer, 0 to 1.
    made_with : dict
        Model and options of the run, stored in the probability layer for the labels derived from it.

    Returns
    -------
    Image
        The probability layer.
    """
    _show_map(viewer, reference, subject, UNCERTAINTY, uncertainty)
    layer = _show_map(viewer, reference, subject, PROBABILITY, probability)
    describe_further(layer, made_with=made_with)
    return layer


def _show_map(
    viewer: ViewerModel, reference: Layer, subject: Subject, role: str, values: npt.NDArray[np.float32]
) -> Image:
    layer: Image | None = find_layer(viewer.layers, subject.id, role)
    if layer is None or layer.multiscale or layer.data.shape != values.shape:
        layer = viewer.add_image(
            values, **grid_properties(reference, subject, role), **map_properties(subject.name, role)
        )
    else:
        layer.data = values
    mark_used(layer)
    return layer


def show_labels(
    viewer: ViewerModel,
    reference: Layer,
    subject: Subject,
    labels: npt.NDArray[np.generic],
    made_with: dict[str, Any],
) -> Labels:
    """Show labels in a subject's result layer, or in a new layer if that one was edited.

    Parameters are those of :func:`show_maps`; ``made_with`` is stored for the headers of exported files.
    """
    layer = _replaceable(viewer, subject.id, labels.shape)
    if layer is None:
        layer = viewer.add_labels(
            labels, **grid_properties(reference, subject, TUMOUR), **tumour_properties(subject.name)
        )
    else:
        _replace(layer, labels)
    describe_further(
        layer, **{_WRITTEN: checksum(labels), _WRITTEN_TO: str(layer.unique_id)}, made_with=made_with
    )
    mark_used(layer)
    return layer


def _replaceable(viewer: ViewerModel, subject: str, shape: tuple[int, ...]) -> Labels | None:
    """The unedited result to update: the selected one, else that shown last; never another's duplicate."""
    selected = viewer.layers.selection.active
    found = []
    for layer in layers_with(viewer.layers, subject, TUMOUR):
        identity = str(layer.unique_id)
        is_original = (described(layer) or {}).get(_WRITTEN_TO, identity) == identity
        fits = not layer.multiscale and layer.data.shape == shape
        if fits and (is_original or layer == selected) and not is_edited(layer):
            found.append(layer)
    result: Labels | None = current_layer(found, selected)
    return result


def describe_further(layer: Layer, **values: Any) -> None:
    """Change a layer's metadata; duplicates of the layer share the dictionary, so it is replaced."""
    layer.metadata = {**layer.metadata, METADATA_KEY: {**layer.metadata[METADATA_KEY], **values}}


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
    return is_by_hand(full_data(layer), {"metadata": layer.metadata})


def is_by_hand(labels: npt.NDArray[np.generic], meta: dict[str, Any]) -> bool:
    """As :func:`is_edited`, from a layer's data and properties."""
    info = meta.get("metadata", {}).get(METADATA_KEY)
    written = checksum(np.asarray(full_array(labels, meta)))
    return not isinstance(info, dict) or info.get(_WRITTEN) != written


def mark_edited(layer: Labels) -> None:
    """Treat labels as edited from now on: they were corrected earlier, or have been accepted."""
    describe_further(layer, **{_WRITTEN: None})


def store_measurements(layer: Labels, measurements: TumourMeasurements) -> None:
    """Store measurements as the layer's features."""
    layer.features = {"index": [1], **measurements.as_columns()}


def set_spacing(viewer: ViewerModel, subject: Subject, reference: Layer, sizes: Mapping[int, float]) -> None:
    """Give all layers of a subject a voxel size.

    Parameters
    ----------
    viewer : ViewerModel
        Where the layers are.
    subject : Subject
        Whose layers are changed.
    reference : Layer
        One of its sequences.
    sizes : mapping of int to float
        Voxel size in millimetres along some axes, 0 to 2 for z, y and x; other axes keep theirs, if known.
    """
    whole = {**dict(enumerate(spacing_of(reference) or ())), **sizes}
    for layer in viewer.layers:
        if layer != reference and subject_of(layer) != subject.id:
            continue
        is_known = spacing_of(layer) is not None
        if not is_known:
            layer.units = ("mm",) * layer.ndim
        present, scale = spacing_of(layer), np.array(layer.scale, float)
        assert present is not None
        for axis, size in (sizes if is_known else whole).items():
            if axis - 3 >= -layer.ndim:
                scale[axis - 3] *= size / present[axis]
        layer.scale = scale


def grid_properties(reference: Layer, subject: Subject, role: str) -> dict[str, Any]:
    """Grid and metadata of a new layer of a subject on the grid of another layer."""
    info = described(reference)
    if info is None:
        slices = range(1, (full_data(reference).shape[0] if reference.ndim == 3 else 1) + 1)
        metadata = describe(subject.name, role, slices, subject=subject.id)
    else:
        same = ("slice_numbers", "filled_sequences", "affine", "folder", "number_width")
        kept = {key: info[key] for key in same}
        metadata = describe(subject.name, role, **kept, subject=subject.id)
    keys = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")
    return {**{key: getattr(reference, key) for key in keys}, "metadata": metadata}
