"""How a patient looks as napari layers, and how its layers are found again: by metadata, never by name.

Every layer of a patient carries ``metadata["lgg"]``::

    schema         1
    patient        the patient's name
    role           "pre-contrast", "FLAIR", "post-contrast", "truth", "tumour", "probability",
                   "uncertainty", "preview" or "comparison"
    slice_numbers  the number in each slice's file name
    copies         sequences that are FLAIR once more
    affine         4 x 4, voxel (x, y, z) to patient millimetres, or None
    folder         where the files are, or None

A comparison of two labels layers, whoever's they are, also carries ``metadata["lgg comparison"]``: the
``unique_id`` of both, as text.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .core.data.patients import SEQUENCES, Patient
from .core.evaluation.compare import AGREED, FALSE_NEGATIVE, FALSE_POSITIVE
from .preferences import COLOURS, colour

if TYPE_CHECKING:
    from napari.layers import Labels, Layer

LayerData = tuple[Any, dict[str, Any], str]

METADATA_KEY, COMPARISON_KEY = "lgg", "lgg comparison"
METADATA_SCHEMA = 1
TRUTH, TUMOUR, PROBABILITY, UNCERTAINTY = "truth", "tumour", "probability", "uncertainty"
PREVIEW, COMPARISON = "preview", "comparison"
AXES = ("z", "y", "x")

_YELLOW = COLOURS["yellow"]
#: The usual colours of tumour and truth, which labels painted later are not to be taken for.
_TAKEN = (COLOURS["vermilion"], COLOURS["sky blue"])


def label_colours(first: str) -> dict[int | None, str]:
    """A labels layer's colours: ``first`` for label 1, distinct ones for labels painted later."""
    colours: dict[int | None, str] = {0: "transparent", 1: first, None: "#ffffff"}
    others = (_YELLOW, *(other for other in COLOURS.values() if other != _YELLOW))
    colours.update(enumerate([other for other in others if other not in (first, *_TAKEN)], start=2))
    return colours


def comparison_colours() -> dict[int | None, str]:
    """A comparison's colours: what is in one mask alone has the colour of that mask."""
    missed, invented = colour("truth_colour"), colour("tumour_colour")
    others = (_YELLOW, *(other for other in COLOURS.values() if other not in _TAKEN))
    agreed = next(other for other in others if other not in (missed, invented))
    return {AGREED: agreed, FALSE_NEGATIVE: missed, FALSE_POSITIVE: invented}


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
        napari layer data: three gray images, FLAIR shown, and ``truth`` where there are masks.
    """
    result: list[LayerData] = []
    if patient.volume is not None:
        for channel, sequence in enumerate(SEQUENCES):
            data = np.ascontiguousarray(patient.volume[..., channel])
            looks = {
                "colormap": "gray",
                "contrast_limits": contrast_limits(data),
                "visible": sequence == "FLAIR",
            }
            result.append((data, {**_common(patient, sequence, prefix), **looks}, "image"))
    if patient.truth is not None:
        looks = {"colormap": label_colours(colour("truth_colour")), "opacity": 0.5}
        result.append((patient.truth, {**_common(patient, TRUTH, prefix), **looks}, "labels"))
    return result


def _common(patient: Patient, role: str, prefix: bool) -> dict[str, Any]:
    """What all layers of a patient share: grid, units and metadata."""
    return {
        "name": f"{patient.name} {role}" if prefix else role,
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


def contrast_limits(volume: npt.NDArray[np.generic]) -> tuple[float, float]:
    """Display range of a volume: from 0, or its minimum, to nearly its maximum."""
    sparse = np.asarray(volume[:, ::2, ::2], np.float64)
    low, high = float(sparse.min()), float(np.percentile(sparse, 99.8))
    low = min(low, 0.0)
    return low, high if high > low else low + 1.0


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


def described(layer: Layer) -> dict[str, Any] | None:
    """A layer's ``metadata["lgg"]``, or None if it is not one of ours."""
    value = layer.metadata.get(METADATA_KEY)
    return value if isinstance(value, dict) and "patient" in value and "role" in value else None


def patients_in(layers: Iterable[Layer]) -> list[str]:
    """Names of the patients that have layers, in the order of their first layers."""
    return list(dict.fromkeys(info["patient"] for layer in layers if (info := described(layer))))


def is_comparison(layer: Layer) -> bool:
    """Whether a layer shows where two others agree; it is nobody's tumour."""
    return COMPARISON_KEY in layer.metadata


def find_layer(layers: Iterable[Layer], patient: str, role: str) -> Layer | None:
    """The newest layer of a patient with a role."""
    found = None
    for layer in layers:
        info = described(layer)
        if info is not None and info["patient"] == patient and info["role"] == role:
            found = layer
    return found


def outline(layer: Labels) -> None:
    """Show labels as an outline, so that what lies below stays visible."""
    if layer.contour == 0:
        layer.contour, layer.opacity = 1, 1.0


def tumour_properties(patient: str) -> dict[str, Any]:
    """Name and looks of a predicted labels layer."""
    return {"name": f"{patient} {TUMOUR}", "colormap": label_colours(colour("tumour_colour")), "opacity": 0.5}


def preview_properties(patient: str) -> dict[str, Any]:
    """Name and looks of what a model in training finds."""
    return {"name": f"{patient} {PREVIEW}", "colormap": label_colours(_YELLOW), "opacity": 0.5}


def comparison_properties(prediction: str, truth: str, patient: str | None = None) -> dict[str, Any]:
    """Name and looks of the comparison of two layers, of which a patient is named only once."""
    if patient is not None and prediction.startswith(f"{patient} "):
        truth = truth.removeprefix(f"{patient} ")
    colours: dict[int | None, str] = {0: "transparent", None: "#ffffff"}
    colours.update(comparison_colours())
    return {"name": f"{prediction} against {truth}", "colormap": colours, "opacity": 0.7}


def map_properties(patient: str, role: str) -> dict[str, Any]:
    """Name and looks of a layer with a value from 0 to 1 for each voxel: probability or uncertainty."""
    return {
        "name": f"{patient} {role}",
        "colormap": "magma" if role == PROBABILITY else "inferno",
        "contrast_limits": (0.0, 1.0),
        "blending": "additive",
        "visible": False,
    }


def spacing_in_mm(scale: Any, units: Any) -> tuple[float, float, float] | None:
    """Voxel size in millimetres from a layer's scale and units, or None where units are no lengths."""
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
