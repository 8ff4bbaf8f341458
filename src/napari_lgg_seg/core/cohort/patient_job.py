"""One patient of a cohort, from its folder to the result files, and the settings that all patients share."""

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
    """Settings of a run, the same for every patient.

    Attributes
    ----------
    output : Path
        Results go to ``<output>/<patient>/``.
    model : Path or None
        The model file; None for the shipped model, wherever the package is installed.
    checksum : str
        Of the model file, from :func:`napari_lgg_seg.core.data.provenance.model_checksum`.
    options : SegmentOptions
        Options of the segmentation.
    file_format : {"masks", "tiff", "nifti"}
        Format of the results.
    overwrite : bool
        Segment all patients again and replace earlier results.
    """

    output: Path
    model: Path | None
    checksum: str
    options: SegmentOptions
    file_format: FileFormat = "masks"
    overwrite: bool = False


@dataclass(frozen=True)
class PatientProgress:
    """A patient is being segmented: its folder, the fraction done, and the worker's address, if any."""

    folder: Path
    share: float
    worker: str = ""


@dataclass(frozen=True)
class PatientSegmented:
    """A patient's result has been written.

    Attributes
    ----------
    folder : Path
        The patient's folder.
    name : str
        The patient's name.
    measurements : TumourMeasurements
        Of the labels.
    dice : float or None
        Dice with the ground truth, if every slice has a mask.
    runs_on : str
        Display name of device and engine.
    notices : tuple of str
        Messages for the user, one sentence each.
    """

    folder: Path
    name: str
    measurements: TumourMeasurements
    dice: float | None
    runs_on: str
    notices: tuple[str, ...] = ()

    def summary(self) -> str:
        """The outcome in one line."""
        text = f"{self.name}: {self.measurements.summary()}"
        if self.dice is not None:
            text += f" Dice with ground truth {self.dice:.3f}."
        return " ".join([text, *self.notices])


@dataclass(frozen=True)
class PatientSkipped:
    """A patient was finished before: its result was made from the same images, model, options and version."""

    folder: Path
    name: str

    def summary(self) -> str:
        """The outcome in one line."""
        return f"{self.name}: already finished, skipped."


@dataclass(frozen=True)
class PatientFailed:
    """A patient could not be segmented; ``sentence`` says why. The run continues with the others."""

    folder: Path
    sentence: str


Outcome = PatientSegmented | PatientSkipped | PatientFailed


@dataclass(frozen=True)
class PatientInput:
    """A patient that has been read, and the provenance of its future result."""

    folder: Path
    patient: Patient
    provenance: Provenance


@dataclass(frozen=True)
class PatientComputed:
    """A patient's labels before they are written, their provenance, and the outcome to report afterwards.

    It does not hold the volumes, since the next patient is in memory while this one is written.
    """

    label_map: LabelMap
    provenance: Provenance
    outcome: PatientSegmented


def segment_patient(
    job: CohortJob, predictor: Predictor, folder: Path
) -> Generator[PatientProgress, None, PatientSegmented | PatientSkipped]:
    """Segment one patient and write the result, unless it is finished already.

    Yields
    ------
    PatientProgress
        After each batch. Close the generator to cancel; nothing is written then.

    Returns
    -------
    PatientSegmented or PatientSkipped
        Measurements only, no volumes.

    Raises
    ------
    LggSegError
        If the patient cannot be read or segmented, or its result cannot be written.
    """
    patient_input = read_input(job, folder)
    if isinstance(patient_input, PatientSkipped):
        return patient_input
    return write_result(job, (yield from compute_labels(job, predictor, patient_input)))


def read_input(job: CohortJob, folder: Path) -> PatientInput | PatientSkipped:
    """Read a patient, unless it is finished already, and check that its result can be written.

    Raises
    ------
    LggSegError
        As :func:`segment_patient`.
    """
    before = None
    if not job.overwrite:
        name = find_slices(folder).name
        before = read_provenance(job.output / name, job.file_format)
        if before is None:  # existing files are in the way: fail before reading the images
            check_target(job.output, name, job.file_format, overwrite=False)
    patient = read_patient(folder)
    provenance = provenance_of(voxels_of(patient), job.checksum, job.options)
    if before == provenance and _is_finished(job, patient.name, patient.slice_numbers, provenance):
        return PatientSkipped(folder, patient.name)
    _check_target(job, patient.name, provenance, before)
    return PatientInput(folder, patient, provenance)


def compute_labels(
    job: CohortJob, predictor: Predictor, patient_input: PatientInput
) -> Generator[PatientProgress, None, PatientComputed]:
    """Segment a patient that has been read.

    Raises
    ------
    LggSegError
        As :func:`segment_patient`.
    """
    notices: list[str] = []
    steps = segment_stepwise(patient_input.patient, predictor, job.options)
    while True:
        try:
            event = next(steps)
        except StopIteration as stop:
            return _computed(patient_input, stop.value, predictor.runs_on, tuple(notices))
        if isinstance(event, Notice):
            notices.append(event.text)
        else:
            yield PatientProgress(patient_input.folder, event.done / event.total)


def _computed(
    patient_input: PatientInput, result: Segmentation, runs_on: str, notices: tuple[str, ...]
) -> PatientComputed:
    patient = patient_input.patient
    truth = patient.truth if not patient.slices_without_mask else None
    outcome = PatientSegmented(
        patient_input.folder,
        patient.name,
        result.measurements,
        None if truth is None else dice(result.labels, truth),
        runs_on,
        notices,
    )
    provenance = dataclasses.replace(patient_input.provenance, engine=result.engine)
    return PatientComputed(result.label_map(), provenance, outcome)


def write_result(job: CohortJob, computed: PatientComputed) -> PatientSegmented:
    """Write a result; returns the outcome to report.

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
        # A worker that was considered lost may have finished the patient after all.
        if job.overwrite or not _is_finished(job, label_map.patient, label_map.slice_numbers, provenance):
            raise
    return computed.outcome


def _is_finished(job: CohortJob, name: str, slice_numbers: Sequence[int], provenance: Provenance) -> bool:
    """Whether a complete result with this provenance exists."""
    return read_provenance(job.output / name, job.file_format) == provenance and is_complete(
        job.output, name, slice_numbers, job.file_format
    )


def _check_target(job: CohortJob, name: str, provenance: Provenance, before: Provenance | None) -> None:
    """Refuse to replace results without permission, and say how the existing ones differ."""
    try:
        check_target(job.output, name, job.file_format, overwrite=job.overwrite)
    except ExistingMasksError as error:
        differences = provenance.differences(before) if before is not None else ""
        if not differences:
            raise
        raise ExistingMasksError(
            f"{job.output / name} holds results that were made {differences}; choose another folder, or "
            "allow overwriting."
        ) from error
