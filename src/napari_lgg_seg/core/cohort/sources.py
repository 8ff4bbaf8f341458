"""Patients that can be opened for review: where they are read from and where edits are saved."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..data.label_files import LabelArray
from ..data.patients import Patient, one_form, read_patient
from ..errors import PatientError
from ..evaluation.compare import format_shape
from ..evaluation.label_pairs import LabelPair, Volumes, read_pair
from ..inference.uncertainty import voxel_entropy
from .edits import Edits, SavedEdits, save_edits
from .found_labels import is_reviewed
from .patient_results import PatientResults
from .patient_summary import PatientSummary, summarize_patient
from .result_files import Probability
from .status import PatientStatus
from .summary_cache import SummaryCache


@dataclass(frozen=True)
class Opened:
    """A patient that was read.

    Attributes
    ----------
    source : Source
        Where it was read from.
    patient : Patient
        Images and ground truth.
    labels : ndarray of unsigned integers or None
        Predicted or corrected labels, shape (z, y, x).
    probability, uncertainty : ndarray of float32 or None
        Shape (z, y, x), 0 to 1, if known; the uncertainty is the voxel-wise entropy in bits.
    status : PatientStatus
        Status in the cohort; a new one for patients that are not part of one.
    revision : str
        Of the stored result, see :class:`.result_files.StoredResult`.
    summary : PatientSummary or None
        The patient's row in the cohort's table.
    """

    source: Source
    patient: Patient
    labels: LabelArray | None
    probability: Probability | None = None
    uncertainty: Probability | None = None
    status: PatientStatus = field(default_factory=PatientStatus)
    revision: str = ""
    summary: PatientSummary | None = None


class Source(Protocol):
    """Where one patient is read from, and whether edits can be saved there."""

    @property
    def name(self) -> str:
        """Name of the patient in its table."""

    @property
    def key(self) -> tuple[str, ...]:
        """Identifies patient and labels: equal for two sources of the same files."""

    @property
    def can_save(self) -> bool:
        """Whether edits can be saved; otherwise the user has to export them."""

    def read(self) -> Opened:
        """Read images, ground truth and labels.

        Raises
        ------
        PatientError, ResultsError
            If something cannot be read.
        """

    def save(self, edits: Edits, patient: Patient) -> SavedEdits:
        """Save edits of a patient that was read before.

        Raises
        ------
        ResultsError, ExportError
            If something cannot be written.
        """


@dataclass(frozen=True)
class CohortSource:
    """A patient of a cohort: its labels are read from, and edits saved to, the cohort's results.

    Attributes
    ----------
    folder : Path
        The patient's folder.
    results : PatientResults
        The patient's results.
    cache_file : Path
        Cache of patient summaries.
    """

    folder: Path
    results: PatientResults
    cache_file: Path

    can_save = True

    @property
    def name(self) -> str:
        """The patient's name in the results."""
        return self.results.name

    @property
    def key(self) -> tuple[str, ...]:
        """The patient's folder and the results folder."""
        return os.path.realpath(self.folder), os.path.realpath(self.results.folder)

    def read(self) -> Opened:
        """As :meth:`Source.read`; updates the cached summary."""
        patient = read_patient(self.folder)
        result = self.results.read(patient.shape)
        labels = None if result is None else result.labels
        summary = self._summarize(patient, labels)
        if result is None:
            return Opened(self, patient, None, summary=summary)
        probability = result.probability
        uncertainty = None if probability is None else voxel_entropy(probability)
        return Opened(
            self, patient, labels, probability, uncertainty, result.status, result.revision, summary
        )

    def save(self, edits: Edits, patient: Patient) -> SavedEdits:
        """As :meth:`Source.save`; updates the cached summary."""
        saved = save_edits(self.results, edits, patient.shape)
        if edits.label_map is None or edits.is_old.is_set() or saved.sentence:
            return saved
        return dataclasses.replace(saved, summary=self._summarize(patient, edits.label_map.labels))

    def _summarize(self, patient: Patient, labels: LabelArray | None) -> PatientSummary:
        summary = summarize_patient(patient, labels)
        with SummaryCache(self.cache_file) as cache:
            cache.update(self.folder, self.results, summary)
        return summary


@dataclass(frozen=True)
class FilesSource:
    """A patient whose labels are in arbitrary files, which are never written to.

    Attributes
    ----------
    pair : LabelPair
        Where labels, ground truth and images are.
    """

    pair: LabelPair

    can_save = False

    @property
    def name(self) -> str:
        """The patient's name."""
        return self.pair.name

    @property
    def key(self) -> tuple[str, ...]:
        """All of its paths."""
        return tuple(str(path) for path in (self.pair.labels, self.pair.truth, self.pair.images))

    def read(self) -> Opened:
        """As :meth:`Source.read`."""
        volumes = read_pair(self.pair, with_images=False)
        return Opened(self, self._patient(volumes), volumes.prediction)

    def _patient(self, volumes: Volumes) -> Patient:
        """The patient, whose images and ground truth may be in different folders."""
        pair = self.pair
        if pair.images is None:
            folder = pair.truth or pair.labels
            return Patient(pair.name, folder, None, volumes.truth, volumes.slice_numbers)
        patient = read_patient(pair.images)
        if patient.shape != volumes.prediction.shape:
            raise PatientError(
                f"{pair.labels} has {format_shape(volumes.prediction.shape)} voxels but {patient.folder} has "
                f"{format_shape(patient.shape)}; both must have the same slices."
            )
        return dataclasses.replace(patient, name=pair.name, truth=volumes.truth)

    def save(self, edits: Edits, patient: Patient) -> SavedEdits:
        """Not supported, see :attr:`can_save`.

        Raises
        ------
        PatientError
            Always.
        """
        raise PatientError(f"{self.pair.labels} is read-only; export the labels of {self.name}.")


def source_of(pair: LabelPair, cache_file: Path) -> Source:
    """The source from which a compared patient is opened.

    Labels that belong to a cohort's results are opened from there, so that edits are saved to them.

    Parameters
    ----------
    pair : LabelPair
        From :func:`napari_lgg_seg.core.evaluation.label_pairs.find_pairs`.
    cache_file : Path
        Cache of patient summaries.
    """
    if pair.images is not None and pair.truth == pair.images:
        is_folder = os.path.isdir(pair.labels)  # noqa: PTH112 - Path.is_dir raises errors
        folder = pair.labels if is_folder else pair.labels.parent
        if is_reviewed(folder) and one_form(folder.name) == pair.name:
            return CohortSource(pair.images, PatientResults(folder), cache_file)
    return FilesSource(pair)
