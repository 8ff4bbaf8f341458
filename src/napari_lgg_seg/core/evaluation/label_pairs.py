"""Predicted labels, ground truth and images of patients, matched by name and read on one grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..data.discover import Content, Found, find_by_name
from ..data.label_reading import StoredLabels, read_stored_labels
from ..data.patients import UInt8Array, find_slices, read_patient
from ..errors import PatientError
from .compare import format_shape

#: Grids are the same if no corner is further apart than this, in voxels.
_SAME_PLACE = 0.1


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
    prediction = read_stored_labels(pair.labels).as_tumour()
    truth = None if pair.truth is None else read_stored_labels(pair.truth).as_tumour()
    images = None if pair.images is None or not with_images else read_patient(pair.images).volume
    for path, shape in (
        (pair.truth, None if truth is None else truth.labels.shape),
        (pair.images, None if images is None else images.shape[:3]),
    ):
        if shape not in (None, prediction.labels.shape):
            raise PatientError(
                f"{pair.labels} has {format_shape(prediction.labels.shape)} voxels but {path} has "
                f"{format_shape(shape)}; they must be the same slices."
            )
    if truth is not None:
        _check_position(prediction, truth)
    return Volumes(
        pair.name,
        _common_slice_numbers(pair, prediction, truth),
        prediction.labels,
        None if truth is None else truth.labels,
        images,
    )


def _common_slice_numbers(
    pair: LabelPair, prediction: StoredLabels, truth: StoredLabels | None
) -> tuple[int, ...]:
    """The slices' numbers, which must be the same wherever they are known; else 1, 2, ..."""
    known = [(stored.path, stored.slice_numbers) for stored in (truth, prediction) if stored is not None]
    if pair.images is not None:
        files = find_slices(pair.images)
        known.insert(0, (pair.images, tuple(files.images or files.masks)))
    known = [(path, numbers) for path, numbers in known if numbers]
    for path, numbers in known:
        if numbers != known[0][1]:
            raise PatientError(
                f"{known[0][0]} holds slices {_ranges(known[0][1])} but {path} holds slices "
                f"{_ranges(numbers)}; they must be the same slices."
            )
    return known[0][1] if known else tuple(range(1, len(prediction.labels) + 1))


def _ranges(numbers: Sequence[int]) -> str:
    """Slice numbers in words, for instance ``1 to 20`` or ``3, 7 and 8``."""
    if len(numbers) > 2 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"{numbers[0]} to {numbers[-1]}"
    shown = [str(n) for n in numbers[:8]] + (["more"] if len(numbers) > 8 else [])
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else shown[0]


def _check_position(prediction: StoredLabels, truth: StoredLabels) -> None:
    """Refuse labels that lie elsewhere in space, if that is known of both."""
    if prediction.affine is None or truth.affine is None:
        return
    z, y, x = (n - 1 for n in prediction.labels.shape)
    corners = np.array([(i, j, k, 1) for i in (0, x) for j in (0, y) for k in (0, z)], np.float64)
    distance = np.linalg.norm(corners @ (prediction.affine - truth.affine)[:3].T, axis=1).max()
    voxel = np.linalg.norm(truth.affine[:3, :3], axis=0).min()
    if distance > _SAME_PLACE * voxel:
        raise PatientError(
            f"{prediction.path} and {truth.path} lie up to {distance:.1f} mm apart, as their affines say; "
            "resample one of them to the grid of the other."
        )
