"""What the cohort browser says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...core.errors import counted
from ..shared.messages import time_left
from .columns import SHOWN_STATES, PatientRow

NO_COHORT = "Choose the folder that holds the patients' folders."
LISTING = "Listing the patients..."
LOADING = "Loading the model..."
NOTHING_SELECTED = "Select patients in the table first."
OTHER_COHORT = "Nothing was started, because another folder was chosen meanwhile; click again."
NOTHING_OPEN = "No patient is open; double-click one in the table."
FIRST, LAST = "This is the first patient in the table.", "This is the last patient in the table."
NO_BROWSER = "Open the cohort browser first: Layers > Segment > Cohort (LGG segmentation)."

_CORRECTED = "with corrected labels, which are kept"
_FOREIGN = "with labels of another program, which are kept"
_DONE = "already segmented with this model"


def overview(counts: Mapping[str, int], unread: int) -> str:
    """How many patients are in each state, and how many are still being read."""
    states = [f"{counts[state]:,} {state}" for state in SHOWN_STATES if counts[state]]
    text = f"{counted(sum(counts.values()), 'patient')}: {', '.join(states)}."
    return f"{text} Reading {unread:,} more..." if unread else text


def opened(row: PatientRow) -> str:
    """What is known of the patient that was opened."""
    text = f"{row.name}: {row.state}."
    summary = row.summary
    if summary is None or summary.problem:
        return text
    if summary.predicted is not None:
        found = summary.predicted
        slices = counted(summary.slices, "slice")
        text += f" Tumour found: {counted(found.voxels, 'voxel')} in {found.slices} of {slices}."
    if summary.dice is not None:
        text += f" Dice with ground truth {summary.dice:.2f}."
    if summary.missing:
        missing = " and ".join(summary.missing)
        text += f" {missing[0].upper()}{missing[1:]} missing: FLAIR is used instead."
    return text


def nothing_to_do(corrected: int, foreign: int, done: int) -> str:
    """Why Segment all has nothing to do."""
    parts = _left(corrected, foreign, done)
    return f"There is nothing to segment: {' and '.join(parts)}." if parts else NO_COHORT


def skipped(corrected: int, foreign: int, done: int) -> str:
    """Which patients were skipped; empty if none."""
    parts = _left(corrected, foreign, done)
    return f"Skipped: {'; '.join(parts)}." if parts else ""


def _left(corrected: int, foreign: int, done: int) -> list[str]:
    """How many patients were left as they are, for each reason."""
    counts = ((corrected, _CORRECTED), (foreign, _FOREIGN), (done, _DONE))
    return [f"{counted(count, 'patient')} {what}" for count, what in counts if count]


def ask_to_replace(corrected: Sequence[str], foreign: Sequence[str], others: int) -> str:
    """Whether labels of the user, and labels of another program, may be replaced by a prediction."""
    labels = {"corrected labels": corrected, "labels that another program made or changed": foreign}
    parts = []
    for what, names in labels.items():
        if names:
            who = names[0] if len(names) == 1 else f"{counted(len(names), 'patient')} of the selection"
            parts.append(f"{who} {'has' if len(names) == 1 else 'have'} {what}")
    text = f"{', and '.join(parts)}. Replace them with a new prediction?"
    if others:
        text += f"\n\nNo segments only the other {counted(others, 'patient')}."
    return text


def ask_to_overwrite(count: int, folder: str) -> str:
    """Whether existing masks may be replaced."""
    return f"{folder} already holds masks of {counted(count, 'patient')}. Replace them?"


def progress(number: int, of: int, name: str, share: float, left: float | None) -> str:
    """How far a run is; ``left`` is the remaining time in seconds, if known."""
    text = f"{number:,} of {of:,}: {name}, {share:.0%}" if share else f"{number:,} of {of:,}: {name}"
    return text if left is None else f"{text}; {time_left(left)}"


def ended(verb: str, done: int, skipped: str, failed: Mapping[str, str], *, cancelled: bool) -> str:
    """How a run ended.

    ``verb`` says what was done to the patients, for instance "segmented"; ``skipped`` is the text of
    :func:`skipped`.
    """
    text = f"{'Cancelled: ' if cancelled else ''}{counted(done, 'patient')} {verb}."
    text = f"{text} {skipped}".strip()
    if failed:
        first = next(iter(failed.values()))
        text += f" {counted(len(failed), 'patient')} failed: {first}"
        text += f" And {len(failed) - 1:,} more." if len(failed) > 1 else ""
    return text
