"""The values that options can take, and how an option is described: once, for all who show or check it."""

from __future__ import annotations

import dataclasses
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from .errors import LggSegError

#: What becomes of separate components: all stay, those below a volume go, those much smaller than the
#: largest go, all but the largest go.
CleanUp = Literal["off", "small", "minor", "largest"]
CLEAN_UP_CHOICES: tuple[str, ...] = get_args(CleanUp)
#: A component is minor below this share of the largest one's volume.
MINOR = 0.25
#: Choices that remove minor components.
DROPS_MINOR: tuple[CleanUp, ...] = ("minor", "largest")

#: Probability from which a voxel counts as tumour, or "auto": the one that maximises the expected Dice of
#: each patient (:func:`napari_lgg_seg.core.inference.postprocess.best_threshold`).
Threshold = float | Literal["auto"]

#: Formats of written labels: masks in the dataset's layout, one multi-page TIFF, NIfTI.
FileFormat = Literal["masks", "tiff", "nifti"]

#: Networks that can be trained, as model files name them.
NetworkName = Literal["unet", "buda"]
NETWORK_NAMES: tuple[str, ...] = get_args(NetworkName)

#: Sequences that a network can be trained on.
SequenceChoice = Literal["all", "flair"]

Optimiser = Literal["muon", "adamw"]

Loss = Literal["bce", "dice", "bce+dice"]
LOSSES: tuple[str, ...] = get_args(Loss)

#: Largest number of neighbouring slices, on each side, that a network takes as further input.
MOST_NEIGHBOURS = 3


class OptionsError(LggSegError):
    """An option outside its limits."""


def option(
    text: str,
    *,
    lowest: float | None = None,
    highest: float | None = None,
    may_change: bool = False,
    **defaults: Any,
) -> dict[str, Any]:
    """Metadata of an option, for ``dataclasses.field``.

    Parameters
    ----------
    text : str
        What the option does and costs: help text and tooltip.
    lowest, highest : float, optional
        Limits of a number, both allowed.
    may_change : bool
        Whether results made with another value are still the same results: where and how fast something is
        computed, or when a training stops.
    **defaults
        Defaults that depend on the situation, by its name.
    """
    return {"help": text, "limits": (lowest, highest), "may_change": may_change, "defaults": defaults}


def _choices(options: type[Any]) -> dict[str, tuple[str, ...]]:
    """For each option that is one of a few words (and nothing else): these words."""
    found = {}
    for name, hint in get_type_hints(options).items():
        kinds = [kind for kind in (get_args(hint) or (hint,)) if kind is not NoneType]
        if get_origin(hint) is Literal:
            found[name] = get_args(hint)
        elif kinds and all(get_origin(kind) is Literal for kind in kinds):
            found[name] = tuple(word for kind in kinds for word in get_args(kind))
    return found


def check_options(options: Any) -> None:
    """Refuse an options dataclass with a value outside its limits or choices; None is always allowed.

    Raises
    ------
    OptionsError
        One sentence that names the option.
    """
    choices = _choices(type(options))
    for field in dataclasses.fields(options):
        value, label = getattr(options, field.name), field.name.replace("_", " ")
        if value is None:
            continue
        if field.name in choices and value not in choices[field.name]:
            raise OptionsError(
                f"{_article(label)} {label} of {value!r} is not known; choose one of "
                f"{', '.join(choices[field.name])}."
            )
        lowest, highest = field.metadata["limits"]
        # A number that is not a number is outside of all limits.
        if (lowest is not None and not value >= lowest) or (highest is not None and not value <= highest):
            limits = f"below {lowest}" if highest is None else f"outside {lowest} to {highest}"
            raise OptionsError(f"{_article(label)} {label} of {value} is {limits}; choose another.")


def _article(noun: str) -> str:
    return "An" if noun[0] in "aeiou" else "A"


def check_threshold(threshold: Threshold | None) -> None:
    """Refuse what is not a threshold.

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
    """A threshold as the user types it: "auto" or a number.

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
