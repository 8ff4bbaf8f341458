"""The Correct widget: each tool changes the labels it should, and Ctrl+Z undoes it."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from napari.layers import Layer
from window import threads_done

from napari_lgg_seg.layers import describe


@pytest.fixture
def layer(viewer: Any) -> Any:
    """Labels of a patient: discs in slices 0 and 4, a second piece, a hole."""
    labels = np.zeros((6, 40, 40), np.uint8)
    labels[0, 10:20, 10:20] = labels[4, 10:20, 10:20] = 1
    labels[0, 14, 14] = 0
    labels[5, 30:34, 30:34] = 1
    return viewer.add_labels(labels, name="A tumour", metadata=describe("A", "tumour", range(1, 7)))


@pytest.fixture
def behind_each_other(layer: Any) -> Any:
    """Three components in one line of sight along z."""
    layer.data = np.zeros_like(layer.data)
    layer.data[::2, 10:20, 10:20] = 1
    return layer


@pytest.fixture
def widget(viewer: Any, layer: Any) -> Any:
    """The docked widget."""
    return viewer.window.add_plugin_dock_widget("napari-lgg-seg", "Correct")[1]


@pytest.fixture
def click(widget: Any, layer: Any) -> Callable[[tuple[int, int, int]], None]:
    """Factory: click on the canvas at a voxel, as napari would report it."""

    def at(position: tuple[int, int, int]) -> None:
        event = SimpleNamespace(position=position, type="mouse_press", button=1)
        for callback in tuple(layer.mouse_drag_callbacks):
            callback(layer, event)

    return at


def _done(widget: Any, wait_until: Any, text: str) -> None:
    wait_until(lambda: text in widget.status.value)


def test_correct_activates_the_brush(viewer: Any, widget: Any, layer: Any) -> None:
    viewer.layers.selection.clear()
    layer.visible = False
    widget.start_button.native.click()
    assert viewer.layers.selection.active == layer
    assert layer.visible
    assert layer.mode == "paint"
    assert layer.selected_label == 1


def test_a_prediction_is_chosen_rather_than_the_ground_truth(viewer: Any, layer: Any) -> None:
    truth = viewer.add_labels(layer.data, name="A truth", metadata=describe("A", "truth", range(1, 7)))
    viewer.layers.move(viewer.layers.index(truth), 0)
    viewer.layers.selection.clear()
    _, opened = viewer.window.add_plugin_dock_widget("napari-lgg-seg", "Correct")
    assert opened.layer == layer


def test_filling_between_slices_is_undone_in_one_step(
    viewer: Any, widget: Any, layer: Any, wait_until: Any
) -> None:
    before = layer.data.copy()
    viewer.dims.set_point(0, 2)
    widget.between_button.native.click()
    _done(widget, wait_until, "Slices filled")
    assert layer.data[1:4].any(axis=(1, 2)).all()
    layer.undo()
    np.testing.assert_array_equal(layer.data, before)
    widget.redo_button.native.click()
    assert layer.data[2].any()


def test_a_slice_that_is_not_in_a_gap_is_reported(
    viewer: Any, widget: Any, layer: Any, wait_until: Any
) -> None:
    viewer.dims.set_point(0, 0)
    widget.between_button.native.click()
    _done(widget, wait_until, "has label 1 already")
    assert not layer.data[1:4].any()


def test_holes_are_filled(widget: Any, layer: Any, wait_until: Any) -> None:
    widget.holes_button.native.click()
    _done(widget, wait_until, "Holes filled: 1 voxel;")
    assert layer.data[0, 14, 14] == 1
    widget.undo_button.native.click()
    assert layer.data[0, 14, 14] == 0


@pytest.mark.parametrize(("button", "left"), [("remove", 199), ("keep", 16)])
def test_click_chooses_the_piece(
    widget: Any, layer: Any, click: Any, wait_until: Any, button: str, left: int
) -> None:
    layer.mode = "paint"
    getattr(widget, f"{button}_button").native.click()
    assert "Click the component" in widget.status.value
    assert layer.mode == "pan_zoom", "the click must not paint"
    click((5, 31, 31))
    _done(widget, wait_until, "Ctrl+Z undoes")
    assert layer.data.sum() == left
    assert layer.mode == "paint"
    layer.undo()
    assert layer.data.sum() == 99 + 100 + 16


def test_a_click_outside_all_pieces_is_reported(widget: Any, layer: Any, click: Any, wait_until: Any) -> None:
    widget.remove_button.native.click()
    click((2, 1, 1))
    _done(widget, wait_until, "no labelled component")
    assert layer.data.sum() == 215


def test_shortcut_removes_the_piece_under_the_cursor(
    viewer: Any, widget: Any, layer: Any, wait_until: Any
) -> None:
    viewer.cursor.position = (5, 32, 31)
    widget._at_cursor("remove")
    _done(widget, wait_until, "Component removed")
    assert layer.data.sum() == 199


def test_choosing_another_layer_cancels_the_wait_for_a_click(
    viewer: Any, widget: Any, layer: Any, click: Any
) -> None:
    widget.remove_button.native.click()
    other = viewer.add_labels(np.zeros((6, 40, 40), np.uint8), name="others")
    assert widget.layer == other
    click((5, 31, 31))
    assert layer.data.sum() == 215


def test_the_selected_layer_is_corrected(viewer: Any, widget: Any, layer: Any) -> None:
    viewer.add_labels(np.zeros((6, 40, 40), np.uint8), name="others")
    viewer.layers.selection.active = layer
    assert widget.layer == layer


@pytest.mark.parametrize("selected", ["image", "other labels"])
def test_starts_with_the_selected_or_predicted_labels(viewer: Any, layer: Any, selected: str) -> None:
    image = viewer.add_image(np.zeros((6, 40, 40)))
    other = viewer.add_labels(
        np.zeros((6, 40, 40), np.uint8), name="truth", metadata=describe("A", "truth", range(1, 7))
    )
    viewer.layers.move(2, 0)
    viewer.layers.selection.active = image if selected == "image" else other
    widget = viewer.window.add_plugin_dock_widget("napari-lgg-seg", "Correct")[1]
    assert widget.layer == (layer if selected == "image" else other)


def test_the_brush_paints_in_3d_if_asked(widget: Any, layer: Any) -> None:
    widget.in_3d.native.click()
    assert layer.n_edit_dimensions == 3
    widget.in_3d.native.click()
    assert layer.n_edit_dimensions == 2


def test_clicks_take_the_scale_into_account(
    viewer: Any, widget: Any, layer: Any, click: Any, wait_until: Any
) -> None:
    layer.scale = (3, 0.5, 0.5)
    widget.remove_button.native.click()
    click((15, 15.5, 15.5))
    _done(widget, wait_until, "Component removed")
    assert layer.data.sum() == 199


def test_buttons_are_disabled_without_labels(viewer: Any, widget: Any) -> None:
    viewer.layers.clear()
    assert "no labels to correct" in widget.status.value
    assert not widget.between_button.enabled
    widget.fill_between()
    widget.begin()


def test_painting_while_a_tool_runs_is_not_lost(
    viewer: Any, widget: Any, layer: Any, wait_until: Any
) -> None:
    viewer.dims.set_point(0, 2)
    widget.between_button.native.click()
    layer.data_setitem((np.array([2]), np.array([0]), np.array([0])), 1)
    _done(widget, wait_until, "changed in the meantime")
    assert layer.data[2].sum() == 1


def test_labels_that_cannot_be_accepted(viewer: Any, widget: Any, layer: Any, find_button: Any) -> None:
    for labels, text in (
        (viewer.add_labels(np.zeros((6, 40, 40), np.uint8), name="mine"), "belongs to no patient"),
        (
            viewer.add_labels(layer.data.copy(), name="t", metadata=describe("A", "truth", range(1, 7))),
            "is the ground truth of A",
        ),
    ):
        widget.menu.value = labels
        find_button(widget.native, "Accept").click()
        assert text in widget.status.value


def test_closing_removes_mouse_callbacks(viewer: Any, widget: Any, layer: Any) -> None:
    before = len(layer.mouse_drag_callbacks)
    widget.remove_button.native.click()
    viewer.window.remove_dock_widget("all")
    assert layer.mode == "pan_zoom"
    assert len(layer.mouse_drag_callbacks) == before


def test_tools_stay_with_the_selected_labels_when_a_copy_comes(viewer: Any, widget: Any, layer: Any) -> None:
    viewer.layers.selection.active = layer
    data, state, kind = layer.as_layer_data_tuple()
    viewer.layers.append(Layer.create(data.copy(), {**state, "name": "copy"}, kind))
    assert widget.layer == viewer.layers.selection.active
    viewer.layers.selection.active = layer
    layer.name = "renamed"
    assert widget.layer == layer
    assert widget.menu.native.currentText() == "renamed"


def test_filling_between_slices_needs_a_view_of_slices(viewer: Any, widget: Any, layer: Any) -> None:
    before = layer.data.copy()
    viewer.dims.ndisplay = 3
    widget.between_button.native.click()
    assert "does not show single slices" in widget.status.value
    np.testing.assert_array_equal(layer.data, before)


@pytest.mark.parametrize("what", ["remove", "keep"])
@pytest.mark.parametrize("chosen", ["with the keys", "in 3D", "in 2D, then in 3D"])
def test_no_hidden_component_is_chosen_in_3d(
    viewer: Any, widget: Any, behind_each_other: Any, click: Any, what: str, chosen: str
) -> None:
    before = behind_each_other.data.copy()
    button = getattr(widget, f"{what}_button").native
    if chosen == "in 2D, then in 3D":
        button.click()
    viewer.dims.ndisplay = 3
    if chosen == "in 3D":
        button.click()
    if chosen == "with the keys":
        viewer.cursor.position = (2, 15, 15)
        widget._at_cursor(what)
    else:
        click((2, 15, 15))
    assert "cannot be chosen in 3D" in widget.status.value
    assert threads_done()
    np.testing.assert_array_equal(behind_each_other.data, before)


def test_keys_before_the_mouse_has_moved_are_reported(viewer: Any, widget: Any, layer: Any) -> None:
    viewer.cursor.position = (1.0, 1.0)
    widget._at_cursor("remove")
    assert "no labelled component" in widget.status.value
