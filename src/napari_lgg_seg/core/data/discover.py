"""Which patients and label files are in a folder: the only code that searches folders for them.

The rules, which every search follows:

- Names are compared in their composed form (NFC), in which the same name typed on another system is the same.
- A folder named like one for masks, such as ``gt``, holds no images; nor does a file among folders.
- Hidden files and folders, and folders that the system makes at the top of a disk, are ignored. Links are
  followed, and folders are searched in the order of their names.
- A folder with slices (``<patient>_<n>.tif``, ``<patient>_<n>_mask.tif``) is one patient's own, and its
  subfolders are not searched. In any other folder, the direct subfolders are.
- A patient's name is the one in its files, whatever the folder is called.
- Labels are masks, ``<patient>_tumour.tif[f]`` or ``<patient>_tumour.nii[.gz]``; in a folder with several
  formats, the first of these counts.
- A folder that cannot be used, and a second one of the same patient, are reported in a sentence; the first
  one counts.

Everything here is quick: names are checked first, and at most one file's header is read per folder.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import LggSegWarning, PatientError, counted
from .other_layouts import IMAGE_ENDINGS, check_not_masks
from .patients import SliceFiles, find_slices, mask_of, one_form, parse_name, settle_for_reading
from .tiff import channels_of

#: What a search looks for; "labels" are masks or label files.
Content = Literal["images", "images to segment", "labels", "images and masks"]

#: Endings of label files, the preferred one first.
TIFF_ENDINGS = (".tif", ".tiff")
NIFTI_ENDINGS = (".nii.gz", ".nii")

#: Folders that systems make at the top of a disk, often unreadable; in lower case.
_SYSTEM_FOLDERS = ("lost+found", "system volume information", "$recycle.bin")

_LABEL_FILE = re.compile(r"(?P<name>.+)_tumour(?P<ending>\.tiff?|\.nii(\.gz)?)", re.IGNORECASE)

#: Subfolders checked before a folder counts as "not a dataset".
_MAX_SUBFOLDERS = 64


def is_patient_folder(folder: Path) -> bool:
    """Whether a folder holds slices in the dataset's layout. Never raises.

    True if there is at least one pair of image and mask, if there are masks only, or if the first slice is
    uint8, height x width x 3. Grayscale images alone are not enough: they could be anything.
    """
    images: dict[tuple[str, int], Path] = {}
    masks: set[tuple[str, int]] = set()
    try:
        for entry in os.scandir(folder):
            path = Path(entry.path)
            parsed = parse_name(path)
            if parsed is None or _is_folder(entry):
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
    return channels_of(images[min(images)]) == 3


def is_slice_file(path: Path) -> bool:
    """Whether a file is a slice or a mask of the dataset. Never raises.

    Grayscale files with such names are common, so a grayscale slice counts only if its mask is there too.
    """
    try:
        parsed = parse_name(path)
        if parsed is None or not path.is_file():
            return False
        is_mask, channels = parsed[2], channels_of(path)
        if channels == 1:
            return is_mask or mask_of(path) is not None
        return channels == 3 and not is_mask
    except (OSError, ValueError):  # the system refuses the path: too long, not permitted
        return False


def is_dataset_folder(folder: Path) -> bool:
    """Whether a folder holds patient folders. Never raises."""
    return next(_patient_folders(folder, _MAX_SUBFOLDERS), None) is not None


def has_slices(folder: Path) -> bool:
    """Whether a folder holds files named like slices or masks, valid or not. Never raises."""
    return _first_name(folder) is not None


def _first_name(folder: Path) -> str | None:
    """The patient's name in one of a folder's slices; None if there are none, or it cannot be opened."""
    try:
        return _name_of_a_slice(folder)
    except (OSError, ValueError):
        return None


def _name_of_a_slice(folder: Path) -> str | None:
    with os.scandir(folder) as entries:
        for entry in entries:
            parsed = parse_name(Path(entry.path))
            if parsed is not None and not _is_folder(entry):
                return parsed[0]
    return None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one; mostly known without asking the disk again."""
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or into a folder that may not be read
        return False


# --- patients and labels by name ---------------------------------------------------------------


@dataclass(frozen=True)
class Problem:
    """A folder or file that is left out, and why, in one sentence."""

    path: Path
    sentence: str

    def __str__(self) -> str:
        """The sentence."""
        return self.sentence


