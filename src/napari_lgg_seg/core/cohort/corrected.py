"""Patients of a cohort whose labels somebody corrected or accepted: what a training can learn from."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.patients import Patient, find_slices, has_slices, read_patient
from ..errors import PatientError
from .results import CohortResults


@dataclass(frozen=True)
class CorrectedPatient:
    """A patient whose truth is somebody's corrected labels; its files are read when they are needed.

    Attributes
    ----------
    folder : Path
        The patient's, with the images.
    results : Path
        The cohort's results folder, with the labels.
    """

    folder: Path
    results: Path

    @property
    def name(self) -> str:
        """The patient's name, from the names of its files.

        Raises
        ------
        PatientError
            If they are in disorder.
        """
        return find_slices(self.folder).name

    def read(self) -> Patient:
        """Read the images; the truth is wherever a label was corrected to, whichever its value.

        Returns
        -------
        Patient
            Its ``truth`` is uint8, (z, y, x), 0 and 1, and every slice counts as marked.

        Raises
        ------
        PatientError
            If images or labels cannot be read, or are of another grid, or the labels are gone.
        """
        patient = read_patient(self.folder)
        labels = CohortResults(self.results).read_labels(self.folder.name, patient.shape)
        if labels is None:
            raise PatientError(
                f"{self.results} no longer holds the corrected labels of {patient.name}; correct it again, "
                "or leave it out."
            )
        return dataclasses.replace(patient, truth=(labels != 0).astype(np.uint8), slices_without_mask=())


def corrected_patients(dataset: Path, results: Path) -> list[CorrectedPatient]:
    """The patients of a dataset whose labels in a results folder are somebody's work, by folder name.

    Parameters
    ----------
    dataset : Path
        Holds the patients' folders.
    results : Path
        As the cohort browser writes it.

    Raises
    ------
    ResultsError
        If the results' index cannot be read.
    """
    names = CohortResults(results).corrected()
    return [CorrectedPatient(dataset / name, results) for name in names if has_slices(dataset / name)]
