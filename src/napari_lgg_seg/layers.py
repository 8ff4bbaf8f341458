"""Patients as napari layers. Layers are recognised by their metadata, never by their names.

Layers belong together if they have the same subject. Two patients of one name, or one patient opened twice,
are different subjects, and so is each image of no patient.

Every layer of a patient carries ``metadata["lgg"]``:

=================  =====================================================================================
schema             1
subject            identifies the open patient; for results of an image of no patient, its ``unique_id``
patient            the patient's name
role               "pre-contrast", "FLAIR", "post-contrast", "truth", "tumour", "probability",
                   "uncertainty", "preview" or "comparison"
slice_numbers      the number in the file name of each slice
filled_sequences   missing sequences that FLAIR stands in for ("copies" in version 0.1.0)
affine             4 x 4, voxel (x, y, z) to patient millimetres, or None
folder             the folder of the patient's files, or None
=================  =====================================================================================

A comparison of two labels layers also carries ``metadata["lgg comparison"]``: the ``unique_id`` of both
layers as text. The layers need not belong to a patient.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt

from .core.atomic import safe_name
from .core.data import layer_metadata
from .core.data.label_files import LabelMap
from .core.data.patients import SEQUENCES, Patient
from .core.evaluation.compare import AGREED, FALSE_NEGATIVE, FALSE_POSITIVE
from .placement import nifti_affine, voxel_size, world_matrix
from .preferences import COLOURS, colour

if TYPE_CHECKING:
    from napari.layers import Labels, Layer
    from napari.viewer import Viewer

LayerData = tuple[Any, dict[str, Any], str]

METADATA_KEY, COMPARISON_KEY = "lgg", "lgg comparison"
METADATA_SCHEMA = 1
TRUTH, TUMOUR, PROBABILITY, UNCERTAINTY = "truth", "tumour", "probability", "uncertainty"
PREVIEW, COMPARISON = "preview", "comparison"
#: Roles whose layers have another name than the role; roles are stored in files, names are not.
_LAYER_NAMES = {TRUTH: "ground truth"}
AXES = ("z", "y", "x")

_YELLOW = COLOURS["yellow"]
#: The default colours of prediction and ground truth; other labels must not be mistaken for them.
_RESERVED = (COLOURS["vermilion"], COLOURS["sky blue"])


# --- how layers look ---------------------------------------------------------------------------


def label_colours(first: str) -> dict[int | None, str]:
    """Colours of a labels layer: ``first`` for label 1, distinct colours for further labels."""
    colours: dict[int | None, str] = {0: "transparent", 1: first, None: "#ffffff"}
    others = (_YELLOW, *(other for other in COLOURS.values() if other != _YELLOW))
    colours.update(enumerate([other for other in others if other not in (first, *_RESERVED)], start=2))
    return colours


def comparison_colours() -> dict[int | None, str]:
    """Colours of a comparison: voxels in one mask only have the colour of that mask."""
    false_negative, false_positive = colour("truth_colour"), colour("tumour_colour")
    others = (_YELLOW, *(other for other in COLOURS.values() if other not in _RESERVED))
    agreed = next(other for other in others if other not in (false_negative, false_positive))
    return {AGREED: agreed, FALSE_NEGATIVE: false_negative, FALSE_POSITIVE: false_positive}


def layer_name(role: str, patient: str | None = None) -> str:
    """Name of the layer with a role, preceded by the patient's name if one is given."""
    name = _LAYER_NAMES.get(role, role)
    return name if patient is None else f"{patient} {name}"


def contrast_limits(volume: npt.NDArray[np.generic]) -> tuple[float, float]:
    """Display range of a (z, y, x) volume: from 0, or its minimum, to the 99.8th percentile."""
    sparse = np.asarray(volume[:, ::2, ::2], np.float64)
    low, high = float(sparse.min()), float(np.percentile(sparse, 99.8))
    low = min(low, 0.0)
    return low, high if high > low else low + 1.0


def outline(layer: Labels) -> None:
    """Show labels as an outline, so that what lies below stays visible."""
    if layer.contour == 0:
        layer.contour, layer.opacity = 1, 1.0


def truth_properties() -> dict[str, Any]:
    """Appearance of a ground truth layer."""
    return {"colormap": label_colours(colour("truth_colour")), "opacity": 0.5}


def tumour_properties(patient: str) -> dict[str, Any]:
    """Name and appearance of a predicted labels layer."""
    return {
        "name": layer_name(TUMOUR, patient),
        "colormap": label_colours(colour("tumour_colour")),
        "opacity": 0.5,
    }


