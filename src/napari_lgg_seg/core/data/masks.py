"""Writing what a user will keep: to a temporary name first, then renamed, never over something silently."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import tifffile

from ..errors import ExistingMasksError, ExportError
from .patients import Patient, parse_name
from .provenance import record_name

#: Characters that some system does not allow in a file's name.
_NOT_IN_NAMES = r'[/\\:*?"<>|\x00-\x1f]'


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place if the block succeeds.

    Raises
    ------
    ExportError
        If the disk is full or the folder cannot be written; the old file stays as it was.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise _cannot_write(path, error) from error
    temporary = Path(name)
    try:
        yield temporary
        _like_a_new_file(temporary)
        temporary.replace(path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def filling(folder: Path, file_format: str = "masks", record: str | None = None) -> Iterator[Path]:
    """A temporary folder whose files go into ``folder`` if the block succeeds.

    A folder that is not there yet appears with all its files at once, so that a program that is killed
    leaves none or a whole one. Into one that is there, they are moved one by one.

    Parameters
    ----------
    folder : Path
        A patient's.
    file_format : str
        Of the files; the record of older results in this format is void as soon as the first is replaced.
    record : str, optional
        The new record (:mod:`napari_lgg_seg.core.data.provenance`), which comes last.

    Raises
    ------
    ExportError
        If the disk is full or the folder cannot be written.
    """
    temporary: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        new = not folder.exists()
        hidden = (folder.parent if new else folder) / f".lgg-{uuid4().hex[:8]}"
        hidden.mkdir()
        temporary = hidden
        yield temporary
        files = sorted(temporary.iterdir())
        if record is not None:
            files.append(temporary / record_name(file_format))
            files[-1].write_text(record, encoding="utf-8")
        for file in files:
            _sync(file)
        if new:
            temporary.rename(folder)
        else:
            (folder / record_name(file_format)).unlink(missing_ok=True)
            for file in files:
                file.replace(folder / file.name)
    except OSError as error:
        raise _cannot_write(folder, error) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _like_a_new_file(path: Path) -> None:
    """Sync the bytes, and the usual permissions instead of mkstemp's private ones."""
    _sync(path)
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(0o666 & ~umask)


