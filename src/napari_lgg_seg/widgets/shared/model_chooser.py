"""A menu of model files: the shipped one, those known in this session, and any other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from psygnal import Signal

from ...core.errors import LggSegError
from ...core.model.checkpoint import DEFAULT_MODEL, ModelCard, read_card
from .forms import Choice, let_shrink
from .known_models import known_models, preferred_model

DEFAULT_NAME, OTHER_MODEL = "Default U-Net", "Choose a model file..."


class ModelChooser:
    """A combo box of models; it begins with the preferred one.

    Parameters
    ----------
    say : callable
        Takes a sentence about a file that is no model.

    Attributes
    ----------
    combo : Choice
        The menu.
    path : Path
        The model file that is chosen.
    card : ModelCard or None
        Its header; None if it cannot be read, which the menu's tooltip explains.
    problem : str
        Why it does not begin with the preferred model; empty if it does, and once another is chosen.
    """

    #: Another model is chosen, or the chosen one was written anew.
    changed = Signal()

    def __init__(self, say: Callable[[str], None]) -> None:
        self._set_status = say
        preferred, self.problem = preferred_model()
        self.path = preferred or DEFAULT_MODEL
        self.card: ModelCard | None = None
        self.combo = Choice(label="Model", choices=lambda _: self._choices(), value=self.path)
        let_shrink(self.combo)
        self.combo.changed.connect(self._take)
        known_models.added.connect(self._models_changed)
        self._read()

    def offer(self, path: Path) -> None:
        """List a model file and choose it; a file that is no model is refused with a sentence."""
        try:
            read_card(path)
        except LggSegError as error:
            self._set_status(str(error))
            return
        known_models.add(path)
        self.combo.value = path

    def close(self) -> None:
        """Follow the models of this session no more."""
        known_models.added.disconnect(self._models_changed)

    def _choices(self) -> list[tuple[str, Path | None]]:
        return [(DEFAULT_NAME, DEFAULT_MODEL), *known_models.known(), (OTHER_MODEL, None)]

    def _take(self, chosen: Path | None) -> None:
        from qtpy.QtWidgets import QFileDialog

        if chosen is None:
            self.combo.value = self.path
            name, _ = QFileDialog.getOpenFileName(
                self.combo.native, "Choose a model", "", "Models (*.safetensors)"
            )
            if name:
                self.offer(Path(name))
            return
        self.path, self.problem = chosen, ""
        problem = self._read()
        if problem:
            self._set_status(problem)
        else:
            self.changed.emit()

    def _read(self) -> str:
        """Read the header, for the tooltip; a sentence if that fails."""
        try:
            self.card = read_card(self.path)
        except LggSegError as error:
            self.card, self.combo.tooltip = None, str(error)
            return str(error)
        self.combo.tooltip = self.card.summary()
        return ""

    def _models_changed(self, path: Path) -> None:
        self.combo.reset_choices()
        if path == self.path:  # chosen before, and perhaps written anew since
            self._take(path)