def preview_properties(patient: str) -> dict[str, Any]:
    """Name and appearance of the labels that a model in training predicts."""
    return {"name": layer_name(PREVIEW, patient), "colormap": label_colours(_YELLOW), "opacity": 0.5}


def comparison_properties(prediction: str, truth: str, patient: str | None = None) -> dict[str, Any]:
    """Name and appearance of the comparison of two layers; the patient is named only once."""
    if patient is not None and prediction.startswith(f"{patient} "):
        truth = truth.removeprefix(f"{patient} ")
    colours: dict[int | None, str] = {0: "transparent", None: "#ffffff"}
    colours.update(comparison_colours())
    return {"name": f"{prediction} vs {truth}", "colormap": colours, "opacity": 0.7}


def map_properties(patient: str, role: str) -> dict[str, Any]:
    """Name and appearance of a probability or uncertainty layer, with values from 0 to 1."""
    return {
        "name": layer_name(role, patient),
        "colormap": "magma" if role == PROBABILITY else "inferno",
        "contrast_limits": (0.0, 1.0),
        "blending": "additive",
        "visible": False,
    }


# --- patients as layers ------------------------------------------------------------------------


def layers_of(patients: Sequence[Patient], already_open: Sequence[str]) -> list[LayerData]:
    """Layer data of patients; every patient but the first in a viewer has its name as a prefix."""
    result: list[LayerData] = []
    for patient in patients:
        result += patient_layers(patient, prefix=bool(already_open) or bool(result))
    return result


def patient_layers(patient: Patient, *, prefix: bool, subject: str | None = None) -> list[LayerData]:
    """Layers of a patient on one grid, axes (z, y, x).

    Parameters
    ----------
    patient : Patient
        As read from disk.
    prefix : bool
        Put the patient's name before the layers' names.
    subject : str, optional
        Identifies the patient among all that are open; a new one by default.

    Returns
    -------
    list of tuple
        napari layer data: three grey images of which only FLAIR is visible, and the ground truth if there
        are masks.
    """
    result: list[LayerData] = []
    subject = subject or uuid4().hex
    if patient.volume is not None:
        for channel, sequence in enumerate(SEQUENCES):
            data = np.ascontiguousarray(patient.volume[..., channel])
            appearance = {
                "colormap": "gray",
                "contrast_limits": contrast_limits(data),
                "visible": sequence == "FLAIR",
            }
            result.append((data, {**_common(patient, sequence, prefix, subject), **appearance}, "image"))
    if patient.truth is not None:
        properties = {**_common(patient, TRUTH, prefix, subject), **truth_properties()}
        result.append((patient.truth, properties, "labels"))
    return result


def _common(patient: Patient, role: str, prefix: bool, subject: str) -> dict[str, Any]:
    """Properties that all layers of a patient share: grid, units and metadata."""
    return {
        "name": layer_name(role, patient.name if prefix else None),
        "scale": (1.0, 1.0, 1.0),
        "units": ("pixel",) * 3,
        "axis_labels": AXES,
        "metadata": describe(
            patient.name,
            role,
            patient.slice_numbers,
            patient.filled_sequences,
            patient.affine,
            str(patient.folder),
            subject,
            patient.number_width,
        ),
    }


def describe(
    patient: str,
    role: str,
    slice_numbers: Iterable[int],
    filled_sequences: Iterable[str] = (),
    affine: Any = None,
    folder: str | None = None,
    subject: str | None = None,
    number_width: int = 1,
) -> dict[str, Any]:
    """The metadata of one layer, as documented at the top of this module."""
    return {
        METADATA_KEY: {
            "schema": METADATA_SCHEMA,
            "subject": subject,
            "patient": patient,
            "role": role,
            "slice_numbers": [int(n) for n in slice_numbers],
            "filled_sequences": list(filled_sequences),
            "affine": None if affine is None else np.asarray(affine).tolist(),
            "folder": folder,
            "number_width": number_width,
        }
    }


def add_layers(viewer: Viewer, layers: Iterable[LayerData]) -> None:
    """Add layer data to a viewer."""
    from napari.layers import Layer

    for data in layers:
        viewer.add_layer(Layer.create(*data))


# --- finding layers ----------------------------------------------------------------------------


def described(layer: Layer) -> dict[str, Any] | None:
    """A layer's ``metadata["lgg"]``, or None if it is not one of ours or they are invalid."""
    shape = getattr(full_data(layer), "shape", ())
    slices = shape[0] if layer.ndim == 3 and shape else None
    return layer_metadata.checked(layer.metadata.get(METADATA_KEY), slices)


def patients_in(layers: Iterable[Layer]) -> list[str]:
    """Names of the patients that have layers, in the order of their first layers."""
    return list(dict.fromkeys(info["patient"] for layer in layers if (info := described(layer))))


