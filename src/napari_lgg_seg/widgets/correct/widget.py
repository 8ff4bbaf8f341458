"""The Correct widget: brush, components, holes and interpolation between slices; Ctrl+Z undoes each step."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from magicgui.widgets import CheckBox, ComboBox, Container, Label, PushButton
from napari.layers import Labels
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import QShortcut

from ...core.cohort.saved_labels import checksum
from ...core.data import label_editing
from ...core.errors import CorrectionError, ImageError, counted
from ...layers import PREVIEW, TUMOUR, current_layer, described, is_comparison
from ..review.autosave import enable_autosave
from ..review.review_session import session_of
from ..shared.docking import TabbedDock, on_undocked
from ..shared.forms import allow_narrow, rows, side_by_side, update_choices, wrap
from ..shared.navigation import list_events, slice_in_view
from ..shared.scrolling import ScrollingColumn
from ..shared.worker import Failure, create_worker, returns_failure
from .accept import accept

if TYPE_CHECKING:
    from collections.abc import Generator

    import napari.viewer

Array = npt.NDArray[Any]
Tool = Callable[[Array], Array]

_READY = "Click Correct, then paint with the left mouse button; Ctrl+Z undoes."
_NO_LABELS = "There are no labels to correct; segment a patient or open one with masks first."
_NEEDS_2D = (
    "Components cannot be chosen in 3D, where a click has no depth; switch to 2D and point at the component."
)
_NAPARIS_BRUSH, _BRUSH = 10, 6


class CorrectWidget(Container):
    """Dock widget: tools to correct one labels layer.

    Parameters
    ----------
    napari_viewer : napari.viewer.Viewer
        Whose labels are corrected.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__(labels=False)
        self._viewer = napari_viewer
        self._worker: Any = None
        self._waiting: tuple[Labels, str, Any] | None = None  # for a click: layer, mode before, callback
        self._session = session_of(napari_viewer)
        self._make_controls()
        column = Container(widgets=self._rows(), labels=False)
        wrap(self.status, lines=3)
        column.native.layout().addStretch()
        self._column = column
        self.native.layout().addWidget(ScrollingColumn(column.native))
        self._connect()
        enable_autosave(napari_viewer)
        self._choose_first()
        self._layers_changed()

    def _make_controls(self) -> None:
        self.menu = ComboBox(label="Labels", choices=lambda _: self._choices(), tooltip="Labels to correct.")
        allow_narrow(self.menu)
        self.start_button = PushButton(
            text="Correct", tooltip="Select the labels and activate the brush for label 1."
        )
        self.in_3d = CheckBox(
            text="Brush and bucket in 3D",
            tooltip="Paint a ball and fill across slices, instead of in the slice in view only.",
        )
        self.between_button = PushButton(
            text="Fill between slices",
            tooltip="In an empty slice between two painted ones: interpolate the shape in all slices of the "
            "gap (Ctrl+Alt+I).",
        )
        self.holes_button = PushButton(
            text="Fill holes", tooltip="Fill holes that the label encloses (Ctrl+Alt+H)."
        )
        self.remove_button = PushButton(
            text="Remove component...",
            tooltip="Then click a connected component; or point at one and press Ctrl+Alt+X.",
        )
        self.keep_button = PushButton(
            text="Keep one component...",
            tooltip="Then click a connected component; or point at one and press Ctrl+Alt+K.",
        )
        self.undo_button = PushButton(text="Undo", tooltip="Undo the last step (Ctrl+Z).")
        self.redo_button = PushButton(text="Redo", tooltip="Redo the last undone step (Ctrl+Shift+Z).")
        self.accept_button = PushButton(
            text="Accept",
            tooltip="Accept the labels as they are now: they count as corrected, no prediction replaces them "
            "without asking, and Fine-tune can train on them.",
        )
        self._tools = (
            *(self.start_button, self.between_button, self.holes_button, self.remove_button),
            *(self.keep_button, self.undo_button, self.redo_button, self.accept_button),
        )
        self.status = Label(value="")

    def _rows(self) -> list[Any]:
        return [
            rows(self.menu),
            self.start_button,
            self.in_3d,
            side_by_side(self.between_button, self.holes_button),
            side_by_side(self.remove_button, self.keep_button),
            side_by_side(self.undo_button, self.redo_button),
            self.accept_button,
            self.status,
        ]

    def _connect(self) -> None:
        self.start_button.clicked.connect(self.begin)
        self.in_3d.changed.connect(self._dimensions_chosen)
        self.between_button.clicked.connect(self.fill_between)
        self.holes_button.clicked.connect(self.fill_holes)
        self.remove_button.clicked.connect(lambda: self._wait_for_click("remove"))
        self.keep_button.clicked.connect(lambda: self._wait_for_click("keep"))
        self.undo_button.clicked.connect(lambda: self._step("undo"))
        self.redo_button.clicked.connect(lambda: self._step("redo"))
        self.accept_button.clicked.connect(self.accept)
        self.menu.changed.connect(self._labels_chosen)
        keys = {
            "Ctrl+Alt+I": self.fill_between,
            "Ctrl+Alt+H": self.fill_holes,
            "Ctrl+Alt+X": lambda: self._at_cursor("remove"),
            "Ctrl+Alt+K": lambda: self._at_cursor("keep"),
        }
        for key, action in keys.items():
            QShortcut(QKeySequence(key), self.native).activated.connect(action)
        for event in list_events(self._viewer):
            event.connect(self._layers_changed)
        self._viewer.layers.selection.events.active.connect(self._layer_selected)
        self.native.destroyed.connect(self._closed)
        on_undocked(self.native, self._stop_waiting)
        TabbedDock(self.native)

    # --- choosing labels -----------------------------------------------------------------------

    def _choices(self) -> list[tuple[str, Labels]]:
        return [
            (layer.name, layer)
            for layer in self._viewer.layers
            if isinstance(layer, Labels)
            and isinstance(layer.data, np.ndarray)
            and not is_comparison(layer)
            and layer.ndim in (2, 3)
            and not ((info := described(layer)) and info["role"] == PREVIEW)
        ]

    @property
    def layer(self) -> Labels | None:
        """The labels to correct."""
        chosen: Labels | None = self.menu.value
        return chosen

    def _layers_changed(self, _: Any = None) -> None:
        newest = update_choices(self.menu)
        if newest and self._viewer.layers.selection.active not in self.menu.choices:
            self.menu.value = newest[-1]
        self._labels_chosen()

    def _choose_first(self) -> None:
        """Choose the selected labels, or the prediction worked on: the ground truth is rarely corrected."""
        tumours = [x for x in self.menu.choices if (info := described(x)) and info["role"] == TUMOUR]
        if tumours:
            self.menu.value = current_layer(tumours)
        self._layer_selected()

    def _layer_selected(self, _: Any = None) -> None:
        """Choose the labels that are selected in the layer list."""
        active = self._viewer.layers.selection.active
        if active in self.menu.choices:
            self.menu.value = active

    def _labels_chosen(self, _: Any = None) -> None:
        self._stop_waiting()
        for control in self._tools:
            control.enabled = self.layer is not None
        self._set_status(_NO_LABELS if self.layer is None else _READY)
        self._dimensions_chosen()

    def _dimensions_chosen(self, _: Any = None) -> None:
        if self.layer is not None and self.layer.ndim == 3:
            self.layer.n_edit_dimensions = 3 if self.in_3d.value else 2

    def _set_status(self, text: str) -> None:
        self.status.value = text

    # --- the brush -----------------------------------------------------------------------------

    def begin(self) -> None:
        """Select the labels and activate the brush, like a click on Correct."""
        layer = self.layer
        if layer is None:
            return
        self._stop_waiting()
        layer.visible = True
        self._viewer.layers.selection.active = layer
        layer.selected_label = 1
        if layer.brush_size == _NAPARIS_BRUSH:  # napari's default is too large for a lesion's edge
            layer.brush_size = _BRUSH
        layer.mode = "paint"
        self._set_status(
            "Paint with the left mouse button; [ and ] change the size, 1 erases, Ctrl+Z undoes."
        )

    def _step(self, direction: str) -> None:
        if self.layer is not None:
            getattr(self.layer, direction)()

    # --- tools ---------------------------------------------------------------------------------

    def fill_between(self) -> None:
        """Interpolate the selected label between the painted slices around the one in view."""
        layer = self.layer
        if layer is not None:
            try:
                at = slice_in_view(self._viewer, layer)
            except ImageError as error:
                self._set_status(str(error))
                return
            tool = partial(label_editing.interpolate, value=_painted_label(layer), at=at)
            self._run(tool, "Slices filled")

    def fill_holes(self) -> None:
        """Fill the holes of the selected label within each slice."""
        layer = self.layer
        if layer is not None:
            self._run(partial(label_editing.fill_holes, value=_painted_label(layer)), "Holes filled")

    def _at_cursor(self, what: str) -> None:
        if self.layer is not None:
            self._change_component(what, self.layer, self._viewer.cursor.position)

    def _change_component(self, what: str, layer: Labels, world: Any) -> None:
        """Remove or keep the component at world coordinates."""
        tool, done = {
            "remove": (label_editing.remove_piece, "Component removed"),
            "keep": (label_editing.keep_piece, "Other components removed"),
        }[what]
        try:
            position = self._voxel_at(layer, world)
        except CorrectionError as error:
            self._set_status(str(error))
            return
        self._run(partial(tool, position=position), done)

    def _voxel_at(self, layer: Labels, world: Any) -> tuple[int, ...]:
        """Indices of the voxel at world coordinates.

        Raises
        ------
        CorrectionError
            If the viewer is in 3D: the cursor's position is rarely that of the voxel that is seen.
        """
        if self._viewer.dims.ndisplay != 2:
            raise CorrectionError(_NEEDS_2D)
        if len(world) < layer.ndim:  # the mouse has not been over the canvas yet
            raise CorrectionError("There is no labelled component at this position; point at one.")
        return tuple(round(float(p)) for p in layer.world_to_data(world[-layer.ndim :]))

    def _run(self, tool: Tool, done: str) -> None:
        """Run a tool in a worker; its result is used only if the labels have not changed by then."""
        layer = self.layer
        if layer is None or self._worker is not None:
            return
        before = np.array(layer.data)
        self._worker = create_worker(
            _apply_tool,
            tool,
            before,
            _connect={
                "returned": partial(self._show, layer, checksum(before), done),
                "finished": self._finished,
            },
        )

    def _finished(self) -> None:
        self._worker = None

    def _show(self, layer: Labels, before: int, done: str, result: Array | Failure) -> None:
        """Change the voxels that differ, as one step that can be undone."""
        if isinstance(result, Failure):
            self._set_status(result.message)
        elif checksum(layer.data) != before or layer not in self._viewer.layers:
            self._set_status("The labels have changed in the meantime; try again.")
        else:
            changed = np.nonzero(result != layer.data)
            layer.data_setitem(changed, result[changed])
            self._set_status(f"{done}: {counted(len(changed[0]), 'voxel')}; Ctrl+Z undoes.")

    def accept(self) -> None:
        """Accept the labels as corrected, like a click on Accept."""
        if self.layer is not None:
            self._stop_waiting()
            accept(self._session, self._viewer, self.layer, self, self._set_status)

    # --- a click on the canvas -----------------------------------------------------------------

    def _wait_for_click(self, what: str) -> None:
        """Let the next click on the canvas choose a component instead of painting."""
        layer = self.layer
        if layer is None:
            return
        self._stop_waiting()
        if self._viewer.dims.ndisplay != 2:
            self._set_status(_NEEDS_2D)
            return
        self._viewer.layers.selection.active = layer
        self._waiting = layer, str(layer.mode), self._clicked
        layer.mode = "pan_zoom"
        layer.mouse_drag_callbacks.append(self._clicked)
        self._to_do = what
        self._set_status(f"Click the component to {what}.")

    def _clicked(self, layer: Labels, event: Any) -> None:
        self._stop_waiting()
        self._change_component(self._to_do, layer, event.position)

    def _stop_waiting(self) -> None:
        if self._waiting is None:
            return
        layer, mode, callback = self._waiting
        self._waiting = None
        if callback in layer.mouse_drag_callbacks:
            layer.mouse_drag_callbacks.remove(callback)
        layer.mode = mode

    # --- closing -------------------------------------------------------------------------------

    def _closed(self) -> None:
        self._session.release(self)
        worker, self._worker = self._worker, None
        if worker is not None:
            for signal in (worker.returned, worker.finished):
                signal.disconnect()
        for event in list_events(self._viewer):
            event.disconnect(self._layers_changed)
        self._viewer.layers.selection.events.active.disconnect(self._layer_selected)


def _painted_label(layer: Labels) -> int:
    """The selected label; 1 while the eraser is selected."""
    return int(layer.selected_label) or 1


@returns_failure
def _apply_tool(tool: Tool, labels: Array) -> Generator[None, None, Array]:
    yield
    return tool(labels)
