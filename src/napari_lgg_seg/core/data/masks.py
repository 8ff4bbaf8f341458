"""Write masks and whole patients in the dataset's layout."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tifffile

from ..atomic import cannot_read, check_name, filling
from ..errors import ExportError
from .patients import Patient, parse_name


def mask_name(patient: str, number: int, width: int = 1) -> str:
    """File name of a slice's mask, with the number padded with zeros to a width."""
    return f"{patient}_{number:0{width}}_mask.tif"


def put_masks(
    folder: Path,
    patient: str,
    labels: npt.NDArray[np.generic],
    slice_numbers: Sequence[int] | None = None,
    number_width: int = 1,
) -> list[Path]:
    """Write labels as masks in the dataset's layout, ``<patient>_<n>_mask.tif``, to an existing folder.

    Parameters
    ----------
    folder : Path
        The folder; masks that it holds are replaced one by one.
    patient : str
        First part of the file names.
    labels : ndarray of bool or integers
        Shape (z, y, x); non-zero is tumour.
    slice_numbers : sequence of int, optional
        Number of each slice; 1, 2, ... by default.
    number_width : int
        Digits to which the numbers are padded with zeros.

    Returns
    -------
    list of Path
        The files; pixels are uint8, 0 and 255.

    Raises
    ------
    ExportError
        If shape, dtype, name or numbers are wrong.
    """
    _check_labels(labels)
    numbers = list(range(1, len(labels) + 1) if slice_numbers is None else slice_numbers)
    if len(numbers) != len(labels) or len(set(numbers)) != len(numbers):
        raise ExportError(f"{len(labels)} slices need {len(labels)} different slice numbers.")
    _check_name(patient, numbers)
    pixels = np.where(labels != 0, np.uint8(255), np.uint8(0))
    targets = [folder / mask_name(patient, number, number_width) for number in numbers]
    _put_tiffs(targets, pixels)
    return targets


def write_patient(folder: str | os.PathLike[str], patient: Patient) -> list[Path]:
    """Write a patient's images and masks to an empty or new folder.

    Returns
    -------
    list of Path
        Images, then masks.

    Raises
    ------
    ExportError
        If the folder holds slices already, or cannot be written.
    """
    folder = Path(folder)
    _check_name(patient.name, patient.slice_numbers)
    if found := slices_in(folder):
        raise ExportError(
            f"{folder} holds slices already ({found[0].name}); choose a new or an empty folder."
        )
    width = patient.number_width
    targets: list[Path] = []
    pixels: list[npt.NDArray[np.uint8]] = []
    if patient.volume is not None:
        targets += [Path(f"{patient.name}_{number:0{width}}.tif") for number in patient.slice_numbers]
        pixels += list(patient.volume)
    if patient.truth is not None:
        marked = [
            i for i, number in enumerate(patient.slice_numbers) if number not in patient.slices_without_mask
        ]
        targets += [Path(mask_name(patient.name, patient.slice_numbers[i], width)) for i in marked]
        pixels += list(patient.truth[marked] * np.uint8(255))
    with filling(folder) as files:
        _put_tiffs([files.staging / target for target in targets], pixels)
    return [folder / target for target in targets]


def _check_labels(labels: npt.NDArray[np.generic]) -> None:
    if labels.ndim != 3 or not len(labels):
        raise ExportError(
            f"Labels with {labels.ndim} dimensions cannot be written as masks; they must be slices x height "
            "x width."
        )
    if labels.dtype.kind not in "bui":
        raise ExportError(f"Labels of {labels.dtype} cannot be written as masks; they must be integers.")


def _check_name(patient: str, numbers: Iterable[int]) -> None:
    check_name(patient)
    if any(number < 0 for number in numbers):
        raise ExportError("Slice numbers must not be negative; the masks could not be read back.")


def slices_in(folder: Path) -> list[Path]:
    """Images and masks in a folder, sorted; none if it does not exist.

    Raises
    ------
    ExportError
        If it is a file or cannot be opened.
    """
    try:
        if not folder.exists():
            return []
        if not folder.is_dir():
            raise ExportError(f"{folder} is a file; choose a folder.")
        return sorted(path for path in folder.iterdir() if parse_name(path) is not None)
    except OSError as error:
        raise cannot_read(folder, error) from error


def _put_tiffs(targets: Sequence[Path], pixels: Iterable[npt.NDArray[np.uint8]]) -> None:
    for target, page in zip(targets, pixels, strict=True):
        photometric = "rgb" if page.ndim == 3 else "minisblack"
        tifffile.imwrite(target, np.ascontiguousarray(page), photometric=photometric)
