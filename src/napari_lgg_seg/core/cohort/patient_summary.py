"""What a cohort's table says about each patient, from the patient's files and the labels kept for it."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..data.label_files import LabelArray
from ..data.patients import FLAIR, Patient, UInt8Array, has_slices, parse_name, read_patient
from ..errors import PatientError
from ..evaluation.compare import format_shape
from ..evaluation.metrics import dice

#: Largest side of a thumbnail, in pixels.
THUMBNAIL_SIZE = 64
#: Raised when details of the same files come out differently, so that none of before are used.
_VERSION = 1


@dataclass(frozen=True)
class Extent:
    """How much tumour there is: volume in voxels, and slices that show it."""

    voxels: int
    slices: int


@dataclass(frozen=True)
class PatientSummary:
    """One patient, as a table can show it.

    Attributes
    ----------
    slices : int
        Slices of the volume; 0 for a patient that cannot be read.
    missing : tuple of str
        Sequences for which FLAIR stands in.
    truth, predicted : Extent or None
        Of the dataset's masks, and of the labels kept among the results, where there are any.
    dice : float or None
        Of these two over the whole volume; None where a slice has no mask, as nobody said then what
        is in it.
    thumbnail : ndarray of uint8 or None
        The FLAIR slice with the largest tumour, true or else predicted, else the middle one; at most
        :data:`THUMBNAIL_SIZE` pixels high and wide.
    problem : str
        Why the patient cannot be read, in one sentence; empty if it can.
    """

    slices: int = 0
    missing: tuple[str, ...] = ()
    truth: Extent | None = None
    predicted: Extent | None = None
    dice: float | None = None
    thumbnail: UInt8Array | None = None
    problem: str = ""


def list_patients(dataset: Path, results: Path | None = None) -> list[Path]:
    """The folders in a dataset's folder, each of which should be a patient's, sorted by name.

    Only the folder itself is looked at, so that it is quick; broken patients are among them.

    Parameters
    ----------
    dataset : Path
        Holds the patients' folders.
    results : Path, optional
        A folder that is no patient's, should it be among them.

    Raises
    ------
    PatientError
        If it cannot be opened, or holds no folders.
    """
    try:
        with os.scandir(dataset) as entries:
            folders = [Path(e.path) for e in entries if e.is_dir() and not e.name.startswith(".")]
    except OSError as error:
        raise PatientError(
            f"{dataset} cannot be opened ({error.strerror}); choose the folder that holds the patients' "
            "folders."
        ) from error
    apart = results.resolve() if results is not None else None
    folders = [folder for folder in folders if apart is None or folder.resolve() != apart]
    if not folders:
        kind = "is a patient's own folder" if has_slices(dataset) else "holds no folders"
        raise PatientError(f"{dataset} {kind}; choose the folder that holds the patients' folders.")
    return sorted(folders)


def read_summary(folder: Path, labels: LabelArray | None) -> PatientSummary:
    """Read a patient and measure it; what is broken is told in ``problem``, not raised.

    Parameters
    ----------
    folder : Path
        The patient's.
    labels : ndarray or None
        Shape (z, y, x); the labels kept among the results, if there are any.
    """
    try:
        return summarize_patient(read_patient(folder), labels)
    except PatientError as error:
        return PatientSummary(problem=str(error))


def summarize_patient(patient: Patient, labels: LabelArray | None) -> PatientSummary:
    """Details of a patient that was read.

    Raises
    ------
    PatientError
        If the labels are on another grid.
    """
    if labels is not None and labels.shape != patient.shape:
        raise PatientError(
            f"The labels kept for {patient.folder.name} are {format_shape(labels.shape)} voxels but its "
            f"slices {format_shape(patient.shape)}; segment it again."
        )
    truth = patient.truth
    agreement = None
    if truth is not None and labels is not None and not patient.slices_without_mask:
        agreement = dice(labels, truth)
    return PatientSummary(
        slices=patient.shape[0],
        missing=patient.filled_sequences,
        truth=None if truth is None else _extent(truth),
        predicted=None if labels is None else _extent(labels),
        dice=agreement,
        thumbnail=_thumbnail(patient, labels),
    )


def signature(folder: Path, labels_file: Path) -> str:
    """A short text that changes whenever a patient's files do, or the labels kept for it.

    Made of the names, sizes and times of change of the slices, without reading them.
    """
    stamps: list[tuple[str, int, int]] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if parse_name(Path(entry.name)) is not None:
                    stat = entry.stat()
                    stamps.append((entry.name, stat.st_size, stat.st_mtime_ns))
    except OSError as error:
        stamps.append((f"cannot be opened: {error.strerror}", 0, 0))
    try:
        stat = labels_file.stat()
        stamps.append((str(labels_file), stat.st_size, stat.st_mtime_ns))
    except OSError:
        pass  # no labels
    return hashlib.sha256(repr((_VERSION, sorted(stamps))).encode()).hexdigest()


def _extent(labels: LabelArray) -> Extent:
    tumour = labels != 0
    return Extent(int(np.count_nonzero(tumour)), int(np.count_nonzero(tumour.any(axis=(1, 2)))))


def _thumbnail(patient: Patient, labels: LabelArray | None) -> UInt8Array | None:
    if patient.volume is None:
        return None
    return shrink(patient.volume[slice_to_show(patient.shape[0], patient.truth, labels)][..., FLAIR])


def slice_to_show(slices: int, *labels: LabelArray | None) -> int:
    """Index of the slice with the largest tumour in the first labels that hold any, else the middle one."""
    for marked in labels:
        if marked is not None and marked.any():
            return int(np.count_nonzero(marked, axis=(1, 2)).argmax())
    return slices // 2


def shrink(picture: UInt8Array, largest: int = THUMBNAIL_SIZE) -> UInt8Array:
    """A smaller picture, (height, width), whose pixels are means of squares, stretched to 0 to 255."""
    factor = -(-max(picture.shape) // largest)
    down, right = (min(factor, n) for n in picture.shape)
    height, width = picture.shape[0] // down, picture.shape[1] // right
    squares = picture[: height * down, : width * right].reshape(height, down, width, right)
    means: npt.NDArray[np.float32] = squares.mean(axis=(1, 3), dtype=np.float32)
    high = float(np.percentile(means, 99.5))
    stretched = means * np.float32(255 / high if high > 0 else 0)
    small: UInt8Array = np.clip(np.rint(stretched), 0, 255).astype(np.uint8)
    return small
