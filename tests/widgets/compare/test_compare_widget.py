from __future__ import annotations

import sys

import numpy as np
import pytest
from qtpy.QtCore import QThreadPool
from qtpy.QtWidgets import QLabel

pytest.importorskip("pyqtgraph")

from napari_lgg_seg.commands import labels_to_export
from napari_lgg_seg.core.evaluation import compare as core
from napari_lgg_seg.core.evaluation.compare import AGREED, FALSE_NEGATIVE, FALSE_POSITIVE
from napari_lgg_seg.layers import TRUTH, TUMOUR, describe
from napari_lgg_seg.widgets.compare import messages
from napari_lgg_seg.widgets.compare import pair as comparison
from napari_lgg_seg.widgets.finetune.labelled import labelled_in

NAME, OTHER = "TCGA_DU_0001_19990101", "TCGA_HT_0002_20000202"

pytestmark = pytest.mark.filterwarnings("error:Private attribute access:FutureWarning")


def assert_sentence(text):
    assert text.endswith("."), text
    assert "\n" not in text
    assert "Traceback" not in text


def threads_done():
    return QThreadPool.globalInstance().activeThreadCount() == 0


def names(combo):
    return [layer.name for layer in combo.choices]


def chosen(widget):
    return tuple(None if combo.value is None else combo.value.name for combo in menus(widget))


def menus(widget):
    return widget.layers.prediction, widget.layers.truth


def overlays(viewer):
    return [layer for layer in viewer.layers if "lgg comparison" in layer.metadata]


@pytest.fixture
def dock(viewer):
    """Factory: dock the Compare widget."""
    return lambda: viewer.window.add_plugin_dock_widget("napari-lgg-seg", "Compare")[1]


@pytest.fixture
def add_labels(viewer):
    """Factory: add labels; of a patient in a role, or of nobody."""

    def add(data, name, patient=None, role=TUMOUR, **more):
        metadata = describe(patient, role, range(1, len(data) + 1)) if patient else {}
        return viewer.add_labels(np.asarray(data), name=name, metadata=metadata, **more)

    return add


@pytest.fixture
def predicted(viewer, open_patient, add_labels):
    """Factory: open a small patient, and a prediction that is moved by a pixel; returns both layers."""

    def predicted_(name=NAME, truth="truth", moved=1, **head):
        open_patient(name, **head)
        true = viewer.layers[truth]
        return add_labels(np.roll(true.data, moved, 2), f"{name} tumour", name), true

    return predicted_


@pytest.fixture
def compare(click, wait_until):
    """Factory: click Compare and wait until it is done."""

    def compare_(widget):
        click(widget, "Compare")
        assert widget.button.text == "Cancel"
        wait_until(lambda: widget.button.text == "Compare")

    return compare_


# --- one click ---------------------------------------------------------------------------------


def test_compare_is_the_only_click_needed(viewer, predicted, dock, compare, notices):
    prediction, truth = predicted()
    widget = dock()
    assert chosen(widget) == (f"{NAME} tumour", "truth")
    compare(widget)
    agreement = core.compare(prediction.data, truth.data)
    metrics = widget.results.metrics
    assert metrics.value("Dice") == f"{agreement.dice:.3f}"
    assert metrics.value("IoU") == f"{agreement.iou:.3f}"
    assert metrics.value("HD95") == f"{agreement.hd95:.1f} px"
    assert metrics.value("Lesions") == "0 of 1 missed, 0 of 1 invented"
    assert f"{agreement.predicted_voxels:,}" in metrics.value("Volume")
    assert_sentence(widget.status.value)
    assert "voxel size is not known" in widget.status.value
    (overlay,) = overlays(viewer)
    assert overlay.name == f"{NAME} tumour against truth"
    np.testing.assert_array_equal(overlay.data, core.overlay(prediction.data, truth.data))
    assert notices == []


