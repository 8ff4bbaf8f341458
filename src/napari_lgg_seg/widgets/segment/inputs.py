"""What in a viewer can be segmented: a patient's layers, or any 2D or 3D image; as arrays for the network."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ...core import memory
from ...core.data.patients import SEQUENCES
from ...core.errors import ImageError
from ...layers import described, find_layer

if TYPE_CHECKING:
    from napari.layers import Image

#: Bytes that a run needs for each voxel: input as fp32 three times over, probability and labels.
_BYTES_A_VOXEL = 32


@dataclass(frozen=True)
class Subject:
    """A patient whose layers are open, or a plain image layer.

    Attributes
    ----------
    name : str
        The patient's name, or the layer's.
    layer : Image or None
        The layer, where it is not a patient's.
    """

    name: str
    layer: Image | None = None

    def __str__(self) -> str:
        return self.name


def is_image(layer: Any) -> bool:
    """Whether a layer is an image (by its type's name, so that napari is not imported here)."""
    return bool(layer._type_string == "image")


def subjects_in(layers: Iterable[Any]) -> list[Subject]:
    """Patients with image layers, then images of no patient, in the order of the layer list."""
    layers = list(layers)
    patients = dict.fromkeys(
        info["patient"] for layer in layers if (info := described(layer)) and info["role"] in SEQUENCES
    )
    images = [layer for layer in layers if is_image(layer) and described(layer) is None]
    return [*map(Subject, patients), *(Subject(layer.name, layer) for layer in images)]


def proposed_sequences(layers: Iterable[Any], subject: Subject) -> dict[str, Image | None]:
    """Which layer is which sequence; None where FLAIR stands in."""
    if subject.layer is not None:
        return {s: subject.layer if s == "FLAIR" else None for s in SEQUENCES}
    layers = list(layers)
    return {s: find_layer(layers, subject.name, s) for s in SEQUENCES}


def grid_of(layer: Image) -> tuple[int, ...]:
    """Shape of a layer's voxels, without levels and colour channels."""
    shape = _data(layer).shape
    return tuple(shape[:-1] if layer.rgb else shape)


def candidates(layers: Iterable[Any], subject: Subject) -> list[Image]:
    """Image layers that can be a sequence of the subject: those on its grid."""
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


def describe_subject(sequences: Mapping[str, Image | None], wanted: Collection[str] = SEQUENCES) -> str:
    """A sentence or two: how many slices, which sequences, what stands in for what.

    Parameters
    ----------
    sequences : mapping of str to Image or None
        Which layer is which sequence; None where FLAIR stands in.
    wanted : collection of str
        The sequences that the model wants; nothing is said about the others.
    """
    flair = sequences["FLAIR"]
    if flair is None:
        return "Choose under Sequences which layer is FLAIR."
    grid = grid_of(flair)
    if len(grid) not in (2, 3):
        return f"{flair.name} has {len(grid)} dimensions; choose an image of 2 or 3."
    slices = "1 slice" if len(grid) == 2 else f"{grid[0]} slices"
    used = [s for s in SEQUENCES if s in wanted]
    if flair.rgb:
        return f"{slices}; {_taken_from_colours(used)}."
    info = described(flair)
    filled_sequences = info["filled_sequences"] if info is not None else []
    missing = [s for s in used if sequences[s] is None or s in filled_sequences]
    if not missing:
        return f"{slices}, {', '.join(used)}."
    return f"{slices}; {' and '.join(missing)} missing: FLAIR stands in, which may cost accuracy."


def _taken_from_colours(used: Sequence[str]) -> str:
    if len(used) == len(SEQUENCES):
        return f"the three colour channels are taken as {', '.join(used)}"
    channels = dict(zip(SEQUENCES, ("first", "second", "third"), strict=True))
    return " and ".join(f"the {channels[s]} colour channel is taken as {s}" for s in used)


def take_arrays(sequences: Mapping[str, Image | None]) -> tuple[Any, ...]:
    """The data of the sequences, not yet computed: one RGB array, or three gray ones.

    Raises
    ------
    ImageError
        If there is no FLAIR, or it has neither 2 nor 3 dimensions.
    """
    flair = sequences["FLAIR"]
    if flair is None or len(grid_of(flair)) not in (2, 3):
        raise ImageError(describe_subject(sequences))
    if flair.rgb:
        return (_data(flair),)
    return tuple(_data(layer if (layer := sequences[s]) is not None else flair) for s in SEQUENCES)


def to_volume(arrays: tuple[Any, ...]) -> npt.NDArray[np.generic]:
    """A volume for the network from :func:`take_arrays`; may take long, so call it in a worker.

    Returns
    -------
    ndarray
        Shape (z, y, x, 3).

    Raises
    ------
    ImageError
        If the memory would not suffice.
    """
    rgb = len(arrays) == 1
    grid = arrays[0].shape[:-1] if rgb else arrays[0].shape
    free = memory.free_main_memory()
    needed = int(np.prod(grid, dtype=np.float64)) * _BYTES_A_VOXEL
    if free is not None and needed > free:
        raise ImageError(
            f"The image needs about {needed / 2**30:.0f} GiB of memory but {free / 2**30:.0f} GiB are free; "
            "crop it or make it smaller."
        )
    gray = [np.asarray(a) for a in arrays]
    volume = gray[0][..., :3] if rgb else np.stack(gray, axis=-1)
    return volume[None] if volume.ndim == 3 else volume


def _data(layer: Image) -> Any:
    """A layer's data at full resolution."""
    return layer.data[0] if layer.multiscale else layer.data
