"""Where the plugin's widgets come to lie in the window."""

from __future__ import annotations

from typing import Any

import pytest
from qtpy.QtWidgets import QDockWidget, QLabel, QMainWindow, QVBoxLayout, QWidget

from napari_lgg_seg.widgets.shared.scrolling import ScrollingColumn, show_from

WIDGETS = ("Cohort", "Segment", "Correct", "Compare", "Fine-tune")


def test_widgets_are_tabs_below_the_cohort(viewer: Any, wait_until: Any) -> None:
    window: QMainWindow = viewer.window._qt_window
    docks: dict[str, QDockWidget] = {}
    for name in WIDGETS:
        docks[name], _ = viewer.window.add_plugin_dock_widget("napari-lgg-seg", name)
        tabs = [docks[other] for other in docks if other not in ("Cohort", name)]
        wait_until(lambda tabs=tabs, name=name: set(window.tabifiedDockWidgets(docks[name])) == set(tabs))
    assert not window.tabifiedDockWidgets(docks["Cohort"])


@pytest.mark.real_window
def test_the_window_stays_as_high_as_it_is(make_napari_viewer: Any, qtbot: Any) -> None:
    viewer = make_napari_viewer(show=True)
    window = viewer.window._qt_window
    window.resize(1400, 860)
    for name in WIDGETS:
        viewer.window.add_plugin_dock_widget("napari-lgg-seg", name)
        qtbot.wait(500)  # it may grow, and has to be given its size back
        assert (window.width(), window.height()) == (1400, 860), name


def test_what_the_user_takes_out_of_the_tabs_stays_out(viewer: Any, wait_until: Any) -> None:
    window: QMainWindow = viewer.window._qt_window
    segment, _ = viewer.window.add_plugin_dock_widget("napari-lgg-seg", "Segment")
    correct, _ = viewer.window.add_plugin_dock_widget("napari-lgg-seg", "Correct")
    wait_until(lambda: window.tabifiedDockWidgets(segment) == [correct])
    correct.setFloating(True)
    compare, _ = viewer.window.add_plugin_dock_widget("napari-lgg-seg", "Compare")
    wait_until(lambda: window.tabifiedDockWidgets(segment) == [compare])
    assert correct.isFloating()


def test_what_matters_now_is_scrolled_into_sight(qtbot: Any) -> None:
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
    layout.addWidget(rows[-1])  # which has no place yet
    show_from(rows[40])
    qtbot.waitUntil(lambda: rows[39].visibleRegion().isEmpty() and not rows[40].visibleRegion().isEmpty())
    show_from(rows[-1])
    qtbot.waitUntil(lambda: not rows[-1].visibleRegion().isEmpty())
