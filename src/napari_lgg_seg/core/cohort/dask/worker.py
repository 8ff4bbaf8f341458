"""Runs in the worker processes of a cluster: one patient at a time, with a model that stays loaded."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...._version import __version__
from ...data.provenance import model_checksum
from ...devices import join_device
from ...errors import LggSegError
from ...inference.predict import Predictor, predictor_for
from ...memory import return_main_memory
from ...model.checkpoint import DEFAULT_MODEL, load_model
from ..patient_job import CohortJob, Outcome, failure_of, segment_patient

if TYPE_CHECKING:
    from ...options import SegmentOptions

#: dask topic for progress messages.
TOPIC = "napari-lgg-seg"
#: Progress is reported in steps of this fraction.
_STEP = 0.05


@dataclass(frozen=True)
class RemoteJob:
    """What the workers of a run need to know.

    Attributes
    ----------
    job : CohortJob
        Settings for all patients.
    marker : Path
        A file in the output folder that exists while the run lasts; workers must see it.
    processes : int or None
        Number of workers that share this machine's threads; None if each worker has its own.
    """

    job: CohortJob
    marker: Path
    processes: int | None


@dataclass(frozen=True)
class Unusable:
    """Why a worker cannot be used for this run; a phrase that follows the worker's address."""

    reason: str


def check_worker(version: str, marker: str) -> Unusable | None:
    """Why this worker cannot be used, or None; arguments are plain types that any version understands."""
    if version != __version__:
        return Unusable(
            f"has version {__version__} of napari-lgg-seg instead of {version}; install the same everywhere."
        )
    if not os.path.isfile(marker):  # noqa: PTH113 - Path.is_file raises errors
        return _does_not_see(Path(marker).parent)
    return None


def run_patient(remote: RemoteJob, folder: Path) -> Outcome | Unusable | None:
    """Segment one patient; None if the run has ended in the meantime."""
    from distributed import get_worker

    worker = get_worker()
    job = remote.job
    model = job.model or DEFAULT_MODEL
    if (unusable := _check(folder, model, job.checksum)) is not None:
        return unusable
    _take_share(remote, worker)
    predictor = _load(model, str(remote.marker), job.options)
    return_main_memory()
    try:
        with closing(segment_patient(job, predictor, folder)) as steps:
            reported = 0.0
            while True:
                progress = next(steps)
                if not os.path.isfile(remote.marker):  # noqa: PTH113 - Path.is_file raises errors
                    return None
                if progress.share >= reported + _STEP:
                    reported = progress.share
                    message = {"run": str(remote.marker), "folder": str(folder), "share": reported}
                    worker.log_event(TOPIC, {**message, "worker": worker.address})
    except StopIteration as stop:
        outcome: Outcome = stop.value
        return outcome
    except (LggSegError, OSError, MemoryError, UnicodeError) as error:
        return failure_of(folder, error)


def _check(folder: Path, model: Path, checksum: str) -> Unusable | None:
    """Check that this machine has the patient and the same model."""
    for path in (folder, model):
        if not os.path.exists(path):  # noqa: PTH110 - Path.exists raises errors
            return _does_not_see(path)
    if model_checksum(model) != checksum:
        return Unusable(f"has another model in {model}; copy the same model file to all machines.")
    return None


def _does_not_see(path: Path) -> Unusable:
    return Unusable(f"does not see {path}; use paths that all machines share.")


@lru_cache(maxsize=1)
def _load(model: Path, run: str, options: SegmentOptions) -> Predictor:
    """The predictor, kept in memory for all patients of a run.

    Each run gets a new one: one that ran out of memory stays with the device or engine it fell back to.
    """
    return predictor_for(load_model(model), options)


def _take_share(remote: RemoteJob, worker: Any) -> None:
    """Use this worker's share of the machine: its threads, and its GPU if there are several."""
    import torch

    everything = _all_threads()
    mine = worker.state.nthreads if remote.processes is None else everything // remote.processes
    torch.set_num_threads(max(1, mine))
    if isinstance(worker.name, int) and remote.job.options.device in ("auto", "cuda"):
        join_device(remote.job.options.device, worker.name)


@cache
def _all_threads() -> int:
    """The number of threads that torch uses by default."""
    import torch

    return torch.get_num_threads()
