"""One patient of a cohort, from the folder to the files, and what the patients of a run share."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..choices import FileFormat
from ..data.label_files import LabelMap, check_target, is_complete, write_labels
from ..data.patients import Patient, find_slices, read_patient
from ..data.provenance import Provenance, provenance_of, read_provenance
from ..errors import ExistingMasksError, ExportError
from ..evaluation.measurements import TumourMeasurements
from ..evaluation.metrics import dice
from ..inference.predict import Notice, Predictor
from ..inference.segmentation import Segmentation, segment_stepwise, voxels_of
from ..options import SegmentOptions


@dataclass(frozen=True)
class CohortJob:
    """What is done to every patient.

    Attributes
    ----------
    output : Path
        Results go to ``<output>/<patient>/``.
    model : Path or None
        The model file; None for the one that ships, wherever the package is installed.
    checksum : str
        Of the model file, from :func:`napari_lgg_seg.core.data.provenance.model_checksum`.
    options : SegmentOptions
        For all patients.
    file_format : {"masks", "tiff", "nifti"}
        Of the results.
    overwrite : bool
        Segment all patients and replace earlier results.
    """

    output: Path
    model: Path | None
    checksum: str
    options: SegmentOptions
    file_format: FileFormat = "masks"
    overwrite: bool = False


@dataclass(frozen=True)
class PatientProgress:
    """A patient is being segmented: its folder, the share that is done, and the worker that does it."""

    folder: Path
    share: float
    worker: str = ""


@dataclass(frozen=True)
class PatientSegmented:
    """A patient's result is written.

    Attributes
    ----------
    folder : Path
        The patient's.
    name : str
        The patient's.
    figures : TumourMeasurements
        Of the labels.
    dice : float or None
        With the truth, where every slice has some.
    runs_on : str
        Where and by what it was computed, for people.
    notices : tuple of str
        What the user should know, one sentence each.
    """

    folder: Path
    name: str
    measurements: TumourMeasurements
    dice: float | None
    runs_on: str
    notices: tuple[str, ...] = ()

    def summary(self) -> str:
        """One line for people."""
        text = f"{self.name}: {self.measurements.summary()}"
        if self.dice is not None:
            text += f" Dice with truth {self.dice:.3f}."
        return " ".join([text, *self.notices])


@dataclass(frozen=True)
class PatientSkipped:
    """A patient was finished before: the same images, model, options and version made what is there."""

    folder: Path
    name: str

    def summary(self) -> str:
        """One line for people."""
        return f"{self.name}: finished before, left as it is."


@dataclass(frozen=True)
class PatientFailed:
    """A patient cannot be segmented, for a reason that is one sentence; the others go on."""

    folder: Path
    sentence: str


Outcome = PatientSegmented | PatientSkipped | PatientFailed


@dataclass(frozen=True)
class PatientRead:
    """A patient that is to be segmented, and what its result will be made from."""

    folder: Path
    patient: Patient
    provenance: Provenance


@dataclass(frozen=True)
class PatientComputed:
    """A patient's labels, not written yet, what they were made from, and what is told once they are written.

    The volumes are let go: the next patient's are there while this one is written.
    """

    label_map: LabelMap
    provenance: Provenance
    outcome: PatientSegmented


def segment_patient(
    job: CohortJob, predictor: Predictor, folder: Path
) -> Generator[PatientProgress, None, PatientSegmented | PatientSkipped]:
    """Segment one patient and write the result, unless that is finished: all steps, one after the other.

    Yields
    ------
    PatientProgress
        After each batch. Close the generator to cancel; nothing is written then.

    Returns
    -------
    PatientSegmented or PatientSkipped
        Figures, no volumes.

    Raises
    ------
    LggSegError
        One sentence: what is wrong with the patient, or what is in the way of the result.
    """
    read = read_for(job, folder)
    if isinstance(read, PatientSkipped):
        return read
    return write_result(job, (yield from compute(job, predictor, read)))


def read_for(job: CohortJob, folder: Path) -> PatientRead | PatientSkipped:
    """Read a patient, unless it is finished, and make sure that its result can be written.

    Raises
    ------
    LggSegError
        As :func:`segment_patient`.
    """
    before = None
    if not job.overwrite:
        name = find_slices(folder).name
        before = read_provenance(job.output / name, job.file_format)
        if before is None:  # whatever is there is in the way; no need to read the images
            check_target(job.output, name, job.file_format, overwrite=False)
    patient = read_patient(folder)
    provenance = provenance_of(voxels_of(patient), job.checksum, job.options)
    if before == provenance and _is_finished(job, patient.name, patient.slice_numbers, provenance):
        return PatientSkipped(folder, patient.name)
    _check_target(job, patient.name, provenance, before)
    return PatientRead(folder, patient, provenance)


def compute(
    job: CohortJob, predictor: Predictor, read: PatientRead
) -> Generator[PatientProgress, None, PatientComputed]:
    """Segment a patient that was read.

    Raises
    ------
    LggSegError
        As :func:`segment_patient`.
    """
    notices: list[str] = []
    work = segment_stepwise(read.patient, predictor, job.options)
    while True:
        try:
            event = next(work)
        except StopIteration as stop:
            return _computed(read, stop.value, predictor.runs_on, tuple(notices))
        if isinstance(event, Notice):
            notices.append(event.text)
        else:
            yield PatientProgress(read.folder, event.done / event.total)


def _computed(
    read: PatientRead, result: Segmentation, runs_on: str, notices: tuple[str, ...]
) -> PatientComputed:
    patient = read.patient
    truth = patient.truth if not patient.slices_without_mask else None
    outcome = PatientSegmented(
        read.folder,
        patient.name,
        result.measurements,
        None if truth is None else dice(result.labels, truth),
        runs_on,
        notices,
    )
    provenance = dataclasses.replace(read.provenance, engine=result.engine)
    return PatientComputed(result.label_map(), provenance, outcome)


def write_result(job: CohortJob, computed: PatientComputed) -> PatientSegmented:
    """Write a result, and say what it is.

    Raises
    ------
    LggSegError
        As :func:`segment_patient`.
    """
    label_map, provenance = computed.label_map, computed.provenance
    text = provenance.to_json()
    try:
        write_labels(job.output, label_map, job.file_format, overwrite=job.overwrite, provenance=text)
    except ExportError:
        # A worker that was given up may have finished the patient after all.
        if job.overwrite or not _is_finished(job, label_map.patient, label_map.slice_numbers, provenance):
            raise
    return computed.outcome


def _is_finished(job: CohortJob, name: str, slice_numbers: Sequence[int], provenance: Provenance) -> bool:
    """Whether such a result is there and whole."""
    return read_provenance(job.output / name, job.file_format) == provenance and is_complete(
        job.output, name, slice_numbers, job.file_format
    )


def _check_target(job: CohortJob, name: str, provenance: Provenance, before: Provenance | None) -> None:
    """Refuse to replace results unasked, and say how those that are there were made differently."""
    try:
        check_target(job.output, name, job.file_format, overwrite=job.overwrite)
    except ExistingMasksError as error:
        words = provenance.differences(before) if before is not None else ""
        if not words:
            raise
        raise ExistingMasksError(
            f"{job.output / name} holds results that were made {words}; choose another folder, or allow "
            "overwriting."
        ) from error