@dataclass(frozen=True)
class Found:
    """Patients in folders, and what was left out.

    Attributes
    ----------
    patients : dict of str to Path
        By the name in their files, in the order of the folders: the patient's folder, or a label file.
    problems : tuple of Problem
        Folders and files that are left out.
    empty : tuple of Problem
        Given paths that hold nothing of the kind.
    """

    patients: Mapping[str, Path]
    problems: tuple[Problem, ...] = ()
    empty: tuple[Problem, ...] = ()


def find_by_name(content: Content, *paths: Path) -> Found:
    """Find patients by the name in their files. Never raises.

    Parameters
    ----------
    content : {"images", "images to segment", "labels", "images and masks"}
        What a patient's folder must hold. A folder with masks only is ignored for "images", and a problem
        for "images to segment". A patient with images and no labels anywhere is found for "labels" as well,
        so that reading it says what is missing.
    *paths : Path
        Patients' folders, folders of them or, for "labels", files.
    """
    steps = search(content, paths)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            found: Found = done.value
            return found


def search(content: Content, paths: Iterable[Path]) -> Generator[None, None, Found]:
    """As :func:`find_by_name`, but pause before each folder, so that the search can be stopped."""
    patients: dict[str, Path] = {}
    without_labels: dict[str, Path] = {}
    problems: list[Problem] = []
    empty: list[Problem] = []
    skipped: list[Path] = []
    unnamed: list[Path] = []
    for path in paths:
        if _is_foreign_file(path, content):
            skipped.append(path)
            continue
        nothing = True
        for folder in _folders_to_search(path):
            yield
            try:
                here, unlabelled = _SEARCHES[content](folder)
            except PatientError as error:
                here = unlabelled = {}
                nothing = False
                problems.append(Problem(folder, str(error)))
            nothing = nothing and not here and not unlabelled
            if folder != path and not here and not unlabelled and _has_other_images(folder):
                unnamed.append(folder)
            problems += _add(patients, here)
            problems += _add(without_labels, unlabelled)
        problems += _other_patients_inside(path)
        if nothing:
            wanted = content.removesuffix(" to segment")
            empty.append(Problem(path, f"{path} contains no patient's {wanted}; choose another folder."))
    patients |= {name: folder for name, folder in without_labels.items() if name not in patients}
    for path in skipped:
        if patients:
            warnings.warn(
                f"{path} is not a patient's {_kind(content)} and is skipped.", LggSegWarning, stacklevel=2
            )
        else:
            empty.append(Problem(path, f"{path} is a file; choose a patient's folder, or a folder of them."))
    if patients and unnamed:
        more = f" (and {counted(len(unnamed) - 1, 'other folder')})" if len(unnamed) > 1 else ""
        warnings.warn(
            f"{unnamed[0]}{more} holds images whose names are not <patient>_<n>.tif, and is skipped.",
            LggSegWarning,
            stacklevel=2,
        )
    return Found(patients, tuple(dict.fromkeys(problems)), tuple(empty))


def _has_other_images(folder: Path) -> bool:
    """Whether a folder holds images, none of them named like a slice or labels. Never raises."""
    try:
        files = _files(folder)
    except PatientError:
        return False
    if any(parse_name(file) is not None or _parse_label_file(file) is not None for file in files):
        return False
    return any(file.name.lower().endswith(IMAGE_ENDINGS) for file in files)


def _is_foreign_file(path: Path, content: Content) -> bool:
    """Whether a path is a file, and not one that may hold labels."""
    if not os.path.isfile(path):  # noqa: PTH113 - unlike Path.is_file, it never raises
        return False
    return content != "labels" or not path.name.lower().endswith((*TIFF_ENDINGS, *NIFTI_ENDINGS))


def _kind(content: Content) -> str:
    return "label file" if content == "labels" else "folder"


def _add(found: dict[str, Path], here: Mapping[str, Path]) -> Iterator[Problem]:
    """Add patients, and yield a problem for each that is there already and read from elsewhere."""
    for name, file in here.items():
        first = found.setdefault(name, file)
        if os.path.realpath(first) != os.path.realpath(file):
            yield second_time(name, file, first)


def second_time(name: str, path: Path, first: Path) -> Problem:
    """The problem of a second folder or file of a patient."""
    sentence = f"{path} holds {name} a second time, after {first}; rename one of them, or use it separately."
    return Problem(path, sentence)


def _folders_to_search(path: Path) -> list[Path]:
    return [path] if has_slices(path) else [path, *subfolders(path)]


