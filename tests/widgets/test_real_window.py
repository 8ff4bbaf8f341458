"""The main workflow in a visible window, with the shipped model and by visible names only."""

from __future__ import annotations

from itertools import count

import numpy as np
import pytest
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtWidgets import QScrollArea, QTableView, QToolTip
from window import threads_done

from napari_lgg_seg.core.data.patients import read_patient
from napari_lgg_seg.core.evaluation.metrics import dice
from napari_lgg_seg.layers import patients_in
from napari_lgg_seg.widgets.cohort import widget as browser

pytestmark = pytest.mark.real_window


@pytest.fixture
def viewer(make_napari_viewer):
    """A viewer whose window is shown."""
    return make_napari_viewer(show=True)


def test_open_the_sample_segment_export_and_read_back(
    viewer, menu_action, find_button, wait_until, choose_folder, tmp_path, notices, qtbot
):
    menu_action("File", "Open Sample", "LGG patient (synthetic)").trigger()
    wait_until(lambda: "ground truth" in viewer.layers)
    menu_action("Layers", "Segment", "Segment").trigger()
    window = viewer.window.main_menu.window()
    assert window.isVisible()

    button = find_button(window, "Segment")
    wait_until(button.isVisible)
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    assert button.text() == "Cancel"
    wait_until(lambda: button.text() == "Segment")
    (tumour,) = [layer for layer in viewer.layers if layer.name.endswith(" tumour")]
    assert dice(tumour.data, viewer.layers["ground truth"].data) > 0.7

    shown = viewer.screenshot(canvas_only=True, flash=False)
    viewer.layers[tumour.name].visible = False
    assert not np.array_equal(shown, viewer.screenshot(canvas_only=True, flash=False)), (
        "the tumour is not visible"
    )

    choose_folder(tmp_path)
    qtbot.mouseClick(find_button(window, "Export masks..."), Qt.MouseButton.LeftButton)
    wait_until(lambda: len(notices) == 1)
    (folder,) = tmp_path.iterdir()
    assert str(folder) in notices[0]
    back = read_patient(folder)
    np.testing.assert_array_equal(back.truth, tumour.data)
    assert tumour.name == f"{back.name} tumour"


def test_overlay_of_a_comparison_is_visible_and_its_plot_clickable(
    viewer, patient_on_disk, menu_action, find_button, wait_until, qtbot
):
    pytest.importorskip("pyqtgraph")
    from napari_lgg_seg.widgets.compare.slice_plot import SlicePlot

    viewer.open(str(patient_on_disk()), plugin="napari-lgg-seg")
    viewer.add_labels(np.roll(viewer.layers["ground truth"].data, 3, 2), name="mine")
    menu_action("Layers", "Segment", "Compare").trigger()
    window = viewer.window.main_menu.window()
    button = find_button(window, "Compare")
    wait_until(button.isVisible)
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    wait_until(lambda: "mine vs ground truth" in viewer.layers)
    plot = window.findChild(SlicePlot)
    wait_until(plot.isVisible)
    above = plot.parentWidget()
    while not isinstance(above, QScrollArea):
        above = above.parentWidget()
    above.ensureWidgetVisible(plot)
    box = plot.getPlotItem().getViewBox()
    side = count()

    def place():
        return plot.mapFromScene(box.mapViewToScene(QPointF(3, 0.5)))

    def shows_tooltip():
        # The plot may still be moving, and the tooltip needs mouse moves.
        qtbot.mouseMove(plot.viewport(), place() + QPoint(next(side) % 2, 0))
        return QToolTip.text().startswith("Slice 3: Dice ")

    wait_until(shows_tooltip)
    qtbot.mouseClick(plot.viewport(), Qt.MouseButton.LeftButton, pos=place())
    assert viewer.dims.current_step[0] == 2
    shown = viewer.screenshot(canvas_only=True, flash=False)
    for colour in ("#f0e442", "#56b4e9", "#d55e00"):
        hue = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
        seen = shown[..., :3].astype(int) - 0.7 * hue
        assert ((seen >= -2).all(axis=-1) & (np.ptp(seen, axis=-1) <= 4)).any(), f"no {colour} over gray"


def test_main_window_may_be_closed_during_a_run(
    viewer, patient_on_disk, small_model, find_button, gate, wait_until, notices
):
    viewer.open(str(patient_on_disk()), plugin="napari-lgg-seg")
    _, widget = viewer.window.add_plugin_dock_widget("napari-lgg-seg", "Segment")
    widget.offer_model(small_model)
    find_button(widget.native, "Segment").click()
    wait_until(gate.reached.is_set)
    viewer.close()
    gate.open()
    wait_until(threads_done)
    assert notices == []


def test_cohort_browser_with_mouse_and_keys(
    viewer, patient_on_disk, menu_action, find_button, wait_until, qtbot
):
    names = ["TCGA_DU_0001_19990101", "TCGA_DU_0002_19990101"]
    for seed, name in enumerate(names):
        cohort = patient_on_disk(name, seed=seed).parent
    menu_action("Layers", "Segment", "Cohort").trigger()
    window = viewer.window.main_menu.window()
    (widget,) = [w for w in viewer.window.dock_widgets.values() if isinstance(w, browser.CohortBrowser)]
    (table,) = widget.native.findChildren(QTableView)
    wait_until(table.isVisible)
    field = widget.controls.dataset.line_edit.native
    field.setText(str(cohort))
    wait_until(lambda: table.model().rowCount() == 2)
    first = table.visualRect(table.model().index(0, 1)).center()
    for click in (qtbot.mouseClick, qtbot.mouseDClick):  # a real double click includes a click
        click(table.viewport(), Qt.MouseButton.LeftButton, pos=first)
    wait_until(lambda: patients_in(viewer.layers) == names[:1])
    window.activateWindow()  # keys go to the active window
    wait_until(window.isActiveWindow)
    mine = viewer.add_labels(np.zeros((6, 64, 64), np.uint8))
    mine.paint((2, 30, 30), 1)
    for key, name in ((Qt.Key.Key_PageDown, names[1]), (Qt.Key.Key_PageUp, names[0])):
        qtbot.keyClick(table, key, Qt.KeyboardModifier.ControlModifier)
        wait_until(lambda name=name: patients_in(viewer.layers) == [name])
    np.testing.assert_array_equal(viewer.layers[f"{names[0]} tumour"].data, mine.data)
    assert table.model().index(0, 1).data() == "corrected"
    assert find_button(window, "Accept").isEnabled()
