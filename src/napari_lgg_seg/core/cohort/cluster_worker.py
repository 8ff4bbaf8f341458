"""What runs in the worker processes of a cluster: one patient at a time, with a model that stays loaded."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..._version import __version__
from ..data.provenance import model_checksum
from ..devices import join_device
from ..errors import LggSegError
from ..memory import return_main_memory
from ..model.checkpoint import DEFAULT_MODEL, load_model
from .patient_job import CohortJob, Outcome, PatientFailed, segment_patient

if TYPE_CHECKING:
    from ..inference.predict import Predictor
    from ..options import SegmentOptions

#: Where workers tell the progress of patients.
TOPIC = "napari-lgg-seg"
#: Progress is told when it is this much further.
_STEP = 0.05


@dataclass(frozen=True)
class RemoteJob:
    """What all workers of a run are told.

    Attributes
    ----------
    job : CohortJob
        What is done to every patient.
    sign : Path
        A file in the output folder that is there as long as the run; workers must see it.
    processes : int or None
        How many workers share this machine's threads; None where each has threads of its own.
    """

    job: CohortJob
    sign: Path
    processes: int | None


@dataclass(frozen=True)
class Unusable:
    """Why a worker cannot be used for this run, in words that follow its address."""

    words: str


def greet(version: str, sign: str) -> Unusable | None:
    """Whether this worker can be used: the first thing that it is asked, in terms that any version knows."""
    if version != __version__:
        return Unusable(
            f"has version {__version__} of napari-lgg-seg instead of {version}; install the same everywhere."
        )
    if not Path(sign).is_file():
        return _does_not_see(Path(sign).parent)
    return None


def work(remote: RemoteJob, folder: Path) -> Outcome | Unusable | None:
    """Segment one patient; None if the run ended meanwhile."""
    from distributed import get_worker

    worker = get_worker()
    job = remote.job
    model = job.model or DEFAULT_MODEL
    if (unusable := _check(folder, model, job.checksum)) is not None:
        return unusable
    _take_share(remote, worker)
    predictor = _load(model, str(remote.sign), job.options)
    return_main_memory()
    try:
        with closing(segment_patient(job, predictor, folder)) as steps:
            told = 0.0
            while True:
                progress = next(steps)
                if not remote.sign.is_file():
                    return None
                if progress.share >= told + _STEP:
                    told = progress.share
                    message = {"run": str(remote.sign), "folder": str(folder), "share": told}
                    worker.log_event(TOPIC, {**message, "worker": worker.address})
    except StopIteration as stop:
        outcome: Outcome = stop.value
        return outcome
    except LggSegError as error:
        return PatientFailed(folder, str(error))


def _check(folder: Path, model: Path, checksum: str) -> Unusable | None:
    """Whether this machine has the patient and the model."""
    for path in (folder, model):
        if not path.exists():
            return _does_not_see(path)
    if _checksum(model, model.stat().st_mtime_ns) != checksum:
        return Unusable(f"has another model in {model}; copy the same model file to all machines.")
    return None


def _does_not_see(path: Path) -> Unusable:
    return Unusable(f"does not see {path}; give paths that all machines share.")


@lru_cache(maxsize=1)
def _load(model: Path, run: str, options: SegmentOptions) -> Predictor:
    """The predictor, which stays in memory for the next patient of a run.

    Another run begins with one of its own: what was short of memory or failed may do by then.
    """
    from ..inference.predict import predictor_for

    return predictor_for(load_model(model), options)


@lru_cache(maxsize=1)
def _checksum(model: Path, changed: int) -> str:
    """The checksum, which is computed again only if the file was changed."""
    return model_checksum(model)


def _take_share(remote: RemoteJob, worker: Any) -> None:
    """Take this worker's share of the machine: its threads, and its GPU if there are several."""
    import torch

    everything = _all_threads()
    mine = worker.state.nthreads if remote.processes is None else everything // remote.processes
    torch.set_num_threads(max(1, mine))
    if isinstance(worker.name, int) and remote.job.options.device in ("auto", "cuda"):
        join_device(remote.job.options.device, worker.name)


@cache
def _all_threads() -> int:
    """The threads that torch takes where nobody says otherwise."""
    import torch

    return torch.get_num_threads()
