"""Where a training keeps its state."""

from __future__ import annotations

from pathlib import Path


def state_folder(output: Path) -> Path:
    """The folder beside a model file that holds its training's state and history."""
    return output.with_name(f"{output.stem}.state")


def state_file(output: Path) -> Path:
    """The state of a model file's training."""
    return state_folder(output) / "last.pt"
