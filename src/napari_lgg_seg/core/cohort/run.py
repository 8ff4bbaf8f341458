"""Segment the patients of cohorts, in this process or spread over workers: a generator of events."""

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
from ..data.label_files import LabelMap
from ..data.patients import find_slices, has_slices, read_patient
from ..data.provenance import model_checksum
from ..errors import CorrectedError, LggSegError, PatientError
from ..inference.postprocess import postprocess, threshold_of
from ..inference.predict import Notice, Predictor, SlicesDone, predictor_for
from ..inference.segmentation import voxels_of
from ..memory import return_main_memory
from ..model.checkpoint import DEFAULT_MODEL, load_model, read_card
from ..options import SegmentOptions, label_options
from ..prefetch import read_ahead
from .index import PatientStatus
from .patient_job import (
    CohortJob,
    Outcome,
    PatientComputed,
    PatientFailed,
    PatientProgress,
    PatientRead,
    PatientSkipped,
    compute,
    read_for,
    write_result,
)
from .patient_summary import PatientSummary, summarize_patient
from .results import CohortResults

if TYPE_CHECKING:
    from ..data.patients import Patient
    from ..inference.predict import Predictor, Probability
    from ..options import SegmentOptions

AnyPath = str | os.PathLike[str]


@dataclass(frozen=True)
class CohortFound:
    """The patients are known; this is how many there are."""

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

    A patient is finished if its result is there, whole, and made from the same images with the same
    model, options and version. Finished patients are left as they are, so that the same call again goes
    on where the last one stopped.

    Parameters
    ----------
    folders : path or sequence of paths
        Patients' folders, or folders of them.
    output : path
        Made if it is not there.
    model : path, optional
        A model file; the shipped model by default.
    options : SegmentOptions, optional
        Threshold, clean-up, test-time augmentation, batch size, device, engine.
    file_format : {"masks", "tiff", "nifti"}
        Of the results.
    overwrite : bool
        Segment all patients and replace what is there.
    workers : int, optional
        Processes on this machine that share the patients; this process alone by default. In a script,
        call it under ``if __name__ == "__main__":``, since each of them imports the script.
    scheduler : str, optional
        Address of a running dask scheduler, whose workers share the patients instead. They need this
        package in the same version, and must see all folders and the model under the same paths.

    Yields
    ------
    CohortEvent
        First :class:`CohortFound`, then what happens to the patients: for each of them one
        ``PatientSegmented``, ``PatientSkipped`` or ``PatientFailed``, with one process in their order; it
        comes when the result is written, by when the next patient may have begun. Close the generator to
        stop; patients that are done stay done.

    Raises
    ------
    ModelError, DeviceError, OptionsError
        If the model, the device or the options cannot be used by any patient.
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
    _check(workers, scheduler)
    folders = [folders] if isinstance(folders, str | os.PathLike) else folders
    path = DEFAULT_MODEL if model is None else Path(model)
    read_card(path)  # before workers are started for nothing
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
    chosen, refused = _one_folder_each(patients)
    if workers is None and scheduler is None:
        predictor = predictor_for(load_model(path), options)
        work = _one_by_one(job, predictor, chosen)
    else:
        from .cluster import check_installed, spread

        check_installed()
        work = spread(job, chosen, workers, scheduler)
    yield CohortFound(len(patients))
    yield from refused
    yield from work


def _check(workers: int | None, scheduler: str | None) -> None:
    if workers is not None and scheduler is not None:
        raise OptionsError(
            "A scheduler has workers of its own; give a number of workers or a scheduler, not both."
        )
    if workers is not None and workers < 1:
        raise OptionsError(f"A number of {workers} workers is below 1; choose 1 or more.")


def _absolute(path: AnyPath) -> Path:
    # Resolving links could give a path that another machine does not have.
    return Path(os.path.abspath(path))  # noqa: PTH100


def find_patients(folders: Sequence[Path]) -> list[Path]:
    """Patient folders among, or inside, the given folders, each once, in the given order.

    Broken ones are among them, and folders that are neither or are not there: reading them says what is
    wrong.
    """
    found: dict[Path, Path] = {}
    for folder in folders:
        inside = [] if has_slices(folder) else [f for f in _inside(folder) if has_slices(f)]
        for patient in inside or [folder]:
            found.setdefault(patient.resolve(), patient)
    return list(found.values())


def _inside(folder: Path) -> list[Path]:
    """What is in a folder, but for hidden things: a program that was killed can leave half a patient so."""
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError:
        return []


