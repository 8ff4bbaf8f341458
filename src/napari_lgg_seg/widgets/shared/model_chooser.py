"""A menu of model files: the shipped one, those known in this session, and any other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from psygnal import Signal
from qtpy.QtWidgets import QFileDialog

from ...core.errors import LggSegError
from ...core.model.checkpoint import DEFAULT_MODEL, ModelCard, read_card
from .forms import Choice, allow_narrow
from .known_models import known_models, preferred_model
from .plain_text import literal

DEFAULT_NAME, OTHER_MODEL = "Default U-Net", "Choose a model file..."


class ModelChooser:
    """A combo box of models, with the preferred one selected at first.

    Parameters
    ----------
    set_status : callable
        Called with a message about a file that is not a model.

    Attributes
    ----------
    combo : Choice
        The menu.
    path : Path
        The selected model file.
    card : ModelCard or None
        Its header; None if it cannot be read, which the menu's tooltip explains.
    problem : str
        Why the preferred model is not selected; empty if it is, and once another one is chosen.
    """

    #: Another model was selected, or the selected file was rewritten.
    changed = Signal()

    def __init__(self, set_status: Callable[[str], None]) -> None:
        self._set_status = set_status
        preferred, self.problem = preferred_model()
        self.path = preferred or DEFAULT_MODEL
        self.card: ModelCard | None = None
        self.combo = Choice(label="Model", choices=lambda _: self._choices(), value=self.path)
        allow_narrow(self.combo)
        self.combo.changed.connect(self._select)
        known_models.added.connect(self._model_added)
        self._read()

    def offer(self, path: Path) -> None:
        """List a model file and select it; a file that is not a model is refused with a message."""
        try:
            read_card(path)
        except LggSegError as error:
            self._set_status(str(error))
            return
        known_models.add(path)
        self.combo.value = path

    def close(self) -> None:
        """Stop following the models of this session."""
        known_models.added.disconnect(self._model_added)

    def _choices(self) -> list[tuple[str, Path | None]]:
        return [(DEFAULT_NAME, DEFAULT_MODEL), *known_models.known(), (OTHER_MODEL, None)]

    def _select(self, chosen: Path | None) -> None:
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
        """Read the header and set the tooltip; returns why the file cannot be read, if so."""
        try:
            self.card = read_card(self.path)
        except LggSegError as error:
            self.card, self.combo.tooltip = None, literal(str(error))
            return str(error)
        self.combo.tooltip = literal(self.card.summary())
        return ""

    def _model_added(self, path: Path) -> None:
        self.combo.reset_choices()
        if path == self.path:  # the selected file may have been rewritten
            self._select(path)
