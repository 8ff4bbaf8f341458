"""Write labels as dataset masks, multi-page TIFF or NIfTI."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import numpy as np
import numpy.typing as npt
import tifffile

from ..atomic import cannot_read, replacing
from ..choices import FileFormat
from ..errors import ExistingMasksError, ExportError
from .discover import NIFTI_ENDINGS, TIFF_ENDINGS
from .masks import put_masks, slices_in
from .patients import parse_name, stored_path

LabelArray = npt.NDArray[np.generic]

_ENDINGS: Mapping[str, Sequence[str]] = {"tiff": TIFF_ENDINGS, "nifti": NIFTI_ENDINGS}
#: How headers say that a file is ours, and the entry of our descriptions with the slices' numbers.
DESCRIPTION, SLICE_NUMBERS = b"napari-lgg-seg labels", "slice_numbers"
_AXES = {2: "YX", 3: "ZYX", 4: "TZYX"}


@dataclass(frozen=True)
class LabelMap:
    """Labels with the metadata for writing them to files.

    Attributes
    ----------
    patient : str
        First part of the file names.
    labels : ndarray of bool or integers
        Shape (z, y, x); TIFF and NIfTI also support (y, x) and (t, z, y, x).
    slice_numbers : tuple of int
        Number of each slice for the file names of masks; 1, 2, ... if empty.
    spacing : tuple of float or None
        Voxel spacing along z, y and x in mm, if known.
    affine : ndarray or None
        Shape (4, 4), voxel (x, y, z) to patient coordinates, if known; in mm if ``spacing`` is.
    made_with : dict
        Model and options, stored in the headers of TIFF and NIfTI.
    number_width : int
        Digits to which the numbers are padded with zeros in the file names of masks.
    """

    patient: str
    labels: LabelArray
    slice_numbers: tuple[int, ...] = ()
    spacing: tuple[float, float, float] | None = None
    affine: npt.NDArray[np.float64] | None = None
    made_with: Mapping[str, Any] = field(default_factory=dict)
    number_width: int = 1


def put_labels(folder: Path, label_map: LabelMap, file_format: FileFormat) -> list[Path]:
    """Write a patient's labels to an existing folder; files of the same names are replaced.

    ``masks`` are ``<patient>_<n>_mask.tif``, ``tiff`` is ``<patient>_tumour.tif`` and ``nifti``
    ``<patient>_tumour.nii.gz``.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    ExportError
        If the format does not support the labels, or nibabel is missing.
    OSError
        If the disk is full or the folder cannot be written.
    """
    if file_format == "masks":
        return put_masks(
            folder,
            label_map.patient,
            label_map.labels,
            label_map.slice_numbers or None,
            label_map.number_width,
        )
    path = label_file(folder, label_map.patient, file_format)
    _WRITERS[file_format](path, label_map)
    return [path]


def label_file(folder: Path, patient: str, file_format: FileFormat) -> Path:
    """The file of a patient's labels as ``tiff`` or ``nifti``, whether it exists or not."""
    return folder / f"{patient}_tumour{_ENDINGS[file_format][0]}"


def label_files(folder: Path, patient: str, file_format: FileFormat) -> list[Path]:
    """The files that hold a patient's labels in one format, masks in the order of their numbers.

    Raises
    ------
    ExportError
        If the folder cannot be opened.
    """
    if file_format == "masks":
        masks = [(n[1], path) for path in slices_in(folder) if (n := parse_name(path)) is not None and n[2]]
        return [path for _, path in sorted(masks)]
    paths = (stored_path(folder, f"{patient}_tumour{ending}") for ending in _ENDINGS[file_format])
    try:
        return [path for path in paths if path.is_file()]
    except OSError as error:
        raise cannot_read(folder, error) from error


def check_format(file_format: FileFormat, path: Path) -> None:
    """Check that a format can be written here.

    Raises
    ------
    ExportError
        If it needs nibabel, which is missing.
    """
    if file_format == "nifti":
        nibabel_for(path)


def check_new(path: Path, *, overwrite: bool) -> None:
    """Refuse to replace a file without permission.

    Raises
    ------
    ExistingMasksError
        If the file exists and ``overwrite`` is False.
    """
    if path.exists() and not overwrite:
        raise ExistingMasksError(f"{path} exists already; choose another folder, or allow overwriting.")


def write_tiff(path: Path, label_map: LabelMap) -> None:
    """Write labels as a compressed multi-page OME-TIFF with axes and voxel size in its metadata."""
    with replacing(path) as temporary:
        _put_tiff(temporary, label_map)


