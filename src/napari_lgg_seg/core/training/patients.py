"""Patients to train on or to validate with: in memory, or read from disk when they are needed."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from ..data.patients import Patient, find_slices, read_patient
from ..errors import PatientError


class PatientFiles(Protocol):
    """A patient whose files are read on demand."""

    @property
    def name(self) -> str:
        """The patient's name."""

    def read(self) -> Patient:
        """Read the images and the ground truth."""


#: A patient in memory, its folder, or files that are read on demand.
Source = Patient | Path | PatientFiles


def source_name(source: Source) -> str:
    """Return the patient's name without reading any slices.

    Raises
    ------
    PatientError
        If a folder holds no patient.
    """
    return find_slices(source).name if isinstance(source, Path) else source.name


def load_patient(source: Source) -> Patient:
    """Return the patient with images and ground truth, reading its files if necessary.

    Raises
    ------
    PatientError
        If it cannot be read, or has no images or no masks.
    """
    if isinstance(source, Path):
        patient = read_patient(source)
    else:
        patient = source if isinstance(source, Patient) else source.read()
    if patient.volume is None or patient.truth is None:
        raise PatientError(f"{patient.folder} has no images or no masks; training needs both.")
    return patient