def test_overlay_lies_on_the_layers_and_hides_them(viewer, predicted, dock, compare):
    prediction, truth = predicted()
    for layer in (prediction, truth):
        layer.scale, layer.translate, layer.units = (5, 0.9, 0.9), (10, 2, 3), ("mm",) * 3
    viewer.layers.selection.active = truth
    widget = dock()
    compare(widget)
    (overlay,) = overlays(viewer)
    np.testing.assert_array_equal(overlay.scale, (5, 0.9, 0.9))
    np.testing.assert_array_equal(overlay.translate, (10, 2, 3))
    assert not prediction.visible
    assert not truth.visible
    assert not overlay.editable
    assert viewer.layers.selection.active == truth
    widget.results.show_overlay.value = False
    assert (overlay.visible, prediction.visible, truth.visible) == (False, True, True)
    overlay.visible = True  # its eye in the layer list does the same
    assert widget.results.show_overlay.value
    assert not prediction.visible
    viewer.layers.remove(overlay)
    assert prediction.visible
    assert not widget.results.show_overlay.enabled


def test_one_overlay_for_each_pair(viewer, predicted, dock, compare, add_labels):
    prediction, truth = predicted()
    widget = dock()
    compare(widget)
    compare(widget)
    (first,) = overlays(viewer)
    viewer.window.remove_dock_widget(widget.native)
    widget = dock()
    compare(widget)
    assert overlays(viewer) == [first]
    add_labels(np.roll(truth.data, 3, 1), "second", NAME)
    assert chosen(widget) == ("second", "truth")
    compare(widget)
    assert len(overlays(viewer)) == 2
    assert not first.visible
    assert not prediction.visible
    widget.results.show_overlay.value = False
    assert prediction.visible
    viewer.layers.remove(prediction)
    compare(widget)
    (left,) = overlays(viewer)
    assert left.name == "second against truth"


def test_volumes_and_distances_in_millimetres_where_the_voxel_size_is_known(viewer, predicted, dock, compare):
    prediction, truth = predicted()
    prediction.scale, prediction.units = (5, 0.5, 0.5), ("mm",) * 3
    widget = dock()
    compare(widget)
    agreement = core.compare(prediction.data, truth.data, (5, 0.5, 0.5))
    assert widget.results.metrics.value("HD95") == f"{agreement.hd95:.1f} mm"
    assert f"{agreement.true_voxels * 1.25 / 1000:.1f} ml" in widget.results.metrics.value("True volume")
    assert "5 x 0.5 x 0.5 mm" in widget.status.value.replace("\N{NO-BREAK SPACE}", " ")


def test_slices(viewer, predicted, dock, compare):
    prediction, _ = predicted()
    prediction.data[3] = 0
    widget = dock()
    compare(widget)
    viewer.dims.set_current_step(0, 0)
    widget.results.worst.native.click()
    assert viewer.dims.current_step[0] == 3
    plot = widget.results.plot
    assert plot.index_at(1.2) == 0
    assert plot.index_at(99) == 5
    plot.chosen.emit(2)
    assert viewer.dims.current_step[0] == 2


def test_click_in_the_plot_goes_to_the_slice(viewer, predicted, dock, compare, qtbot):
    from qtpy.QtCore import QPointF, Qt

    predicted()
    widget = dock()
    compare(widget)
    plot = widget.results.plot
    plot.resize(300, 150)
    box = plot.getPlotItem().getViewBox()
    place = plot.mapFromScene(box.mapViewToScene(QPointF(5, 0.5)))
    viewer.dims.set_current_step(0, 0)
    qtbot.mouseClick(plot.viewport(), Qt.MouseButton.LeftButton, pos=place)
    assert viewer.dims.current_step[0] == 4


def test_slices_in_words():
    assert messages.slice_summary(7, None, (0, 0, 0)) == "Slice 7: no tumour in either"
    assert messages.slice_summary(7, 0.0, (0, 0, 1200)).endswith(
        "1,200 voxels invented on a slice without tumour"
    )
    assert messages.slice_summary(7, 0.0, (0, 5, 0)).endswith("all 5 voxels missed")
    assert messages.slice_summary(7, 0.5, (5, 3, 7)) == "Slice 7: Dice 0.50, 3 voxels missed, 7 invented"


def test_slice_areas_are_in_square_centimetres():
    agreement = core.compare(np.ones((10, 10)), np.ones((10, 10)), (2, 2))
    (volume,) = [row.value for row in messages.wide_metrics(agreement) if row.name == "True volume"]
    assert volume == "4.0 cm\N{SUPERSCRIPT TWO}"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_theme_is_followed(viewer, predicted, dock, compare, theme):
    predicted()
    widget = dock()
    compare(widget)
    viewer.theme = theme
    from napari.utils.theme import get_theme

    assert widget.results.plot.backgroundBrush().color().name() == get_theme(theme).background.as_hex()


