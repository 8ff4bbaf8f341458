"""Predicted labels, ground truth and images of patients, matched by name and read on one grid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..data.discover import Content, Found, find_by_name
from ..data.label_files import read_labels
from ..data.patients import UInt8Array, find_slices, read_patient
from ..errors import PatientError
from .compare import format_shape


@dataclass(frozen=True)
class LabelPair:
    """Where the predicted labels, ground truth and images of one patient are.

    Attributes
    ----------
    name : str
        The patient's name.
    labels : Path
        Predicted labels, as :func:`napari_lgg_seg.core.data.label_files.read_labels` takes them.
    truth : Path or None
        Ground truth, likewise; None if there is none.
    images : Path or None
        Folder with the patient's slices; None if there is none.
    """

    name: str
    labels: Path
    truth: Path | None
    images: Path | None


@dataclass(frozen=True)
class LabelPairs:
    """What :func:`find_pairs` found.

    Attributes
    ----------
    pairs : tuple of LabelPair
        Patients with predicted labels, sorted by name.
    without_prediction : tuple of str
        Patients with ground truth only.
    problems : tuple of str
        One sentence for each folder that cannot be used, or that repeats a patient.
    """

    pairs: tuple[LabelPair, ...]
    without_prediction: tuple[str, ...]
    problems: tuple[str, ...]


def find_pairs(predictions: Path, truth: Path | None = None, images: Path | None = None) -> LabelPairs:
    """Match predicted labels, ground truth and images of patients by the names in their files.

    Parameters
    ----------
    predictions, truth, images : Path
        Each a patient's folder or a folder of patients' folders. If each holds a single patient, and
        nothing that cannot be used, they are matched whatever their names. Without ``images``, images are
        taken from ``truth``, or else from ``predictions``.

    Returns
    -------
    LabelPairs
        At least one pair or one problem.

    Raises
    ------
    PatientError
        If a folder contains nothing of the kind.
    """
    predicted = _find("labels", predictions)
    true = _find("labels", truth) if truth is not None else Found({})
    # Without a folder of their own, images are optional.
    seen = _find("images", images) if images else find_by_name("images", truth or predictions)
    problems = tuple(dict.fromkeys(map(str, [*predicted.problems, *true.problems, *seen.problems])))
    labels = dict(predicted.patients)
    if not problems and len(labels) == len(true.patients) == 1:
        labels = dict(zip(true.patients, labels.values(), strict=True))
    shown = dict(seen.patients)
    if not problems and len(labels) == len(shown) == 1:
        shown = dict(zip(labels, shown.values(), strict=True))
    pairs = (
        LabelPair(name, labels[name], true.patients.get(name), shown.get(name)) for name in sorted(labels)
    )
    return LabelPairs(tuple(pairs), tuple(sorted(set(true.patients) - set(labels))), problems)


def _find(content: Content, folder: Path) -> Found:
    found = find_by_name(content, folder)
    if found.empty:
        raise PatientError(str(found.empty[0]))
    return found


@dataclass(frozen=True)
class Volumes:
    """One patient's labels and images on one grid.

    Attributes
    ----------
    name : str
        The patient's name.
    slice_numbers : tuple of int
        The number in each slice's file name, or 1, 2, ...
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
        """Tumour in the prediction or the ground truth, shape (z, y, x)."""
        tumour: npt.NDArray[np.bool_] = self.prediction != 0
        return tumour if self.truth is None else tumour | (self.truth != 0)


def read_pair(pair: LabelPair, *, with_images: bool = True) -> Volumes:
    """Read a patient's labels, ground truth and images.

    Parameters
    ----------
    pair : LabelPair
        From :func:`find_pairs`.
    with_images : bool
        Whether to read the images; slice numbers are taken from their file names in either case.

    Returns
    -------
    Volumes
        All on the grid of the predicted labels.

    Raises
    ------
    PatientError
        If a file cannot be read or the grids differ.
    """
    prediction = read_labels(pair.labels)
    truth = None if pair.truth is None else read_labels(pair.truth)
    images = None if pair.images is None or not with_images else read_patient(pair.images).volume
    for path, array in ((pair.truth, truth), (pair.images, images)):
        if array is not None and array.shape[:3] != prediction.shape:
            raise PatientError(
                f"{pair.labels} has {format_shape(prediction.shape)} voxels but {path} has "
                f"{format_shape(array.shape[:3])}; they must be the same slices."
            )
    return Volumes(pair.name, _slice_numbers(pair, len(prediction)), prediction, truth, images)


def _slice_numbers(pair: LabelPair, count: int) -> tuple[int, ...]:
    for path in (pair.images, pair.truth, pair.labels):
        if path is not None and path.is_dir():
            files = find_slices(path)
            return tuple(files.images or files.masks)
    return tuple(range(1, count + 1))
