"""Read patient folders on disk into :class:`Patient`, without changing a pixel.

The layout is that of the published LGG MRI segmentation dataset: one folder per patient, with any name,
that holds ``<name>_<n>.tif`` (uint8, H x W x 3: pre-contrast, FLAIR, post-contrast) and
``<name>_<n>_mask.tif`` (uint8, H x W, 0 and 255) for each slice ``n``, not zero-padded. Patients with FLAIR
only may have grayscale images (uint8, H x W).
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from ..atomic import settle
from ..choices import SequenceName
from ..errors import ExportError, PatientError
from .binary import tumour_in
from .tiff import read_slice

#: Sequences in the order of the three channels of an image file.
SEQUENCES: tuple[SequenceName, ...] = get_args(SequenceName)
FLAIR = SEQUENCES.index("FLAIR")

#: More digits than any slice number has, and fewer than Python refuses to convert.
_MAX_DIGITS = 9
_NAME = re.compile(r"(?P<name>.+)_(?P<number>\d+)(?P<mask>_mask)?\.tiff?", re.IGNORECASE)

UInt8Array = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Patient:
    """One patient's slices on one grid.

    Attributes
    ----------
    name : str
        Name that the files share, for instance ``TCGA_DU_6404_19850629``.
    folder : Path
        Folder of the files.
    volume : ndarray of uint8 or None
        Shape (z, y, x, 3), channels as in :data:`SEQUENCES`; None for a folder that holds masks only.
    truth : ndarray of uint8 or None
        Ground truth, shape (z, y, x), 0 and 1; None if there is no mask at all.
    slice_numbers : tuple of int
        Number of each slice as in its file name, ascending.
    filled_sequences : tuple of str
        Sequences that are copies of FLAIR, which is how the dataset fills missing ones.
    slices_without_mask : tuple of int
        Numbers of slices without a mask file in a patient that has masks; they are 0 in ``truth``.
    affine : ndarray or None
        Shape (4, 4): voxel (x, y, z) to patient coordinates in mm, if known.
    number_width : int
        Digits to which slice numbers are padded with zeros in the file names; 1 if they are not.
    """

    name: str
    folder: Path
    volume: UInt8Array | None
    truth: UInt8Array | None
    slice_numbers: tuple[int, ...]
    filled_sequences: tuple[str, ...] = ()
    slices_without_mask: tuple[int, ...] = ()
    affine: npt.NDArray[np.float64] | None = None
    number_width: int = 1

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the patient's grid, (z, y, x)."""
        array = self.volume if self.volume is not None else self.truth
        assert array is not None
        return array.shape[0], array.shape[1], array.shape[2]

    @property
    def spacing(self) -> tuple[float, float, float] | None:
        """Voxel spacing along z, y and x in mm, or None without an affine."""
        if self.affine is None:
            return None
        x, y, z = (float(v) for v in np.linalg.norm(self.affine[:3, :3], axis=0))
        return z, y, x


@dataclass(frozen=True)
class SliceFiles:
    """The files of one patient: slice number -> file."""

    name: str
    folder: Path
    images: Mapping[int, Path]
    masks: Mapping[int, Path]

    @property
    def number_width(self) -> int:
        """Digits to which the numbers are padded with zeros, 1 if they are not."""
        texts = [
            match["number"]
            for path in (self.images or self.masks).values()
            if (match := _NAME.fullmatch(path.name))
        ]
        padded = [text for text in texts if text.startswith("0") and len(text) > 1]
        return len(padded[0]) if padded else 1


def parse_name(path: Path) -> tuple[str, int, bool] | None:
    """Patient name, slice number and "is a mask" from a slice's file name; None if it is not a slice."""
    match = _NAME.fullmatch(path.name)
    if match is None or path.name.startswith(".") or len(match["number"]) > _MAX_DIGITS:
        return None
    return one_form(match["name"]), int(match["number"]), match["mask"] is not None


def one_form(name: str) -> str:
    """A name with composed characters (NFC): macOS stores names decomposed, other systems as typed."""
    return unicodedata.normalize("NFC", name)


def stored_path(folder: Path, name: str) -> Path:
    """The path of a file or folder, in the form of its name that is stored if another one is."""
    path = folder / name
    if name.isascii() or os.path.lexists(path):
        return path
    try:
        others = (entry.name for entry in os.scandir(folder) if one_form(entry.name) == one_form(name))
        return folder / next(others, name)
    except OSError:
        return path


def mask_of(image: Path) -> Path | None:
    """The mask that belongs to an image file, with any of the endings; None if there is none."""
    masks = (image.with_name(f"{image.stem}_mask{end}") for end in (image.suffix, ".tif", ".tiff"))
    return next((mask for mask in masks if os.path.isfile(mask)), None)  # noqa: PTH113 - never raises


