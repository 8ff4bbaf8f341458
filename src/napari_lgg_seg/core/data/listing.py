"""The patients of a dataset folder for a table: one row for each subfolder, whether it can be used or not."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from ..errors import PatientError
from .discover import has_slices, second_time, subfolders
from .other_layouts import check_not_masks
from .patients import find_slices


@dataclass(frozen=True)
class ListedPatients:
    """The subfolders of a dataset folder by name.

    Attributes
    ----------
    folders : dict of str to Path
        The patients' folders by the name in their files, in the order of the folders. A folder with a
        problem is there under its own name, changed if another patient has that name.
    problems : dict of str to str
        By the same names: why a folder cannot be used, in one sentence.
    """

    folders: Mapping[str, Path]
    problems: Mapping[str, str]


def list_patients(dataset: Path, results: Path | None = None) -> ListedPatients:
    """List all subfolders of a dataset folder that searches do not ignore; their files are not read.

    Parameters
    ----------
    dataset : Path
        Holds one folder per patient.
    results : Path, optional
        The results folder, which is left out if it is inside the dataset folder.

    Raises
    ------
    PatientError
        If the folder cannot be opened or has no subfolders.
    """
    patients: dict[str, Path] = {}
    names: dict[Path, str] = {}
    refused: dict[Path, str] = {}
    for folder in _listed(dataset, results):
        try:
            slices = find_slices(folder)
            check_not_masks(slices)
            name = slices.name
        except PatientError as error:
            name, refused[folder] = folder.name, str(error)
        else:
            first = patients.setdefault(name, folder)
            if first != folder:
                refused[folder] = str(second_time(name, folder, first))
        names[folder] = name
    taken = set(patients)
    for folder in refused:  # a patient keeps its name, wherever its folder is in the order
        names[folder] = _free_name(folder.name, taken)
        taken.add(names[folder])
    problems = {names[folder]: sentence for folder, sentence in refused.items()}
    return ListedPatients({name: folder for folder, name in names.items()}, problems)


def _listed(dataset: Path, results: Path | None) -> list[Path]:
    try:
        os.scandir(dataset).close()
    except OSError as error:
        raise PatientError(
            f"{dataset} cannot be opened ({error.strerror}); choose the folder that holds the patients' "
            "folders."
        ) from error
    excluded = os.path.realpath(results) if results is not None else None
    folders = [folder for folder in subfolders(dataset) if os.path.realpath(folder) != excluded]
    if not folders:
        kind = "is a patient's own folder" if has_slices(dataset) else "holds no folders"
        raise PatientError(f"{dataset} {kind}; choose the folder that holds the patients' folders.")
    return folders


def _free_name(name: str, taken: Collection[str]) -> str:
    numbered = (name if number == 1 else f"{name} ({number})" for number in count(1))
    return next(free for free in numbered if free not in taken)
