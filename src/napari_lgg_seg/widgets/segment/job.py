"""One run of the Segment widget: what it takes from the viewer, and its work in the worker's thread."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ...core.inference.predict import Event, SlicesDone
from ...core.inference.uncertainty import voxel_entropy
from ...core.options import SegmentOptions
from ..shared.worker import returns_failure
from .inputs import Subject, to_volume

if TYPE_CHECKING:
    from napari.layers import Image


@dataclass(frozen=True)
class Job:
    """What one run needs, taken from the viewer when Segment is clicked."""

    subject: Subject
    flair: Image
    arrays: tuple[Any, ...]
    only_slice: int | None
    model: Path
    options: SegmentOptions


@dataclass(frozen=True)
class Result:
    """What one run gives: probability and entropy of the slices it computed, where, by what and how."""

    probability: npt.NDArray[np.float32]
    uncertainty: npt.NDArray[np.float32]
    model: str
    device: str
    engine: str
    seconds: float
    coarse_to_fine: bool


@returns_failure
def run_job(job: Job) -> Generator[Event, None, Result]:
    """The run, in the worker's thread."""
    yield SlicesDone(0, 1)
    from ...core import memory
    from ...core.inference.predict import predictor_for
    from ...core.model.checkpoint import load_model

    started = monotonic()
    volume = to_volume(job.arrays)
    model = load_model(job.model)
    predictor = predictor_for(model, job.options)
    try:
        only = None if job.only_slice is None else [job.only_slice]
        probability = yield from predictor.predict(volume, only)
        name, engine, quick = (
            predictor.runs_on,
            predictor.engine.name,
            predictor.coarse_to_fine and only is None,
        )
    finally:
        device = predictor.device
        del predictor
        memory.free_memory(device)
    uncertainty = voxel_entropy(probability)
    return Result(probability, uncertainty, model.card.name, name, engine, monotonic() - started, quick)
