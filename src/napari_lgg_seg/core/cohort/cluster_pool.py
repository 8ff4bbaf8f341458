"""Which worker has which patient.

A worker has one patient at a time, so that it is known whose fault it is if one dies: that patient is
given to another worker, and after some attempts given up.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any
from uuid import uuid4

from ..._version import __version__
from ..errors import ClusterError, reason
from ..inference.predict import Notice
from .cluster_worker import TOPIC, RemoteJob, Unusable, greet, work
from .patient_job import Outcome, PatientFailed, PatientProgress

#: How often a patient is given to a worker.
ATTEMPTS = 3
#: Seconds: between looks at which workers there are, for the result of a finished patient to arrive, and
#: without any worker.
_LOOK, _FETCH, _PATIENCE = 1.0, 60.0, 120.0

Event = PatientProgress | Outcome | Notice


@dataclass
class Pool:
    """The patients of a run and the workers of a client, brought together.

    Attributes
    ----------
    client : distributed.Client
        Of the cluster.
    remote : RemoteJob
        What workers are told.
    waiting : deque of Path
        Folders of the patients that no worker has.
    busy : dict
        Address of a worker -> its future, and the patient's folder.
    known : set of str
        Addresses of the workers that can be used.
    attempts : Counter
        How often a patient's worker was lost.
    inbox : SimpleQueue
        What workers say: address and future that is done, or an empty string and a message.
    looked, seen : float
        When it was last asked which workers there are, and when there were any.
    """

    client: Any
    remote: RemoteJob
    waiting: deque[Path]
    busy: dict[str, tuple[Any, Path]] = field(default_factory=dict)
    known: set[str] = field(default_factory=set)
    attempts: Counter[Path] = field(default_factory=Counter)
    inbox: SimpleQueue[tuple[str, Any]] = field(default_factory=SimpleQueue)
    looked: float = -inf
    seen: float = field(default_factory=monotonic)

    def run(self) -> Generator[Event, None, None]:
        """Give patients to workers until none is left.

        Yields
        ------
        PatientProgress, Outcome or Notice
            One outcome for each patient.

        Raises
        ------
        ClusterError
            If the scheduler or all workers are gone for long, or a worker cannot be used.
        LggSegError
            If a worker cannot load the model or use the device.
        """
        self.client.subscribe_topic(TOPIC, lambda event: self.inbox.put(("", event[1])))
        try:
            while self.waiting or self.busy:
                yield from self._look()
                self._assign()
                yield from self._receive()
        finally:
            # Workers look at this after each batch. The client, which ends next, takes back the rest.
            self.remote.sign.unlink(missing_ok=True)

    def _look(self) -> Generator[Event, None, None]:
        """See which workers there are; patients of those that are gone come back."""
        if monotonic() < self.looked + _LOOK:
            return
        present = set(self._ask(self.client.nthreads))
        self.looked = monotonic()
        if present:
            self.seen = self.looked
        elif self.looked > self.seen + _PATIENCE:
            raise ClusterError(
                f"There has been no worker for {_PATIENCE:.0f} seconds; start some, then call this again to "
                "go on with the patients that are left."
            )
        for address in set(self.busy) - present:
            future, folder = self.busy.pop(address)
            future.cancel()
            yield from self._take_back(folder)
        self.known &= present
        if new := present - self.known:
            self._greet(sorted(new))

    def _greet(self, addresses: list[str]) -> None:
        """Get to know new workers.

        It is not done by a task: a function that a worker cannot load would end the worker.
        """
        if self.remote.processes is not None:  # they are of this installation
            self.known.update(addresses)
            return
        arguments = {"version": __version__, "sign": str(self.remote.sign)}
        answers = self._ask(self.client.run, greet, workers=addresses, on_error="return", **arguments)
        for address, answer in answers.items():
            if isinstance(answer, Unusable):
                raise ClusterError(f"Worker {address} {answer.words}")
            if isinstance(answer, Exception) and not isinstance(answer, OSError):
                raise ClusterError(
                    f"Worker {address} cannot load napari-lgg-seg ({reason(answer)}); install version "
                    f"{__version__} there."
                ) from answer
            if answer is None:  # else it cannot be reached: it is gone
                self.known.add(address)

    def _ask(self, question: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Ask the scheduler something."""
        try:
            return question(*arguments, **options)
        except (OSError, TimeoutError) as error:
            raise ClusterError(
                f"The scheduler cannot be reached any more ({reason(error)}); what is finished is kept - "
                "start one, then call this again to go on."
            ) from error

    def _take_back(self, folder: Path) -> Generator[Event, None, None]:
        """A worker was lost with a patient: another one may try, some times."""
        self.attempts[folder] += 1
        if self.attempts[folder] < ATTEMPTS:
            self.waiting.append(folder)
            yield PatientProgress(folder, 0.0)
            yield Notice(f"A worker was lost; {folder.name} is given to another one.")
        else:
            yield PatientFailed(
                folder,
                f"{folder} was given up: {ATTEMPTS} workers were lost while they segmented it, perhaps for "
                "lack of memory; use fewer workers or segment it on its own.",
            )

    def _assign(self) -> None:
        """Give each idle worker something to do."""
        for address in sorted(self.known - set(self.busy)):
            if not self.waiting:
                return
            folder = self.waiting.popleft()
            # Not pure: dask would take equal calls for one.
            key = f"napari-lgg-seg-{uuid4().hex}"
            future = self.client.submit(
                work, self.remote, folder, workers=[address], key=key, pure=False, retries=0
            )
            self.busy[address] = future, folder
            future.add_done_callback(lambda done, address=address: self.inbox.put((address, done)))

    def _receive(self) -> Generator[Event, None, None]:
        """Wait a moment for the next message of a worker."""
        try:
            address, message = self.inbox.get(timeout=_LOOK)
        except Empty:
            return
        if address:
            if address in self.busy and self.busy[address][0] is message:  # not one that was cancelled
                yield from self._finish(address)
        elif message["run"] == str(self.remote.sign):
            folder = Path(message["folder"])
            if self.busy.get(message["worker"], (None, None))[1] == folder:
                yield PatientProgress(folder, message["share"], message["worker"])

    def _finish(self, address: str) -> Generator[Event, None, None]:
        """Take what a worker found out."""
        from distributed import CancelledError, KilledWorker

        future, folder = self.busy.pop(address)
        try:
            answer = future.result(timeout=_FETCH)
        except (KilledWorker, CancelledError, TimeoutError):
            self.known.discard(address)
            self.looked = -inf
            yield from self._take_back(folder)
            return
        if isinstance(answer, Unusable):
            raise ClusterError(f"Worker {address} {answer.words}")
        if answer is None:
            raise ClusterError(
                f"{self.remote.sign} was removed while workers used it; call this again to go on."
            )
        yield answer
