"""Work of the cohort browser in workers: read the patients of a dataset, segment and export many."""

from __future__ import annotations

from collections.abc import Collection, Generator
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic

from ...core.cohort.index import PatientStatus
from ...core.cohort.patient_summary import PatientSummary
from ...core.cohort.results import CohortResults
from ...core.cohort.run import (
    PatientStarted,
    PatientUnusable,
    PredictionStored,
    ResultsEvent,
    segment_patients,
)
from ...core.cohort.summary_cache import SummaryCache, cached_summary
from ...core.data.discover import list_patients
from ...core.data.masks import write_masks
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
    """The patients of a dataset and their states; their files are not read yet."""

    folders: list[Path]
    statuses: dict[str, PatientStatus]


Summaries = dict[str, PatientSummary]


@returns_failure
def scan_dataset(
    dataset: Path, results: CohortResults, cache_file: Path
) -> Generator[Listing | Summaries, None, None]:
    """List a dataset's patients, then read them one after the other.

    Yields
    ------
    Listing, then dict of str to PatientSummary
        The patients that were read since the last report.
    """
    results.check(dataset)
    folders = list_patients(dataset, results.folder)
    yield Listing(folders, results.statuses([folder.name for folder in folders]))
    summaries: Summaries = {}
    reported = monotonic()
    with SummaryCache(cache_file) as cache:
        for folder in folders:
            summaries[folder.name] = cached_summary(folder, results, cache)
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
    folders : tuple of Path
        The patients' folders.
    results : CohortResults
        Where the results go.
    model : Path
        The model file.
    options : SegmentOptions
        Threshold, test-time augmentation and device.
    made_with : dict
        From :func:`napari_lgg_seg.core.cohort.run.describe_run`.
    replaceable : frozenset of str
        Names of patients whose corrected labels may be replaced.
    cache_file : Path
        The cache of patients' summaries.
    """

    folders: tuple[Path, ...]
    results: CohortResults
    model: Path
    options: SegmentOptions
    made_with: dict[str, object]
    replaceable: frozenset[str]
    cache_file: Path


@returns_failure
def run_segment(job: SegmentJob) -> Generator[ResultsEvent, None, None]:
    """Segment patients in a worker."""
    yield PatientStarted(job.folders[0].name, 1, len(job.folders))
    from ...core import devices, memory
    from ...core.inference.predict import predictor_for
    from ...core.model.checkpoint import load_model

    options = job.options
    if options.device not in ("auto", *devices.available_devices()):
        yield Notice(f"The preferred device {options.device.upper()} is not present; Auto is used instead.")
        options = replace(options, device="auto")
    predictor = predictor_for(load_model(job.model), options)
    made_with = {**job.made_with, "options": options.as_dict()}
    work = segment_patients(
        job.folders, job.results, predictor, options, made_with, replaceable=job.replaceable
    )
    try:
        with SummaryCache(job.cache_file) as cache:
            for event in work:
                if isinstance(event, PredictionStored):
                    cache.update(event.folder, job.results, event.summary)
                yield event
    finally:
        device = predictor.device
        work.close()
        del predictor, work
        memory.free_memory(device)


@dataclass(frozen=True)
class PatientExported:
    """The masks of a patient were written."""

    name: str
    status: PatientStatus


@dataclass(frozen=True)
class MasksExist:
    """The masks of a patient were not written, because there are masks already."""

    name: str


ExportEvent = PatientStarted | PatientExported | MasksExist | PatientUnusable


@returns_failure
def run_export(
    folders: Collection[Path], results: CohortResults, output: Path, *, overwrite: bool
) -> Generator[ExportEvent, None, None]:
    """Write the saved labels of patients as masks, ``<output>/<patient>/<patient>_<n>_mask.tif``."""
    for number, folder in enumerate(folders, start=1):
        name = folder.name
        yield PatientStarted(name, number, len(folders))
        try:
            files = find_slices(folder)
            numbers = tuple(files.images or files.masks)
            labels = results.read_labels(name)
            if labels is None:
                yield PatientUnusable(name, f"{name} has no labels yet; segment it first.")
                continue
            write_masks(output / name, files.name, labels, numbers, overwrite=overwrite)
            yield PatientExported(name, results.mark_exported(name))
        except ExistingMasksError:
            yield MasksExist(name)
        except LggSegError as error:
            yield PatientUnusable(name, str(error))
