"""Patient folders on disk -> :class:`Patient`, pixel for pixel. No Qt, no napari, no torch.

The published layout of the LGG MRI segmentation dataset: a folder per patient, any name, with
``<name>_<n>.tif`` (uint8, H x W x 3: pre-contrast, FLAIR, post-contrast) and
``<name>_<n>_mask.tif`` (uint8, H x W, 0 and 255) for each slice ``n``, not zero-padded. Patients with
FLAIR alone may have gray images (uint8, H x W).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tifffile

from ..errors import PatientError

#: The sequences in the order of the files' three channels.
SEQUENCES = ("pre-contrast", "FLAIR", "post-contrast")
FLAIR = SEQUENCES.index("FLAIR")

#: How many subfolders are looked at before a folder counts as "not a dataset".
_SUBFOLDERS_TRIED = 64

_NAME = re.compile(r"(?P<name>.+)_(?P<number>\d+)(?P<mask>_mask)?\.tiff?", re.IGNORECASE)

UInt8Array = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Patient:
    """One patient's slices on one grid.

    Attributes
    ----------
    name : str
        The name that the files share, for instance ``TCGA_DU_6404_19850629``.
    folder : Path
        Where the files are.
    volume : ndarray of uint8 or None
        Shape (z, y, x, 3), channels as in :data:`SEQUENCES`; None for a folder of masks only.
    truth : ndarray of uint8 or None
        Shape (z, y, x), 0 and 1; None where there is not one mask.
    slice_numbers : tuple of int
        The number in each slice's file name, ascending.
    copies : tuple of str
        Sequences that are FLAIR once more: the dataset fills missing ones that way.
    unmarked : tuple of int
        Numbers of slices without a mask file in a patient that has masks (0 in ``truth``).
    affine : ndarray or None
        Shape (4, 4): voxel (x, y, z) to patient millimetres, where it is known.
    """

    name: str
    folder: Path
    volume: UInt8Array | None
    truth: UInt8Array | None
    slice_numbers: tuple[int, ...]
    filled_sequences: tuple[str, ...] = ()
    slices_without_mask: tuple[int, ...] = ()
    affine: npt.NDArray[np.float64] | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Grid of the patient, (z, y, x)."""
        array = self.volume if self.volume is not None else self.truth
        assert array is not None
        return array.shape[0], array.shape[1], array.shape[2]

    @property
    def spacing(self) -> tuple[float, float, float] | None:
        """Distance of voxels along z, y and x in millimetres, where the affine tells it."""
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


def parse_name(path: Path) -> tuple[str, int, bool] | None:
    """Patient name, slice number and "is a mask" of a slice file's name, or None."""
    match = _NAME.fullmatch(path.name)
    if match is None or path.name.startswith("."):
        return None
    return match["name"], int(match["number"]), match["mask"] is not None


def institution(patient_name: str) -> str:
    """The institution code in a TCGA name (``DU`` in ``TCGA_DU_6404_19850629``), else ``""``."""
    parts = patient_name.split("_")
    return parts[1] if len(parts) > 2 and parts[0] == "TCGA" else ""


# --- is it ours? -------------------------------------------------------------------------------


def is_patient_folder(folder: Path) -> bool:
    """Whether a folder holds slices in the dataset's layout. Quick; never raises.

    True with at least one image / mask pair, with masks only, or if the first slice is uint8,
    H x W x 3. Gray images alone are not enough: they can be anything.
    """
    images: dict[tuple[str, int], Path] = {}
    masks: set[tuple[str, int]] = set()
    try:
        for entry in os.scandir(folder):
            path = Path(entry.path)
            parsed = parse_name(path)
            if parsed is None or entry.is_dir():
                continue
            name, number, is_mask = parsed
            if is_mask:
                masks.add((name, number))
            else:
                images[name, number] = path
            if (name, number) in masks and (name, number) in images:
                return True
    except (OSError, ValueError):  # ValueError: a path with a null byte, a number of 5000 digits
        return False
    if not images:
        return bool(masks)
    return _channels(images[min(images)]) == 3


