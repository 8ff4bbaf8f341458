"""One run of the Segment widget: its input, its work in a worker, and its result."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ...core.data.provenance import Provenance, model_checksum, provenance_of
from ...core.inference.predict import Event, SlicesDone
from ...core.inference.uncertainty import voxel_entropy
from ...core.options import SegmentOptions
from ..shared.worker import returns_failure
from .inputs import Subject, to_volume

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
    arrays : tuple of array
        From :func:`napari_lgg_seg.widgets.segment.inputs.arrays_of`.
    only_slice : int or None
        Index of the only slice to segment; None for all slices.
    model : Path
        The model file.
    options : SegmentOptions
        Threshold, clean-up, device and so on.
    """

    subject: Subject
    flair: Image
    arrays: tuple[Any, ...]
    only_slice: int | None
    model: Path
    options: SegmentOptions


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
    seconds : float
        Duration including loading the model.
    coarse_to_fine : bool
        Whether the volume was searched at half resolution first.
    provenance : Provenance or None
        Identifies images, model, options and version; None if only one slice was segmented.
    """

    probability: npt.NDArray[np.float32]
    uncertainty: npt.NDArray[np.float32]
    model: str
    device: str
    engine: str
    seconds: float
    coarse_to_fine: bool
    provenance: Provenance | None = None

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
def run_job(job: Job) -> Generator[Event, None, Result]:
    """Segment in a worker."""
    yield SlicesDone(0, 1)
    from ...core import memory
    from ...core.inference.predict import predictor_for
    from ...core.model.checkpoint import load_model

    started = monotonic()
    volume = to_volume(job.arrays)
    model = load_model(job.model)
    predictor = predictor_for(model, job.options)
    try:
        slices = None if job.only_slice is None else [job.only_slice]
        probability = yield from predictor.predict(volume, slices)
        device_name, engine = predictor.runs_on, predictor.engine.name
        coarse_to_fine = predictor.coarse_to_fine and slices is None
        provenance = None
        if slices is None:
            provenance = provenance_of(volume, model_checksum(job.model), job.options)
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
        device_name,
        engine,
        seconds,
        bool(coarse_to_fine),
        provenance,
    )
