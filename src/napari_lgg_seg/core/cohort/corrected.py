"""Patients of a cohort with corrected or accepted labels, which a training can learn from."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.discover import has_slices
from ..data.patients import Patient, find_slices, read_patient
from ..errors import PatientError
from .results import CohortResults


@dataclass(frozen=True)
class CorrectedPatient:
    """A patient whose corrected labels serve as ground truth; its files are read only when needed.

    Attributes
    ----------
    folder : Path
        The patient's folder, with the images.
    results : Path
        The cohort's results folder, with the labels.
    """

    folder: Path
    results: Path

    @property
    def name(self) -> str:
        """The patient's name, from its file names.

        Raises
        ------
        PatientError
            If the files are inconsistent.
        """
        return find_slices(self.folder).name

    def read(self) -> Patient:
        """Read the images, with the corrected labels as ground truth; all non-zero values are tumour.

        Returns
        -------
        Patient
            ``truth`` is uint8, (z, y, x), 0 and 1, and counts for every slice.

        Raises
        ------
        PatientError
            If images or labels cannot be read, the grids differ, or the labels are gone.
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
    """Patients of a dataset with corrected or accepted labels, sorted by folder name.

    Parameters
    ----------
    dataset : Path
        Holds the patients' folders.
    results : Path
        Results folder of the cohort browser.

    Raises
    ------
    ResultsError
        If the index of the results cannot be read.
    """
    names = CohortResults(results).corrected()
    return [CorrectedPatient(dataset / name, results) for name in names if has_slices(dataset / name)]
