"""The model files known in this session besides the shipped one: what every widget's list offers.

A model that one widget learns of, because it was trained or picked there, is offered by all at once.
"""

from __future__ import annotations

from pathlib import Path

from psygnal import Signal

from ...core.errors import LggSegError
from ...core.model.checkpoint import read_card
from ...preferences import preferences


class KnownModels:
    """Model files in the order in which they became known."""

    #: Emitted with the path of each model that is added, or written anew.
    added = Signal(Path)

    def __init__(self) -> None:
        self._paths: list[Path] = []

    def known(self) -> list[tuple[str, Path]]:
        """Names for people, told apart by their folders where files are called alike, and paths."""
        stems = [path.stem for path in self._paths]
        return [
            (path.stem if stems.count(path.stem) == 1 else f"{path.stem} ({path.parent})", path)
            for path in self._paths
        ]

    def add(self, path: Path) -> None:
        """Make a model file known; one that is known stays where it is in the list."""
        if path not in self._paths:
            self._paths.append(path)
        self.added.emit(path)

    def clear(self) -> None:
        """Forget all of them."""
        self._paths.clear()


#: Those of this session.
known_models = KnownModels()


def preferred_model() -> tuple[Path | None, str]:
    """The model that the user prefers to begin with, made known.

    Returns
    -------
    path : Path or None
        None for the shipped model.
    problem : str
        Why it is the shipped one all the same, in a sentence or two; empty if it is as preferred.
    """
    preferred = preferences().model.strip()
    if not preferred:
        return None, ""
    path = Path(preferred).expanduser()
    try:
        read_card(path)
    except LggSegError as error:
        return None, f"The preferred model cannot be used, so this begins with the shipped one. {error}"
    known_models.add(path)
    return path, ""
