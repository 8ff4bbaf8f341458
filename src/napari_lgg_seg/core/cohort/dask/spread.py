"""Distribute patients over worker processes, here or on other machines, with dask.distributed."""

from __future__ import annotations

import logging
import os
import signal
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

from ...atomic import cannot_write
from ...errors import ClusterError, reason
from ..patient_job import CohortJob
from .pool import Event, Pool
from .worker import RemoteJob

#: Seconds to wait for a scheduler.
_CONNECT_TIMEOUT = 15.0

#: dask settings for workers on this machine: no web pages, no profiling, no changed environment variables.
_PRIVATE = {
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    "distributed.worker.profile.enabled": False,
    "distributed.diagnostics.nvml": False,
    "distributed.nanny.pre-spawn-environ": {},
}


def spread(
    job: CohortJob, folders: Sequence[Path], workers: int | None, scheduler: str | None
) -> Generator[Event, None, None]:
    """Segment patients in worker processes, which also write the results.

    Parameters
    ----------
    job : CohortJob
        Settings for all patients; its paths are absolute.
    folders : sequence of Path
        The patients' folders, absolute.
    workers : int or None
        Number of processes to start on this machine for this run.
    scheduler : str or None
        Address of a running scheduler whose workers are used instead.

    Yields
    ------
    PatientProgress, Outcome or Notice
        One outcome per folder, in the order of completion. Closing the generator ends the run: workers
        that it started are stopped, others stop after their current batch.

    Raises
    ------
    ClusterError
        If workers cannot be started, reached or used.
    LggSegError
        If a worker cannot load the model or use the device.
    """
    with _marker_file(job.output) as marker:
        client = _own_workers(workers) if workers is not None else _connected(str(scheduler))
        with client as connected:
            pool = Pool(connected, RemoteJob(job, marker, workers), deque(folders))
            with closing(pool.run()) as events:
                yield from events


def check_installed() -> None:
    """Check that the packages of the extra ``cluster`` are installed.

    Raises
    ------
    ClusterError
        If one is missing.
    """
    for package in ("distributed", "cryptography"):
        try:
            import_module(package)
        except ImportError as error:
            raise ClusterError(
                f"Several workers need the package {package}; install it with: "
                "pip install 'napari-lgg-seg[cluster]'."
            ) from error


@contextmanager
def _marker_file(output: Path) -> Iterator[Path]:
    """A file in the output folder that exists while the run lasts; workers check for it."""
    marker = output / f".lgg-run-{uuid4().hex}"
    try:
        created = not output.exists()
        output.mkdir(parents=True, exist_ok=True)
        marker.touch()
    except OSError as error:
        raise cannot_write(output, error) from error
    try:
        yield marker
    finally:
        with suppress(OSError):
            marker.unlink(missing_ok=True)
            if created:
                output.rmdir()  # fails if it holds results


@contextmanager
def _own_workers(count: int) -> Iterator[Any]:
    """A client of worker processes on this machine that end with the block."""
    import dask

    # dask sets its workers' variables in this process as well.
    before = {name: os.environ.get(name) for name in ("PYTHONHASHSEED", "__DASK_PARENT_PID")}
    try:
        folder = TemporaryDirectory(prefix="lgg-workers-", ignore_cleanup_errors=True)
    except OSError as error:
        raise _not_started(error) from error
    with (
        folder as scratch,
        dask.config.set({**_PRIVATE, "temporary-directory": scratch}),
        ThreadPoolExecutor(1) as executor,
    ):
        starting: Future[Any] = executor.submit(_start_workers, count, scratch)
        try:
            with _client_of(starting) as client:
                yield client
        finally:
            # After Ctrl-C during startup, workers that have started anyway must be stopped.
            if starting.exception() is None:
                starting.result().close()
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def _start_workers(count: int, scratch: str) -> Any:
    from distributed import LocalCluster, Security

    # In a terminal, Ctrl-C reaches all processes. Block it in the workers, so that this process ends them.
    if hasattr(signal, "pthread_sigmask"):
        from multiprocessing import resource_tracker

        resource_tracker.ensure_running()  # starting it later would unblock SIGINT
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    return LocalCluster(
        n_workers=count,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        # Other users of this machine can reach the ports, and whoever may talk to dask can run code in it.
        security=Security.temporary(),
        dashboard_address=None,
        scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},  # the default is port 8787
        memory_limit=0,  # no limit, as in a run without workers
        local_directory=scratch,
        silence_logs=logging.CRITICAL,
    )


def _client_of(starting: Future[Any]) -> Any:
    """A client of the workers that are being started."""
    from distributed import Client

    try:
        return Client(starting.result(), set_as_default=False)
    except (RuntimeError, OSError, TimeoutError) as error:
        raise _not_started(error) from error


def _not_started(error: Exception) -> ClusterError:
    return ClusterError(
        f"The worker processes could not be started ({reason(error)}); try fewer, and in a script make the "
        'call under if __name__ == "__main__".'
    )


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    """A client of a running scheduler."""
    from distributed import Client, Security
    from distributed.comm import get_address_host_port

    with _without_logs():
        try:
            # Check first what would make the client fail halfway through its construction.
            get_address_host_port(address)
            if address.startswith("tls:") and not Security().get_connection_args("client").get("ssl_context"):
                raise ValueError("dask's configuration has no certificates")
            client = Client(address, timeout=_CONNECT_TIMEOUT, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise ClusterError(
                f"No dask scheduler answers at {address} ({reason(error)}); use the address that it printed "
                "when it started, for instance tcp://host:8786."
            ) from error
        try:
            yield client
        finally:
            with suppress(OSError, TimeoutError):  # the scheduler is gone
                client.close()


@contextmanager
def _without_logs() -> Iterator[None]:
    """Keep dask from printing tracebacks when a connection is lost, which is reported as one sentence."""
    loggers = [
        logging.getLogger(name) for name in logging.root.manager.loggerDict if name.startswith("distributed")
    ]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
