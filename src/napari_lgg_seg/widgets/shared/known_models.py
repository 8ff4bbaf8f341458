"""The model files known in this session besides the shipped one; all widgets list them.

A model that was trained or chosen in one widget is listed in all widgets at once.
"""

from __future__ import annotations

from pathlib import Path

from psygnal import Signal

from ...core.errors import LggSegError
from ...core.model.checkpoint import read_card
from ...preferences import preferences


class KnownModels:
    """Model files in the order in which they were added."""

    #: Emitted with the path of each model that is added or rewritten.
    added = Signal(Path)

    def __init__(self) -> None:
        self._paths: list[Path] = []

    def known(self) -> list[tuple[str, Path]]:
        """Display names and paths; names that occur twice include the folder."""
        stems = [path.stem for path in self._paths]
        return [
            (path.stem if stems.count(path.stem) == 1 else f"{path.stem} ({path.parent})", path)
            for path in self._paths
        ]

    def add(self, path: Path) -> None:
        """Add a model file; a known one keeps its place in the list."""
        if path not in self._paths:
            self._paths.append(path)
        self.added.emit(path)

    def clear(self) -> None:
        """Remove all models."""
        self._paths.clear()


#: The models of this session.
known_models = KnownModels()


def preferred_model() -> tuple[Path | None, str]:
    """The model file set in the preferences; it is added to the known models.

    Returns
    -------
    path : Path or None
        None for the shipped model.
    problem : str
        Why the preferred model cannot be used; empty if there is no problem.
    """
    preferred = preferences().model.strip()
    if not preferred:
        return None, ""
    path = Path(preferred).expanduser()
    try:
        read_card(path)
    except LggSegError as error:
        return None, f"The preferred model cannot be used; the shipped model is selected instead. {error}"
    known_models.add(path)
    return path, ""
