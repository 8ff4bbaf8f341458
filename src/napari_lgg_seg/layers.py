"""Patients as napari layers. Layers are recognised by their metadata, never by their names.

Every layer of a patient carries ``metadata["lgg"]``:

=================  =====================================================================================
schema             1
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

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .core.atomic import safe_name
from .core.data import layer_metadata
from .core.data.label_files import LabelMap
from .core.data.patients import SEQUENCES, Patient
from .core.evaluation.compare import AGREED, FALSE_NEGATIVE, FALSE_POSITIVE
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


def patient_layers(patient: Patient, *, prefix: bool) -> list[LayerData]:
    """Layers of a patient on one grid, axes (z, y, x).

    Parameters
    ----------
    patient : Patient
        As read from disk.
    prefix : bool
        Put the patient's name before the layers' names.

    Returns
    -------
    list of tuple
        napari layer data: three grey images of which only FLAIR is visible, and the ground truth if there
        are masks.
    """
    result: list[LayerData] = []
    if patient.volume is not None:
        for channel, sequence in enumerate(SEQUENCES):
            data = np.ascontiguousarray(patient.volume[..., channel])
            appearance = {
                "colormap": "gray",
                "contrast_limits": contrast_limits(data),
                "visible": sequence == "FLAIR",
            }
            result.append((data, {**_common(patient, sequence, prefix), **appearance}, "image"))
    if patient.truth is not None:
        result.append((patient.truth, {**_common(patient, TRUTH, prefix), **truth_properties()}, "labels"))
    return result


def _common(patient: Patient, role: str, prefix: bool) -> dict[str, Any]:
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
        ),
    }


def describe(
    patient: str,
    role: str,
    slice_numbers: Iterable[int],
    filled_sequences: Iterable[str] = (),
    affine: Any = None,
    folder: str | None = None,
) -> dict[str, Any]:
    """The metadata of one layer, as documented at the top of this module."""
    return {
        METADATA_KEY: {
            "schema": METADATA_SCHEMA,
            "patient": patient,
            "role": role,
            "slice_numbers": [int(n) for n in slice_numbers],
            "filled_sequences": list(filled_sequences),
            "affine": None if affine is None else np.asarray(affine).tolist(),
            "folder": folder,
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
    slices = layer.data.shape[0] if layer.ndim == 3 and hasattr(layer.data, "shape") else None
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


def find_layer(layers: Iterable[Layer], patient: str, role: str) -> Layer | None:
    """The newest layer of a patient with a role."""
    found = None
    for layer in layers:
        info = described(layer)
        if info is not None and info["patient"] == patient and info["role"] == role:
            found = layer
    return found


# --- layers as label maps ----------------------------------------------------------------------


def to_label_map(data: npt.NDArray[np.generic], meta: dict[str, Any], name: str) -> LabelMap:
    """A labels layer as the core writes it.

    Parameters
    ----------
    data : ndarray of integers
        Shape (z, y, x) or (y, x).
    meta : dict
        The layer's properties.
    name : str
        The patient's name for layers that belong to no patient.
    """
    value = meta.get("metadata", {}).get(METADATA_KEY)
    info = layer_metadata.checked(value, len(data) if data.ndim == 3 else None) or {}
    scale, units = meta.get("scale"), meta.get("units")
    affine = info.get("affine")
    return LabelMap(
        patient=safe_name(info.get("patient", name)),
        labels=np.asarray(data),
        slice_numbers=tuple(info.get("slice_numbers", ())),
        spacing=spacing_in_mm(scale, units) if scale is not None and units is not None else None,
        affine=None if affine is None else np.asarray(affine, np.float64),
        made_with=info.get("made_with", {}),
    )


def spacing_in_mm(scale: Any, units: Any) -> tuple[float, float, float] | None:
    """Voxel size (z, y, x) in millimetres from a layer's scale and units; None if units are not lengths."""
    import pint

    registry = pint.get_application_registry()
    sizes = []
    for size, unit in zip(scale, units, strict=True):
        try:
            sizes.append(float((float(size) * registry.Quantity(1, str(unit))).to("mm").magnitude))
        except (pint.DimensionalityError, pint.UndefinedUnitError):
            return None
    z, y, x = [sizes[0], *sizes][-3:] if len(sizes) == 2 else sizes[-3:]
    return z, y, x
