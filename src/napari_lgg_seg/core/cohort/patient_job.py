"""One patient of a cohort, from its folder to the result files, and the settings that all patients share."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Generator
from dataclasses import dataclass
from pathlib import Path

from ..choices import FileFormat
from ..data.label_files import LabelMap, check_format
from ..data.patients import Patient, find_slices, read_patient, stored_path
from ..data.provenance import Provenance, provenance_of
from ..errors import CorrectedError, LggSegError
from ..evaluation.measurements import TumourMeasurements
from ..evaluation.metrics import dice
from ..inference.predict import Notice, Predictor
from ..inference.segmentation import Segmentation, segment_stepwise, voxels_of
from ..options import SegmentOptions
from .patient_results import PatientResults
from .patient_summary import PatientSummary, summarize_patient
from .result_files import Probability
from .status import PatientStatus, check_permission


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
        Replace earlier predictions.
    redo_finished : bool
        Also segment patients again whose result is the one that this run would give.
    replace_corrected : bool or collection of str
        Whether labels of the user may be replaced, or the names of the patients of whom they may be.
    keep_probability : bool
        Store the probability as well; for TIFF only.
    """

    output: Path
    model: Path | None
    checksum: str
    options: SegmentOptions
    file_format: FileFormat = "masks"
    overwrite: bool = False
    redo_finished: bool = False
    replace_corrected: bool | Collection[str] = False
    keep_probability: bool = False

    def results(self, name: str) -> PatientResults:
        """The results of a patient."""
        return PatientResults(stored_path(self.output, name))

    def check(self, name: str, status: PatientStatus) -> None:
        """Refuse to replace labels without permission.

        Raises
        ------
        CorrectedError, ExistingMasksError
            As :func:`.status.check_permission`.
        """
        check_permission(status, overwrite=self.overwrite, replace_corrected=self.may_replace_corrected(name))

    def may_replace_corrected(self, name: str) -> bool:
        """Whether a patient's labels may be replaced even if they are the user's."""
        allowed = self.replace_corrected
        return allowed if isinstance(allowed, bool) else name in allowed


@dataclass(frozen=True)
class PatientProgress:
    """A patient is being segmented.

    Attributes
    ----------
    folder : Path
        The patient's folder.
    share : float
        The fraction done, 0 when it begins.
    worker : str
        Address of the worker, if there are several.
    """

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
    status : PatientStatus
        Of the new result.
    details : PatientSummary or None
        What a table shows of the patient.
    """

    folder: Path
    name: str
    measurements: TumourMeasurements
    dice: float | None
    runs_on: str
    notices: tuple[str, ...] = ()
    status: PatientStatus = dataclasses.field(default_factory=PatientStatus)
    details: PatientSummary | None = None

    def summary(self) -> str:
        """The outcome in one line."""
        text = f"{self.name}: {self.measurements.summary()}"
        if self.dice is not None:
            text += f" Dice with ground truth {self.dice:.3f}."
        return " ".join([text, *self.notices])


@dataclass(frozen=True)
class PatientSkipped:
    """A patient was skipped: it was finished before, or has labels of the user, which are kept.

    Attributes
    ----------
    folder : Path
        The patient's folder.
    name : str
        The patient's name.
    sentence : str
        Why.
    corrected : bool
        Whether a person corrected or accepted its labels. Otherwise it was finished before: its result was
        made from the same images, model, options and version.
    """

    folder: Path
    name: str
    sentence: str
    corrected: bool = False

    def summary(self) -> str:
        """The outcome in one line."""
        return self.sentence


@dataclass(frozen=True)
class PatientFailed:
    """A patient could not be segmented; ``sentence`` says why. The run continues with the others."""

    folder: Path
    sentence: str


Outcome = PatientSegmented | PatientSkipped | PatientFailed


def failure_of(folder: Path, error: LggSegError | OSError | MemoryError | UnicodeError) -> PatientFailed:
    """The outcome for a patient whose segmentation raised an error."""
    if isinstance(error, LggSegError):
        return PatientFailed(folder, str(error))
    if isinstance(error, MemoryError):
        why, advice = "not enough memory", "close other programs, or use another machine"
    elif isinstance(error, UnicodeError):
        why, advice = "its name has characters that are not Unicode", "rename its folder and files"
    else:
        why = f"{error.filename or folder}: {error.strerror or error}"
        advice = "check that its files and its results may be read"
    return PatientFailed(folder, f"{folder} was not segmented ({why}); {advice}.")


@dataclass(frozen=True)
class PatientInput:
    """A patient that has been read, and the provenance of its future result."""

    folder: Path
    patient: Patient
    provenance: Provenance


@dataclass(frozen=True)
class PatientComputed:
    """A patient's labels before they are written, their provenance, and the outcome to report afterwards.

    It does not hold the images, since the next patient is in memory while this one is written.
    """

    label_map: LabelMap
    probability: Probability
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
    """Read a patient, unless it is skipped, and check that its result can be written.

    Raises
    ------
    LggSegError
        As :func:`segment_patient`.
    """
    name = find_slices(folder).name
    results = job.results(name)
    results.check_folder()
    check_format(job.file_format, results.folder)
    wanted = provenance_of(None, job.checksum, job.options)
    try:
        # What is in the way is noticed before the images are read.
        job.check(name, results.status(wanted, job.file_format))
        patient = read_patient(folder)
        wanted = provenance_of(voxels_of(patient), job.checksum, job.options, patient.slice_numbers)
        status = results.status(wanted, job.file_format, patient.slice_numbers, verify=True)
        job.check(name, status)
    except CorrectedError as error:
        return _skipped(folder, results, error)
    if status.standing == "finished" and not job.redo_finished:
        return PatientSkipped(folder, name, status.sentence)
    return PatientInput(folder, patient, wanted)


def _skipped(folder: Path, results: PatientResults, error: CorrectedError) -> PatientSkipped:
    """The outcome for labels of the user; those that another program changed are an error."""
    if results.status().state == "foreign":
        raise error
    return PatientSkipped(folder, results.name, str(error), corrected=True)


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
        details=summarize_patient(patient, result.labels),
    )
    provenance = dataclasses.replace(patient_input.provenance, engine=result.engine)
    return PatientComputed(result.label_map(), result.probability, provenance, outcome)


def write_result(job: CohortJob, computed: PatientComputed) -> PatientSegmented | PatientSkipped:
    """Write a result; returns the outcome to report.

    Raises
    ------
    LggSegError
        As :func:`segment_patient`.
    """
    name, outcome = computed.label_map.patient, computed.outcome
    try:
        status = job.results(name).write_prediction(
            computed.label_map,
            job.file_format,
            provenance=computed.provenance,
            probability=computed.probability,
            keep_probability=job.keep_probability,
            overwrite=job.overwrite,
            replace_corrected=job.may_replace_corrected(name),
        )
    except CorrectedError as error:  # corrected in the meantime
        return _skipped(outcome.folder, job.results(name), error)
    return dataclasses.replace(outcome, status=status)
