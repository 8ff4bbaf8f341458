"""The part of the Compare widget that says which two labels layers; it finds them by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from magicgui.widgets import ComboBox
from qtpy.QtWidgets import QWidget

from ...core.errors import LggSegError
from ..shared.forms import form, let_shrink
from . import messages
from .pair import Pair, check_pair, is_prediction, labels_in, proposed_prediction, proposed_truth

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels

_PREDICTION_HELP = "The labels to be judged: a prediction, or anybody's labels."
_TRUTH_HELP = "The labels to judge by: the patient's truth, or another person's or model's labels."


class PairChoice:
    """Two menus of labels layers that follow the viewer's.

    Parameters
    ----------
    viewer : Viewer
        Whose layers are offered.
    changed : callable
        Called when other layers are chosen, and when the chosen ones are called otherwise.
    """

    def __init__(self, viewer: ViewerModel, changed: Callable[[], None]) -> None:
        self._viewer, self._changed = viewer, changed
        self.prediction = ComboBox(label="Prediction", choices=lambda _: self._choices())
        self.truth = ComboBox(label="Truth", choices=lambda _: self._choices())
        for combo in (self.prediction, self.truth):
            let_shrink(combo)
        self.prediction.changed.connect(self._prediction_chosen)
        self.truth.changed.connect(self._chosen)
        events = viewer.layers.events
        events.inserted.connect(self.look_at_layers)
        events.removed.connect(self.look_at_layers)

    def menus(self) -> QWidget:
        """Both, to be shown."""
        return form(self.prediction, self.truth, labels_above=True)

    @property
    def pair(self) -> Pair | None:
        """The two layers that are chosen."""
        if self.prediction.value is None or self.truth.value is None:
            return None
        return Pair(self.prediction.value, self.truth.value)

    def problem(self) -> str:
        """Why they cannot be compared; empty if they can."""
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
        """Choose two layers; what the menus do."""
        if prediction is not None and truth is not None:
            with self.prediction.changed.blocked(), self.truth.changed.blocked():
                self.prediction.value, self.truth.value = prediction, truth
        self._chosen()

    def look_at_layers(self, event: Any = None) -> None:
        """Offer the labels layers that are there now; a new prediction is chosen, with its truth."""
        labels = labels_in(self._viewer.layers)
        for layer in labels:
            layer.events.name.connect(self._renamed)
        prediction, truth, was_fine = self.prediction.value, self.truth.value, not self.problem()
        with self.prediction.changed.blocked(), self.truth.changed.blocked():
            self.prediction.reset_choices()
            self.truth.reset_choices()
        is_new = event is not None and event.type == "inserted" and is_prediction(event.value)
        if is_new or not was_fine or prediction not in labels:
            prediction, truth = proposed_prediction(labels), None
        if truth not in labels:
            truth = proposed_truth(labels, prediction)
        self.choose(prediction, truth or prediction)

    def close(self) -> None:
        """Follow the viewer no longer."""
        events = self._viewer.layers.events
        events.inserted.disconnect(self.look_at_layers)
        events.removed.disconnect(self.look_at_layers)
        for layer in labels_in(self._viewer.layers):
            layer.events.name.disconnect(self._renamed)

    def _choices(self) -> list[tuple[str, Labels]]:
        return [(layer.name, layer) for layer in labels_in(self._viewer.layers)]

    def _renamed(self, _: Any = None) -> None:
        self.look_at_layers()

    def _prediction_chosen(self, prediction: Labels | None) -> None:
        """A prediction of other slices, or of another patient, has a truth of its own."""
        if self.problem():
            labels = labels_in(self._viewer.layers)
            self.choose(prediction, proposed_truth(labels, prediction) or prediction)
        else:
            self._chosen()

    def _chosen(self, _: Any = None) -> None:
        for combo, text in ((self.prediction, _PREDICTION_HELP), (self.truth, _TRUTH_HELP)):
            # Names can be longer than the menu is wide.
            combo.tooltip = text if combo.value is None else f"{combo.value.name}\n{text}"
        self._changed()
