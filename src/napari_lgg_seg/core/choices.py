"""The choices that several options share, and their limits."""

from __future__ import annotations

from typing import Any, Literal, get_args

from .errors import LggSegError

#: What can be done about separate pieces: nothing, drop those below a volume, drop those much smaller than
#: the largest, keep only the largest.
CleanUp = Literal["off", "small", "minor", "largest"]


#: Pieces of less than this share of the largest one's volume are minor.
MINOR = 0.25


CLEAN_UP_CHOICES: tuple[str, ...] = get_args(CleanUp)


#: Those that drop minor pieces.
DROPS_MINOR: tuple[CleanUp, ...] = ("minor", "largest")


#: Probability from which a voxel counts as tumour, or the one that suits each patient best:
#: :func:`.postprocess.best_threshold`.
Threshold = float | Literal["auto"]


#: Formats in which labels are written: masks in the dataset's layout, one multi-page TIFF, NIfTI.
FileFormat = Literal["masks", "tiff", "nifti"]

#: The networks that can be trained, as named in model files.
NetworkName = Literal["unet", "buda"]


NETWORK_NAMES: tuple[str, ...] = get_args(NetworkName)


#: The sequences that a network can be trained on.
SequenceChoice = Literal["all", "flair"]


#: How often a tumour slice is drawn: as often as any other, or so that no patient comes more often.
Draw = Literal["slices", "patients"]


#: What turns gradients into steps.
Optimiser = Literal["muon", "adamw"]


#: Up to so many slices above, and as many below, can be further input of a network.
MOST_NEIGHBOURS = 3


class OptionsError(LggSegError):
    """An option outside its limits."""


def described(text: str) -> dict[str, str]:
    """Metadata of an option: its help."""
    return {"help": text}


def changeable(text: str) -> dict[str, Any]:
    """Of an option that may differ in a run that goes on from another one."""
    return {"help": text, "may_change": True}


def check_threshold(threshold: Threshold | None) -> None:
    """Refuse a threshold that is none.

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
    """A threshold as it is typed: "auto" or a number.

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
                f"A threshold of {text!r} is no number; choose for instance 0.5, or 'auto'."
            ) from error
    check_threshold(threshold)
    return threshold


def check_clean_up(clean_up: str | None) -> None:
    """Refuse a clean-up that is not known.

    Raises
    ------
    OptionsError
        If it is none of :data:`CLEAN_UP_CHOICES`.
    """
    if clean_up is not None and clean_up not in CLEAN_UP_CHOICES:
        raise OptionsError(
            f"A clean-up {clean_up!r} is not known; choose one of {', '.join(CLEAN_UP_CHOICES)}."
        )
