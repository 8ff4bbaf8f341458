"""Background work of the cohort browser: read the patients of a dataset, segment and export many."""

from __future__ import annotations

import threading
from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic

from ...core.cohort.patient_job import (
    PatientFailed,
    PatientProgress,
    PatientSegmented,
    PatientSkipped,
    failure_of,
)
from ...core.cohort.patient_results import PatientResults
from ...core.cohort.patient_summary import PatientSummary
from ...core.cohort.run import CohortEvent, segment_cohort
from ...core.cohort.status import PatientStatus
from ...core.cohort.store import ResultStore
from ...core.cohort.summary_cache import SummaryCache, cached_summary
from ...core.data.label_files import LabelMap
from ...core.data.listing import ListedPatients, list_patients
from ...core.data.patients import find_slices
from ...core.errors import ExistingMasksError, LggSegError
from ...core.inference.predict import Notice
from ...core.options import SegmentOptions
from ..shared.worker import returns_failure

#: Seconds between two reports of patients that were read.
_REPORT_SECONDS = 0.15


# --- reading -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Listing:
    """The patients of a dataset, and the states of those that can be used; their files are not read yet."""

    patients: ListedPatients
    statuses: Mapping[str, PatientStatus]


Summaries = dict[str, PatientSummary]


@returns_failure
def scan_dataset(
    dataset: Path, results: ResultStore, cache_file: Path
) -> Generator[Listing | Summaries, None, None]:
    """List a dataset's patients, then read them one after the other.

    Yields
    ------
    Listing, then dict of str to PatientSummary
        The patients that were read since the last report; those with a problem are not read.
    """
    results.check(dataset)
    listed = list_patients(dataset, results.folder)
    usable = {name: folder for name, folder in listed.folders.items() if name not in listed.problems}
    statuses = results.statuses(usable)
    usable = {name: folder for name, folder in usable.items() if name not in statuses.problems}
    listed = replace(listed, problems={**listed.problems, **statuses.problems})
    yield Listing(listed, statuses.found)
    summaries: Summaries = {}
    reported = monotonic()
    with SummaryCache(cache_file) as cache:
        for name, folder in usable.items():
            summaries[name] = cached_summary(folder, results.patient(name), cache)
            if monotonic() - reported > _REPORT_SECONDS:
                yield summaries
                summaries, reported = {}, monotonic()
    yield summaries


# --- many patients -----------------------------------------------------------------------------


@dataclass(frozen=True)
class SegmentJob:
    """The input of a run over patients, taken from the window when it is started.

    Attributes
    ----------
    patients : dict of Path to str
        The patients' folders and names.
    results : ResultStore
        Where the results go.
    model : Path
        The model file.
    options : SegmentOptions
        Threshold, test-time augmentation and device.
    skip_finished : bool
        Skip patients whose results are those that the run would give.
    replaceable : frozenset of str
        Names of patients whose corrected labels may be replaced.
    cache_file : Path
        The cache of patients' summaries.
    cancelled : Event
        Set to end the run after the current batch.
    """

    patients: Mapping[Path, str]
    results: ResultStore
    model: Path
    options: SegmentOptions
    skip_finished: bool
    replaceable: frozenset[str]
    cache_file: Path
    cancelled: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class PatientRefreshed:
    """A patient whose result changed without another event: after a cancelled run, or in another window."""

    folder: Path
    status: PatientStatus
    summary: PatientSummary


@returns_failure
def run_segment(job: SegmentJob) -> Generator[CohortEvent | PatientRefreshed, None, None]:
    """Segment patients in a worker."""
    from ...core import devices

    options = job.options
    if options.device not in ("auto", *devices.available_devices()):
        yield Notice(f"The preferred device {options.device.upper()} is not present; Auto is used instead.")
        options = replace(options, device="auto")
    work = segment_cohort(
        list(job.patients),
        job.results.folder,
        job.model,
        options,
        "tiff",
        overwrite=True,
        skip_finished=job.skip_finished,
        replace_corrected=job.replaceable,
        keep_probability=True,
    )
    unreported: set[Path] = set()
    with SummaryCache(job.cache_file) as cache:
        with closing(work) as events:
            for event in events:
                if isinstance(event, PatientProgress):
                    unreported.add(event.folder)
                elif isinstance(event, PatientSegmented | PatientSkipped | PatientFailed):
                    unreported.discard(event.folder)
                if isinstance(event, PatientSegmented) and event.details is not None:
                    name = job.patients[event.folder]
                    cache.update(event.folder, job.results.patient(name), event.details)
                yield event
                if isinstance(event, PatientSkipped) and event.corrected:  # elsewhere, since it was listed
                    unreported.add(event.folder)
                if job.cancelled.is_set():
                    break
        for folder in sorted(unreported):
            results = job.results.patient(job.patients[folder])
            try:
                yield PatientRefreshed(folder, results.status(), cached_summary(folder, results, cache))
            except LggSegError as error:
                yield PatientFailed(folder, str(error))


@dataclass(frozen=True)
class PatientExported:
    """The masks of a patient were written."""

    folder: Path
    status: PatientStatus


@dataclass(frozen=True)
class MasksExist:
    """The masks of a patient were not written, because there are masks already."""

    name: str


ExportEvent = PatientProgress | PatientExported | MasksExist | PatientFailed


@returns_failure
def run_export(
    patients: Mapping[Path, str], results: ResultStore, output: Path, *, overwrite: bool
) -> Generator[ExportEvent, None, None]:
    """Write the saved labels of patients as masks, ``<output>/<patient>/<patient>_<n>_mask.tif``."""
    for folder, name in patients.items():
        yield PatientProgress(folder, 0.0)
        try:
            files = find_slices(folder)
            stored = results.patient(name).read()
            if stored is None:
                yield PatientFailed(folder, f"{name} has no labels yet; segment it first.")
                continue
            label_map = LabelMap(
                files.name,
                stored.labels,
                tuple(files.images or files.masks),
                made_with=stored.status.made_with,
                number_width=files.number_width,
            )
            copy = PatientResults(output / name, files.name)
            by_hand = None if stored.status.state == "foreign" else stored.status.by_hand
            copy.write_copy(label_map, "masks", by_hand=by_hand, overwrite=overwrite)
            yield PatientExported(folder, results.patient(name).mark_exported())
        except ExistingMasksError:
            yield MasksExist(name)
        except (LggSegError, OSError, MemoryError, UnicodeError) as error:
            yield failure_of(folder, error)