def test_without_pyqtgraph_the_rest_works(viewer, predicted, dock, compare, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyqtgraph", None)
    monkeypatch.setattr("napari_lgg_seg.widgets.compare.results_panel.find_spec", lambda _: None)
    predicted()
    widget = dock()
    compare(widget)
    assert widget.results.plot is None
    assert messages.NEEDS_PLOT in [label.text() for label in widget.native.findChildren(QLabel)]
    assert widget.results.metrics.value("Dice") != messages.NOTHING
    widget.results.worst.native.click()


# --- 2D, many labels, empty masks --------------------------------------------------------------


def test_single_slices_and_many_labels(viewer, dock, compare, add_labels):
    rng = np.random.default_rng(0)
    masks = [rng.integers(0, 4, (20, 20)) for _ in range(2)]
    add_labels(masks[0], "mine")
    add_labels(masks[1], "yours")
    widget = dock()
    assert chosen(widget) == ("yours", "mine")
    compare(widget)
    assert widget.results.metrics.value("Dice") == f"{core.compare(*masks).dice:.3f}"
    (overlay,) = overlays(viewer)
    assert set(np.unique(overlay.data)) == {0, AGREED, FALSE_NEGATIVE, FALSE_POSITIVE}
    assert not widget.results.worst.enabled
    assert not widget.results.plot.isVisibleTo(widget.results)
    widget.go_to(0)


@pytest.mark.parametrize(
    ("empty", "sentence"),
    [((0,), "The prediction is empty"), ((1,), "The truth is empty"), ((0, 1), "Both are empty")],
)
def test_rules_of_empty_masks_are_said(viewer, predicted, dock, compare, empty, sentence):
    layers = predicted()
    for index in empty:
        layers[index].data = np.zeros_like(layers[index].data)
    widget = dock()
    compare(widget)
    assert sentence in widget.status.value
    assert_sentence(widget.status.value)
    assert widget.results.metrics.value("HD95") == messages.NOTHING


# --- which layers ------------------------------------------------------------------------------


def test_says_what_is_missing(viewer, dock, open_patient, add_labels):
    widget = dock()
    assert widget.status.value == messages.NO_LABELS
    assert not widget.button.enabled
    widget.run()
    open_patient()
    assert widget.status.value == messages.ONE_LAYER
    assert not widget.button.enabled
    add_labels(viewer.layers["truth"].data, "mine")
    assert chosen(widget) == ("mine", "truth")
    assert widget.status.value == messages.READY
    assert widget.button.enabled
    viewer.layers.clear()
    assert widget.status.value == messages.NO_LABELS


def test_menus_follow_the_layers(viewer, predicted, dock, add_labels):
    prediction, truth = predicted()
    widget = dock()
    prediction.name = "renamed"
    assert chosen(widget) == ("renamed", "truth")
    assert {*names(menus(widget)[0])} == {"renamed", "truth"}
    newer = add_labels(truth.data, "newer", NAME)
    assert chosen(widget) == ("newer", "truth")
    viewer.layers.remove(newer)
    assert chosen(widget) == ("renamed", "truth")
    add_labels(truth.data, "nobody's")
    assert chosen(widget) == ("renamed", "truth")
    viewer.layers.remove(truth)
    assert chosen(widget) == ("renamed", "nobody's")


def test_a_prediction_finds_its_own_patients_truth(viewer, predicted, dock):
    first, _ = predicted()
    predicted(OTHER, f"{OTHER} truth")
    widget = dock()
    assert chosen(widget) == (f"{OTHER} tumour", f"{OTHER} truth")
    menus(widget)[0].value = first
    assert chosen(widget) == (f"{NAME} tumour", "truth")


def test_what_the_user_chose_stays(viewer, predicted, dock, add_labels):
    prediction, truth = predicted()
    mine = add_labels(truth.data, "mine")
    widget = dock()
    menus(widget)[1].value = mine
    viewer.add_image(np.zeros((6, 64, 64)))
    add_labels(truth.data, "yours")
    assert chosen(widget) == (prediction.name, "mine")


def unlike(add_labels, truth, kind):
    """A second labels layer that does not go with the truth."""
    if kind == "shape":
        return add_labels(truth.data[:-1], "other slices", NAME)
    if kind == "patient":
        return add_labels(truth.data, "somebody else's", OTHER)
    if kind == "dimensions":
        return add_labels(truth.data[None], "in time")
    truth.scale, truth.units = (5, 1, 1), ("mm",) * 3
    return add_labels(truth.data, "other voxels", NAME, scale=(3, 1, 1), units=("mm",) * 3)


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        ("shape", "other slices has 5 x 64 x 64 voxels but truth has 6 x 64 x 64"),
        ("patient", f"somebody else's is of {OTHER} but truth is of {NAME}"),
        ("dimensions", "in time has 4 dimensions"),
        ("voxels", "other voxels has voxels of 3 x 1 x 1 mm but truth has voxels of 5 x 1 x 1 mm"),
    ],
)
@pytest.mark.filterwarnings("ignore:Inconsistent units")
def test_layers_that_do_not_go_together_are_a_sentence(viewer, open_patient, add_labels, dock, kind, part):
    open_patient()
    truth = viewer.layers["truth"]
    other = unlike(add_labels, truth, kind)
    widget = dock()
    widget.layers.choose(other, truth)
    assert part in widget.status.value.replace("\N{NO-BREAK SPACE}", " ")
    assert_sentence(widget.status.value)
    assert not widget.button.enabled
    widget.layers.choose(truth, truth)
    assert "compared with itself" in widget.status.value