def is_slice_file(path: Path) -> bool:
    """Whether a file is one slice, or one mask, of the dataset. Quick; never raises.

    Since gray files of such names are everywhere, a gray slice must have its mask beside it.
    """
    try:
        parsed = parse_name(path)
        if parsed is None or not path.is_file():
            return False
        is_mask, channels = parsed[2], _channels(path)
        if channels == 1:
            return is_mask or _mask_beside(path).is_file()
        return channels == 3 and not is_mask
    except (OSError, ValueError):  # the system refuses the path: too long, not permitted
        return False


def is_dataset_folder(folder: Path) -> bool:
    """Whether a folder holds patient folders. Quick; never raises."""
    return next(_patient_folders(folder, _SUBFOLDERS_TRIED), None) is not None


def has_slices(folder: Path) -> bool:
    """Whether a folder holds files named like slices or masks, in whatever state. Never raises."""
    try:
        return any(parse_name(Path(entry.path)) is not None for entry in os.scandir(folder))
    except OSError:
        return False


def patient_folders(dataset: Path) -> list[Path]:
    """The patient folders in a dataset folder, sorted by name."""
    return list(_patient_folders(dataset, None))


def _patient_folders(dataset: Path, limit: int | None) -> Iterator[Path]:
    try:
        folders = sorted(
            Path(entry.path)
            for entry in os.scandir(dataset)
            if entry.is_dir() and not entry.name.startswith(".")
        )
    except (OSError, ValueError):
        return
    yield from (folder for folder in folders[:limit] if is_patient_folder(folder))


