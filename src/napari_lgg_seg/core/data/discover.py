"""Which folders hold patients, and which files are slices: the only code that searches folders for them.

Everything here is quick: names are checked first, and at most one file's header is read per folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tifffile

from ..errors import PatientError
from .patients import mask_of, parse_name

#: Subfolders checked before a folder counts as "not a dataset".
_MAX_SUBFOLDERS = 64


def is_patient_folder(folder: Path) -> bool:
    """Whether a folder holds slices in the dataset's layout. Never raises.

    True if there is at least one pair of image and mask, if there are masks only, or if the first slice is
    uint8, height x width x 3. Grayscale images alone are not enough: they could be anything.
    """
    images: dict[tuple[str, int], Path] = {}
    masks: set[tuple[str, int]] = set()
    try:
        for entry in os.scandir(folder):
            path = Path(entry.path)
            parsed = parse_name(path)
            if parsed is None or entry.is_dir():
                continue
            name, number, is_mask = parsed
            if is_mask:
                masks.add((name, number))
            else:
                images[name, number] = path
            if (name, number) in masks and (name, number) in images:
                return True
    except (OSError, ValueError):  # ValueError: a path with a null byte, a number of 5000 digits
        return False
    if not images:
        return bool(masks)
    return _channels(images[min(images)]) == 3


def is_slice_file(path: Path) -> bool:
    """Whether a file is a slice or a mask of the dataset. Never raises.

    Grayscale files with such names are common, so a grayscale slice counts only if its mask is there too.
    """
    try:
        parsed = parse_name(path)
        if parsed is None or not path.is_file():
            return False
        is_mask, channels = parsed[2], _channels(path)
        if channels == 1:
            return is_mask or mask_of(path).is_file()
        return channels == 3 and not is_mask
    except (OSError, ValueError):  # the system refuses the path: too long, not permitted
        return False


def is_dataset_folder(folder: Path) -> bool:
    """Whether a folder holds patient folders. Never raises."""
    return next(_patient_folders(folder, _MAX_SUBFOLDERS), None) is not None


def has_slices(folder: Path) -> bool:
    """Whether a folder holds files named like slices or masks, valid or not. Never raises."""
    try:
        return any(parse_name(Path(entry.path)) is not None for entry in os.scandir(folder))
    except OSError:
        return False


def patient_folders(dataset: Path) -> list[Path]:
    """Valid patient folders directly inside a dataset folder, sorted by name."""
    return list(_patient_folders(dataset, None))


def _patient_folders(dataset: Path, limit: int | None) -> Iterator[Path]:
    try:
        folders = sorted(
            Path(entry.path)
            for entry in os.scandir(dataset)
            if entry.is_dir() and not entry.name.startswith(".")
        )
    except (OSError, ValueError):
        return
    yield from (folder for folder in folders[:limit] if is_patient_folder(folder))


def find_patients(folders: Sequence[Path]) -> list[Path]:
    """Patient folders among, or directly inside, the given folders; each once, in the given order.

    Folders without slices and missing ones are included: reading them reports what is wrong.
    """
    found: dict[Path, Path] = {}
    for folder in folders:
        inside = [] if has_slices(folder) else [f for f in _visible_entries(folder) if has_slices(f)]
        for patient in inside or [folder]:
            found.setdefault(patient.resolve(), patient)
    return list(found.values())


def _visible_entries(folder: Path) -> list[Path]:
    """A folder's entries except hidden ones, which can be half-written results of a killed process."""
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError:
        return []


def list_patients(dataset: Path, results: Path | None = None) -> list[Path]:
    """All subfolders of a dataset folder, valid or not, sorted by name.

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
    try:
        with os.scandir(dataset) as entries:
            folders = [Path(e.path) for e in entries if e.is_dir() and not e.name.startswith(".")]
    except OSError as error:
        raise PatientError(
            f"{dataset} cannot be opened ({error.strerror}); choose the folder that holds the patients' "
            "folders."
        ) from error
    excluded = results.resolve() if results is not None else None
    folders = [folder for folder in folders if excluded is None or folder.resolve() != excluded]
    if not folders:
        kind = "is a patient's own folder" if has_slices(dataset) else "holds no folders"
        raise PatientError(f"{dataset} {kind}; choose the folder that holds the patients' folders.")
    return sorted(folders)


def _channels(path: Path) -> int | None:
    """1 for a grayscale 8-bit TIFF, 3 for a colour one, None for anything else. Reads the header only."""
    try:
        with tifffile.TiffFile(path) as tiff:
            series = tiff.series[0]
    except Exception:  # noqa: BLE001 - tifffile raises many kinds of errors on files that are not TIFFs
        return None
    if series.dtype != np.uint8:
        return None
    if len(series.shape) == 2:
        return 1
    return 3 if series.shape[2:] == (3,) else None