def test_other_layers_have_no_figures_yet(viewer, predicted, dock, compare, add_labels):
    _, truth = predicted()
    widget = dock()
    compare(widget)
    assert widget.results.isVisibleTo(widget.native)
    menus(widget)[0].value = add_labels(truth.data, "mine")
    assert not widget.results.isVisibleTo(widget.native)
    assert widget.status.value == messages.READY


# --- changes after and during a comparison -----------------------------------------------------


def test_painting_marks_the_figures_and_renews_them(viewer, predicted, dock, compare, wait_until):
    prediction, truth = predicted()
    widget = dock()
    compare(widget)
    before = widget.results.metrics.value("Dice")
    prediction.fill((3, 0, 0), 1)
    assert widget.status.value == messages.STALE
    wait_until(lambda: widget.status.value != messages.STALE)
    after = f"{core.compare(prediction.data, truth.data).dice:.3f}"
    assert widget.results.metrics.value("Dice") == after != before
    (overlay,) = overlays(viewer)
    np.testing.assert_array_equal(overlay.data, core.overlay(prediction.data, truth.data))
    assert not prediction.visible
    prediction.visible = True
    prediction.undo()
    wait_until(lambda: widget.results.metrics.value("Dice") == before)


def test_new_values_and_voxel_sizes_renew_the_figures(viewer, predicted, dock, compare, wait_until):
    prediction, truth = predicted()
    widget = dock()
    compare(widget)
    prediction.data = truth.data.copy()
    wait_until(lambda: widget.results.metrics.value("Dice") == "1.000")
    for layer in (prediction, truth):
        layer.scale, layer.units = (5, 1, 1), ("mm",) * 3
    wait_until(lambda: widget.results.metrics.value("HD95") == "0.0 mm")


def test_looking_at_other_slices_computes_nothing(viewer, predicted, dock, compare, qtbot, monkeypatch):
    predicted()
    widget = dock()
    compare(widget)
    qtbot.wait(1000)
    runs = []
    monkeypatch.setattr("napari_lgg_seg.widgets.compare.widget.create_worker", lambda *a, **k: runs.append(a))
    for step in (0, 3, 5):
        viewer.dims.set_current_step(0, step)
    qtbot.wait(1000)
    assert runs == []


def test_removed_overlay_stays_removed_until_compare(viewer, predicted, dock, compare, wait_until):
    prediction, _ = predicted()
    widget = dock()
    compare(widget)
    viewer.layers.remove(overlays(viewer)[0])
    prediction.fill((3, 0, 0), 1)
    wait_until(lambda: widget.status.value not in (messages.STALE, messages.COMPARING))
    assert overlays(viewer) == []
    compare(widget)
    assert len(overlays(viewer)) == 1


def test_values_of_another_shape_are_a_sentence(viewer, predicted, dock, compare, wait_until):
    prediction, _ = predicted()
    widget = dock()
    compare(widget)
    prediction.data = np.zeros((4, 64, 64), np.uint8)
    wait_until(lambda: "4 x 64 x 64" in widget.status.value)
    assert_sentence(widget.status.value)
    assert not widget.results.isVisibleTo(widget.native)


