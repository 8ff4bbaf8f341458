"""Keyboard shortcuts of the widgets: they are unique in napari's window, and they work."""

from __future__ import annotations

import pytest
from napari._app_model import get_app_model
from napari.layers import Labels
from napari.settings import get_settings
from qtpy.QtCore import Qt
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import QShortcut

WIDGETS = ("Segment", "Correct", "Cohort", "Compare", "Fine-tune")


def in_qt_notation(keys):
    return QKeySequence(keys.replace("Page", "Pg").replace("Control", "Ctrl").replace("-", "+")).toString()


def napari_keys(window):
    """Keys of napari's menus, of its layers and viewer, and of its window."""
    found = {in_qt_notation(str(binding.keybinding)) for binding in get_app_model().keybindings}
    for bindings in get_settings().shortcuts.shortcuts.values():
        found |= {in_qt_notation(str(binding)) for binding in bindings}
    found |= {in_qt_notation(str(binding)) for binding in Labels.class_keymap}
    return found | {shortcut.key().toString() for shortcut in window.findChildren(QShortcut)}


def test_shortcuts_are_unique(viewer, wait_until):
    pytest.importorskip("pyqtgraph")
    pytest.importorskip("pyqtgraph")
    window = viewer.window.main_menu.window()
    theirs = napari_keys(window)
    assert {"Ctrl+Alt+S", "Ctrl+Alt+P", "Ctrl+Z"} <= theirs
    before = window.findChildren(QShortcut)
    for name in WIDGETS:
        viewer.window.add_plugin_dock_widget("napari-lgg-seg", name)

    def ours():
        return [
            shortcut.key().toString()
            for shortcut in window.findChildren(QShortcut)
            if shortcut not in before and shortcut.context() != Qt.ShortcutContext.WidgetShortcut
        ]

    wait_until(lambda: "Ctrl+PgDown" in ours())
    assert len(ours()) == len(set(ours())) >= 9
    assert not theirs & set(ours())


@pytest.mark.real_window
def test_shortcuts_work_with_the_focus_on_the_canvas(
    make_napari_viewer, patient_on_disk, small_model, qtbot, wait_until
):
    viewer = make_napari_viewer(show=True)
    viewer.open(str(patient_on_disk()), plugin="napari-lgg-seg")
    for name in WIDGETS[:2]:
        _, widget = viewer.window.add_plugin_dock_widget("napari-lgg-seg", name)
        if name == "Segment":
            widget.offer_model(small_model)
    window = viewer.window.main_menu.window()
    window.activateWindow()
    wait_until(window.isActiveWindow)
    canvas = viewer.window._qt_viewer.canvas.native
    both = Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.AltModifier
    qtbot.keyClick(canvas, Qt.Key.Key_G, both)
    wait_until(lambda: any(layer.name.endswith(" tumour") for layer in viewer.layers))
    (tumour,) = [layer for layer in viewer.layers if layer.name.endswith(" tumour")]
    slices = [z for z, page in enumerate(tumour.data) if page.any()]
    viewer.dims.set_point(0, slices[0])
    for key, z in ((Qt.Key.Key_N, slices[1]), (Qt.Key.Key_B, slices[0])):
        qtbot.keyClick(canvas, key, both)
        assert viewer.dims.current_step[0] == z
