"""Where a training stores its state and history."""

from __future__ import annotations

from pathlib import Path


def state_folder(output: Path) -> Path:
    """Return the folder next to a model file that holds its training's state and history."""
    return output.with_name(f"{output.stem}.state")


def state_file(output: Path) -> Path:
    """Return the file that a model's training is resumed from."""
    return state_folder(output) / "last.pt"


def lock_file(output: Path) -> Path:
    """Return the file that is locked while a training writes the model file and its state folder."""
    return state_folder(output) / ".lock"