def _other_patients_inside(folder: Path) -> Iterator[Problem]:
    """A problem for the first subfolder of a patient's own folder that holds another patient."""
    own = _first_name(folder)
    if own is None:
        return
    for subfolder in subfolders(folder):
        name = _first_name(subfolder)
        if name not in (None, own):
            yield Problem(
                subfolder,
                f"{subfolder} is inside {folder}, which holds slices of {own}, and is not searched; move "
                "these slices to a separate folder.",
            )
            return


def subfolders(folder: Path) -> list[Path]:
    """The subfolders that searches do not ignore; hidden ones can be half-written results. Never raises."""
    try:
        return [folder / entry.name for entry in _visible(folder) if _is_folder(entry)]
    except (OSError, ValueError, PatientError):
        return []


def _files(folder: Path) -> list[Path]:
    try:
        return [folder / entry.name for entry in _visible(folder) if not _is_folder(entry)]
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise PatientError(
            f"{folder} cannot be opened ({reason}); check that it is there and may be read."
        ) from error


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    settle_for_reading(folder)
    with os.scandir(folder) as entries:
        visible = (entry for entry in entries if not _is_ignored(entry.name))
        return sorted(visible, key=lambda entry: entry.name)


def _is_ignored(name: str) -> bool:
    return name.startswith(".") or name.lower() in _SYSTEM_FOLDERS


def _slices(folder: Path, files: Iterable[Path]) -> SliceFiles | None:
    return find_slices(folder) if any(parse_name(file) is not None for file in files) else None


#: Patients of one folder by name: those with what is searched for, and those with images but no labels.
_Here = tuple[Mapping[str, Path], Mapping[str, Path]]


def _images_in(folder: Path) -> _Here:
    slices = _slices(folder, _files(folder))
    if slices is None or not slices.images:
        return {}, {}
    check_not_masks(slices)
    return {slices.name: folder}, {}


def _images_to_segment_in(folder: Path) -> _Here:
    slices = _slices(folder, _files(folder))
    if slices is not None and not slices.images:
        raise PatientError(f"{folder} holds masks only; there is nothing to segment.")
    if slices is not None:
        check_not_masks(slices)
    return ({slices.name: folder}, {}) if slices is not None else ({}, {})


def _images_and_masks_in(folder: Path) -> _Here:
    slices = _slices(folder, _files(folder))
    if slices is None:
        return {}, {}
    if not slices.images or not slices.masks:
        layout = "; masks are named <patient>_<n>_mask.tif and lie next to the images"
        raise PatientError(
            f"{folder} has no {f'masks{layout}' if slices.images else 'images'}; training needs both."
        )
    check_not_masks(slices)
    return {slices.name: folder}, {}


def _labels_in(path: Path) -> _Here:
    if os.path.isfile(path):  # noqa: PTH113 - unlike Path.is_file, it never raises
        label_file = _parse_label_file(path)
        return {path.name if label_file is None else label_file[0]: path}, {}
    files = _files(path)
    slices = _slices(path, files)
    found: dict[str, Path] = {}
    if slices is not None and slices.masks:
        found[slices.name] = path
    named = [(parsed, file) for file in files if (parsed := _parse_label_file(file)) is not None]
    for (name, _), file in sorted(named, key=lambda item: item[0][1]):
        found.setdefault(name, file)
    return found, {} if slices is None or slices.masks else {slices.name: path}


def _parse_label_file(path: Path) -> tuple[str, int] | None:
    """Patient name and rank of the format, the preferred one 0; None if it is no label file."""
    match = _LABEL_FILE.fullmatch(path.name)
    if match is None:
        return None
    return one_form(match["name"]), (*TIFF_ENDINGS, *NIFTI_ENDINGS).index(match["ending"].lower())


_SEARCHES: Mapping[Content, Callable[[Path], _Here]] = {
    "images": _images_in,
    "images to segment": _images_to_segment_in,
    "labels": _labels_in,
    "images and masks": _images_and_masks_in,
}


# --- patients' folders -------------------------------------------------------------------------


def patient_folders(folder: Path) -> list[Path]:
    """The folder itself if it is a patient's, else those of its subfolders that are, sorted by name."""
    return [folder] if is_patient_folder(folder) else list(_patient_folders(folder, None))


def _patient_folders(dataset: Path, limit: int | None) -> Iterator[Path]:
    return (folder for folder in subfolders(dataset)[:limit] if is_patient_folder(folder))