@pytest.fixture
def held(monkeypatch, gate, wait_until):
    """Factory: click Compare and do something in the middle of the comparison."""
    compute = comparison.compare

    def wait_and_compute(*args, **kwargs):
        gate.pass_through()
        return compute(*args, **kwargs)

    monkeypatch.setattr(comparison, "compare", wait_and_compute)

    def held_(widget, act):
        widget.run()
        wait_until(gate.reached.is_set)
        act()
        gate.open()
        wait_until(threads_done)

    return held_


def test_cancel(viewer, predicted, dock, click, held):
    predicted()
    widget = dock()
    before = len(viewer.layers)
    held(widget, lambda: click(widget, "Cancel"))
    assert widget.status.value == messages.CANCELLED
    assert widget.button.text == "Compare"
    assert len(viewer.layers) == before
    assert not widget.results.isVisibleTo(widget.native)


def test_layer_removed_in_the_middle(viewer, predicted, dock, held):
    prediction, _ = predicted()
    widget = dock()
    held(widget, lambda: viewer.layers.remove(prediction))
    assert overlays(viewer) == []
    assert widget.status.value == messages.ONE_LAYER


def test_all_layers_removed_in_the_middle(viewer, predicted, dock, held):
    predicted()
    widget = dock()
    held(widget, viewer.layers.clear)
    assert widget.status.value == messages.NO_LABELS
    assert len(viewer.layers) == 0


def test_slices_taken_away_in_the_middle(viewer, predicted, dock, held, wait_until):
    layers = predicted()
    widget = dock()

    def take_two_slices_away():
        for layer in layers:
            layer.data = layer.data[:4]

    held(widget, take_two_slices_away)
    wait_until(lambda: widget.status.value == messages.GONE)
    assert overlays(viewer) == []


def test_painting_in_the_middle_is_taken_up_afterwards(viewer, predicted, dock, held, wait_until):
    prediction, truth = predicted()
    widget = dock()
    held(widget, lambda: prediction.fill((3, 0, 0), 1))
    expected = f"{core.compare(prediction.data, truth.data).dice:.3f}"
    wait_until(lambda: widget.results.metrics.value("Dice") == expected)


def test_dock_closed_in_the_middle(viewer, predicted, dock, held, wait_until):
    predicted()
    widget = dock()
    held(widget, lambda: viewer.window.remove_dock_widget(widget.native))
    assert overlays(viewer) == []
    assert widget.status.value == messages.CANCELLED


def test_closed_dock_follows_no_painting(viewer, predicted, dock, compare, qtbot):
    prediction, _ = predicted()
    widget = dock()
    compare(widget)
    before = widget.results.metrics.value("Dice")
    viewer.window.remove_dock_widget(widget.native)
    prediction.fill((3, 0, 0), 1)
    qtbot.wait(1500)
    assert widget.results.metrics.value("Dice") == before


def test_viewer_closed_in_the_middle(viewer, predicted, dock, held):
    predicted()
    widget = dock()
    held(widget, viewer.close)


def test_no_memory_is_a_sentence(viewer, predicted, dock, compare, monkeypatch):
    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr(comparison, "compare", fail)
    predicted()
    widget = dock()
    compare(widget)
    assert "not enough memory" in widget.status.value


# --- what the overlay is to others -------------------------------------------------------------


def test_overlay_is_nobodys_tumour(viewer, predicted, dock, compare):
    prediction, truth = predicted()
    widget = dock()
    compare(widget)
    (overlay,) = overlays(viewer)
    assert {*names(menus(widget)[0])} == {prediction.name, truth.name}
    viewer.layers.selection.active = overlay
    assert labels_to_export(viewer) == prediction
    (row,) = labelled_in(viewer.layers)
    assert overlay not in row.labels
    assert overlay.metadata["lgg"].items() >= {"patient": NAME, "role": "comparison"}.items()


def test_labels_of_nobody_make_no_patient(viewer, dock, compare, add_labels):
    for name in ("mine", "yours"):
        add_labels(np.ones((4, 9, 9), int), name)
    compare(dock())
    assert all("lgg" not in layer.metadata for layer in viewer.layers)


def test_two_truths_can_be_compared(viewer, open_patient, add_labels, dock):
    open_patient()
    add_labels(viewer.layers["truth"].data, "second reader", NAME, TRUTH)
    assert chosen(dock()) == ("second reader", "truth")
