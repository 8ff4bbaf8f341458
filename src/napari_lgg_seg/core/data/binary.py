"""From the values in mask and label files to labels, and to tumour and background."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import LggSegWarning, PatientError

#: Highest value up to which integers are label numbers, not shades of gray.
_MOST_LABELS = 100
#: White in images of 8 and 16 bits.
_WHITE = (255, 65535)

LabelArray = npt.NDArray[Any]


def tumour_in(values: LabelArray, files: Sequence[Path], *, several_labels: bool) -> npt.NDArray[np.uint8]:
    """Tumour in a patient's masks or labels.

    Parameters
    ----------
    values, files
        As :func:`labels_in` takes them.
    several_labels : bool
        Whether all label numbers are taken as tumour, with a warning; otherwise they are refused.

    Returns
    -------
    ndarray of uint8
        0 and 1, same shape.

    Raises
    ------
    PatientError
        As :func:`labels_in`, or if there are several labels.
    """
    labels = labels_in(values, files)
    marked: npt.NDArray[np.bool_] = labels != 0
    other = marked & (labels != labels.max())
    if other.any():
        path, shown = _file_of(files, other), _numbers(labels)
        if not several_labels:
            raise PatientError(
                f"{path} belongs to masks with several labels ({shown}) instead of tumour and background; "
                "write masks with 0 and 255."
            )
        _warn(f"{path} holds several labels ({shown}); all of them count as tumour.")
    elif marked.all():
        _warn(f"{files[0]} marks every voxel as tumour; check that its background is 0.")
    return marked.view(np.uint8)


def labels_in(values: LabelArray, files: Sequence[Path]) -> LabelArray:
    """Labels in the values of a file.

    Shades of gray, which lossy compression and resampling leave of two values, are cut at half of the highest
    value, with a warning. NaN is background, with a warning.

    Parameters
    ----------
    values : ndarray of bool, integers or floating point
        Shape (z, y, x), all slices of a patient; 0 is background.
    files : sequence of Path
        The file, or one for each slice, for messages.

    Returns
    -------
    ndarray of bool or integers
        Same shape, none negative.

    Raises
    ------
    PatientError
        If values are negative, infinite, or not numbers.
    """
    if values.dtype.kind not in "buif" or not values.size:
        raise PatientError(f"{files[0]} holds {values.dtype} values; labels must be integers.")
    values = _without_nan(values, files[0])
    highest, lowest = float(values.max()), float(values.min())
    shades = (values != 0) & (values != highest)
    if highest <= 0 or not shades.any():
        if lowest < 0 and not (lowest == -1 and values.dtype == np.int8):  # which has all bits set, like 255
            raise PatientError(f"{files[0]} holds negative labels ({lowest:g}); write labels from 0.")
        return values if values.dtype.kind in "bu" else _as_unsigned(values)
    path = _file_of(files, shades)
    if _are_label_numbers(values, highest):
        if lowest < 0:
            raise PatientError(f"{path} holds negative labels ({lowest:g}); write labels from 0.")
        return _as_unsigned(values)
    if lowest < -highest / 2:
        raise PatientError(f"{path} holds values from {lowest:g} to {highest:g}; write labels from 0.")
    _warn(
        f"{path} holds shades of gray instead of two values; those from half of the highest value "
        f"({highest:g}) count as tumour."
    )
    soft: npt.NDArray[np.bool_] = values >= highest / 2
    return soft.view(np.uint8)


def _without_nan(values: LabelArray, path: Path) -> LabelArray:
    """Values with 0 for NaN, which resampling leaves outside the image."""
    if values.dtype.kind != "f" or np.isfinite(values).all():
        return values
    unknown = np.isnan(values)
    if np.isinf(values).any() or unknown.all():
        raise PatientError(f"{path} holds infinite values or no numbers at all; write the labels again.")
    _warn(f"{path} holds {int(unknown.sum())} voxels without a value (NaN); they count as background.")
    numbers: LabelArray = np.where(unknown, 0, values)
    return numbers


def _are_label_numbers(values: LabelArray, highest: float) -> bool:
    if highest in _WHITE or (_MOST_LABELS < highest < _WHITE[0]):
        return False
    return values.dtype.kind != "f" or _are_whole(values)


def _are_whole(values: LabelArray) -> bool:
    return bool((values == np.rint(values)).all())


def _as_unsigned(values: LabelArray) -> LabelArray:
    """Whole numbers from 0 as unsigned integers; a single value, a fraction or -1, becomes 1."""
    highest = float(values.max())
    is_number = highest > 0 and not highest % 1
    numbers: LabelArray = values if is_number else values != 0
    return numbers.astype(np.min_scalar_type(int(highest)) if is_number else np.uint8)


def _file_of(files: Sequence[Path], marked: npt.NDArray[np.bool_]) -> Path:
    """The file of the first slice with such voxels."""
    return files[0] if len(files) == 1 else files[int(marked.any(axis=(1, 2)).argmax())]


def _numbers(labels: LabelArray) -> str:
    numbers = [str(n) for n in np.unique(labels) if n]
    return ", ".join(numbers[:8]) + (", ..." if len(numbers) > 8 else "")


def _warn(text: str) -> None:
    warnings.warn(text, LggSegWarning, stacklevel=4)
