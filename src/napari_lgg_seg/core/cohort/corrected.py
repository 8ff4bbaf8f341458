"""Patients of a cohort with corrected or accepted labels, which a training can learn from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.discover import find_by_name
from ..data.patients import Patient, read_patient
from ..errors import PatientError
from .status import PatientStatus
from .store import ResultStore


@dataclass(frozen=True)
class CorrectedPatient:
    """A patient whose corrected labels serve as ground truth; its files are read only when needed.

    Attributes
    ----------
    name : str
        The patient's name.
    folder : Path
        The patient's folder, with the images.
    results : Path
        The cohort's results folder, with the labels.
    """

    name: str
    folder: Path
    results: Path

    def read(self) -> Patient:
        """Read the images, with the corrected labels as ground truth; all non-zero values are tumour.

        Returns
        -------
        Patient
            ``truth`` is uint8, (z, y, x), 0 and 1, and counts for every slice.

        Raises
        ------
        PatientError
            If images or labels cannot be read, the grids differ, or the labels are no longer those that a
            person corrected or accepted.
        """
        patient = read_patient(self.folder)
        result = ResultStore(self.results).patient(self.name).read(patient.shape)
        if result is None:
            raise PatientError(
                f"{self.results} no longer holds the corrected labels of {self.name}; correct it again, or "
                "leave it out."
            )
        if problem := not_corrected(self.name, self.results, result.status):
            raise PatientError(problem)
        truth = (result.labels != 0).astype(np.uint8)
        return dataclasses.replace(patient, truth=truth, slices_without_mask=())


@dataclass(frozen=True)
class FoundCorrected:
    """Patients with corrected labels, and what was left out.

    Attributes
    ----------
    patients : dict of str to CorrectedPatient
        By name, in the order of the names.
    problems : tuple of str
        One sentence for each patient or folder that is left out.
    """

    patients: Mapping[str, CorrectedPatient]
    problems: tuple[str, ...] = ()


def find_corrected(dataset: Path, results: Path) -> FoundCorrected:
    """Patients of a dataset with corrected or accepted labels.

    Parameters
    ----------
    dataset : Path
        Holds the patients' folders.
    results : Path
        Results folder of the cohort browser.

    Raises
    ------
    ResultsError
        If the results folder cannot be read; those of single patients that cannot are ``problems``.
    """
    corrected = ResultStore(results).corrected()
    found = find_by_name("images", dataset)
    patients: dict[str, CorrectedPatient] = {}
    problems = [*corrected.problems.values(), *map(str, (*found.problems, *found.empty))]
    named = {problem.path.name for problem in found.problems}
    for name, status in corrected.found.items():
        if name not in found.patients and name in named:
            continue
        if name not in found.patients:
            problems.append(
                f"{results} holds labels of {name}, but {dataset} holds no images of this name; add them, or "
                "name the files of the results after those of the images."
            )
        elif problem := not_corrected(name, results, status):
            problems.append(problem)
        else:
            patients[name] = CorrectedPatient(name, found.patients[name], results)
    return FoundCorrected(patients, tuple(problems))


def not_corrected(name: str, results: Path, status: PatientStatus) -> str:
    """Why labels must not be learnt from, in one sentence; empty if a person corrected or accepted them."""
    if status.state == "foreign":
        return (
            f"The labels of {name} in {results} were made or changed by another program; open the patient in "
            "the cohort browser and accept them to train on them."
        )
    if not status.by_hand:
        return f"The labels of {name} in {results} are a prediction; correct or accept them to train on them."
    return ""
