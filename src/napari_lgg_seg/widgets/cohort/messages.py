"""What the cohort browser says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..shared.messages import counted, in_time
from .columns import SHOWN_STATES, PatientRow

NO_COHORT = "Choose the folder that holds the patients' folders."
LISTING = "Listing the patients..."
NOTHING_SELECTED = "Select patients in the table first."
NOTHING_TO_ACCEPT = "There are no labels to accept; segment the patient first."
NOTHING_OPEN = "No patient is open; double click one in the table."
FIRST, LAST = "This is the first patient in the table.", "This is the last patient in the table."
NO_BROWSER = "Open the cohort browser first: Layers > Segment > Cohort (LGG segmentation)."


def overview(counts: Mapping[str, int], unread: int) -> str:
    """How many patients there are in each state, and how many are still to be looked at."""
    states = [f"{counts[state]:,} {state}" for state in SHOWN_STATES if counts[state]]
    text = f"{counted(sum(counts.values()), 'patient')}: {', '.join(states)}."
    return f"{text} Reading {unread:,} more..." if unread else text


def opened(row: PatientRow) -> str:
    """What is known of the patient that was opened."""
    text = f"{row.name}: {row.state}."
    details = row.details
    if details is None or details.problem:
        return text
    if details.predicted is not None:
        found = details.predicted
        text += f" Tumour found: {found.voxels:,} voxels in {found.slices} of {details.slices} slices."
    if details.dice is not None:
        text += f" Dice with truth {details.dice:.2f}."
    if details.missing:
        missing = " and ".join(details.missing)
        text += f" {missing[0].upper()}{missing[1:]} missing: FLAIR stands in."
    return text


def nothing_to_do(corrected: int, done: int) -> str:
    """Why Segment all has nothing to do."""
    parts = [
        f"{counted(count, 'patient')} {what}"
        for count, what in ((corrected, _CORRECTED), (done, "segmented with this model already"))
        if count
    ]
    return f"There is nothing to segment: {' and '.join(parts)}." if parts else NO_COHORT


_CORRECTED = "with corrected labels, which are kept"


def left_out(corrected: int, done: int) -> str:
    """Which patients Segment all passes over; empty if none."""
    parts = []
    if corrected:
        parts.append(f"{counted(corrected, 'patient')} {_CORRECTED}")
    if done:
        parts.append(f"{counted(done, 'patient')} segmented with this model already")
    return f"Left as they are: {'; '.join(parts)}." if parts else ""


def ask_to_replace(names: Sequence[str], others: int) -> str:
    """Whether corrected labels may be replaced by a prediction."""
    who = names[0] if len(names) == 1 else f"{counted(len(names), 'patient')} of the selection"
    verb = "has" if len(names) == 1 else "have"
    text = f"{who} {verb} corrected labels. Replace them with a new prediction?"
    if others:
        text += f"\n\nNo segments only the other {counted(others, 'patient')}."
    return text


def ask_to_overwrite(count: int, folder: str) -> str:
    """Whether masks from before may be replaced."""
    return f"{folder} holds masks of {counted(count, 'patient')} already. Replace them?"


def turn(number: int, of: int, name: str, slices: str, left: float | None) -> str:
    """Where a run is."""
    text = f"{number:,} of {of:,}: {name}{slices}"
    return text if left is None else f"{text}; {in_time(left)}"


def ended(done: str, count: int, skipped: int, failed: Mapping[str, str], *, cancelled: bool) -> str:
    """How a run over patients ended; ``done`` says what was done to them, for instance "segmented"."""
    text = f"{'Cancelled: ' if cancelled else ''}{counted(count, 'patient')} {done}."
    if skipped:
        text += f" Left as they are: {counted(skipped, 'patient')} {_CORRECTED}."
    if failed:
        first = next(iter(failed.values()))
        text += f" {counted(len(failed), 'patient')} failed: {first}"
        text += f" And {len(failed) - 1:,} more." if len(failed) > 1 else ""
    return text


def accepted(name: str) -> str:
    """That labels are kept as corrected."""
    return f"{name}: the labels are kept as they are, as corrected."


def to_learn_from(corrected: int) -> str:
    """How many corrected patients a training can learn from."""
    if corrected == 1:
        return "1 patient is corrected so far; Fine-tune needs two or more to learn from."
    return f"{counted(corrected, 'patient')} are corrected so far; Fine-tune can learn from them."
