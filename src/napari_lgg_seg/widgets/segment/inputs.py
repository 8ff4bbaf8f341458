"""What can be segmented in a viewer, and how its layers become the network's input."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ...core import memory
from ...core.data.patients import SEQUENCES
from ...core.errors import ImageError, counted
from ...layers import described, find_layer, full_data, subject_of
from ...placement import lie_together
from ..shared.result_layers import Subject

if TYPE_CHECKING:
    from napari.layers import Image

#: Bytes needed per voxel: the input as float32 three times, probability and labels.
_BYTES_PER_VOXEL = 32


def is_image(layer: Any) -> bool:
    """Whether a layer is an image; compares the type's name so as not to import napari."""
    return bool(layer._type_string == "image")


def subjects_in(layers: Iterable[Any]) -> list[Subject]:
    """Patients with image layers, then images of no patient, in the order of the layer list."""
    layers = list(layers)
    patients = {
        subject_of(layer): info["patient"]
        for layer in layers
        if (info := described(layer)) and info["role"] in SEQUENCES
    }
    images = [layer for layer in layers if is_image(layer) and described(layer) is None]
    others = (Subject(subject_of(layer), layer.name, layer) for layer in images)
    return [*(Subject(*patient) for patient in patients.items()), *others]


def proposed_sequences(layers: Iterable[Any], subject: Subject) -> dict[str, Image | None]:
    """The layer of each sequence; None where FLAIR is used instead."""
    if subject.layer is not None:
        return {s: subject.layer if s == "FLAIR" else None for s in SEQUENCES}
    layers = list(layers)
    return {s: find_layer(layers, subject.id, s) for s in SEQUENCES}


def grid_of(layer: Image) -> tuple[int, ...]:
    """Shape of a layer's voxel grid, without colour channels and at full resolution."""
    shape = full_data(layer).shape
    return tuple(shape[:-1] if layer.rgb else shape)


def candidates(layers: Iterable[Any], subject: Subject) -> list[Image]:
    """Image layers on the subject's grid, which can be one of its sequences."""
    layers = list(layers)
    proposed = proposed_sequences(layers, subject)
    main = proposed["FLAIR"] or next((layer for layer in proposed.values() if layer is not None), None)
    if main is None:
        return []
    grid = grid_of(main)
    return [layer for layer in layers if is_image(layer) and grid_of(layer) == grid and not _is_result(layer)]


def _is_result(layer: Any) -> bool:
    info = described(layer)
    return info is not None and info["role"] not in SEQUENCES


def describe_subject(sequences: Mapping[str, Image | None], used: Collection[str] = SEQUENCES) -> str:
    """How many slices a subject has, and which of its sequences are used or missing.

    Parameters
    ----------
    sequences : mapping of str to Image or None
        The layer of each sequence; None where FLAIR is used instead.
    used : collection of str
        The sequences that the model uses; others are not mentioned.
    """
    flair = sequences["FLAIR"]
    if flair is None:
        return "Choose the FLAIR layer under Sequences."
    grid = grid_of(flair)
    if len(grid) not in (2, 3):
        return f"{flair.name} has {len(grid)} dimensions; choose an image with 2 or 3."
    slices = counted(1 if len(grid) == 2 else grid[0], "slice")
    names = [s for s in SEQUENCES if s in used]
    info = described(flair)
    hint = _axes_hint(grid) if info is None else ""
    if flair.rgb:
        return f"{slices}; {_describe_channels(names)}.{hint}"
    filled_sequences = info["filled_sequences"] if info is not None else []
    missing = [s for s in names if sequences[s] is None or s in filled_sequences]
    if not missing:
        return f"{slices}, {', '.join(names)}.{hint}"
    return (
        f"{slices}; {' and '.join(missing)} missing: FLAIR is used instead, which may reduce accuracy.{hint}"
    )


def _axes_hint(grid: tuple[int, ...]) -> str:
    """A hint where the first axis is unlikely to count slices, as in (x, y, z) arrays; else empty."""
    if len(grid) == 2 or 2 * grid[0] <= 3 * min(grid[1:]):
        return ""
    return (
        f" The first axis should count the slices, but slices of {grid[1]} x {grid[2]} pixels look wrong: if "
        "this is an (x, y, z) image, transpose it first (layer.data = layer.data.T in napari's console)."
    )


def _describe_channels(names: Sequence[str]) -> str:
    if len(names) == len(SEQUENCES):
        return f"the three colour channels are used as {', '.join(names)}"
    channels: dict[str, str] = dict(zip(SEQUENCES, ("first", "second", "third"), strict=True))
    return " and ".join(f"the {channels[s]} colour channel is used as {s}" for s in names)


def arrays_of(sequences: Mapping[str, Image | None]) -> tuple[Any, ...]:
    """The arrays of the sequences, possibly lazy: one RGB array, or three grey ones.

    Raises
    ------
    ImageError
        If there is no FLAIR, it has neither 2 nor 3 dimensions, or another sequence lies elsewhere.
    """
    flair = sequences["FLAIR"]
    if flair is None or len(grid_of(flair)) not in (2, 3):
        raise ImageError(describe_subject(sequences))
    if flair.rgb:
        return (full_data(flair),)
    for sequence in sequences.values():
        if sequence is not None and sequence is not flair:
            _check_place(sequence, flair)
    return tuple(full_data(sequences[s] or flair) for s in SEQUENCES)


def _check_place(layer: Image, flair: Image) -> None:
    """Refuse a sequence whose voxels or slices are not those of FLAIR: they would be taken for each other."""
    numbers = [n for one in (layer, flair) if (n := (described(one) or {}).get("slice_numbers"))]
    same_slices = len(numbers) < 2 or numbers[0] == numbers[1]
    if grid_of(layer) != grid_of(flair) or not same_slices or not lie_together(layer, flair):
        raise ImageError(
            f"{layer.name} does not lie where {flair.name} does, or has other slices; give both the same "
            "grid, or choose another layer under Sequences."
        )


def to_volume(arrays: tuple[Any, ...]) -> npt.NDArray[np.generic]:
    """A volume for the network from :func:`arrays_of`; slow for lazy arrays, so call it in a worker.

    Returns
    -------
    ndarray
        Shape (z, y, x, 3).

    Raises
    ------
    ImageError
        If there is not enough memory.
    """
    rgb = len(arrays) == 1
    grid = arrays[0].shape[:-1] if rgb else arrays[0].shape
    free = memory.free_main_memory()
    needed = int(np.prod(grid, dtype=np.float64)) * _BYTES_PER_VOXEL
    if free is not None and needed > free:
        raise ImageError(
            f"The image needs about {needed / 2**30:.0f} GiB of memory but {free / 2**30:.0f} GiB are free; "
            "crop it or make it smaller."
        )
    channels = [np.asarray(a) for a in arrays]
    volume = channels[0][..., :3] if rgb else np.stack(channels, axis=-1)
    return volume[None] if volume.ndim == 3 else volume
