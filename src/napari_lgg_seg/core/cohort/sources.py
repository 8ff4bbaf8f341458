"""Patients that can be opened: where each is read from, and where work on it is kept."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..data.label_files import LabelArray
from ..data.patients import Patient, read_patient
from ..errors import PatientError
from ..evaluation.compare import format_shape
from ..evaluation.label_pairs import LabelPair, Volumes, read_pair
from ..inference.uncertainty import voxel_entropy
from .edits import Edits, SavedEdits, keep
from .index import INDEX_NAME, PatientStatus
from .patient_summary import PatientSummary, summarize_patient
from .results import CohortResults, Probability
from .summary_cache import SummaryCache


@dataclass(frozen=True)
class Opened:
    """A patient that was read.

    Attributes
    ----------
    source : Source
        Where it was read from.
    patient : Patient
        Images and truth.
    labels : ndarray of unsigned integers or None
        Predicted or corrected labels, (z, y, x).
    probability, uncertainty : ndarray of float32 or None
        Shape (z, y, x), 0 to 1, where they are known; the latter is the voxels' entropy.
    status : PatientStatus
        What became of a cohort's patient; a new one of others.
    details : PatientSummary or None
        What a cohort's table says of it.
    """

    source: Source
    patient: Patient
    labels: LabelArray | None
    probability: Probability | None = None
    uncertainty: Probability | None = None
    status: PatientStatus = field(default_factory=PatientStatus)
    details: PatientSummary | None = None


class Source(Protocol):
    """Where one patient is read from, and whether work on it can be kept there."""

    @property
    def name(self) -> str:
        """What the patient goes by in its table."""

    @property
    def key(self) -> tuple[str, ...]:
        """The same for two sources that are the same patient and labels."""

    @property
    def can_keep(self) -> bool:
        """Whether there is a place for corrections; if not, they are the user's to export."""

    def read(self) -> Opened:
        """Read images, truth and labels.

        Raises
        ------
        PatientError, ResultsError
            If something cannot be read.
        """

    def keep(self, work: Edits, patient: Patient) -> SavedEdits:
        """Keep somebody's work on a patient that was read.

        Raises
        ------
        ResultsError, ExportError
            If something cannot be written.
        """


@dataclass(frozen=True)
class CohortSource:
    """A patient of a cohort: labels are among its results, and so is what is done to them.

    Attributes
    ----------
    folder : Path
        The patient's.
    results : CohortResults
        The cohort's.
    cache_file : Path
        Where details of patients are kept.
    """

    folder: Path
    results: CohortResults
    cache_file: Path

    can_keep = True

    @property
    def name(self) -> str:
        """The patient's folder name."""
        return self.folder.name

    @property
    def key(self) -> tuple[str, ...]:
        """The patient's folder, and that of the results."""
        return str(self.folder.resolve()), str(self.results.folder.resolve())

    def read(self) -> Opened:
        """As :meth:`Source.read`; details go into the cache."""
        patient = read_patient(self.folder)
        result = self.results.read(self.name, patient.shape)
        labels = None if result is None else result.labels
        details = self._note(patient, labels)
        if result is None:
            return Opened(self, patient, None, details=details)
        probability = result.probability
        uncertainty = None if probability is None else voxel_entropy(probability)
        return Opened(self, patient, labels, probability, uncertainty, result.status, details)

    def keep(self, work: Edits, patient: Patient) -> SavedEdits:
        """As :meth:`Source.keep`; details go into the cache."""
        kept = keep(self.name, work, self.results)
        if work.label_map is None or work.is_old.is_set():
            return kept
        return dataclasses.replace(kept, details=self._note(patient, work.label_map.labels))

    def _note(self, patient: Patient, labels: LabelArray | None) -> PatientSummary:
        details = summarize_patient(patient, labels)
        with SummaryCache(self.cache_file) as cache:
            cache.keep(self.folder, self.results, details)
        return details


@dataclass(frozen=True)
class FilesSource:
    """A patient whose predicted labels are somewhere among files; they are never written to.

    Attributes
    ----------
    case : LabelPair
        Where labels, truth and images are.
    """

    case: LabelPair

    can_keep = False

    @property
    def name(self) -> str:
        """The patient's name."""
        return self.case.name

    @property
    def key(self) -> tuple[str, ...]:
        """All its places."""
        return tuple(str(path) for path in (self.case.labels, self.case.truth, self.case.images))

    def read(self) -> Opened:
        """As :meth:`Source.read`."""
        volumes = read_pair(self.case, with_images=False)
        return Opened(self, self._patient(volumes), volumes.prediction)

    def _patient(self, volumes: Volumes) -> Patient:
        """The patient as its table knows it: images from one place, truth perhaps from another."""
        case = self.case
        if case.images is None:
            folder = case.truth or case.labels
            return Patient(case.name, folder, None, volumes.truth, volumes.slice_numbers)
        patient = read_patient(case.images)
        if patient.shape != volumes.prediction.shape:
            raise PatientError(
                f"{case.labels} has {format_shape(volumes.prediction.shape)} voxels but {patient.folder} has "
                f"{format_shape(patient.shape)}; they must be the same slices."
            )
        return dataclasses.replace(patient, name=case.name, truth=volumes.truth)

    def keep(self, work: Edits, patient: Patient) -> SavedEdits:
        """Never called: there is no place.

        Raises
        ------
        PatientError
            Always.
        """
        raise PatientError(f"{self.case.labels} is not written to; export the labels of {self.name}.")


def source_of(case: LabelPair, cache_file: Path) -> Source:
    """Where a compared patient is opened from.

    Labels that a cohort's results hold are opened as that cohort's, so that corrections are kept there.

    Parameters
    ----------
    case : LabelPair
        From :func:`napari_lgg_seg.core.evaluation.label_pairs.find_pairs`.
    cache_file : Path
        Where details of patients are kept.
    """
    folder = case.labels.parent.parent
    if case.images is not None and case.truth == case.images and (folder / INDEX_NAME).is_file():
        results = CohortResults(folder)
        if results.labels_file(case.images.name) == case.labels:
            return CohortSource(case.images, results, cache_file)
    return FilesSource(case)