def _sync(path: Path) -> None:
    """Let the bytes reach the disk, so that a name that is there after a power failure has its content."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _cannot_write(path: Path, error: OSError) -> ExportError:
    return ExportError(
        f"{path} could not be written ({error.strerror or error}); free space or choose another folder."
    )


def mask_name(patient: str, number: int) -> str:
    """File name of a slice's mask in the dataset's layout."""
    return f"{patient}_{number}_mask.tif"


def write_masks(
    folder: str | os.PathLike[str],
    patient: str,
    labels: npt.NDArray[np.generic],
    slice_numbers: Sequence[int] | None = None,
    *,
    overwrite: bool = False,
    record: str | None = None,
) -> list[Path]:
    """Write labels as masks in the dataset's layout: ``<folder>/<patient>_<n>_mask.tif``.

    All files are complete under temporary names before the first is renamed, so that an error leaves
    the folder as it was. A new folder appears with all of them at once.

    Parameters
    ----------
    folder : path
        Made if it is not there. It must not hold images of the dataset, or masks other than those
        that ``overwrite`` allows to replace.
    patient : str
        First part of the files' names.
    labels : ndarray of bool or integers
        Shape (z, y, x); non-zero is tumour.
    slice_numbers : sequence of int, optional
        Number of each slice; 1, 2, ... by default.
    overwrite : bool
        Replace masks written before (never beside images: those would be the truth).
    record : str, optional
        Text of the hidden file that says what the masks were made from
        (:mod:`napari_lgg_seg.core.data.provenance`); one of older masks is removed.

    Returns
    -------
    list of Path
        The files, uint8, 0 and 255.

    Raises
    ------
    ExportError
        One sentence: wrong shape or dtype, images or masks are in the folder already, or it cannot
        be written.
    """
    folder = Path(folder)
    _check_labels(labels)
    numbers = list(range(1, len(labels) + 1) if slice_numbers is None else slice_numbers)
    if len(numbers) != len(labels) or len(set(numbers)) != len(numbers):
        raise ExportError(f"{len(labels)} slices need {len(labels)} different slice numbers.")
    _check_name(patient, numbers)
    old = check_folder(folder, patient, overwrite=overwrite)
    pixels = np.where(labels != 0, np.uint8(255), np.uint8(0))
    targets = [folder / mask_name(patient, number) for number in numbers]
    _write_tiffs(folder, targets, pixels, record)
    for leftover in set(old) - set(targets):
        leftover.unlink(missing_ok=True)
    return targets


def write_patient(folder: str | os.PathLike[str], patient: Patient) -> list[Path]:
    """Write a patient's images and masks in the dataset's layout into an empty or new folder.

    Returns
    -------
    list of Path
        Images, then masks.

    Raises
    ------
    ExportError
        If slices are in the folder already, or it cannot be written.
    """
    folder = Path(folder)
    _check_name(patient.name, patient.slice_numbers)
    check_folder(folder, patient.name, overwrite=False)
    targets: list[Path] = []
    pixels: list[npt.NDArray[np.uint8]] = []
    if patient.volume is not None:
        targets += [folder / f"{patient.name}_{number}.tif" for number in patient.slice_numbers]
        pixels += list(patient.volume)
    if patient.truth is not None:
        marked = [i for i, number in enumerate(patient.slice_numbers) if number not in patient.unmarked]
        targets += [folder / mask_name(patient.name, patient.slice_numbers[i]) for i in marked]
        pixels += list(patient.truth[marked] * np.uint8(255))
    _write_tiffs(folder, targets, pixels)
    return targets


def _check_labels(labels: npt.NDArray[np.generic]) -> None:
    if labels.ndim != 3 or not len(labels):
        raise ExportError(
            f"Labels of {labels.ndim} dimensions cannot become masks; they must be slices x height x width."
        )
    if labels.dtype.kind not in "bui":
        raise ExportError(f"Labels of {labels.dtype} cannot become masks; they must be whole numbers.")


def safe_name(name: str) -> str:
    """A name, for instance a layer's, as it can stand in a file's name on any system."""
    return re.sub(_NOT_IN_NAMES, "_", name).strip(" .") or "labels"


def _check_name(patient: str, numbers: Iterable[int]) -> None:
    if not patient or re.search(_NOT_IN_NAMES, patient):
        raise ExportError(f"{patient!r} cannot be the start of a file's name; give the patient a plain name.")
    if any(number < 0 for number in numbers):
        raise ExportError("Slice numbers must not be negative, or the masks could not be read back.")


def check_folder(folder: Path, patient: str, *, overwrite: bool) -> list[Path]:
    """Whether a patient's masks may be written to a folder.

    Returns
    -------
    list of Path
        Masks that are in the folder already.

    Raises
    ------
    ExportError
        If it holds images of the dataset or another patient's masks, is a file, or cannot be read.
    ExistingMasksError
        If it holds masks of the patient and ``overwrite`` is not set.
    """
    if not folder.exists():
        return []
    if not folder.is_dir():
        raise ExportError(f"{folder} is a file; choose a folder for the masks.")
    try:
        parsed = [(path, parse_name(path)) for path in sorted(folder.iterdir())]
    except OSError as error:
        raise _cannot_write(folder, error) from error
    found = [path for path, name in parsed if name is not None]
    images = [path for path, name in parsed if name is not None and not name[2]]
    others = [path for path, name in parsed if name is not None and name[0] != patient]
    if images:
        raise ExportError(
            f"{folder} holds images of a patient ({images[0].name}); masks written there would "
            "overwrite the truth - choose another folder."
        )
    if others:
        raise ExportError(
            f"{folder} holds masks of another patient ({others[0].name}); choose a folder for {patient} "
            "alone."
        )
    if found and not overwrite:
        raise ExistingMasksError(
            f"{folder} holds masks already ({found[0].name}); choose another folder, or allow overwriting."
        )
    return found


def _write_tiffs(
    folder: Path,
    targets: Sequence[Path],
    pixels: Iterable[npt.NDArray[np.uint8]],
    record: str | None = None,
) -> None:
    with filling(folder, "masks", record) as temporary:
        for target, page in zip(targets, pixels, strict=True):
            photometric = "rgb" if page.ndim == 3 else "minisblack"
            tifffile.imwrite(temporary / target.name, np.ascontiguousarray(page), photometric=photometric)
