"""What the widgets say about reviewing labels."""

from __future__ import annotations

from ...core.errors import counted

NOTHING_TO_ACCEPT = "There are no labels to accept; segment the patient first."


def not_saved(name: str, reason: str) -> str:
    """Why a patient stays open."""
    return f"{name} stays open, because its labels could not be saved: {reason}"


def accepted(name: str) -> str:
    """That the labels of a patient were accepted."""
    return f"{name}: the labels are saved as corrected."


def corrected_so_far(corrected: int) -> str:
    """How many corrected patients there are to fine-tune on."""
    if corrected == 1:
        return "1 patient is corrected so far; Fine-tune needs at least two."
    return f"{counted(corrected, 'patient')} are corrected so far; Fine-tune can train on them."
