"""Segment the patients of a cohort, in this process or in several workers: a generator of events.

The only code that goes through many patients; command line, window and dask use it.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Generator, Iterable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..choices import FileFormat, OptionsError
from ..data.discover import find_by_name
from ..data.provenance import model_checksum
from ..errors import LggSegError, ResultsError
from ..inference.predict import Notice, Predictor, predictor_for
from ..memory import free_memory, return_main_memory
from ..model.checkpoint import DEFAULT_MODEL, load_model, read_card
from ..options import SegmentOptions
from ..prefetch import read_ahead
from .dask.spread import check_installed, spread
from .patient_job import (
    CohortJob,
    Outcome,
    PatientComputed,
    PatientFailed,
    PatientInput,
    PatientProgress,
    PatientSkipped,
    compute_labels,
    failure_of,
    read_input,
    write_result,
)
from .store import ResultStore

AnyPath = str | os.PathLike[str]


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
    skip_finished: bool | None = None,
    replace_corrected: bool | Collection[str] = False,
    keep_probability: bool = False,
    workers: int | None = None,
    scheduler: str | None = None,
) -> Generator[CohortEvent, None, None]:
    """Segment patients and write the results to ``<output>/<patient>/``.

    A patient is finished if a complete result exists that was made from the same images with the same
    model, options and version. Finished patients are skipped, so that repeating a call resumes it. So are
    patients whose labels were corrected or accepted by a person. Labels that another program made or changed
    are kept as well, and reported as a failure.

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
        Segment all patients again and replace earlier predictions.
    skip_finished : bool, optional
        Skip finished patients; by default, unless ``overwrite`` is True.
    replace_corrected : bool or collection of str
        Replace labels that a person corrected or accepted, or that another program made or changed: of all
        patients, or of those with these names.
    keep_probability : bool
        Store the probability as well, ``<patient>_probability.tif`` (8 bit, 255 for 1).
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
        redo_finished=overwrite if skip_finished is None else not skip_finished,
        replace_corrected=replace_corrected,
        keep_probability=keep_probability,
    )
    found = find_by_name("images to segment", *map(_absolute, folders))
    unusable = [PatientFailed(problem.path, problem.sentence) for problem in (*found.problems, *found.empty)]
    refused = _outputs_among_images(job.output, found.patients.values())
    unusable += refused
    patients = [f for f in found.patients.values() if f not in {failed.folder for failed in refused}]
    if workers is None and scheduler is None:
        predictor = predictor_for(load_model(path), options)
        events = _segment_here(job, predictor, patients)
    else:
        check_installed()
        events = spread(job, patients, workers, scheduler)
    yield CohortFound(len(patients) + len(unusable))
    yield from unusable
    if patients:  # otherwise no worker is started, and no folder created
        yield from events


def _outputs_among_images(output: Path, folders: Iterable[Path]) -> list[PatientFailed]:
    """Failures of the patients for which results would lie among images, and be taken for ground truth."""
    reasons: dict[Path, str] = {}
    failed = []
    for folder in folders:
        if folder.parent not in reasons:
            try:
                ResultStore(output).check(folder.parent)
                reasons[folder.parent] = ""
            except ResultsError as error:
                reasons[folder.parent] = str(error)
        if reasons[folder.parent]:
            sentence = f"{folder} was not segmented: {reasons[folder.parent]}"
            failed.append(PatientFailed(folder, sentence))
    return failed


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


def _segment_here(
    job: CohortJob, predictor: Predictor, folders: Sequence[Path]
) -> Generator[CohortEvent, None, None]:
    """Segment patients in this process; meanwhile the next one is read and the previous one written.

    Closing the generator waits until a result that is being written is complete.
    """
    try:
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
    finally:
        free_memory(predictor.device)


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
    except (LggSegError, OSError, MemoryError, UnicodeError) as error:
        failed = failure_of(folder, error)
        yield writer.submit(lambda: failed)


def _write(job: CohortJob, computed: PatientComputed) -> Outcome:
    try:
        return write_result(job, computed)
    except (LggSegError, OSError, MemoryError, UnicodeError) as error:
        return failure_of(computed.outcome.folder, error)
