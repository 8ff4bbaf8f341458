"""Where the plugin's widgets come to lie in the window."""

from __future__ import annotations

from typing import Any

from qtpy.QtWidgets import QDockWidget, QMainWindow


def test_widgets_are_tabs_below_the_cohort(viewer: Any, wait_until: Any) -> None:
    window: QMainWindow = viewer.window._qt_window
    docks: dict[str, QDockWidget] = {}
    for name in ("Cohort", "Segment", "Correct", "Compare", "Fine-tune"):
        docks[name], _ = viewer.window.add_plugin_dock_widget("napari-lgg-seg", name)
        tabs = [docks[other] for other in docks if other not in ("Cohort", name)]
        wait_until(lambda tabs=tabs, name=name: set(window.tabifiedDockWidgets(docks[name])) == set(tabs))
    assert not window.tabifiedDockWidgets(docks["Cohort"])


def test_what_the_user_takes_out_of_the_tabs_stays_out(viewer: Any, wait_until: Any) -> None:
    window: QMainWindow = viewer.window._qt_window
    segment, _ = viewer.window.add_plugin_dock_widget("napari-lgg-seg", "Segment")
    correct, _ = viewer.window.add_plugin_dock_widget("napari-lgg-seg", "Correct")
    wait_until(lambda: window.tabifiedDockWidgets(segment) == [correct])
    correct.setFloating(True)
    compare, _ = viewer.window.add_plugin_dock_widget("napari-lgg-seg", "Compare")
    wait_until(lambda: window.tabifiedDockWidgets(segment) == [compare])
    assert correct.isFloating()
