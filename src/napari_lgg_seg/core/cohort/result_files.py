"""The files of a patient's results: labels, probability and records, written all at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from ..atomic import check_name, filling
from ..choices import FileFormat
from ..data.label_files import (
    LabelArray,
    LabelMap,
    label_files,
    put_labels,
    uuid_of,
)
from ..data.label_reading import read_probability, read_stored_labels
from ..data.masks import slices_in
from ..data.patients import one_form, parse_name
from ..data.provenance import LabelRecord, StoredFile, provenance_file
from ..errors import ExportError, PatientError
from ..evaluation.compare import format_shape
from ..inference.uncertainty import expected_dice, mean_entropy
from .found_labels import FoundLabels, probability_name
from .status import PatientStatus

Probability = npt.NDArray[np.float32]


@dataclass(frozen=True)
class StoredResult:
    """A patient's stored result.

    Attributes
    ----------
    labels : ndarray of unsigned integers
        Shape (z, y, x), with their original values.
    probability : ndarray of float32 or None
        Shape (z, y, x), 0 to 1 in steps of 1/255; None if that of these labels is not stored.
    status : PatientStatus
        The patient's status.
    revision : str
        Changes with the labels and with who made them.
    """

    labels: LabelArray
    probability: Probability | None
    status: PatientStatus
    revision: str


def check_folder(folder: Path, name: str) -> None:
    """Refuse a folder where a patient's labels would be taken for the ground truth of images.

    Raises
    ------
    ExportError
        If it holds images or another patient's masks, is a file, or cannot be read, or if file names cannot
        hold the patient's name.
    """
    check_name(name)
    for path in slices_in(folder):
        patient, _, is_mask = parse_name(path) or ("", 0, False)
        if not is_mask:
            raise ExportError(
                f"{folder} holds images of a patient ({path.name}); labels written there would be taken for "
                "its ground truth - choose another folder."
            )
        if patient != name:
            raise ExportError(
                f"{folder} holds masks of another patient ({path.name}); choose a separate folder for {name}."
            )


def write_results(
    folder: Path,
    label_map: LabelMap,
    formats: Collection[FileFormat],
    record: LabelRecord | None,
    probability: Probability | None = None,
    kept: Mapping[str, StoredFile] | None = None,
    *,
    replace_all: bool = False,
) -> None:
    """Replace a patient's labels, their records and the probability.

    Parameters
    ----------
    folder : Path
        The patient's results folder.
    label_map : LabelMap
        The labels, with the patient's name.
    formats : collection of {"masks", "tiff", "nifti"}
        Formats to write.
    record : LabelRecord or None
        What is recorded about them, without the files; None if it is unknown who made them.
    probability : ndarray of float32, optional
        Shape (z, y, x), 0 to 1.
    kept : mapping, optional
        The record's entry about a stored probability that stays valid. Without it and ``probability``, the
        stored one is removed.
    replace_all : bool
        Remove also files of the same format with another ending, which only another program can have made.

    Raises
    ------
    ExportError
        If a format does not support the labels, or the folder cannot be written.
    """
    probability_file = probability_name(label_map.patient)
    stored = dict(kept or {})
    with filling(folder) as files:
        if probability is not None:
            _put_probability(files.staging / probability_file, probability)
            stored = {probability_file: StoredFile.of(files.staging / probability_file)}
        if not stored:
            files.removed.add(probability_file)
        for file_format in sorted(formats):
            written = put_labels(files.staging, label_map, file_format)
            names = {path.name for path in written}
            others = {path.name for path in label_files(folder, label_map.patient, file_format)} - names
            everything = file_format == "masks" or replace_all
            files.removed |= {other for other in others if everything or one_form(other) in names}
            if record is None:
                files.removed.add(provenance_file(file_format))
            else:
                _put_record(files.staging, file_format, record.with_files(written), stored)


def change_records(
    folder: Path,
    name: str,
    found: Sequence[FoundLabels],
    change: Callable[[LabelRecord], LabelRecord],
) -> None:
    """Change the records of labels that stay as they are.

    Raises
    ------
    ExportError
        If the folder cannot be written.
    """
    if not found:
        return
    with filling(folder) as files:
        for labels in found:
            stored = labels.stored_probability(folder / probability_name(name))
            record = labels.record or LabelRecord("person")
            if labels.owner == "unknown" or not record.files:
                record = record.with_files(labels.files)
            _put_record(files.staging, labels.file_format, change(record), stored)


def _put_record(
    folder: Path,
    file_format: FileFormat,
    record: LabelRecord,
    probability: Mapping[str, StoredFile],
) -> None:
    record = replace(record, files={**record.files, **probability})
    (folder / provenance_file(file_format)).write_text(record.to_json(), encoding="utf-8")


def _put_probability(path: Path, probability: Probability) -> None:
    values = np.rint(np.clip(probability, 0, 1) * 255).astype(np.uint8)
    metadata: dict[str, Any] = {"axes": "ZYX", "Description": "Probability of tumour, 255 for 1"}
    metadata["UUID"] = uuid_of(values, metadata)
    tifffile.imwrite(path, values, ome=True, compression="zlib", photometric="minisblack", metadata=metadata)


def measure_prediction(probability: Probability | None, labels: LabelArray) -> dict[str, Any]:
    """What a record says about a prediction."""
    return {
        "uncertainty": None if probability is None else mean_entropy(probability, labels),
        "expected_dice": None if probability is None else expected_dice(probability, labels),
        "nothing_found": not labels.any(),
    }


def read_pages(path: Path, shape: tuple[int, ...] | None, *, is_ours: bool) -> LabelArray:
    """Labels, (z, y, x), from a file or a folder of masks; ``is_ours`` if this program wrote them.

    Raises
    ------
    PatientError
        If it is broken, or has another shape than ``shape``.
    """
    return _checked(read_stored_labels(path, is_ours=is_ours).labels, path, shape)


def read_probability_pages(path: Path, shape: tuple[int, ...]) -> Probability:
    """A stored probability, (z, y, x), 0 to 1; raises as :func:`read_pages`."""
    return _checked(read_probability(path), path, shape).astype(np.float32) / np.float32(255)


def _checked(pages: LabelArray, path: Path, shape: tuple[int, ...] | None) -> LabelArray:
    if shape is not None and pages.shape != shape:
        raise PatientError(
            f"{path} is {format_shape(pages.shape)}, but the patient is {format_shape(shape)}; remove it and "
            "segment the patient again."
        )
    return pages