def _channels(path: Path) -> int | None:
    """1 for a gray TIFF of 8 bits, 3 for a colour one, None for whatever else. Reads the header only."""
    try:
        with tifffile.TiffFile(path) as tiff:
            series = tiff.series[0]
    except Exception:  # noqa: BLE001 - tifffile raises many kinds on foreign bytes: not ours
        return None
    if series.dtype != np.uint8:
        return None
    if len(series.shape) == 2:
        return 1
    return 3 if series.shape[2:] == (3,) else None


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
        The files' own pixels, gray images as all three sequences; masks as 0 and 1.

    Raises
    ------
    PatientError
        One sentence: the folder holds no slices, a slice is missing in the middle, a mask has no
        image, slices differ in shape, some are gray and some are not, or a file cannot be read.
    """
    files = find_slices(Path(folder))
    _check_complete(files)
    return _read(files)


def read_slices(paths: Sequence[Path]) -> Patient:
    """Read chosen slice files of one patient, with the masks that lie beside them.

    Raises
    ------
    PatientError
        As :func:`read_patient`; gaps between the chosen slices are allowed.
    """
    folder = paths[0].parent
    chosen = _by_number(paths, folder)
    beside = {
        number: mask for number, image in chosen.images.items() if (mask := _mask_beside(image)).is_file()
    }
    files = SliceFiles(chosen.name, folder, chosen.images, {**beside, **chosen.masks})
    _check_masks(files)
    return _read(files)


def find_slices(folder: Path) -> SliceFiles:
    """The slice files of a patient folder, by number.

    Raises
    ------
    PatientError
        If there are none, if they belong to several patients, or if a number comes twice.
    """
    try:
        paths = [Path(entry.path) for entry in os.scandir(folder) if not entry.is_dir()]
    except OSError as error:
        raise PatientError(
            f"{folder} cannot be opened ({error.strerror}); choose a folder with a patient's slices."
        ) from error
    return _by_number(paths, folder)


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
                "give each patient a folder of its own."
            )
        found = masks if is_mask else images
        if number in found:
            raise PatientError(
                f"Slice {number} is there twice in {folder} ({found[number].name} and {path.name}); "
                "remove one of them."
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


def _mask_beside(image: Path) -> Path:
    return image.with_name(f"{image.stem}_mask{image.suffix}")


def _check_masks(files: SliceFiles) -> None:
    if files.images:
        for number, mask in files.masks.items():
            if number not in files.images:
                raise PatientError(
                    f"{mask} has no image {files.name}_{number}.tif beside it; "
                    "add the image or remove the mask."
                )


def _check_complete(files: SliceFiles) -> None:
    _check_masks(files)
    numbers = list(files.images or files.masks)
    kind = ".tif" if files.images else "_mask.tif"
    for before, after in pairwise(numbers):
        if after != before + 1:
            raise PatientError(
                f"{files.folder / f'{files.name}_{before + 1}{kind}'} is missing, although slices "
                f"{before} and {after} are there; add it, or open slices one by one."
            )


def _read(files: SliceFiles) -> Patient:
    numbers = tuple(files.images or files.masks)
    volume = _with_channels(_stack(files.images, _read_image)) if files.images else None
    truth = None
    if files.masks:
        marked = _stack(files.masks, _read_mask)
        shape = volume.shape[1:3] if volume is not None else marked.shape[1:]
        if marked.shape[1:] != shape:
            raise PatientError(
                f"{next(iter(files.masks.values()))} is {_size(marked.shape[1:])} pixels but its image is "
                f"{_size(shape)}; masks and images must have one size."
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
    )


def _stack(files: Mapping[int, Path], read: Callable[[Path], UInt8Array]) -> UInt8Array:
    stack: UInt8Array | None = None
    first = next(iter(files.values()))
    for index, path in enumerate(files.values()):
        pixels = read(path)
        if stack is None:
            stack = np.empty((len(files), *pixels.shape), np.uint8)
        elif pixels.ndim != stack.ndim - 1:
            gray, colour = (path, first) if pixels.ndim == 2 else (first, path)
            raise PatientError(
                f"{gray} is gray but {colour.name} has three channels; give the patient FLAIR alone "
                "or all three sequences in every slice."
            )
        elif pixels.shape != stack.shape[1:]:
            raise PatientError(
                f"{path} is {_size(pixels.shape)} pixels but {first.name} is {_size(stack.shape[1:])}; "
                "the slices of a patient must have one size."
            )
        stack[index] = pixels
    assert stack is not None
    return stack


def _with_channels(images: UInt8Array) -> UInt8Array:
    """Slices with a channel for each sequence: gray ones are FLAIR, which the dataset lets stand in."""
    return images if images.ndim == 4 else np.repeat(images[..., None], len(SEQUENCES), axis=-1)


def _read_image(path: Path) -> UInt8Array:
    pixels, photometric = _read_tiff(path)
    if pixels.dtype != np.uint8 or (pixels.ndim != 2 and pixels.shape[2:] != (3,)):
        raise PatientError(
            f"{path} is {_size(pixels.shape)} {pixels.dtype}, but a slice must be uint8, height x width x 3, "
            "or height x width for FLAIR alone; export it again in the dataset's layout or remove it."
        )
    if pixels.ndim == 2 and photometric != tifffile.PHOTOMETRIC.MINISBLACK:
        raise PatientError(
            f"{path} has a palette or counts from white to black; export it again as plain gray FLAIR."
        )
    return np.asarray(pixels, np.uint8)


def _read_mask(path: Path) -> UInt8Array:
    pixels, _ = _read_tiff(path)
    if pixels.ndim != 2 or pixels.dtype.kind not in "bui":
        raise PatientError(
            f"{path} is {_size(pixels.shape)} {pixels.dtype}, but a mask must be height x width whole "
            "numbers; export it again in the dataset's layout or remove it."
        )
    mask: UInt8Array = np.not_equal(pixels, 0).astype(np.uint8)
    return mask


def _read_tiff(path: Path) -> tuple[npt.NDArray[np.generic], int]:
    """The pixels of a whole TIFF of one page, and how they are meant (``tifffile.PHOTOMETRIC``)."""
    try:
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages.first
            end = max(o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=True))
            if len(tiff.pages) > 1 or end > path.stat().st_size:
                raise ValueError("it is cut short" if len(tiff.pages) == 1 else "it has several pages")
            # The strips of a slice are few and small: threads for them take longer than they save.
            return page.asarray(maxworkers=1), page.photometric
    except Exception as error:  # tifffile raises many kinds on broken files; all mean the same
        raise PatientError(
            f"{path} cannot be read as a TIFF slice ({_one_line(error)}); copy it again from its source."
        ) from error


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 120 else f"{text[:117]}..."


def _size(shape: Sequence[int]) -> str:
    return " x ".join(str(n) for n in shape)


def _copies_of_flair(volume: UInt8Array) -> tuple[str, ...]:
    flair = volume[..., FLAIR]
    return tuple(
        name
        for channel, name in enumerate(SEQUENCES)
        if channel != FLAIR and np.array_equal(volume[..., channel], flair)
    )
