"""Read labels from files, of any origin: the only code that does. Their place in space comes with them."""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from ..atomic import locked_for_reading
from ..errors import LggSegError, PatientError, reason
from .binary import LabelArray, labels_in, tumour_in
from .discover import NIFTI_ENDINGS
from .label_files import DESCRIPTION, SLICE_NUMBERS, nibabel_for
from .patients import UInt8Array, read_patient, settle_for_reading
from .provenance import provenance_file
from .regular_files import check_regular, read_bytes
from .tiff import read_stack, without_logging

#: Largest NIfTI file, in bytes after decompression.
_MAX_NIFTI = 8 * 2**30


@dataclass(frozen=True)
class StoredLabels:
    """A patient's labels as read from a file or a folder of masks.

    Attributes
    ----------
    path : Path
        Where they are from.
    labels : ndarray of bool or integers
        Shape (z, y, x), none negative; x increases to the patient's left, y to the back and z to the head,
        as far as the file says how they lie.
    slice_numbers : tuple of int
        The number of each slice in the names of the images; empty if unknown.
    affine : ndarray or None
        Shape (4, 4), voxel (x, y, z) to patient coordinates in mm; None if unknown.
    """

    path: Path
    labels: LabelArray
    slice_numbers: tuple[int, ...] = ()
    affine: npt.NDArray[np.float64] | None = None

    def as_tumour(self) -> StoredLabels:
        """Return them as uint8, 0 and 1; several labels all count as tumour, with a warning."""
        return replace(self, labels=tumour_in(self.labels, [self.path], several_labels=True))


def read_labels(path: Path) -> UInt8Array:
    """Read a patient's tumour from a folder of masks, a TIFF or a NIfTI file.

    Returns
    -------
    ndarray of uint8
        Shape (z, y, x), 0 and 1, with the orientation of :class:`StoredLabels`.

    Raises
    ------
    PatientError
        As :func:`read_stored_labels`.
    """
    tumour: UInt8Array = read_stored_labels(path).as_tumour().labels
    return tumour


def read_stored_labels(path: Path, *, is_ours: bool = False) -> StoredLabels:
    """Read a patient's labels from a folder of masks, a TIFF or a NIfTI file, with their place in space.

    ``is_ours`` says that this program wrote the file, so that all of its values are label numbers.

    Raises
    ------
    PatientError
        If there are no labels, a slice has no mask, a file cannot be read, or its values are no labels.
    """
    if path.is_dir():
        if not (path / provenance_file("masks")).is_file():
            return _read_masks(path)
        with locked_for_reading(path):  # another program may be about to replace one mask after the other
            return _read_masks(path)
    settle_for_reading(path.parent)
    stored = _read_nifti(path) if path.name.lower().endswith(NIFTI_ENDINGS) else _read_tiff(path)
    return stored if is_ours else replace(stored, labels=labels_in(stored.labels, [path]))


def read_probability(path: Path) -> UInt8Array:
    """Read a stored probability, a TIFF of shape (z, y, x) with 255 for 1.

    Raises
    ------
    PatientError
        If it cannot be read or is something else.
    """
    pixels = _three_dimensional(read_stack(path).pixels, path)
    if pixels.dtype != np.uint8:
        raise PatientError(f"{path} is {pixels.dtype}, but a probability must be uint8; remove it.")
    return pixels.astype(np.uint8, copy=False)


def _read_masks(folder: Path) -> StoredLabels:
    patient = read_patient(folder)
    if patient.truth is None:
        raise PatientError(f"{folder} holds no masks; choose the folder with this patient's masks.")
    if patient.slices_without_mask:
        missing = folder / f"{patient.name}_{patient.slices_without_mask[0]}_mask.tif"
        raise PatientError(
            f"{missing} is missing, although other slices have masks; add it before comparing."
        )
    return StoredLabels(folder, patient.truth, patient.slice_numbers)


# --- TIFF ------------------------------------------------------------------------------------------


def _read_tiff(path: Path) -> StoredLabels:
    displayed = read_stack(path)
    if displayed.coloured_palette:
        raise PatientError(f"{path} has a colour palette; write the labels as plain integers.")
    if displayed.coloured:
        raise PatientError(f"{path} has colours; write the labels as plain integers.")
    pixels = _three_dimensional(displayed.pixels, path)
    return StoredLabels(path, pixels, _numbers_for(pixels, _tiff_description(path)))


def _tiff_description(path: Path) -> str | None:
    try:
        with without_logging(), tifffile.TiffFile(path) as tiff:
            metadata = tifffile.xml2dict(tiff.ome_metadata) if tiff.ome_metadata else {}
        description = metadata["OME"]["Image"]["Description"]
        return description if isinstance(description, str) else None
    except Exception:  # noqa: BLE001 - a file of another program, in which anything may be
        return None


