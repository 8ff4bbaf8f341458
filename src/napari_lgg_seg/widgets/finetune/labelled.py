"""Patients in the viewer that a model can be trained on: images with labels on their grid."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ...core.data.patients import Patient, UInt8Array, find_slices
from ...core.errors import ComparisonError, PatientError
from ...core.model.background import subtract_background
from ...layers import PREVIEW, TRUTH, TUMOUR, described, full_data, is_comparison, subject_of
from ..compare.alignment import align, world_grid
from ..segment.inputs import arrays_of, proposed_sequences, subjects_in, to_volume
from ..shared.result_layers import Subject, is_edited

if TYPE_CHECKING:
    from napari.layers import Labels

#: Values above this percentile are clipped when an image becomes uint8; every model clips below it.
_CLIP = 99.9


@dataclass(frozen=True)
class LabelledPatient:
    """A patient, or a 3D image, that is open.

    Attributes
    ----------
    subject : Subject
        The patient.
    labels : tuple of Labels
        Layers on its grid that can be its ground truth.
    elsewhere : tuple of str
        One sentence for each of the other labels layers that could be meant: which slices it shows, or where
        it is in space.
    proposed : Labels or None
        The likeliest one: corrected labels, otherwise the dataset's ground truth, never an unedited
        prediction.
    """

    subject: Subject
    labels: tuple[Labels, ...]
    elsewhere: tuple[str, ...]
    proposed: Labels | None


def labelled_patients(layers: Iterable[Any]) -> list[LabelledPatient]:
    """Patients and 3D images with a FLAIR, in the order of the layer list."""
    layers = list(layers)
    found = []
    for subject in subjects_in(layers):
        flair = proposed_sequences(layers, subject)["FLAIR"]
        if flair is not None and flair.ndim == 3:
            labels, elsewhere = _labels_on(flair, [x for x in layers if _can_be_truth(x, subject)])
            found.append(LabelledPatient(subject, labels, elsewhere, _proposed(labels)))
    return found


def _can_be_truth(layer: Any, subject: Subject) -> bool:
    """Whether a layer holds labels that belong to this patient or to none."""
    if layer._type_string != "labels" or is_comparison(layer):
        return False
    info = described(layer)
    return info is None or (subject_of(layer) == subject.id and info["role"] != PREVIEW)


def _labels_on(flair: Any, candidates: list[Any]) -> tuple[tuple[Labels, ...], tuple[str, ...]]:
    """The layers whose voxels are those of an image, and why others of its patient are not among them."""
    labels, elsewhere = [], []
    shape = full_data(flair).shape[:3]
    for layer in candidates:
        if described(layer) is None and full_data(layer).shape != shape:
            continue  # of something else
        try:
            if align(world_grid(layer), world_grid(flair)).is_identity:
                labels.append(layer)
                continue
            elsewhere.append(f"{layer.name} has other slices or axes than {flair.name}; correct its place.")
        except ComparisonError as error:
            elsewhere.append(str(error))
    return tuple(labels), tuple(elsewhere)


def _proposed(labels: tuple[Labels, ...]) -> Labels | None:
    own = [(layer, info["role"]) for layer in reversed(labels) if (info := described(layer)) is not None]
    edited = [layer for layer, role in own if role == TUMOUR and is_edited(layer)]
    truth = [layer for layer, role in own if role == TRUTH]
    return next(iter([*edited, *truth]), None)


@dataclass(frozen=True)
class PatientArrays:
    """A snapshot of a patient's layers for the worker.

    Attributes
    ----------
    name : str
        The patient.
    arrays : tuple of array
        From :func:`napari_lgg_seg.widgets.segment.inputs.arrays_of`.
    tumour : array
        Shape (z, y, x), non-zero in the tumour; a copy, so that the user may go on painting.
    slice_numbers : tuple of int
        The number in the file name of each slice.
    folder : Path or None
        The folder of the patient's files.
    is_truth : bool
        Whether the labels were read from the patient's mask files.
    """

    name: str
    arrays: tuple[Any, ...]
    tumour: Any
    slice_numbers: tuple[int, ...]
    folder: Path | None
    is_truth: bool


def patient_arrays(layers: Iterable[Any], subject: Subject, labels: Labels) -> PatientArrays:
    """A snapshot of a patient's layers; quick, for the main thread.

    Raises
    ------
    ImageError
        If the images cannot be used.
    """
    sequences = proposed_sequences(layers, subject)
    arrays = arrays_of(sequences)
    flair = sequences["FLAIR"]
    assert flair is not None
    info, source = described(flair), described(labels)
    numbers = (info or {}).get("slice_numbers") or range(1, full_data(flair).shape[0] + 1)
    folder = info["folder"] if info is not None else None
    return PatientArrays(
        subject.name,
        arrays,
        snapshot(labels),
        tuple(numbers),
        Path(folder) if folder else None,
        source is not None and source["role"] == TRUTH,
    )


def to_patient(arrays: PatientArrays) -> Patient:
    """The patient to train on; slow for lazy arrays, so call it in a worker.

    Raises
    ------
    ImageError
        If there is not enough memory.
    """
    volume = to_volume(arrays.arrays)
    truth = (np.asarray(arrays.tumour) != 0).astype(np.uint8)
    channels = [as_uint8(volume[..., c]) for c in range(volume.shape[-1])]
    return Patient(
        name=arrays.name,
        folder=arrays.folder or Path(arrays.name),
        volume=np.stack(channels, axis=-1) if volume.dtype != np.uint8 else volume.astype(np.uint8),
        truth=truth,
        slice_numbers=arrays.slice_numbers,
        slices_without_mask=_slices_without_mask(arrays, truth),
    )


def as_uint8(volume: npt.NDArray[np.generic]) -> UInt8Array:
    """A sequence of any range scaled to 0 to 255; black stays black, and networks normalise it anyway."""
    if volume.dtype == np.uint8:
        return volume.astype(np.uint8)
    values = subtract_background(volume[..., None])[..., 0]
    high = float(np.percentile(values[:, ::2, ::2], _CLIP)) or float(values.max())
    scaled = values * (255 / high if high > 0 else 0.0)
    return np.clip(np.round(scaled), 0, 255).astype(np.uint8)


def _slices_without_mask(arrays: PatientArrays, truth: UInt8Array) -> tuple[int, ...]:
    """Slices with neither a mask file nor labels: it is unknown whether they are free of tumour."""
    if not arrays.is_truth or arrays.folder is None:
        return ()
    try:
        masks = find_slices(arrays.folder).masks
    except PatientError:  # the folder no longer exists; the layers are enough
        return ()
    labelled = np.asarray(truth.any(axis=(1, 2)))
    return tuple(
        n
        for n, any_ in zip(arrays.slice_numbers, labelled, strict=True)
        if masks and n not in masks and not any_
    )


def snapshot(labels: Labels) -> Any:
    """The labels as they are now; a copy, if they are in memory."""
    data = full_data(labels)
    return data != 0 if isinstance(data, np.ndarray) else data


def may_show_tumour(patient: object) -> bool:
    """Whether a patient has any tumour, or it is only known once its labels are read."""
    tumour = patient.tumour if isinstance(patient, PatientArrays) else None
    return not isinstance(tumour, np.ndarray) or bool(tumour.any())
