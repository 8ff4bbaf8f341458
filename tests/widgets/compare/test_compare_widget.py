"""The Compare widget: two labels layers."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from window import assert_message, visible_text

pytest.importorskip("pyqtgraph")

from napari_lgg_seg.core.evaluation import compare as core
from napari_lgg_seg.core.evaluation.compare import AGREED, FALSE_NEGATIVE, FALSE_POSITIVE
from napari_lgg_seg.layers import TRUTH
from napari_lgg_seg.widgets.compare import messages
from napari_lgg_seg.widgets.compare import pair as comparison
from napari_lgg_seg.widgets.finetune.labelled import labelled_patients
from napari_lgg_seg.widgets.shared.export import labels_to_export

NAME, OTHER = "TCGA_DU_0001_19990101", "TCGA_HT_0002_20000202"

pytestmark = pytest.mark.filterwarnings("error:Private attribute access:FutureWarning")


def names(combo):
    return [layer.name for layer in combo.choices]


def chosen(widget):
    return tuple(None if combo.value is None else combo.value.name for combo in menus(widget))


def menus(widget):
    return widget.layers.prediction, widget.layers.truth


def overlays(viewer):
    return [layer for layer in viewer.layers if "lgg comparison" in layer.metadata]


# --- one click ---------------------------------------------------------------------------------


def test_one_click_compares_the_layers(viewer, predicted, dock_compare, compare, notices):
    prediction, truth = predicted()
    widget = dock_compare()
    assert chosen(widget) == (f"{NAME} tumour", "ground truth")
    compare(widget)
    agreement = core.compare(prediction.data, truth.data)
    metrics = widget.results.metrics
    assert metrics.value("Dice") == f"{agreement.dice:.3f}"
    assert metrics.value("IoU") == f"{agreement.iou:.3f}"
    assert metrics.value("HD95") == f"{agreement.hd95:.1f} px"
    assert metrics.value("Missed lesions") == "0 of 1"
    assert metrics.value("False-positive lesions") == "0 of 1"
    assert f"{agreement.predicted_voxels:,}" in metrics.value("Volume")
    assert_message(widget.status.value)
    assert "voxel size is not known" in widget.status.value
    (overlay,) = overlays(viewer)
    assert overlay.name == f"{NAME} tumour vs ground truth"
    np.testing.assert_array_equal(overlay.data, core.overlay(prediction.data, truth.data))
    assert notices == []


def test_overlay_has_the_layers_grid_and_hides_them(viewer, predicted, dock_compare, compare):
    prediction, truth = predicted()
    for layer in (prediction, truth):
        layer.scale, layer.translate, layer.units = (5, 0.9, 0.9), (10, 2, 3), ("mm",) * 3
    viewer.layers.selection.active = truth
    widget = dock_compare()
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
    overlay.visible = True  # like a click on its eye in the layer list
    assert widget.results.show_overlay.value
    assert not prediction.visible
    viewer.layers.remove(overlay)
    assert prediction.visible
    assert not widget.results.show_overlay.enabled


def test_one_overlay_for_each_pair(viewer, predicted, dock_compare, compare, add_labels):
    prediction, truth = predicted()
    widget = dock_compare()
    compare(widget)
    compare(widget)
    (first,) = overlays(viewer)
    viewer.window.remove_dock_widget(widget.native)
    widget = dock_compare()
    compare(widget)
    assert overlays(viewer) == [first]
    add_labels(np.roll(truth.data, 3, 1), "second", NAME)
    assert chosen(widget) == ("second", "ground truth")
    compare(widget)
    assert len(overlays(viewer)) == 2
    assert not first.visible
    assert not prediction.visible
    widget.results.show_overlay.value = False
    assert prediction.visible
    viewer.layers.remove(prediction)
    compare(widget)
    (left,) = overlays(viewer)
    assert left.name == "second vs ground truth"


def test_volumes_and_distances_use_the_voxel_size_if_known(viewer, predicted, dock_compare, compare):
    prediction, truth = predicted()
    prediction.scale, prediction.units = (5, 0.5, 0.5), ("mm",) * 3
    widget = dock_compare()
    compare(widget)
    agreement = core.compare(prediction.data, truth.data, (5, 0.5, 0.5))
    assert widget.results.metrics.value("HD95") == f"{agreement.hd95:.1f} mm"
    assert f"{agreement.true_voxels * 1.25 / 1000:.1f} ml" in widget.results.metrics.value("True volume")
    assert "5 x 0.5 x 0.5 mm" in widget.status.value.replace("\N{NO-BREAK SPACE}", " ")


def test_worst_slice_and_slices_of_the_plot(viewer, predicted, dock_compare, compare):
    prediction, _ = predicted()
    prediction.data[3] = 0
    widget = dock_compare()
    compare(widget)
    viewer.dims.set_current_step(0, 0)
    widget.results.worst.native.click()
    assert viewer.dims.current_step[0] == 3
    plot = widget.results.plot
    assert plot.index_at(1.2) == 0
    assert plot.index_at(99) == 5
    plot.chosen.emit(2)
    assert viewer.dims.current_step[0] == 2


def test_click_in_the_plot_goes_to_the_slice(viewer, predicted, dock_compare, compare, qtbot):
    from qtpy.QtCore import QPointF, Qt

    predicted()
    widget = dock_compare()
    compare(widget)
    plot = widget.results.plot
    plot.resize(300, 150)
    box = plot.getPlotItem().getViewBox()
    place = plot.mapFromScene(box.mapViewToScene(QPointF(5, 0.5)))
    viewer.dims.set_current_step(0, 0)
    qtbot.mouseClick(plot.viewport(), Qt.MouseButton.LeftButton, pos=place)
    assert viewer.dims.current_step[0] == 4


def test_summary_of_a_slice():
    assert messages.slice_summary(7, None, (0, 0, 0)) == "Slice 7: no tumour in either"
    assert messages.slice_summary(7, 0.0, (0, 0, 1200)).endswith(
        "all 1,200 predicted voxels are false positive"
    )
    assert messages.slice_summary(7, 0.0, (0, 5, 0)).endswith("all 5 true voxels are missed")
    assert messages.slice_summary(7, 0.0, (0, 1, 0)).endswith("the only true voxel is missed")
    assert messages.slice_summary(7, 0.5, (5, 3, 7)) == (
        "Slice 7: Dice 0.50, 3 false-negative and 7 false-positive voxels"
    )


def test_slice_areas_are_in_square_centimetres():
    agreement = core.compare(np.ones((10, 10)), np.ones((10, 10)), (2, 2))
    (volume,) = [row.value for row in messages.wide_metrics(agreement) if row.name == "True volume"]
    assert volume == "4.0 cm\N{SUPERSCRIPT TWO}"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_plot_follows_the_theme(viewer, predicted, dock_compare, compare, theme):
    predicted()
    widget = dock_compare()
    compare(widget)
    viewer.theme = theme
    from napari.utils.theme import get_theme

    assert widget.results.plot.backgroundBrush().color().name() == get_theme(theme).background.as_hex()


def test_everything_but_the_plot_works_without_pyqtgraph(
    viewer, predicted, dock_compare, compare, monkeypatch
):
    monkeypatch.setitem(sys.modules, "pyqtgraph", None)
    monkeypatch.setattr("napari_lgg_seg.widgets.compare.results_panel.find_spec", lambda _: None)
    predicted()
    widget = dock_compare()
    compare(widget)
    assert widget.results.plot is None
    assert messages.NEEDS_PLOT in visible_text(widget)
    assert widget.results.metrics.value("Dice") != messages.NOTHING
    widget.results.worst.native.click()


# --- 2D, many labels, empty masks --------------------------------------------------------------


def test_single_slices_and_many_labels(viewer, dock_compare, compare, add_labels):
    rng = np.random.default_rng(0)
    masks = [rng.integers(0, 4, (20, 20)) for _ in range(2)]
    add_labels(masks[0], "mine")
    add_labels(masks[1], "yours")
    widget = dock_compare()
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
    [((0,), "The prediction is empty"), ((1,), "The reference is empty"), ((0, 1), "Both are empty")],
)
def test_conventions_for_empty_masks_are_shown(viewer, predicted, dock_compare, compare, empty, sentence):
    layers = predicted()
    for index in empty:
        layers[index].data = np.zeros_like(layers[index].data)
    widget = dock_compare()
    compare(widget)
    assert sentence in widget.status.value
    assert_message(widget.status.value)
    assert widget.results.metrics.value("HD95") == messages.NOTHING


# --- which layers ------------------------------------------------------------------------------


def test_message_says_what_is_missing(viewer, dock_compare, open_patient, add_labels):
    widget = dock_compare()
    assert widget.status.value == messages.NO_LABELS
    assert not widget.button.enabled
    widget.run()
    open_patient()
    assert widget.status.value == messages.ONE_LAYER
    assert not widget.button.enabled
    add_labels(viewer.layers["ground truth"].data, "mine")
    assert chosen(widget) == ("mine", "ground truth")
    assert widget.status.value == messages.READY
    assert widget.button.enabled
    viewer.layers.clear()
    assert widget.status.value == messages.NO_LABELS


def test_menus_follow_the_layers(viewer, predicted, dock_compare, add_labels):
    prediction, truth = predicted()
    widget = dock_compare()
    prediction.name = "renamed"
    assert chosen(widget) == ("renamed", "ground truth")
    assert {*names(menus(widget)[0])} == {"renamed", "ground truth"}
    newer = add_labels(truth.data, "newer", NAME)
    assert chosen(widget) == ("newer", "ground truth")
    viewer.layers.remove(newer)
    assert chosen(widget) == ("renamed", "ground truth")
    add_labels(truth.data, "unrelated")
    assert chosen(widget) == ("renamed", "ground truth")
    viewer.layers.remove(truth)
    assert chosen(widget) == ("renamed", "unrelated")


def test_a_prediction_is_paired_with_its_patients_ground_truth(viewer, predicted, dock_compare):
    first, _ = predicted()
    predicted(OTHER, f"{OTHER} ground truth")
    widget = dock_compare()
    assert chosen(widget) == (f"{OTHER} tumour", f"{OTHER} ground truth")
    menus(widget)[0].value = first
    assert chosen(widget) == (f"{NAME} tumour", "ground truth")


def test_what_the_user_chose_stays(viewer, predicted, dock_compare, add_labels):
    prediction, truth = predicted()
    mine = add_labels(truth.data, "mine")
    widget = dock_compare()
    menus(widget)[1].value = mine
    viewer.add_image(np.zeros((6, 64, 64)))
    add_labels(truth.data, "yours")
    assert chosen(widget) == (prediction.name, "mine")


def unlike(add_labels, truth, kind):
    """A labels layer that cannot be compared with the ground truth."""
    if kind == "shape":
        return add_labels(truth.data[:-1], "other slices")
    if kind == "patient":
        return add_labels(truth.data, "another patient's", OTHER)
    if kind == "dimensions":
        return add_labels(truth.data[None], "in time")
    truth.scale, truth.units = (5, 1, 1), ("mm",) * 3
    return add_labels(truth.data, "other voxels", NAME, scale=(3, 1, 1), units=("mm",) * 3)


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        ("shape", "other slices has 5 x 64 x 64 voxels but ground truth has 6 x 64 x 64"),
        ("patient", f"another patient's belongs to {OTHER} but ground truth belongs to {NAME}"),
        ("dimensions", "in time has 4 dimensions"),
        ("voxels", "other voxels has voxels of 3 x 1 x 1 mm but ground truth has voxels of 5 x 1 x 1 mm"),
    ],
)
@pytest.mark.filterwarnings("ignore:Inconsistent units")
def test_layers_that_cannot_be_compared_are_reported(
    viewer, open_patient, add_labels, dock_compare, kind, part
):
    open_patient()
    truth = viewer.layers["ground truth"]
    other = unlike(add_labels, truth, kind)
    widget = dock_compare()
    widget.layers.choose(other, truth)
    assert part in widget.status.value.replace("\N{NO-BREAK SPACE}", " ")
    assert_message(widget.status.value)
    assert not widget.button.enabled
    widget.layers.choose(truth, truth)
    assert "compared with itself" in widget.status.value


def test_metrics_are_hidden_when_other_layers_are_chosen(
    viewer, predicted, dock_compare, compare, add_labels
):
    _, truth = predicted()
    widget = dock_compare()
    compare(widget)
    assert widget.results.isVisibleTo(widget.native)
    menus(widget)[0].value = add_labels(truth.data, "mine")
    assert not widget.results.isVisibleTo(widget.native)
    assert widget.status.value == messages.READY


# --- changes after and during a comparison -----------------------------------------------------


def test_painting_updates_the_metrics(viewer, predicted, dock_compare, compare, wait_until):
    prediction, truth = predicted()
    widget = dock_compare()
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


def test_new_values_and_voxel_sizes_update_the_metrics(viewer, predicted, dock_compare, compare, wait_until):
    prediction, truth = predicted()
    widget = dock_compare()
    compare(widget)
    prediction.data = truth.data.copy()
    wait_until(lambda: widget.results.metrics.value("Dice") == "1.000")
    for layer in (prediction, truth):
        layer.scale, layer.units = (5, 1, 1), ("mm",) * 3
    wait_until(lambda: widget.results.metrics.value("HD95") == "0.0 mm")


def test_changing_the_slice_computes_nothing(viewer, predicted, dock_compare, compare, qtbot, monkeypatch):
    predicted()
    widget = dock_compare()
    compare(widget)
    qtbot.wait(1000)
    runs = []
    monkeypatch.setattr("napari_lgg_seg.widgets.compare.widget.create_worker", lambda *a, **k: runs.append(a))
    for step in (0, 3, 5):
        viewer.dims.set_current_step(0, step)
    qtbot.wait(1000)
    assert runs == []


def test_removed_overlay_stays_removed_until_compare(viewer, predicted, dock_compare, compare, wait_until):
    prediction, _ = predicted()
    widget = dock_compare()
    compare(widget)
    viewer.layers.remove(overlays(viewer)[0])
    prediction.fill((3, 0, 0), 1)
    wait_until(lambda: widget.status.value not in (messages.STALE, messages.COMPARING))
    assert overlays(viewer) == []
    compare(widget)
    assert len(overlays(viewer)) == 1


def test_values_of_another_shape_are_reported(viewer, predicted, dock_compare, compare, wait_until):
    prediction, _ = predicted()
    widget = dock_compare()
    compare(widget)
    prediction.data = np.zeros((4, 64, 64), np.uint8)
    wait_until(lambda: "4 x 64 x 64" in widget.status.value)
    assert_message(widget.status.value)
    assert not widget.results.isVisibleTo(widget.native)


def test_cancel_leaves_layers_as_they_were(viewer, predicted, dock_compare, click, during_comparison):
    predicted()
    widget = dock_compare()
    before = len(viewer.layers)
    during_comparison(widget, lambda: click(widget, "Cancel"))
    assert widget.status.value == messages.CANCELLED
    assert widget.button.text == "Compare"
    assert len(viewer.layers) == before
    assert not widget.results.isVisibleTo(widget.native)


def test_layer_removed_during_a_comparison(viewer, predicted, dock_compare, during_comparison):
    prediction, _ = predicted()
    widget = dock_compare()
    during_comparison(widget, lambda: viewer.layers.remove(prediction))
    assert overlays(viewer) == []
    assert widget.status.value == messages.ONE_LAYER


def test_all_layers_removed_during_a_comparison(viewer, predicted, dock_compare, during_comparison):
    predicted()
    widget = dock_compare()
    during_comparison(widget, viewer.layers.clear)
    assert widget.status.value == messages.NO_LABELS
    assert len(viewer.layers) == 0


def test_slices_removed_during_a_comparison(viewer, predicted, dock_compare, during_comparison, wait_until):
    layers = predicted()
    widget = dock_compare()

    def remove_two_slices():
        for layer in layers:
            layer.data = layer.data[:4]

    during_comparison(widget, remove_two_slices)
    wait_until(lambda: widget.status.value == messages.GONE)
    assert overlays(viewer) == []


def test_painting_during_a_comparison_updates_the_metrics(
    viewer, predicted, dock_compare, during_comparison, wait_until
):
    prediction, truth = predicted()
    widget = dock_compare()
    during_comparison(widget, lambda: prediction.fill((3, 0, 0), 1))
    expected = f"{core.compare(prediction.data, truth.data).dice:.3f}"
    wait_until(lambda: widget.results.metrics.value("Dice") == expected)


def test_dock_closed_during_a_comparison(viewer, predicted, dock_compare, during_comparison, wait_until):
    predicted()
    widget = dock_compare()
    during_comparison(widget, lambda: viewer.window.remove_dock_widget(widget.native))
    assert overlays(viewer) == []
    assert widget.status.value == messages.CANCELLED


def test_closed_dock_ignores_painting(viewer, predicted, dock_compare, compare, qtbot):
    prediction, _ = predicted()
    widget = dock_compare()
    compare(widget)
    before = widget.results.metrics.value("Dice")
    viewer.window.remove_dock_widget(widget.native)
    prediction.fill((3, 0, 0), 1)
    qtbot.wait(1500)
    assert widget.results.metrics.value("Dice") == before


def test_viewer_closed_during_a_comparison(viewer, predicted, dock_compare, during_comparison, notices):
    predicted()
    widget = dock_compare()
    during_comparison(widget, viewer.close)
    assert notices == []


def test_lack_of_memory_is_reported(viewer, predicted, dock_compare, compare, monkeypatch):
    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr(comparison, "compare", fail)
    predicted()
    widget = dock_compare()
    compare(widget)
    assert "not enough memory" in widget.status.value


# --- the overlay and other widgets -------------------------------------------------------------


def test_overlay_is_never_used_as_labels(viewer, predicted, dock_compare, compare):
    prediction, truth = predicted()
    widget = dock_compare()
    compare(widget)
    (overlay,) = overlays(viewer)
    assert {*names(menus(widget)[0])} == {prediction.name, truth.name}
    viewer.layers.selection.active = overlay
    assert labels_to_export(viewer) == prediction
    (row,) = labelled_patients(viewer.layers)
    assert overlay not in row.labels
    assert overlay.metadata["lgg"].items() >= {"patient": NAME, "role": "comparison"}.items()


def test_comparing_foreign_labels_creates_no_patient(viewer, dock_compare, compare, add_labels):
    for name in ("mine", "yours"):
        add_labels(np.ones((4, 9, 9), int), name)
    compare(dock_compare())
    assert all("lgg" not in layer.metadata for layer in viewer.layers)


def test_two_ground_truths_can_be_compared(viewer, open_patient, add_labels, dock_compare):
    open_patient()
    add_labels(viewer.layers["ground truth"].data, "second reader", NAME, TRUTH)
    assert chosen(dock_compare()) == ("second reader", "ground truth")
