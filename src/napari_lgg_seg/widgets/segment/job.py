"""One run of the Segment widget: its input, its work in a worker, and its result."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ...core.cohort.saved_labels import checksum
from ...core.data.provenance import Provenance, model_checksum, provenance_of
from ...core.errors import ImageError
from ...core.inference.predict import Event
from ...core.inference.uncertainty import voxel_entropy
from ...core.options import SegmentOptions
from ..shared.result_layers import Subject
from ..shared.worker import returns_failure
from .inputs import arrays_of, to_volume

if TYPE_CHECKING:
    from napari.layers import Image


@dataclass(frozen=True)
class Job:
    """The input of a run, taken from the viewer when Segment is clicked.

    Attributes
    ----------
    subject : Subject
        The patient or image.
    flair : Image
        The layer that defines the grid.
    sequences : mapping of str to Image or None
        The layer of each sequence.
    arrays : tuple of array
        From :func:`napari_lgg_seg.widgets.segment.inputs.arrays_of`.
    only_slice : int or None
        Index of the only slice to segment; None for all slices.
    slice_numbers : tuple of int
        Number of each slice as in its file; empty if they are not from files.
    model : Path
        The model file.
    options : SegmentOptions
        Threshold, clean-up, device and so on.
    """

    subject: Subject
    flair: Image
    sequences: Mapping[str, Image | None]
    arrays: tuple[Any, ...]
    only_slice: int | None
    slice_numbers: tuple[int, ...]
    model: Path
    options: SegmentOptions

    def has_same_images(self) -> bool:
        """Whether the layers still hold the arrays that were taken from them."""
        try:
            now = arrays_of(self.sequences)
        except ImageError:
            return False
        return len(now) == len(self.arrays) and all(map(operator.is_, now, self.arrays))


@dataclass(frozen=True)
class Result:
    """The result of a run.

    Attributes
    ----------
    probability, uncertainty : ndarray of float32
        Shape (z, y, x), 0 to 1; the uncertainty is the voxel entropy in bits. One slice if only one was
        segmented.
    model, device, engine : str
        Display names of the model and the device, and the engine used.
    model_id : str
        From :func:`napari_lgg_seg.core.data.provenance.model_checksum`.
    seconds : float
        Duration including loading the model.
    coarse_to_fine : bool
        Whether the volume was searched at half resolution first.
    provenance : Provenance or None
        Identifies images, model, options and version; None if only one slice was segmented.
    images_changed : bool
        Whether values of the images were changed in place during the run.
    """

    probability: npt.NDArray[np.float32]
    uncertainty: npt.NDArray[np.float32]
    model: str
    model_id: str
    device: str
    engine: str
    seconds: float
    coarse_to_fine: bool
    provenance: Provenance | None = None
    images_changed: bool = False

    def made_with(self, options: SegmentOptions) -> dict[str, Any]:
        """Model and options of the run, for headers."""
        values = {
            "model": self.model,
            "engine": self.engine,
            "options": options.as_dict(),
            "coarse_to_fine": self.coarse_to_fine,
        }
        if self.provenance is not None:
            values["provenance"] = dataclasses.asdict(self.provenance)
        return values


@returns_failure
def run_job(job: Job) -> Generator[Event | None, None, Result]:
    """Segment in a worker; yields None while images and model are loaded."""
    yield None
    from ...core import memory
    from ...core.inference.predict import predictor_for
    from ...core.model.checkpoint import load_model

    started = monotonic()
    before = _checksums(job.arrays)
    volume = to_volume(job.arrays)
    identity, model = model_checksum(job.model), load_model(job.model)
    predictor = predictor_for(model, job.options)
    try:
        slices = None if job.only_slice is None else [job.only_slice]
        probability = yield from predictor.predict(volume, slices)
        device_name, engine = predictor.runs_on, predictor.engine.name
        coarse_to_fine = predictor.coarse_to_fine and slices is None
        provenance = None
        if slices is None:
            provenance = provenance_of(volume, identity, job.options, job.slice_numbers)
            provenance = dataclasses.replace(provenance, engine=engine)
    finally:
        device = predictor.device
        del predictor
        memory.free_memory(device)
    uncertainty = voxel_entropy(probability)
    seconds = monotonic() - started
    return Result(
        probability,
        uncertainty,
        model.card.name,
        identity,
        device_name,
        engine,
        seconds,
        bool(coarse_to_fine),
        provenance,
        _checksums(job.arrays) != before,
    )


def _checksums(arrays: tuple[Any, ...]) -> list[int]:
    """Checksums of arrays in memory; lazy ones cannot be changed in place."""
    different = {id(array): array for array in arrays if isinstance(array, np.ndarray)}
    return [checksum(array) for array in different.values()]
