"""Assigns patients to workers.

A worker has one patient at a time, so that it is clear which patient was lost with it. That patient is given
to another worker, and given up after several attempts.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any
from uuid import uuid4

from ...._version import __version__
from ...errors import ClusterError, LggSegError, reason
from ...inference.predict import Notice
from ..patient_job import Outcome, PatientFailed, PatientProgress
from .worker import TOPIC, RemoteJob, Unusable, check_worker, run_patient

#: How often a patient is given to a worker.
ATTEMPTS = 3
#: Seconds between checks for new and lost workers.
_POLL_INTERVAL = 1.0
#: Seconds to wait for the result of a finished patient.
_FETCH_TIMEOUT = 60.0
#: Seconds to wait for an answer of the scheduler, and of new workers that import this package.
_ANSWER_TIMEOUT = 60.0
#: Seconds without any worker before the run fails.
_NO_WORKERS_TIMEOUT = 120.0

Event = PatientProgress | Outcome | Notice


@dataclass
class Pool:
    """The patients of a run and the workers of a client.

    Attributes
    ----------
    client : distributed.Client
        Connected to the scheduler.
    remote : RemoteJob
        Sent to the workers.
    waiting : deque of Path
        Folders of the patients that no worker has.
    busy : dict
        Address of a worker -> its future and the patient's folder.
    known : set of str
        Addresses of workers that can be used.
    attempts : Counter
        How often a patient's worker was lost.
    inbox : SimpleQueue
        Messages: a worker's address and its finished future, or an empty string and a progress message.
    polled : float
        When workers were last listed (monotonic clock).
    last_seen : float
        When there was last at least one worker (monotonic clock).
    """

    client: Any
    remote: RemoteJob
    waiting: deque[Path]
    busy: dict[str, tuple[Any, Path]] = field(default_factory=dict)
    known: set[str] = field(default_factory=set)
    attempts: Counter[Path] = field(default_factory=Counter)
    inbox: SimpleQueue[tuple[str, Any]] = field(default_factory=SimpleQueue)
    polled: float = -inf
    last_seen: float = field(default_factory=monotonic)

    def run(self) -> Generator[Event, None, None]:
        """Give patients to workers until all are done.

        Yields
        ------
        PatientProgress, Outcome or Notice
            One outcome per patient.

        Raises
        ------
        ClusterError
            If the scheduler is lost, there have been no workers for too long, or a worker is unusable.
        LggSegError
            If a worker cannot load the model or use the device.
        """
        try:
            self.client.subscribe_topic(TOPIC, lambda event: self.inbox.put(("", event[1])))
            while self.waiting or self.busy:
                yield from self._poll()
                self._assign()
                yield from self._receive()
        except LggSegError:
            raise
        except Exception as error:
            # What dask raises without a connection depends on what it was doing when it was lost.
            if not isinstance(error, OSError | TimeoutError) and self.client.status == "running":
                raise
            raise ClusterError(
                f"The scheduler can no longer be reached ({reason(error)}); finished patients keep their "
                "results - start a scheduler, then repeat the call to continue."
            ) from error
        finally:
            # Workers check for it after each batch. Closing the client cancels the other tasks.
            with suppress(OSError):
                self.remote.marker.unlink(missing_ok=True)

    def _poll(self) -> Generator[Event, None, None]:
        """List the workers; patients of those that are gone are returned to the queue."""
        if monotonic() < self.polled + _POLL_INTERVAL:
            return
        present = set(self.client.nthreads(callback_timeout=_ANSWER_TIMEOUT))
        self.polled = monotonic()
        if present:
            self.last_seen = self.polled
        elif self.polled > self.last_seen + _NO_WORKERS_TIMEOUT:
            raise ClusterError(
                f"There has been no worker for {_NO_WORKERS_TIMEOUT:.0f} seconds; start workers, then repeat "
                "the call to continue with the remaining patients."
            )
        for address in set(self.busy) - present:
            future, folder = self.busy.pop(address)
            future.cancel()
            yield from self._requeue(folder)
        self.known &= present
        if new := present - self.known:
            self._check_workers(sorted(new))

    def _check_workers(self, addresses: list[str]) -> None:
        """Check whether new workers can be used.

        This is not done in a task: a function that a worker cannot import would terminate the worker.
        """
        if self.remote.processes is not None:  # started from this installation
            self.known.update(addresses)
            return
        arguments = {"version": __version__, "marker": str(self.remote.marker)}
        answers = self.client.run(
            check_worker, workers=addresses, on_error="return", callback_timeout=_ANSWER_TIMEOUT, **arguments
        )
        for address, answer in answers.items():
            if isinstance(answer, Unusable):
                raise ClusterError(f"Worker {address} {answer.reason}")
            if isinstance(answer, Exception) and not isinstance(answer, OSError):
                raise ClusterError(
                    f"Worker {address} cannot load napari-lgg-seg ({reason(answer)}); install version "
                    f"{__version__} there."
                ) from answer
            if answer is None:  # otherwise it cannot be reached: it is gone
                self.known.add(address)

    def _requeue(self, folder: Path) -> Generator[Event, None, None]:
        """Return a lost worker's patient to the queue, unless it has been tried too often."""
        self.attempts[folder] += 1
        if self.attempts[folder] < ATTEMPTS:
            self.waiting.append(folder)
            yield PatientProgress(folder, 0.0)
            yield Notice(f"A worker was lost; {folder.name} is given to another one.")
        else:
            yield PatientFailed(
                folder,
                f"{folder} was given up: {ATTEMPTS} workers were lost while segmenting it, perhaps for lack "
                "of memory; use fewer workers or segment it separately.",
            )

    def _assign(self) -> None:
        """Give each idle worker a patient."""
        for address in sorted(self.known - set(self.busy)):
            if not self.waiting:
                return
            folder = self.waiting.popleft()
            # With pure=True, dask would treat equal calls as the same task.
            key = f"napari-lgg-seg-{uuid4().hex}"
            future = self.client.submit(
                run_patient, self.remote, folder, workers=[address], key=key, pure=False, retries=0
            )
            self.busy[address] = future, folder
            future.add_done_callback(lambda done, address=address: self.inbox.put((address, done)))

    def _receive(self) -> Generator[Event, None, None]:
        """Wait for the next message of a worker, at most until the next poll."""
        try:
            address, message = self.inbox.get(timeout=_POLL_INTERVAL)
        except Empty:
            return
        if address:
            if address in self.busy and self.busy[address][0] is message:  # not a cancelled future
                yield from self._finish(address)
        elif message["run"] == str(self.remote.marker):
            folder = Path(message["folder"])
            if self.busy.get(message["worker"], (None, None))[1] == folder:
                yield PatientProgress(folder, message["share"], message["worker"])

    def _finish(self, address: str) -> Generator[Event, None, None]:
        """Fetch the outcome of a worker's patient."""
        from distributed import CancelledError, KilledWorker

        future, folder = self.busy.pop(address)
        try:
            answer = future.result(timeout=_FETCH_TIMEOUT)
        except (KilledWorker, CancelledError, TimeoutError):
            self.known.discard(address)
            self.polled = -inf
            yield from self._requeue(folder)
            return
        if isinstance(answer, Unusable):
            raise ClusterError(f"Worker {address} {answer.reason}")
        if answer is None:
            raise ClusterError(
                f"{self.remote.marker} was removed while workers needed it; repeat the call to continue."
            )
        yield answer
