"""Segment the patients of a cohort, in this process or in several workers: generators of events."""

from __future__ import annotations

import os
from collections.abc import Collection, Generator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..choices import FileFormat, OptionsError
from ..data.discover import find_patients
from ..data.label_files import LabelMap
from ..data.patients import find_slices, read_patient
from ..data.provenance import model_checksum
from ..errors import CorrectedError, LggSegError, PatientError
from ..inference.postprocess import postprocess, threshold_of
from ..inference.predict import Notice, Predictor, SlicesDone, predictor_for
from ..inference.segmentation import voxels_of
from ..memory import return_main_memory
from ..model.checkpoint import DEFAULT_MODEL, load_model, read_card
from ..options import SegmentOptions, label_options
from ..prefetch import read_ahead
from .dask.spread import check_installed, spread
from .index import PatientStatus
from .patient_job import (
    CohortJob,
    Outcome,
    PatientComputed,
    PatientFailed,
    PatientInput,
    PatientProgress,
    PatientSkipped,
    compute_labels,
    read_input,
    write_result,
)
from .patient_summary import PatientSummary, summarize_patient
from .results import CohortResults

if TYPE_CHECKING:
    from ..data.patients import Patient
    from ..inference.predict import Probability

AnyPath = str | os.PathLike[str]


# --- into a folder of masks --------------------------------------------------------------------


@dataclass(frozen=True)
class CohortFound:
    """The patients have been found; ``patients`` is their number."""

    patients: int


CohortEvent = CohortFound | PatientProgress | Outcome | Notice


def segment_cohort(
    folders: AnyPath | Sequence[AnyPath],
    output: AnyPath,
    model: AnyPath | None = None,
    options: SegmentOptions | None = None,
    file_format: FileFormat = "masks",
    *,
    overwrite: bool = False,
    workers: int | None = None,
    scheduler: str | None = None,
) -> Generator[CohortEvent, None, None]:
    """Segment patients and write the results to ``<output>/<patient>/``.

    A patient is finished if a complete result exists that was made from the same images with the same
    model, options and version. Finished patients are skipped, so that repeating a call resumes it.

    Parameters
    ----------
    folders : path or sequence of paths
        Patients' folders, or folders of them.
    output : path
        Created if it does not exist.
    model : path, optional
        A model file; the shipped model by default.
    options : SegmentOptions, optional
        Threshold, clean-up, test-time augmentation, batch size, device, engine.
    file_format : {"masks", "tiff", "nifti"}
        Format of the results.
    overwrite : bool
        Segment all patients again and replace earlier results.
    workers : int, optional
        Number of processes on this machine that share the patients; by default only this process. In a
        script, call it under ``if __name__ == "__main__":``, since each process imports the script.
    scheduler : str, optional
        Address of a running dask scheduler whose workers share the patients instead. They need the same
        version of this package and must see all folders and the model under the same paths.

    Yields
    ------
    CohortEvent
        First :class:`CohortFound`, then progress, and one ``PatientSegmented``, ``PatientSkipped`` or
        ``PatientFailed`` per patient once its result is written, by which time the next patient may have
        started. In a single process they come in the order of the patients. Close the generator to stop;
        finished patients keep their results.

    Raises
    ------
    ModelError, DeviceError, OptionsError
        If the model, the device or the options are unusable for all patients.
    ClusterError
        If the package ``distributed`` is missing, or workers cannot be started, reached or used.

    Examples
    --------
    >>> import tempfile
    >>> import napari_lgg_seg as lgg
    >>> with tempfile.TemporaryDirectory() as cohort:
    ...     events = list(lgg.segment_cohort(cohort, "masks"))
    >>> [type(event).__name__ for event in events]
    ['CohortFound', 'PatientFailed']
    """
    _check_workers(workers, scheduler)
    folders = [folders] if isinstance(folders, str | os.PathLike) else folders
    path = DEFAULT_MODEL if model is None else Path(model)
    read_card(path)  # fail before any worker is started
    options = options or SegmentOptions()
    job = CohortJob(
        output=_absolute(output),
        model=None if model is None else _absolute(model),
        checksum=model_checksum(path),
        options=options,
        file_format=file_format,
        overwrite=overwrite,
    )
    patients = find_patients([_absolute(folder) for folder in folders])
    unique, duplicates = _without_duplicates(patients)
    if workers is None and scheduler is None:
        predictor = predictor_for(load_model(path), options)
        events = _segment_here(job, predictor, unique)
    else:
        check_installed()
        events = spread(job, unique, workers, scheduler)
    yield CohortFound(len(patients))
    yield from duplicates
    yield from events


