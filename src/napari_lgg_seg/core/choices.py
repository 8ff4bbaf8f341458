"""Allowed values of options, and the metadata that describes an option to every user interface."""

from __future__ import annotations

import dataclasses
from numbers import Integral, Real
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from .errors import LggSegError

#: Which connected components are removed: none, those below a given volume, those much smaller than the
#: largest one, or all but the largest.
CleanUp = Literal["off", "small", "minor", "largest"]
CLEAN_UP_CHOICES: tuple[str, ...] = get_args(CleanUp)
#: A component is minor if its volume is below this fraction of the largest one's.
MINOR = 0.25
#: Clean-up choices that remove minor components.
DROPS_MINOR: tuple[CleanUp, ...] = ("minor", "largest")

#: Probability from which a voxel counts as tumour, or "auto": the threshold that maximises each patient's
#: expected Dice (:func:`napari_lgg_seg.core.inference.postprocess.best_threshold`).
Threshold = float | Literal["auto"]

#: Formats of label files: mask files in the dataset's layout, one multi-page TIFF, or NIfTI.
FileFormat = Literal["masks", "tiff", "nifti"]

#: Networks that can be trained, by their names in model files.
NetworkName = Literal["unet", "buda"]
NETWORK_NAMES: tuple[str, ...] = get_args(NetworkName)

#: MRI sequences in the order of the three channels of an image file.
SequenceName = Literal["pre-contrast", "FLAIR", "post-contrast"]

#: MRI sequences that a network can be trained on.
SequenceChoice = Literal["all", "flair"]

Optimiser = Literal["muon", "adamw"]

Loss = Literal["bce", "dice", "bce+dice"]
LOSSES: tuple[str, ...] = get_args(Loss)

#: Largest number of neighbouring slices on each side that a network takes as additional input.
MAX_NEIGHBOURS = 3


class OptionsError(LggSegError):
    """An option outside its limits."""


def option(
    text: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    may_change: bool = False,
    **defaults: Any,
) -> dict[str, Any]:
    """Metadata of an option, for ``dataclasses.field``.

    Parameters
    ----------
    text : str
        What the option does and what it costs; shown as help text and tooltip.
    minimum, maximum : float, optional
        Limits of a number, inclusive.
    may_change : bool
        Whether results computed with another value are interchangeable: true for options that only decide
        where and how fast something is computed, or when a training stops.
    **defaults
        Defaults that depend on the situation, keyed by its name.

    Returns
    -------
    dict
        Keys "help", "limits", "may_change" and "defaults".
    """
    return {"help": text, "limits": (minimum, maximum), "may_change": may_change, "defaults": defaults}


def check_options(options: Any) -> None:
    """Check the values of an options dataclass against their limits and choices; None is always allowed.

    Parameters
    ----------
    options : dataclass instance
        All of its fields are described by :func:`option`.

    Raises
    ------
    OptionsError
        One sentence that names the option.
    """
    choices, hints = _choices(type(options)), get_type_hints(type(options))
    for field in dataclasses.fields(options):
        value, label = getattr(options, field.name), field.name.replace("_", " ").capitalize()
        if value is None:
            continue
        if field.name in choices and value not in choices[field.name]:
            raise OptionsError(
                f"{label} cannot be {value!r}; choose one of {', '.join(choices[field.name])}."
            )
        minimum, maximum = field.metadata["limits"]
        if minimum is None and maximum is None:
            continue
        limits = f"of at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"
        whole = float not in (get_args(hints[field.name]) or (hints[field.name],))
        if not isinstance(value, Integral if whole else Real):
            raise OptionsError(
                f"{label} cannot be {value!r}; choose a {'whole ' if whole else ''}number {limits}."
            )
        # Written so that NaN fails both comparisons.
        if (minimum is not None and not value >= minimum) or (maximum is not None and not value <= maximum):
            raise OptionsError(f"{label} cannot be {value}; choose a value {limits}.")


def _choices(options: type[Any]) -> dict[str, tuple[str, ...]]:
    """Allowed strings of each field whose type is a Literal, optional or not."""
    found = {}
    for name, hint in get_type_hints(options).items():
        kinds = [kind for kind in (get_args(hint) or (hint,)) if kind is not NoneType]
        if get_origin(hint) is Literal:
            found[name] = get_args(hint)
        elif kinds and all(get_origin(kind) is Literal for kind in kinds):
            found[name] = tuple(word for kind in kinds for word in get_args(kind))
    return found


def check_threshold(threshold: Threshold | None) -> None:
    """Check a threshold; None is allowed.

    Raises
    ------
    OptionsError
        If it is neither "auto" nor a number above 0 and up to 1.
    """
    if threshold is None or threshold == "auto":
        return
    if isinstance(threshold, str) or not 0 < threshold <= 1:
        raise OptionsError(
            f"A threshold of {threshold} is not between 0 and 1; choose for instance 0.5, or 'auto'."
        )


def parse_threshold(text: str) -> Threshold:
    """Parse a threshold that the user typed: "auto" or a number.

    Raises
    ------
    OptionsError
        If it is neither, or the number is outside its limits.
    """
    threshold: Threshold = "auto"
    if text != "auto":
        try:
            threshold = float(text)
        except ValueError as error:
            raise OptionsError(
                f"A threshold of {text!r} is not a number; choose for instance 0.5, or 'auto'."
            ) from error
    check_threshold(threshold)
    return threshold
