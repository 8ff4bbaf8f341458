"""The patients of a report: predicted labels, truth and images, matched by name and read on one grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..data.discover import has_slices
from ..data.label_files import find_labels, read_labels
from ..data.patients import UInt8Array, find_slices, read_patient
from ..errors import PatientError
from .compare import in_size


@dataclass(frozen=True)
class LabelPair:
    """Where one patient's labels, truth and images are.

    Attributes
    ----------
    name : str
        The patient's name.
    labels : Path
        Predicted labels, as :func:`napari_lgg_seg.core.data.label_files.read_labels` takes them.
    truth : Path or None
        True labels, likewise.
    images : Path or None
        Folder with the patient's slices.
    """

    name: str
    labels: Path
    truth: Path | None
    images: Path | None


@dataclass(frozen=True)
class LabelPairs:
    """What was found in the folders of a report.

    Attributes
    ----------
    cases : tuple of LabelPair
        Patients with predicted labels, by name.
    without_prediction : tuple of str
        Patients with truth alone.
    problems : tuple of str
        A sentence for each folder that cannot be told what it is.
    """

    cases: tuple[LabelPair, ...]
    without_prediction: tuple[str, ...]
    problems: tuple[str, ...]


def find_pairs(predictions: Path, truth: Path | None = None, images: Path | None = None) -> LabelPairs:
    """Match predicted labels, true labels and images of patients by the names in their files.

    Parameters
    ----------
    predictions, truth, images : Path
        Each a patient's folder or a folder of patients' folders. A single patient in each is one
        patient, whatever its names. Images are taken from where the truth is, or else from where the
        predictions are, if no folder is given for them.

    Returns
    -------
    LabelPairs
        At least one case, or one problem.

    Raises
    ------
    PatientError
        If a folder holds nothing of the kind.
    """
    predicted, problems = _found_in(predictions, find_labels, "labels")
    true, more = _found_in(truth, find_labels, "labels") if truth is not None else ({}, [])
    problems += more
    seen, more = _found_in(images or truth or predictions, _find_images, "images" if images else None)
    problems += more
    if len(predicted) == len(true) == 1:
        predicted = dict(zip(true, predicted.values(), strict=True))
    if len(predicted) == len(seen) == 1:
        seen = dict(zip(predicted, seen.values(), strict=True))
    cases = [LabelPair(name, predicted[name], true.get(name), seen.get(name)) for name in sorted(predicted)]
    without = tuple(sorted(set(true) - set(predicted)))
    return LabelPairs(tuple(cases), without, tuple(dict.fromkeys(problems)))


def _found_in(
    folder: Path, find: Callable[[Path], dict[str, Path]], wanted: str | None
) -> tuple[dict[str, Path], list[str]]:
    """What is in a folder, and sentences about subfolders that spoil the search in the whole."""
    problems: list[str] = []
    try:
        found = find(folder)
    except PatientError as whole:
        if has_slices(folder):
            raise
        found = {}
        for subfolder in _subfolders(folder):
            try:
                found = {**find(subfolder), **found}
            except PatientError as error:
                problems.append(str(error))
        problems = problems or [str(whole)]
    if not found and not problems and wanted is not None:
        raise PatientError(f"{folder} holds no patient's {wanted}; choose another folder.")
    return found, problems


def _find_images(folder: Path) -> dict[str, Path]:
    """Name -> folder of the patients with images."""
    with_slices = [f for f in [folder, *_subfolders(folder)] if has_slices(f)]
    named = [(find_slices(f), f) for f in with_slices]
    return {files.name: f for files, f in reversed(named) if files.images}


def _subfolders(folder: Path) -> list[Path]:
    return sorted(f for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))


@dataclass(frozen=True)
class Volumes:
    """One patient's labels and what there is to show them on, on one grid.

    Attributes
    ----------
    name : str
        The patient's name.
    slice_numbers : tuple of int
        Number of each slice in the files' names, or 1, 2, ...
    prediction : ndarray of uint8
        Shape (z, y, x), 0 and 1.
    truth : ndarray of uint8 or None
        Likewise.
    images : ndarray of uint8 or None
        Shape (z, y, x, 3), channels as in :data:`napari_lgg_seg.core.data.patients.SEQUENCES`.
    """

    name: str
    slice_numbers: tuple[int, ...]
    prediction: UInt8Array
    truth: UInt8Array | None = None
    images: UInt8Array | None = None

    @property
    def tumour(self) -> npt.NDArray[np.bool_]:
        """Tumour in prediction or truth, (z, y, x)."""
        tumour: npt.NDArray[np.bool_] = self.prediction != 0
        return tumour if self.truth is None else tumour | (self.truth != 0)


def read_pair(case: LabelPair, *, with_images: bool = True) -> Volumes:
    """Read a patient's labels, truth and images.

    Parameters
    ----------
    case : LabelPair
        From :func:`find_pairs`.
    with_images : bool
        Whether images are read; their files give the slices' numbers all the same.

    Raises
    ------
    PatientError
        If something cannot be read, or grids differ.
    """
    prediction = read_labels(case.labels)
    truth = None if case.truth is None else read_labels(case.truth)
    images = None if case.images is None or not with_images else read_patient(case.images).volume
    for path, array in ((case.truth, truth), (case.images, images)):
        if array is not None and array.shape[:3] != prediction.shape:
            raise PatientError(
                f"{case.labels} has {in_size(prediction.shape)} voxels but {path} has "
                f"{in_size(array.shape[:3])}; they must be the same slices."
            )
    return Volumes(case.name, _slice_numbers(case, len(prediction)), prediction, truth, images)


def _slice_numbers(case: LabelPair, count: int) -> tuple[int, ...]:
    for path in (case.images, case.truth, case.labels):
        if path is not None and path.is_dir():
            files = find_slices(path)
            return tuple(files.images or files.masks)
    return tuple(range(1, count + 1))
