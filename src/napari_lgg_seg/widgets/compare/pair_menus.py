"""The menus of the Compare widget in which two labels layers are chosen."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from magicgui.widgets import ComboBox
from qtpy.QtWidgets import QWidget

from ...core.errors import LggSegError
from ..shared.forms import allow_narrow, form
from ..shared.plain_text import literal
from . import messages
from .pair import LayerPair, check_pair, is_prediction, labels_in, proposed_prediction, proposed_reference

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels

_PREDICTION_HELP = "The labels to evaluate, for instance a prediction."
_REFERENCE_HELP = "The labels to compare with: the ground truth, or another reader's or model's labels."


class PairMenus:
    """Two menus of labels layers that follow the viewer's layers.

    Parameters
    ----------
    viewer : Viewer
        Whose layers are offered.
    changed : callable
        Called when other layers are chosen, and when the chosen ones are renamed.
    """

    def __init__(self, viewer: ViewerModel, changed: Callable[[], None]) -> None:
        self._viewer, self._changed = viewer, changed
        self.prediction = ComboBox(label="Prediction", choices=lambda _: self._choices())
        self.truth = ComboBox(label="Reference", choices=lambda _: self._choices())
        for combo in (self.prediction, self.truth):
            allow_narrow(combo)
        self.prediction.changed.connect(self._prediction_chosen)
        self.truth.changed.connect(self._chosen)
        events = viewer.layers.events
        events.inserted.connect(self.update)
        events.removed.connect(self.update)

    def form(self) -> QWidget:
        """Both menus with their labels."""
        return form(self.prediction, self.truth, labels_above=True)

    @property
    def pair(self) -> LayerPair | None:
        """The two layers that are chosen."""
        if self.prediction.value is None or self.truth.value is None:
            return None
        return LayerPair(self.prediction.value, self.truth.value)

    def problem(self) -> str:
        """Why the layers cannot be compared; empty if they can."""
        pair = self.pair
        if pair is None:
            return messages.NO_LABELS
        if len(self.prediction.choices) == 1:
            return messages.ONE_LAYER
        try:
            check_pair(pair)
        except LggSegError as error:
            return str(error)
        return ""

    def choose(self, prediction: Labels | None, truth: Labels | None) -> None:
        """Choose two layers, like the menus do."""
        if prediction is not None and truth is not None:
            with self.prediction.changed.blocked(), self.truth.changed.blocked():
                self.prediction.value, self.truth.value = prediction, truth
        self._chosen()

    def update(self, event: Any = None) -> None:
        """Offer the current labels layers; a new prediction is chosen, with its reference."""
        labels = labels_in(self._viewer.layers)
        for layer in labels:
            layer.events.name.connect(self._renamed)
        prediction, truth, was_valid = self.prediction.value, self.truth.value, not self.problem()
        with self.prediction.changed.blocked(), self.truth.changed.blocked():
            self.prediction.reset_choices()
            self.truth.reset_choices()
        is_new = event is not None and event.type == "inserted" and is_prediction(event.value)
        if is_new or not was_valid or prediction not in labels:
            prediction, truth = proposed_prediction(labels), None
        if truth not in labels:
            truth = proposed_reference(labels, prediction)
        self.choose(prediction, truth or prediction)

    def close(self) -> None:
        """Disconnect from the viewer."""
        events = self._viewer.layers.events
        events.inserted.disconnect(self.update)
        events.removed.disconnect(self.update)
        for layer in labels_in(self._viewer.layers):
            layer.events.name.disconnect(self._renamed)

    def _choices(self) -> list[tuple[str, Labels]]:
        return [(layer.name, layer) for layer in labels_in(self._viewer.layers)]

    def _renamed(self, _: Any = None) -> None:
        self.update()

    def _prediction_chosen(self, prediction: Labels | None) -> None:
        """Choose another reference if the current one does not fit the prediction."""
        if self.problem():
            labels = labels_in(self._viewer.layers)
            self.choose(prediction, proposed_reference(labels, prediction) or prediction)
        else:
            self._chosen()

    def _chosen(self, _: Any = None) -> None:
        for combo, text in ((self.prediction, _PREDICTION_HELP), (self.truth, _REFERENCE_HELP)):
            # Names can be longer than the menu is wide.
            combo.tooltip = text if combo.value is None else literal(f"{combo.value.name}\n{text}")
        self._changed()
