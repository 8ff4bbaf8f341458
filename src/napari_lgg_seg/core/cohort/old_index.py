"""Reads ``cohort.json``, in which version 0.1.0 kept the states of a results folder's patients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..data.json_files import Fraction, JsonError, build, read_values
from ..data.provenance import LabelRecord, MadeWith
from ..errors import ResultsError

INDEX_NAME = "cohort.json"


@dataclass(frozen=True)
class _Status:
    state: Literal["new", "segmented", "corrected", "exported"]
    by_hand: bool = False
    uncertainty: Fraction | None = None
    expected_dice: Fraction | None = None
    nothing_found: bool = False
    made_with: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Index:
    patients: dict[str, Any]


def read_old_record(folder: Path, patient: str) -> LabelRecord | None:
    """What version 0.1.0 recorded about a patient's TIFF labels, without hashes; None if it did not.

    Parameters
    ----------
    folder : Path
        The results folder of the cohort.
    patient : str
        The patient's name.

    Raises
    ------
    ResultsError
        If the file or the patient's entry cannot be read: it may say that the user corrected the labels.
    """
    path = folder / INDEX_NAME
    try:
        patients = build(_Index, read_values(path)).patients
        if patient not in patients:
            return None
        status = build(_Status, patients[patient])
        build(MadeWith, status.made_with)
        return _record(status)
    except JsonError as error:
        if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            return None
        raise ResultsError(
            f"{path} cannot be read for {patient} ({error}); repair it or move it away, or choose another "
            "results folder."
        ) from error


def _record(status: _Status) -> LabelRecord:
    return LabelRecord(
        "person" if status.by_hand or status.state == "corrected" else "model",
        made_with=status.made_with,
        uncertainty=status.uncertainty,
        expected_dice=status.expected_dice,
        nothing_found=status.nothing_found,
        exported=status.state == "exported",
    )