def institution(patient_name: str) -> str:
    """Institution code in a TCGA name (``DU`` in ``TCGA_DU_6404_19850629``), else an empty string."""
    parts = patient_name.split("_")
    return parts[1] if len(parts) > 2 and parts[0] == "TCGA" else ""


# --- finding a patient's files -----------------------------------------------------------------


def find_slices(folder: Path) -> SliceFiles:
    """The slice files of a patient folder, by number.

    Raises
    ------
    PatientError
        If there are no slices, slices of several patients, or two files with the same number.
    """
    settle_for_reading(folder)
    try:
        paths = [Path(entry.path) for entry in os.scandir(folder) if not entry.is_dir()]
    except OSError as error:
        raise PatientError(
            f"{folder} cannot be opened ({error.strerror}); choose a folder with a patient's slices."
        ) from error
    return _by_number(paths, folder)


def settle_for_reading(folder: Path) -> None:
    """Complete what a killed program left half-written (:func:`napari_lgg_seg.core.atomic.settle`).

    Raises
    ------
    PatientError
        If that is not possible: the folder may hold files of two results.
    """
    try:
        settle(folder)
    except ExportError as error:
        raise PatientError(
            f"{folder} holds a result that a program was writing when it ended; make the folder writable and "
            "read it again."
        ) from error


def _by_number(paths: Iterable[Path], folder: Path) -> SliceFiles:
    images: dict[int, Path] = {}
    masks: dict[int, Path] = {}
    first: tuple[str, Path] | None = None
    for path in sorted(paths):
        parsed = parse_name(path)
        if parsed is None:
            continue
        name, number, is_mask = parsed
        first = first or (name, path)
        if name != first[0]:
            raise PatientError(
                f"{folder} holds slices of two patients ({first[1].name} and {path.name}); "
                "give each patient a separate folder."
            )
        found = masks if is_mask else images
        if number in found:
            raise PatientError(
                f"{folder} holds slice {number} twice ({found[number].name} and {path.name}); "
                "remove one of the two files."
            )
        found[number] = path
    if first is None:
        raise PatientError(
            f"{folder} holds no slices named <patient>_<n>.tif; choose the folder of one patient."
        )
    return SliceFiles(
        first[0],
        folder,
        {n: images[n] for n in sorted(images)},
        {n: masks[n] for n in sorted(masks)},
    )


def _check_masks(files: SliceFiles) -> None:
    if files.images:
        for number, mask in files.masks.items():
            if number not in files.images:
                raise PatientError(
                    f"{mask} has no matching image {files.name}_{number}.tif; "
                    "add the image or remove the mask."
                )


def _check_complete(files: SliceFiles) -> None:
    _check_masks(files)
    numbers = list(files.images or files.masks)
    kind = ".tif" if files.images else "_mask.tif"
    for before, after in pairwise(numbers):
        if after != before + 1:
            missing = f"{files.name}_{before + 1:0{files.number_width}}{kind}"
            raise PatientError(
                f"{files.folder / missing} is missing between slices {before} and {after}; add it, or open "
                "slices one by one."
            )


# --- reading -----------------------------------------------------------------------------------


def read_patient(folder: str | os.PathLike[str]) -> Patient:
    """Read a patient folder in the dataset's layout.

    Parameters
    ----------
    folder : path
        Holds ``<name>_<n>.tif`` and, optionally, ``<name>_<n>_mask.tif``.

    Returns
    -------
    Patient
        With the pixels of the files; grayscale images fill all three sequences, masks become 0 and 1.

    Raises
    ------
    PatientError
        If there are no slices, a slice is missing in between, a mask has no image, slices differ in shape,
        only some are grayscale, or a file cannot be read.
    """
    files = find_slices(Path(folder))
    _check_complete(files)
    return _read(files)


def read_slices(paths: Sequence[Path]) -> Patient:
    """Read selected slice files of one patient, together with their masks.

    Raises
    ------
    PatientError
        As :func:`read_patient`, but gaps between the selected slices are allowed.
    """
    folder = paths[0].parent
    chosen = _by_number(paths, folder)
    masks = {n: mask for n, image in chosen.images.items() if (mask := mask_of(image)) is not None}
    files = SliceFiles(chosen.name, folder, chosen.images, {**masks, **chosen.masks})
    _check_masks(files)
    return _read(files)


