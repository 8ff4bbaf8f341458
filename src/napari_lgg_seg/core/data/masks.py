"""Write masks and whole patients in the dataset's layout, atomically and never over existing images."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tifffile

from ..atomic import NOT_IN_NAMES, cannot_write, filling
from ..errors import ExistingMasksError, ExportError
from .patients import Patient, parse_name
from .provenance import provenance_file


def mask_name(patient: str, number: int) -> str:
    """File name of a slice's mask."""
    return f"{patient}_{number}_mask.tif"


def write_masks(
    folder: str | os.PathLike[str],
    patient: str,
    labels: npt.NDArray[np.generic],
    slice_numbers: Sequence[int] | None = None,
    *,
    overwrite: bool = False,
    provenance: str | None = None,
) -> list[Path]:
    """Write labels as masks in the dataset's layout: ``<folder>/<patient>_<n>_mask.tif``.

    All files are written under temporary names before the first one is renamed, so that an error leaves the
    folder unchanged. A new folder appears with all files at once.

    Parameters
    ----------
    folder : path
        Created if it does not exist. It must not hold images of the dataset, or masks other than those that
        ``overwrite`` allows to replace.
    patient : str
        First part of the file names.
    labels : ndarray of bool or integers
        Shape (z, y, x); non-zero is tumour.
    slice_numbers : sequence of int, optional
        Number of each slice; 1, 2, ... by default.
    overwrite : bool
        Replace existing masks; never in a folder with images, where they would be the ground truth.
    provenance : str, optional
        Content of the provenance file (:mod:`napari_lgg_seg.core.data.provenance`); that of older masks is
        removed.

    Returns
    -------
    list of Path
        The files; pixels are uint8, 0 and 255.

    Raises
    ------
    ExportError
        If shape or dtype is wrong, the folder holds images or masks already, or cannot be written.
    """
    folder = Path(folder)
    _check_labels(labels)
    numbers = list(range(1, len(labels) + 1) if slice_numbers is None else slice_numbers)
    if len(numbers) != len(labels) or len(set(numbers)) != len(numbers):
        raise ExportError(f"{len(labels)} slices need {len(labels)} different slice numbers.")
    _check_name(patient, numbers)
    old = check_folder(folder, patient, overwrite=overwrite)
    pixels = np.where(labels != 0, np.uint8(255), np.uint8(0))
    targets = [folder / mask_name(patient, number) for number in numbers]
    _write_tiffs(folder, targets, pixels, provenance)
    for leftover in set(old) - set(targets):
        leftover.unlink(missing_ok=True)
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
    check_folder(folder, patient.name, overwrite=False)
    targets: list[Path] = []
    pixels: list[npt.NDArray[np.uint8]] = []
    if patient.volume is not None:
        targets += [folder / f"{patient.name}_{number}.tif" for number in patient.slice_numbers]
        pixels += list(patient.volume)
    if patient.truth is not None:
        marked = [
            i for i, number in enumerate(patient.slice_numbers) if number not in patient.slices_without_mask
        ]
        targets += [folder / mask_name(patient.name, patient.slice_numbers[i]) for i in marked]
        pixels += list(patient.truth[marked] * np.uint8(255))
    _write_tiffs(folder, targets, pixels)
    return targets


def _check_labels(labels: npt.NDArray[np.generic]) -> None:
    if labels.ndim != 3 or not len(labels):
        raise ExportError(
            f"Labels with {labels.ndim} dimensions cannot be written as masks; they must be slices x height "
            "x width."
        )
    if labels.dtype.kind not in "bui":
        raise ExportError(f"Labels of {labels.dtype} cannot be written as masks; they must be integers.")


def _check_name(patient: str, numbers: Iterable[int]) -> None:
    if not patient or re.search(NOT_IN_NAMES, patient):
        raise ExportError(f"{patient!r} cannot be used in file names; rename the patient.")
    if any(number < 0 for number in numbers):
        raise ExportError("Slice numbers must not be negative; the masks could not be read back.")


def check_folder(folder: Path, patient: str, *, overwrite: bool) -> list[Path]:
    """Check whether a patient's masks may be written to a folder.

    Returns
    -------
    list of Path
        Masks that exist in the folder.

    Raises
    ------
    ExportError
        If it holds images or another patient's masks, is a file, or cannot be read.
    ExistingMasksError
        If it holds masks of the patient and ``overwrite`` is False.
    """
    if not folder.exists():
        return []
    if not folder.is_dir():
        raise ExportError(f"{folder} is a file; choose a folder for the masks.")
    try:
        parsed = [(path, parse_name(path)) for path in sorted(folder.iterdir())]
    except OSError as error:
        raise cannot_write(folder, error) from error
    found = [path for path, name in parsed if name is not None]
    images = [path for path, name in parsed if name is not None and not name[2]]
    others = [path for path, name in parsed if name is not None and name[0] != patient]
    if images:
        raise ExportError(
            f"{folder} holds images of a patient ({images[0].name}); masks written there would become its "
            "ground truth - choose another folder."
        )
    if others:
        raise ExportError(
            f"{folder} holds masks of another patient ({others[0].name}); choose a separate folder for "
            f"{patient}."
        )
    if found and not overwrite:
        raise ExistingMasksError(
            f"{folder} holds masks already ({found[0].name}); choose another folder, or allow overwriting."
        )
    return found


def _write_tiffs(
    folder: Path,
    targets: Sequence[Path],
    pixels: Iterable[npt.NDArray[np.uint8]],
    provenance: str | None = None,
) -> None:
    with filling(folder, provenance_file("masks"), provenance) as temporary:
        for target, page in zip(targets, pixels, strict=True):
            photometric = "rgb" if page.ndim == 3 else "minisblack"
            tifffile.imwrite(temporary / target.name, np.ascontiguousarray(page), photometric=photometric)
