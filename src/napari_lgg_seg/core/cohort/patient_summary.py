"""What a cohort's table shows of each patient, from the patient's files and its stored labels."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..data.json_files import Count
from ..data.label_files import LabelArray
from ..data.patients import FLAIR, Patient, UInt8Array, parse_name, read_patient
from ..errors import PatientError
from ..evaluation.compare import format_shape
from ..evaluation.metrics import dice

#: Largest side of a thumbnail, in pixels.
THUMBNAIL_SIZE = 64
#: To be increased when the summary of the same files changes, so that cached ones are not used.
_VERSION = 1


@dataclass(frozen=True)
class TumourExtent:
    """Size of a tumour: volume in voxels, and number of slices that show it."""

    voxels: Count
    slices: Count


@dataclass(frozen=True)
class PatientSummary:
    """One row of a cohort's table.

    Attributes
    ----------
    slices : int
        Slices of the volume; 0 for a patient that cannot be read.
    missing : tuple of str
        Sequences that are filled with FLAIR.
    truth, predicted : TumourExtent or None
        Of the dataset's masks and of the stored labels, if there are any.
    dice : float or None
        Of these two over the whole volume; None if a slice has no mask, since its ground truth is unknown.
    thumbnail : ndarray of uint8 or None
        The FLAIR slice with the largest tumour (ground truth first, then predicted), else the middle one; at
        most :data:`THUMBNAIL_SIZE` pixels high and wide.
    problem : str
        Why the patient cannot be read, in one sentence; empty if it can.
    """

    slices: int = 0
    missing: tuple[str, ...] = ()
    truth: TumourExtent | None = None
    predicted: TumourExtent | None = None
    dice: float | None = None
    thumbnail: UInt8Array | None = None
    problem: str = ""


def read_summary(folder: Path, labels: LabelArray | None) -> PatientSummary:
    """Read a patient and summarize it; errors go into ``problem`` instead of being raised.

    Parameters
    ----------
    folder : Path
        The patient's folder.
    labels : ndarray or None
        Shape (z, y, x); the patient's stored labels, if there are any.
    """
    try:
        return summarize_patient(read_patient(folder), labels)
    except PatientError as error:
        return PatientSummary(problem=str(error))


def summarize_patient(patient: Patient, labels: LabelArray | None) -> PatientSummary:
    """Summarize a patient that is already in memory.

    Raises
    ------
    PatientError
        If the labels are on another grid.
    """
    if labels is not None and labels.shape != patient.shape:
        raise PatientError(
            f"The stored labels of {patient.name} have {format_shape(labels.shape)} voxels but its "
            f"slices have {format_shape(patient.shape)}; segment it again."
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


def signature(folder: Path, labels: Sequence[tuple[str, int, int]]) -> str:
    """A hash that changes whenever a patient's slice files or its stored labels do.

    It is computed from names, sizes and modification times, without reading the files; those of the labels
    are from :meth:`.patient_results.PatientResults.stamps`.
    """
    stamps = list(labels)
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if parse_name(Path(entry.name)) is not None:
                    stat = entry.stat()
                    stamps.append((entry.name, stat.st_size, stat.st_mtime_ns))
    except OSError as error:
        stamps.append((f"cannot be opened: {error.strerror}", 0, 0))
    return hashlib.sha256(repr((_VERSION, sorted(stamps))).encode()).hexdigest()


def _extent(labels: LabelArray) -> TumourExtent:
    tumour = labels != 0
    return TumourExtent(int(np.count_nonzero(tumour)), int(np.count_nonzero(tumour.any(axis=(1, 2)))))


def _thumbnail(patient: Patient, labels: LabelArray | None) -> UInt8Array | None:
    if patient.volume is None:
        return None
    return shrink(patient.volume[slice_to_show(patient.shape[0], patient.truth, labels)][..., FLAIR])


def slice_to_show(slices: int, *labels: LabelArray | None) -> int:
    """Index of the slice with the largest tumour in the first labels that are not empty, else the middle."""
    for marked in labels:
        if marked is not None and marked.any():
            return int(np.count_nonzero(marked, axis=(1, 2)).argmax())
    return slices // 2


def shrink(picture: UInt8Array, largest: int = THUMBNAIL_SIZE) -> UInt8Array:
    """Downsample an image, (height, width), by block means and stretch its contrast to 0 to 255."""
    factor = -(-max(picture.shape) // largest)
    down, right = (min(factor, n) for n in picture.shape)
    height, width = picture.shape[0] // down, picture.shape[1] // right
    blocks = picture[: height * down, : width * right].reshape(height, down, width, right)
    means: npt.NDArray[np.float32] = blocks.mean(axis=(1, 3), dtype=np.float32)
    high = float(np.percentile(means, 99.5))
    stretched = means * np.float32(255 / high if high > 0 else 0)
    small: UInt8Array = np.clip(np.rint(stretched), 0, 255).astype(np.uint8)
    return small