# --- NIfTI -----------------------------------------------------------------------------------------


def _read_nifti(path: Path) -> StoredLabels:
    nibabel = nibabel_for(path)
    try:
        check_regular(path)
        image = _parse_nifti(path, nibabel)
        image = image.slicer[..., 0] if image.ndim == 4 and image.shape[3] == 1 else image
        if image.get_data_dtype().kind not in "buif":
            raise ValueError(f"its values are {image.get_data_dtype()}")
        image, affine = _to_lps(image, nibabel)
        values = np.asarray(image.dataobj).T
        comments = [e.get_content() for e in image.header.extensions if e.get_code() == 6]
    except LggSegError:
        raise
    except Exception as error:  # nibabel, gzip and numpy raise many kinds of errors on broken files
        raise PatientError(f"{path} cannot be read as labels ({reason(error)}); write it again.") from error
    values = _three_dimensional(values, path)
    return StoredLabels(path, values, _numbers_for(values, *comments), affine)


def _parse_nifti(path: Path, nibabel: Any) -> Any:
    """The image in a file; all of it is read, so that the checksum of a compressed file is verified."""
    content = read_bytes(path, min(path.stat().st_size, _MAX_NIFTI))
    if content[:2] == b"\x1f\x8b":
        content = _decompressed(content)
    header_size = {int.from_bytes(content[:4], order) for order in ("little", "big")}
    kind = nibabel.Nifti2Image if 540 in header_size else nibabel.Nifti1Image
    with _quiet(logging.getLogger("nibabel.global")):
        image = kind.from_bytes(content)
    start, size = int(image.header["vox_offset"]), image.get_data_dtype().itemsize
    end = start + int(np.prod(image.shape, dtype=np.float64)) * size
    if end != len(content) and start % 16:
        raise ValueError("its header does not fit its size")
    if np.prod(image.shape, dtype=np.float64) > _MAX_NIFTI or 0 in image.shape or not image.shape:
        raise ValueError(f"its shape is {image.shape}")
    return image


def _decompressed(content: bytes) -> bytes:
    parts, left = [], _MAX_NIFTI
    with gzip.GzipFile(fileobj=BytesIO(content)) as file:
        while part := file.read(2**26):
            parts.append(part)
            left -= len(part)
            if left < 0:
                raise ValueError("it is too large")
    return b"".join(parts)


@contextmanager
def _quiet(logger: logging.Logger) -> Generator[None, None, None]:
    """Drop what a library logs about headers that it repairs."""

    def drop(_: logging.LogRecord) -> bool:
        return False

    logger.addFilter(drop)
    try:
        yield
    finally:
        logger.removeFilter(drop)


def _to_lps(image: Any, nibabel: Any) -> tuple[Any, npt.NDArray[np.float64] | None]:
    """The image with its axes in the order of our own files, and its affine if that is known.

    Without qform and sform, or with the identity that programs write when they know no better, the order of
    voxels is kept. Our own files without known voxel size still say how they lie.
    """
    header, affine = image.header, np.asarray(image.affine, np.float64)
    coded = int(header["qform_code"]) or int(header["sform_code"])
    if not coded or np.array_equal(affine, np.eye(4)):
        return image, None
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise ValueError("its affine is not valid")
    orientations = nibabel.orientations
    to_lps = orientations.ornt_transform(
        orientations.io_orientation(affine), orientations.axcodes2ornt(("L", "P", "S"))
    )
    if image.ndim == 2:  # one slice of a volume
        image = image.__class__(np.asarray(image.dataobj)[..., None], affine, header)
    if image.ndim == 3:
        image = image.as_reoriented(to_lps)
    is_ours = bytes(header["descrip"]).startswith(DESCRIPTION)
    known = not is_ours or header.get_xyzt_units()[0] == "mm"
    return image, np.asarray(image.affine, np.float64) if known else None


# --- both ------------------------------------------------------------------------------------------


def _three_dimensional(pixels: LabelArray, path: Path) -> LabelArray:
    if pixels.ndim == 2:  # tifffile drops the axis of a single slice
        pixels = pixels[None]
    if pixels.ndim != 3 or not pixels.size:
        raise PatientError(f"{path} has {pixels.ndim} dimensions; labels of one patient must have 3.")
    return pixels


def _numbers_for(labels: LabelArray, *texts: str | bytes | None) -> tuple[int, ...]:
    """The slice numbers in one of our own descriptions; empty if there are none that fit the labels."""
    for text in texts:
        try:
            numbers: Sequence[Any] = json.loads(text or "null")[SLICE_NUMBERS]
            if len(numbers) == len(set(numbers)) == len(labels) and all(type(n) is int for n in numbers):
                return tuple(numbers)
        except (ValueError, TypeError, KeyError, RecursionError):  # a text of another program
            continue
    return ()