def _read(files: SliceFiles) -> Patient:
    numbers = tuple(files.images or files.masks)
    volume = None
    if files.images:
        images = _stack(files.images, _read_image)
        _check_not_masks(images, files)
        volume = _with_channels(images)
    truth = None
    if files.masks:
        marked = tumour_in(_stack(files.masks, _read_mask), list(files.masks.values()), several_labels=False)
        shape = volume.shape[1:3] if volume is not None else marked.shape[1:]
        if marked.shape[1:] != shape:
            raise PatientError(
                f"{next(iter(files.masks.values()))} is {_size(marked.shape[1:])} pixels but its image is "
                f"{_size(shape)}; masks and images must have the same size."
            )
        truth = np.zeros((len(numbers), *shape), np.uint8)
        truth[[numbers.index(n) for n in files.masks]] = marked
    return Patient(
        name=files.name,
        folder=files.folder,
        volume=volume,
        truth=truth,
        slice_numbers=numbers,
        filled_sequences=_copies_of_flair(volume) if volume is not None else (),
        slices_without_mask=tuple(n for n in numbers if n not in files.masks) if files.masks else (),
        number_width=files.number_width,
    )


def _stack(files: Mapping[int, Path], read: Callable[[Path], npt.NDArray[Any]]) -> npt.NDArray[Any]:
    stack: npt.NDArray[Any] | None = None
    first = next(iter(files.values()))
    for index, path in enumerate(files.values()):
        pixels = read(path)
        if stack is None:
            stack = np.empty((len(files), *pixels.shape), pixels.dtype)
        elif pixels.ndim != stack.ndim - 1:
            gray, colour = (path, first) if pixels.ndim == 2 else (first, path)
            raise PatientError(
                f"{gray} is grayscale but {colour.name} has three channels; provide either FLAIR only "
                "or all three sequences in every slice."
            )
        elif pixels.shape != stack.shape[1:]:
            raise PatientError(
                f"{path} is {_size(pixels.shape)} pixels but {first.name} is {_size(stack.shape[1:])}; "
                "all slices of a patient must have the same size."
            )
        elif pixels.dtype != stack.dtype:
            stack = stack.astype(np.promote_types(stack.dtype, pixels.dtype))
        stack[index] = pixels
    assert stack is not None
    return stack


def _check_not_masks(images: UInt8Array, files: SliceFiles) -> None:
    """Refuse grayscale images with only black and one shade, which are masks without the right name."""
    if images.ndim == 3 and images.any() and not ((images != 0) & (images != images.max())).any():
        raise PatientError(
            f"{next(iter(files.images.values()))} and the patient's other slices are black and white, like "
            "masks; name masks <patient>_<n>_mask.tif and put them next to the images."
        )


def _with_channels(images: UInt8Array) -> UInt8Array:
    """Add the channel axis to grayscale slices: they are FLAIR, which fills the other sequences."""
    return images if images.ndim == 4 else np.repeat(images[..., None], len(SEQUENCES), axis=-1)


def _read_image(path: Path) -> UInt8Array:
    displayed = read_slice(path)
    pixels = displayed.pixels
    if displayed.coloured_palette:
        raise PatientError(f"{path} has a colour palette; export it again as plain grayscale FLAIR.")
    if pixels.dtype != np.uint8 or (pixels.ndim != 2 and pixels.shape[2:] != (3,)):
        raise PatientError(
            f"{path} is {_size(pixels.shape)} {pixels.dtype}, but a slice must be uint8, height x width x 3, "
            "or height x width for FLAIR alone; export it again in the dataset's layout or remove it."
        )
    return np.asarray(pixels, np.uint8)


def _read_mask(path: Path) -> npt.NDArray[Any]:
    displayed = read_slice(path)
    pixels = displayed.pixels
    if displayed.coloured_palette:
        colours = np.unique(pixels.reshape(-1, 3), axis=0)
        if len(colours) > 2 or colours.any(axis=1).all():
            raise PatientError(
                f"{path} has {len(colours)} colours instead of black and one for tumour; export it again as "
                "a black and white mask."
            )
        pixels = pixels.max(axis=-1)
    if pixels.ndim != 2 or pixels.dtype.kind not in "bui":
        raise PatientError(
            f"{path} is {_size(pixels.shape)} {pixels.dtype}, but a mask must be height x width integers; "
            "export it again in the dataset's layout or remove it."
        )
    return pixels * np.uint8(255) if pixels.dtype.kind == "b" else pixels


def _size(shape: Sequence[int]) -> str:
    return " x ".join(str(n) for n in shape)


def _copies_of_flair(volume: UInt8Array) -> tuple[str, ...]:
    flair = volume[..., FLAIR]
    return tuple(
        name
        for channel, name in enumerate(SEQUENCES)
        if channel != FLAIR and np.array_equal(volume[..., channel], flair)
    )
