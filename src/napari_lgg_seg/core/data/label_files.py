"""Write and read labels as dataset masks, multi-page TIFF or NIfTI."""

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

from ..atomic import filling, replacing
from ..choices import FileFormat
from ..errors import ExistingMasksError, ExportError, PatientError
from .discover import NIFTI_ENDINGS, TIFF_ENDINGS
from .masks import check_folder, mask_name, write_masks
from .patients import UInt8Array, parse_name, read_patient
from .provenance import provenance_file

LabelArray = npt.NDArray[np.generic]

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
        Shape (4, 4), voxel (x, y, z) to patient coordinates in mm, if known.
    made_with : dict
        Model and options, stored in the headers of TIFF and NIfTI.
    """

    patient: str
    labels: LabelArray
    slice_numbers: tuple[int, ...] = ()
    spacing: tuple[float, float, float] | None = None
    affine: npt.NDArray[np.float64] | None = None
    made_with: Mapping[str, Any] = field(default_factory=dict)


def write_labels(
    output: Path,
    label_map: LabelMap,
    file_format: FileFormat = "masks",
    *,
    overwrite: bool = False,
    provenance: str | None = None,
) -> list[Path]:
    """Write a patient's labels below an output folder.

    ``masks`` are ``<output>/<patient>/<patient>_<n>_mask.tif``, ``tiff`` is
    ``<output>/<patient>/<patient>_tumour.tif`` and ``nifti`` ``<output>/<patient>/<patient>_tumour.nii.gz``.
    ``provenance`` is stored with them (:mod:`napari_lgg_seg.core.data.provenance`).

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    ExportError
        If the format does not support the labels, files would be replaced without ``overwrite``, the folder
        holds images, or the disk is full.
    """
    folder = output / label_map.patient
    if file_format == "masks":
        numbers = label_map.slice_numbers or None
        name, labels = label_map.patient, label_map.labels
        return write_masks(folder, name, labels, numbers, overwrite=overwrite, provenance=provenance)
    check_target(output, label_map.patient, file_format, overwrite=overwrite)
    path = target_file(output, label_map.patient, file_format)
    with filling(folder, provenance_file(file_format), provenance) as temporary:
        _WRITERS[file_format](temporary / path.name, label_map)
    return [path]


def target_file(output: Path, patient: str, file_format: str) -> Path:
    """File that :func:`write_labels` writes for ``tiff`` or ``nifti``."""
    ending = TIFF_ENDINGS[0] if file_format == "tiff" else NIFTI_ENDINGS[0]
    return output / patient / f"{patient}_tumour{ending}"


def check_target(output: Path, patient: str, file_format: FileFormat, *, overwrite: bool) -> None:
    """Check in advance whether :func:`write_labels` can write a patient's labels.

    Raises
    ------
    ExportError
        If the folder holds images or another patient's masks, or nibabel is missing.
    ExistingMasksError
        If the patient's labels exist already and ``overwrite`` is False.
    """
    if file_format == "masks":
        check_folder(output / patient, patient, overwrite=overwrite)
        return
    path = target_file(output, patient, file_format)
    check_new(path, overwrite=overwrite)
    if file_format == "nifti":
        _nibabel(path)


def is_complete(output: Path, patient: str, numbers: Sequence[int], file_format: FileFormat) -> bool:
    """Whether the files that :func:`write_labels` writes for a patient are complete.

    With masks, there must be exactly one per slice number.
    """
    files = [target_file(output, patient, file_format)]
    if file_format == "masks":
        folder = output / patient
        files = [folder / mask_name(patient, number) for number in numbers]
        if folder.is_dir() and {f for f in folder.iterdir() if parse_name(f) is not None} != set(files):
            return False
    # A power failure can leave empty files.
    return all(file.is_file() and file.stat().st_size > 0 for file in files)


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
    if label_map.made_with:
        metadata["Description"] = json.dumps(label_map.made_with)
    # The default UUID is random: the same labels would give different bytes.
    content = f"{metadata} {labels.shape} {labels.dtype} {sha256(labels.tobytes()).hexdigest()}"
    metadata["UUID"] = uuid5(NAMESPACE_OID, content).urn
    tifffile.imwrite(path, labels, ome=True, compression="zlib", photometric="minisblack", metadata=metadata)


def write_nifti(path: Path, label_map: LabelMap) -> None:
    """Write labels as NIfTI: (z, y, x) becomes (x, y, z).

    The affine is the patient's own if known, else diag(-sx, -sy, sz) with the spacing (1 mm if unknown): the
    usual radiological orientation, in which x increases to the patient's left, y to the back and z to the
    head.
    """
    _nibabel(path)  # if it is missing, the error should name this path, not the temporary one
    with replacing(path) as temporary:
        # nibabel derives the compression from the file name.
        named = temporary.with_name(temporary.name + "".join(_ending(path, NIFTI_ENDINGS)))
        try:
            _put_nifti(named, label_map)
            named.replace(temporary)
        finally:
            named.unlink(missing_ok=True)


def _put_nifti(path: Path, label_map: LabelMap) -> None:
    nibabel = _nibabel(path)
    labels = _as_written(label_map.labels)
    volume = labels[None] if labels.ndim == 2 else labels
    affine = label_map.affine
    if affine is None:
        sz, sy, sx = label_map.spacing or (1.0, 1.0, 1.0)
        affine = np.diag([-sx, -sy, sz, 1.0])
    image = nibabel.Nifti1Image(np.ascontiguousarray(volume.T), affine)
    image.header.set_xyzt_units("mm" if label_map.spacing or label_map.affine is not None else "unknown")
    image.header["descrip"] = b"napari-lgg-seg labels"
    if label_map.made_with:
        text = json.dumps(label_map.made_with).encode()
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
        raise ExportError(f"Labels from {lowest} to {highest} cannot be written; they must not be negative.")
    return labels.astype(np.min_scalar_type(highest))


def _ending(path: Path, endings: Sequence[str]) -> str:
    return next((e for e in endings if path.name.lower().endswith(e)), endings[0])


def _nibabel(path: Path) -> Any:
    try:
        import nibabel
    except ImportError as error:
        raise ExportError(
            f"{path} needs the package nibabel; install it with: pip install 'napari-lgg-seg[nifti]'."
        ) from error
    return nibabel


# --- reading -----------------------------------------------------------------------------------


def read_labels(path: Path) -> UInt8Array:
    """Read a patient's labels from a folder of masks, a TIFF or a NIfTI file.

    Returns
    -------
    ndarray of uint8
        Shape (z, y, x), 0 and 1.

    Raises
    ------
    PatientError
        If there are no labels, a slice has no mask, or a file cannot be read.
    """
    if path.is_dir():
        return _read_masks(path)
    try:
        if path.name.lower().endswith(NIFTI_ENDINGS):
            labels = np.asarray(_nibabel(path).load(path).dataobj).T
        else:
            labels = tifffile.imread(path)
    except (OSError, ValueError, EOFError, tifffile.TiffFileError) as error:
        raise PatientError(f"{path} cannot be read as labels ({error}); write it again.") from error
    if labels.ndim == 2:
        labels = labels[None]
    if labels.ndim != 3:
        raise PatientError(f"{path} has {labels.ndim} dimensions; labels of one patient must have 3.")
    mask: UInt8Array = np.not_equal(labels, 0).astype(np.uint8)
    return mask


def _read_masks(folder: Path) -> UInt8Array:
    patient = read_patient(folder)
    if patient.truth is None:
        raise PatientError(f"{folder} holds no masks; choose the folder with this patient's masks.")
    if patient.slices_without_mask:
        missing = folder / f"{patient.name}_{patient.slices_without_mask[0]}_mask.tif"
        raise PatientError(
            f"{missing} is missing, although other slices have masks; add it before comparing."
        )
    return patient.truth
