"""What the Segment widget says."""

from __future__ import annotations

import re
from time import monotonic

from ...core.choices import DROPS_MINOR
from ...core.errors import counted
from ...core.evaluation.measurements import TumourMeasurements
from ...core.inference.predict import SlicesDone

NO_PATIENT = (
    "No patient is open. Use File > IO Utilities > Open LGG patient..., "
    "or File > Open Sample > LGG patient (synthetic)."
)
READY = "Click Segment to find the tumour."
LOADING = "Loading the model..."
CANCELLED = "Cancelled."


def progress(event: SlicesDone, started: float) -> str:
    """How many slices are done, and the remaining time; ``started`` as from :func:`time.monotonic`."""
    text = f"{event.done} of {counted(event.total, 'slice')}"
    if event.done:
        left = (monotonic() - started) / event.done * (event.total - event.done)
        text += f", {left:.0f} s left" if left >= 1 else ""
    return text


def layers_gone(subject: str) -> str:
    """Why a result was not added to the viewer."""
    return f"The images of {subject} changed during the run, so nothing was added; segment again."


def settings_changed(model: str) -> str:
    """That model or options in the controls are not those of the result."""
    return f" Made by {model} with the options set when Segment was clicked; the controls have changed since."


def other_model(model: str) -> str:
    """That labels were updated from the probability of a model that is no longer chosen."""
    return f"These are still the probabilities of {model}; segment again to use the chosen model."


def corrections_kept(before: str, new: str) -> str:
    """That new labels did not replace edited ones."""
    return f"Your corrections in '{before}' are kept; the new labels are in '{new}'."


def result(
    measurements: TumourMeasurements, dice: float | None, expected_dice: float | None, subject: str = ""
) -> str:
    """Measurements of a result; ``subject`` names it if it is not the chosen one."""
    text = f"{subject}: {measurements.summary()}" if subject else measurements.summary()
    if dice is not None:
        text += f" Dice with ground truth {dice:.2f}."
    if expected_dice is not None and measurements.voxels:
        text += f" Uncertainty {1 - expected_dice:.2f}."
    return text


def small_components_missing(clean_up: str, *, coarse_to_fine: bool) -> str:
    """A hint where clean-up now keeps components that a coarse-to-fine run does not compute; else empty."""
    if coarse_to_fine and clean_up not in DROPS_MINOR:
        return " Segment again to find small separate components, which this run has skipped."
    return ""


def at_slice(number: int, text: str) -> str:
    """A status text with the number, as in the file's name, of the slice that is shown.

    napari's own slider counts from 0.
    """
    return f"Slice {number}. {re.sub(r'^Slice [0-9]+[.] ', '', text)}"