def _put_tiff(path: Path, label_map: LabelMap) -> None:
    labels = _as_written(label_map.labels)
    spacing = label_map.spacing or (1.0, 1.0, 1.0)
    unit = "mm" if label_map.spacing else "pixel"
    metadata: dict[str, Any] = {"axes": _AXES[labels.ndim], "Name": label_map.patient}
    for axis, size in zip("ZYX"[3 - min(labels.ndim, 3) :], spacing[3 - min(labels.ndim, 3) :], strict=True):
        metadata |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": unit}
    if description := _described(label_map):
        metadata["Description"] = json.dumps(description)
    metadata["UUID"] = uuid_of(labels, metadata)
    tifffile.imwrite(path, labels, ome=True, compression="zlib", photometric="minisblack", metadata=metadata)


def _described(label_map: LabelMap) -> dict[str, Any]:
    """What headers say of labels: model, options, and the slices' numbers."""
    numbers = list(label_map.slice_numbers)
    return dict(label_map.made_with) | ({SLICE_NUMBERS: numbers} if numbers else {})


def uuid_of(pages: LabelArray, metadata: Mapping[str, Any]) -> str:
    """A UUID for an OME-TIFF's metadata; the default one is random, so that equal files would differ."""
    content = f"{metadata} {pages.shape} {pages.dtype} {sha256(pages.tobytes()).hexdigest()}"
    return uuid5(NAMESPACE_OID, content).urn


def write_nifti(path: Path, label_map: LabelMap) -> None:
    """Write labels as NIfTI: (z, y, x) becomes (x, y, z).

    The affine is the patient's own if known, else diag(-sx, -sy, sz) with the spacing (1 mm if unknown): the
    usual radiological orientation, in which x increases to the patient's left, y to the back and z to the
    head.
    """
    nibabel_for(path)  # if it is missing, the error should name this path, not the temporary one
    with replacing(path) as temporary:
        # nibabel derives the compression from the file name.
        named = temporary.with_name(temporary.name + "".join(_ending(path, NIFTI_ENDINGS)))
        try:
            _put_nifti(named, label_map)
            named.replace(temporary)
        finally:
            named.unlink(missing_ok=True)


def _put_nifti(path: Path, label_map: LabelMap) -> None:
    nibabel = nibabel_for(path)
    labels = _as_written(label_map.labels)
    volume = labels[None] if labels.ndim == 2 else labels
    affine = label_map.affine
    if affine is None:
        sz, sy, sx = label_map.spacing or (1.0, 1.0, 1.0)
        affine = np.diag([-sx, -sy, sz, 1.0])
    image = nibabel.Nifti1Image(np.ascontiguousarray(volume.T), affine)
    image.header.set_xyzt_units("mm" if label_map.spacing else "unknown")
    image.header["descrip"] = DESCRIPTION
    if description := _described(label_map):
        text = json.dumps(description).encode()
        image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", text))
    nibabel.save(image, path)


_WRITERS: dict[str, Callable[[Path, LabelMap], None]] = {"tiff": _put_tiff, "nifti": _put_nifti}


def _as_written(labels: LabelArray) -> LabelArray:
    """Labels in the smallest unsigned integer type that holds them."""
    labels = np.asarray(labels)
    if labels.ndim not in _AXES or not labels.size:
        raise ExportError(
            f"Labels of shape {labels.shape} cannot be written; they must have 2 to 4 dimensions."
        )
    if labels.dtype.kind not in "bui":
        raise ExportError(f"Labels of {labels.dtype} cannot be written; they must be integers.")
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or highest > np.iinfo(np.uint32).max:
        limit = "must not be negative" if lowest < 0 else f"must not be larger than {np.iinfo(np.uint32).max}"
        raise ExportError(f"Labels from {lowest} to {highest} cannot be written; they {limit}.")
    return labels.astype(np.min_scalar_type(highest))


def _ending(path: Path, endings: Sequence[str]) -> str:
    return next((e for e in endings if path.name.lower().endswith(e)), endings[0])


def nibabel_for(path: Path) -> Any:
    """The package nibabel, to read or write a file.

    Raises
    ------
    ExportError
        If it is missing.
    """
    try:
        import nibabel
    except ImportError as error:
        raise ExportError(
            f"{path} needs the package nibabel; install it with: pip install 'napari-lgg-seg[nifti]'."
        ) from error
    return nibabel