def _check_workers(workers: int | None, scheduler: str | None) -> None:
    if workers is not None and scheduler is not None:
        raise OptionsError(
            "A scheduler has its own workers; give either a number of workers or a scheduler, not both."
        )
    if workers is not None and workers < 1:
        raise OptionsError(f"A number of {workers} workers is below 1; choose 1 or more.")


def _absolute(path: AnyPath) -> Path:
    # Resolving links could give a path that does not exist on another machine.
    return Path(os.path.abspath(path))  # noqa: PTH100


def _without_duplicates(folders: Sequence[Path]) -> tuple[list[Path], list[PatientFailed]]:
    """The folders with distinct patient names, and a failure for each folder that repeats a name."""
    names: set[str] = set()
    unique: list[Path] = []
    duplicates: list[PatientFailed] = []
    for folder in folders:
        try:
            name = find_slices(folder).name
        except PatientError:
            unique.append(folder)  # reported when it is read
            continue
        if name in names:
            sentence = f"{folder} holds {name} once more; rename one of them or segment it separately."
            duplicates.append(PatientFailed(folder, sentence))
        else:
            names.add(name)
            unique.append(folder)
    return unique, duplicates


def _segment_here(
    job: CohortJob, predictor: Predictor, folders: Sequence[Path]
) -> Generator[CohortEvent, None, None]:
    """Segment patients in this process; meanwhile the next one is read and the previous one written.

    Closing the generator waits until a result that is being written is complete.
    """
    with (
        ThreadPoolExecutor(1, "napari-lgg-seg-write") as writer,
        closing(read_ahead(partial(read_input, job), folders)) as patients,
    ):
        before: Future[Outcome] | None = None
        for folder, reading in patients:
            return_main_memory()  # otherwise memory grows with the number of patients
            with closing(_segment_one(job, predictor, folder, reading, writer)) as steps:
                while not isinstance(step := next(steps), Future):
                    if before is not None and before.done():
                        yield before.result()
                        before = None
                    yield step
            if before is not None:
                yield before.result()
            before = step
        if before is not None:
            yield before.result()


def _segment_one(
    job: CohortJob,
    predictor: Predictor,
    folder: Path,
    reading: Future[PatientInput | PatientSkipped],
    writer: Executor,
) -> Generator[PatientProgress | Future[Outcome], None, None]:
    """Segment one patient; the last item is a future that is done once the result is written."""
    try:
        patient_input = reading.result()
        if isinstance(patient_input, PatientInput):
            computed = yield from compute_labels(job, predictor, patient_input)
            yield writer.submit(_write, job, computed)
        else:
            yield writer.submit(lambda: patient_input)
    except LggSegError as error:
        failed = PatientFailed(folder, str(error))
        yield writer.submit(lambda: failed)


def _write(job: CohortJob, computed: PatientComputed) -> Outcome:
    try:
        return write_result(job, computed)
    except LggSegError as error:
        return PatientFailed(computed.outcome.folder, str(error))


# --- into the results of the cohort browser ----------------------------------------------------


@dataclass(frozen=True)
class PatientStarted:
    """Segmentation of a patient begins: its folder name and its number, counted from 1."""

    name: str
    number: int
    of: int


