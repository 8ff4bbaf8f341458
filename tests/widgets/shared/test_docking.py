"""Where the widgets are docked in the window, and how their columns scroll."""

from __future__ import annotations

from typing import Any

import pytest
from qtpy.QtWidgets import QDockWidget, QLabel, QMainWindow, QVBoxLayout, QWidget

from napari_lgg_seg.widgets.shared.scrolling import ScrollingColumn, scroll_into_view

WIDGETS = ("Cohort", "Segment", "Correct", "Compare", "Fine-tune")


def test_widgets_are_tabs_below_the_cohort_browser(viewer: Any, wait_until: Any) -> None:
    window: QMainWindow = viewer.window._qt_window
    docks: dict[str, QDockWidget] = {}
    for name in WIDGETS:
        docks[name], _ = viewer.window.add_plugin_dock_widget("napari-lgg-seg", name)
        tabs = [docks[other] for other in docks if other not in ("Cohort", name)]
        wait_until(lambda tabs=tabs, name=name: set(window.tabifiedDockWidgets(docks[name])) == set(tabs))
    assert not window.tabifiedDockWidgets(docks["Cohort"])


@pytest.mark.real_window
def test_docking_does_not_resize_the_window(make_napari_viewer: Any, qtbot: Any) -> None:
    viewer = make_napari_viewer(show=True)
    window = viewer.window._qt_window
    window.resize(1400, 860)
    for name in WIDGETS:
        viewer.window.add_plugin_dock_widget("napari-lgg-seg", name)
        qtbot.wait(500)  # the window may grow, and gets its size back
        assert (window.width(), window.height()) == (1400, 860), name


def test_a_widget_taken_out_of_the_tabs_stays_out(viewer: Any, wait_until: Any) -> None:
    window: QMainWindow = viewer.window._qt_window
    segment, _ = viewer.window.add_plugin_dock_widget("napari-lgg-seg", "Segment")
    correct, _ = viewer.window.add_plugin_dock_widget("napari-lgg-seg", "Correct")
    wait_until(lambda: window.tabifiedDockWidgets(segment) == [correct])
    correct.setFloating(True)
    compare, _ = viewer.window.add_plugin_dock_widget("napari-lgg-seg", "Compare")
    wait_until(lambda: window.tabifiedDockWidgets(segment) == [compare])
    assert correct.isFloating()


def test_widgets_are_scrolled_into_view(qtbot: Any) -> None:
    column = QWidget()
    layout = QVBoxLayout(column)
    rows = [QLabel(f"row {number}") for number in range(60)]
    for row in rows[:-1]:
        layout.addWidget(row)
    scrolling = ScrollingColumn(column)
    qtbot.addWidget(scrolling)
    scrolling.resize(300, 200)
    scrolling.show()
    qtbot.waitUntil(lambda: rows[40].visibleRegion().isEmpty() and not rows[0].visibleRegion().isEmpty())
    layout.addWidget(rows[-1])  # not laid out yet
    scroll_into_view(rows[40])
    qtbot.waitUntil(lambda: rows[39].visibleRegion().isEmpty() and not rows[40].visibleRegion().isEmpty())
    scroll_into_view(rows[-1])
    qtbot.waitUntil(lambda: not rows[-1].visibleRegion().isEmpty())


@pytest.mark.parametrize("name", ["Cohort", "Compare", "Fine-tune"])
def test_a_widget_that_a_script_docked_is_shown_instead_of_a_second_one(
    viewer: Any, menu_action: Any, wait_until: Any, name: str
) -> None:
    pytest.importorskip("pyqtgraph")
    first, _ = viewer.window.add_plugin_dock_widget("napari-lgg-seg", name)
    other, _ = viewer.window.add_plugin_dock_widget("napari-lgg-seg", "Segment")
    window: QMainWindow = viewer.window._qt_window
    first.hide()
    menu_action("Layers", "Segment", name).trigger()

    def docks() -> list[QDockWidget]:
        return [d for d in window.findChildren(QDockWidget) if d.windowTitle().startswith(name)]

    wait_until(lambda: docks() == [first] and not first.isHidden())
    assert not other.isHidden()