def patients_open() -> list[str]:
    """Names of the patients in the current viewer; none if there is no viewer."""
    napari = sys.modules.get("napari")
    viewer = napari.current_viewer() if napari is not None else None
    return patients_in(viewer.layers) if viewer is not None else []


def is_comparison(layer: Layer) -> bool:
    """Whether a layer shows where two other layers agree; such a layer is not a segmentation."""
    ids = layer.metadata.get(COMPARISON_KEY)
    return isinstance(ids, list) and all(isinstance(one, str) for one in ids)


def subject_of(layer: Layer) -> str:
    """Identifies what a layer belongs to: an open patient, or an image of no patient."""
    info = described(layer)
    if info is None:
        return str(layer.unique_id)
    return info.get("subject") or repr((info["patient"], info.get("folder")))  # not in version 0.1.0


def same_patient(layers: Iterable[Layer], patient: str, folder: str) -> str | None:
    """The subject that is a patient read from a folder; None if it is not open."""
    for layer in layers:
        info = described(layer)
        if info is not None and (info["patient"], info.get("folder")) == (patient, folder):
            return subject_of(layer)
    return None


def full_data(layer: Layer) -> Any:
    """A layer's data at full resolution."""
    return layer.data[0] if layer.multiscale else layer.data


#: When each layer was last shown or edited, by ``unique_id``.
_last_used: dict[Any, int] = {}
_uses = itertools.count(1)


def mark_used(layer: Layer) -> None:
    """Note that a layer has just been shown or edited, see :func:`current_layer`."""
    _last_used[layer.unique_id] = next(_uses)


def current_layer(layers: Iterable[Layer], selected: Layer | None = None) -> Any:
    """The layer that the user works on: the selected one, else that last shown or edited, else the newest."""
    found = list(layers)
    if selected is not None and selected in found:
        return selected
    return max(reversed(found), key=lambda layer: _last_used.get(layer.unique_id, 0), default=None)


def layers_with(layers: Iterable[Layer], subject: str, role: str) -> list[Layer]:
    """All layers of a subject with a role, in the order of the layer list."""
    return [
        layer
        for layer in layers
        if (info := described(layer)) and info["role"] == role and subject_of(layer) == subject
    ]


def find_layer(layers: Iterable[Layer], subject: str, role: str) -> Any:
    """The layer of a subject with a role, or None; of several, see :func:`current_layer`."""
    found = layers_with(layers, subject, role)
    if role in (*SEQUENCES, TRUTH):
        found.reverse()  # the one that was read from a file comes before its duplicates
    return current_layer(found, getattr(getattr(layers, "selection", None), "active", None))


# --- layers as label maps ----------------------------------------------------------------------


def to_label_map(data: npt.NDArray[np.generic], meta: dict[str, Any], name: str) -> LabelMap:
    """A labels layer as the core writes it, at full resolution.

    Parameters
    ----------
    data : ndarray of integers
        Shape (z, y, x) or (y, x); of a multiscale layer, its levels.
    meta : dict
        The layer's properties.
    name : str
        The patient's name for layers that belong to no patient.
    """
    value = meta.get("metadata", {}).get(METADATA_KEY)
    labels = np.asarray(full_array(data, meta))
    info = layer_metadata.checked(value, len(labels) if labels.ndim == 3 else None) or {}
    own, matrix = info.get("affine"), world_matrix(meta)
    affine = nifti_affine(world_matrix(meta, any_unit=True)) if own is None else np.asarray(own, np.float64)
    return LabelMap(
        patient=safe_name(info.get("patient", name)),
        labels=labels,
        slice_numbers=tuple(info.get("slice_numbers", ())),
        spacing=None if matrix is None else voxel_size(matrix),
        affine=affine,
        made_with=info.get("made_with", {}),
        number_width=info.get("number_width", 1),
    )


def patient_in(meta: dict[str, Any]) -> str:
    """Name of the patient in a layer's properties; empty if the layer belongs to none."""
    info = layer_metadata.checked(meta.get("metadata", {}).get(METADATA_KEY), None) or {}
    return str(info.get("patient", ""))


def full_array(data: Any, meta: dict[str, Any]) -> Any:
    """The data of a layer at full resolution, from its data and properties."""
    return data[0] if meta.get("multiscale") else data


def spacing_of(layer: Layer) -> tuple[float, float, float] | None:
    """Voxel size of a layer along z, y and x in millimetres; None if its units are not lengths."""
    keys = ("scale", "translate", "rotate", "shear", "affine", "units")
    matrix = world_matrix({key: getattr(layer, key) for key in keys})
    return None if matrix is None else voxel_size(matrix)