@dataclass(frozen=True)
class PredictionStored:
    """A patient's prediction has been stored; ``summary`` includes it."""

    folder: Path
    status: PatientStatus
    summary: PatientSummary


@dataclass(frozen=True)
class PatientLeft:
    """A patient was skipped; ``sentence`` says why."""

    name: str
    sentence: str


@dataclass(frozen=True)
class PatientUnusable:
    """A patient could not be segmented; ``sentence`` says why. The run continues with the others."""

    name: str
    sentence: str


ResultsEvent = PatientStarted | SlicesDone | Notice | PredictionStored | PatientLeft | PatientUnusable


def segment_patients(
    folders: Collection[Path],
    results: CohortResults,
    predictor: Predictor,
    options: SegmentOptions,
    made_with: Mapping[str, Any],
    *,
    replaceable: Collection[str] = (),
) -> Generator[ResultsEvent, None, None]:
    """Segment patients and store labels and probability among the results of a cohort.

    Parameters
    ----------
    folders : collection of Path
        The patients' folders.
    results : CohortResults
        Where predictions are stored. Patients with corrected labels are skipped.
    predictor : Predictor
        The model, prepared for a device.
    options : SegmentOptions
        Only threshold and clean-up are used; the predictor has its own device, engine and batch size.
    made_with : mapping
        From :func:`describe_run`.
    replaceable : collection of str
        Folder names of patients whose corrected labels may be replaced.

    Yields
    ------
    ResultsEvent
        Close the generator to cancel: finished patients keep their predictions, the current one is left
        unchanged.
    """
    complete = predictor.card.complete(options)
    with closing(read_ahead(read_patient, folders)) as patients:
        for number, (folder, reading) in enumerate(patients, start=1):
            name = folder.name
            yield PatientStarted(name, number, len(folders))
            try:
                may_replace = name in replaceable
                if results.status(name).by_hand and not may_replace:
                    raise CorrectedError(f"{name} has corrected labels, which were not replaced.")
                patient = reading.result()
                probability = yield from predictor.predict(voxels_of(patient))
                label_map = _label(patient, probability, complete, made_with)
                # Not written in a thread: no one would report what a cancelled run still wrote.
                status = results.write_prediction(name, label_map, probability, replace_corrected=may_replace)
                yield PredictionStored(folder, status, summarize_patient(patient, label_map.labels))
            except CorrectedError as error:
                yield PatientLeft(name, str(error))
            except LggSegError as error:
                yield PatientUnusable(name, str(error))


def _label(
    patient: Patient, probability: Probability, options: SegmentOptions, made_with: Mapping[str, Any]
) -> LabelMap:
    threshold = threshold_of(probability, options.threshold)
    return LabelMap(
        patient.name,
        postprocess(probability, replace(options, threshold=threshold)),
        patient.slice_numbers,
        patient.spacing,
        patient.affine,
        {**made_with, "threshold": threshold},
    )


def describe_run(model: Path, options: SegmentOptions) -> dict[str, Any]:
    """Model and options of a run, stored with its results to tell runs apart.

    Raises
    ------
    ModelError
        If the model file cannot be read.
    """
    card = read_card(model)
    stat = model.stat()
    # A model that was trained again under its old name is a different one.
    stamp = f"{stat.st_size} bytes, changed {stat.st_mtime_ns}"
    return {"model": card.name, "model_file": stamp, "options": options.as_dict()}


def is_done(status: PatientStatus, run: dict[str, Any]) -> bool:
    """Whether a patient's stored result is the one that such a run would give."""
    same = _label_settings(status.made_with) == _label_settings(run)
    return status.state != "new" and not status.by_hand and same


def _label_settings(run: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a run's description that affects its labels."""
    options = label_options(run.get("options", {}))
    return {"model": run.get("model"), "model_file": run.get("model_file"), "options": options}