def _one_folder_each(folders: Sequence[Path]) -> tuple[list[Path], list[PatientFailed]]:
    """The folders with the first of each patient, and a refusal for each further one."""
    names: set[str] = set()
    chosen: list[Path] = []
    refused: list[PatientFailed] = []
    for folder in folders:
        try:
            name = find_slices(folder).name
        except PatientError:
            chosen.append(folder)  # it is refused when its turn comes
            continue
        if name in names:
            sentence = f"{folder} holds {name} once more; rename one of them or segment it on its own."
            refused.append(PatientFailed(folder, sentence))
        else:
            names.add(name)
            chosen.append(folder)
    return chosen, refused


def _one_by_one(
    job: CohortJob, predictor: Predictor, folders: Sequence[Path]
) -> Generator[CohortEvent, None, None]:
    """Segment patients in this process; meanwhile the next one is read, and the one before written.

    Closing the generator waits for a result that is being written: that patient is done.
    """
    with (
        ThreadPoolExecutor(1, "napari-lgg-seg-write") as writer,
        closing(read_ahead(partial(read_for, job), folders)) as patients,
    ):
        before: Future[Outcome] | None = None
        for folder, reading in patients:
            return_main_memory()  # or a cohort takes the more the longer it is
            with closing(_one(job, predictor, folder, reading, writer)) as steps:
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


def _one(
    job: CohortJob,
    predictor: Predictor,
    folder: Path,
    reading: Future[PatientRead | PatientSkipped],
    writer: Executor,
) -> Generator[PatientProgress | Future[Outcome], None, None]:
    """Segment one patient; its outcome, which comes last, is known when its result is written."""
    try:
        read = reading.result()
        if isinstance(read, PatientRead):
            computed = yield from compute(job, predictor, read)
            yield writer.submit(_written, job, computed)
        else:
            yield writer.submit(lambda: read)
    except LggSegError as error:
        failed = PatientFailed(folder, str(error))
        yield writer.submit(lambda: failed)


def _written(job: CohortJob, computed: PatientComputed) -> Outcome:
    """Write a result."""
    try:
        return write_result(job, computed)
    except LggSegError as error:
        return PatientFailed(computed.outcome.folder, str(error))


@dataclass(frozen=True)
class PatientStarted:
    """A patient's turn has come: its folder's name and its number, from 1."""

    name: str
    number: int
    of: int


@dataclass(frozen=True)
class PredictionStored:
    """A patient's result is among the results; the details are those of the patient with it."""

    folder: Path
    status: PatientStatus
    details: PatientSummary


@dataclass(frozen=True)
class PatientLeft:
    """A patient was left as it is, for a reason that is one sentence."""

    name: str
    sentence: str


@dataclass(frozen=True)
class PatientUnusable:
    """A patient could not be segmented, for a reason that is one sentence; the others go on."""

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
    """Segment patients into the results of a cohort: labels and probability.

    Parameters
    ----------
    folders : collection of Path
        The patients'.
    results : CohortResults
        Where the results go. Patients with corrected labels are skipped.
    predictor : Predictor
        The model, made ready for a device.
    options : SegmentOptions
        Threshold and clean-up are used; what concerns the device is the predictor's.
    made_with : mapping
        From :func:`describe_run`.
    replaceable : collection of str
        Names of patients' folders whose corrected labels may be replaced.

    Yields
    ------
    ResultsEvent
        Close the generator to cancel: patients that are done stay done, the one in work is left as it
        was.
    """
    chosen = predictor.card.complete(options)
    with closing(read_ahead(read_patient, folders)) as patients:
        for number, (folder, reading) in enumerate(patients, start=1):
            name = folder.name
            yield PatientStarted(name, number, len(folders))
            try:
                may_replace = name in replaceable
                if results.status(name).by_hand and not may_replace:
                    raise CorrectedError(f"{name} has corrected labels, which were kept.")  # before the work
                patient = reading.result()
                probability = yield from predictor.predict(voxels_of(patient))
                label_map = _label(patient, probability, chosen, made_with)
                # Written at once: what a cancelled run wrote beside it, nobody would show.
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
    """What results say about how they were made, and by which two runs can be told apart.

    Raises
    ------
    ModelError
        If the model file cannot be read.
    """
    from ..model.checkpoint import read_card

    card = read_card(model)
    stat = model.stat()
    # A model that is trained anew under its old name is another one.
    stamp = f"{stat.st_size} bytes, changed {stat.st_mtime_ns}"
    return {"model": card.name, "model_file": stamp, "options": options.as_dict()}


def is_done(status: PatientStatus, run: dict[str, Any]) -> bool:
    """Whether a patient's result is what such a run would give once more."""
    same = _what_counts(status.made_with) == _what_counts(run)
    return status.state != "new" and not status.by_hand and same


def _what_counts(run: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the result of a run."""
    options = label_options(run.get("options", {}))
    return {"model": run.get("model"), "model_file": run.get("model_file"), "options": options}
