"""Checks what the metadata of a napari layer says about its patient: files and other plugins may set them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from annotated_types import Ge, Le, Len, MinLen

from .json_files import Count, JsonError, build
from .provenance import MadeWith

Row = Annotated[tuple[float, ...], Len(4, 4)]


@dataclass(frozen=True)
class _Metadata:
    patient: Annotated[str, MinLen(1)]
    role: Annotated[str, MinLen(1)]
    slice_numbers: tuple[Count, ...]
    filled_sequences: tuple[str, ...] = ()
    affine: Annotated[tuple[Row, ...], Len(4, 4)] | None = None
    folder: str | None = None
    made_with: MadeWith = field(default_factory=MadeWith)
    schema: int = 1
    subject: str | None = None
    number_width: Annotated[int, Ge(1), Le(9)] = 1


#: What the metadata of a layer may hold; other keys are not ours.
FIELDS = tuple(_Metadata.__dataclass_fields__)


def checked(value: Any, slices: int | None) -> dict[str, Any] | None:
    """A layer's metadata if they are valid, with defaults for what is missing; else None.

    Parameters
    ----------
    value : Any
        As :func:`napari_lgg_seg.layers.describe` writes them, also in version 0.1.0.
    slices : int or None
        Number of slices of the layer; None if it is not a volume. If the metadata have another number of
        them, because some were added or removed, the returned ones have no slice numbers.
    """
    if not isinstance(value, dict):
        return None
    if "copies" in value and "filled_sequences" not in value:  # written by version 0.1.0
        value = {**value, "filled_sequences": value["copies"]}
    known = {name: value[name] for name in FIELDS if name in value}
    try:
        found = build(_Metadata, known)
    except JsonError:
        return None
    numbers = list(found.slice_numbers)
    if len(set(numbers)) < len(numbers):
        return None
    if slices is not None and len(numbers) != slices:  # some were added or removed
        numbers = []
    defaults = {"schema": 1, "filled_sequences": [], "affine": None, "folder": None, "number_width": 1}
    return {**defaults, **value, "slice_numbers": numbers}
