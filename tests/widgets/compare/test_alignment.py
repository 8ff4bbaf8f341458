"""The Compare widget on layers that do not lie on each other, or show other slices."""

from __future__ import annotations

import numpy as np
import pytest
from window import assert_message

pytest.importorskip("pyqtgraph")

from napari.layers import Labels

from napari_lgg_seg.core.evaluation import compare as core
from napari_lgg_seg.widgets.compare import messages
from napari_lgg_seg.widgets.compare.pair import LayerPair, check_pair

NAME, OTHER = "TCGA_DU_0001_19990101", "TCGA_HT_0002_20000202"
MM = ("mm",) * 3
SHAPE = (5, 12, 9)

pytestmark = [
    pytest.mark.filterwarnings("error:Private attribute access:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Non-orthogonal slicing"),
    pytest.mark.filterwarnings("ignore:Inconsistent units"),
]


def said(widget):
    return widget.status.value.replace("\N{NO-BREAK SPACE}", " ")


@pytest.fixture
def masks():
    """A prediction and a reference without any symmetry."""
    rng = np.random.default_rng(1)
    true = np.zeros(SHAPE, np.uint8)
    true[1:4, 2:9, 1:6] = 1
    predicted = true.copy()
    predicted[rng.random(SHAPE) < 0.1] = 1
    predicted[3, 4:, :] = 0
    return predicted, true


@pytest.fixture
def compared(viewer, add_labels, masks, dock_compare, compare):
    """Factory: compare the two masks as layers with these properties; returns the widget and the layers."""

    def compared_(prediction, reference, change=lambda mask: mask, **head):
        true = add_labels(masks[1], "reference", **head, **reference)
        predicted = add_labels(change(masks[0]), "prediction", **head, **prediction)
        widget = dock_compare()
        widget.layers.choose(predicted, true)
        if widget.button.enabled:
            compare(widget)
        return widget, predicted, true

    return compared_


def assert_right(widget, masks, spacing=None):
    expected = core.compare(*masks, spacing)
    assert widget.results.metrics.value("Dice") == f"{expected.dice:.3f}"
    assert widget.results.metrics.value("HD95").split()[0] == f"{expected.hd95:.1f}"


def refused(widget):
    assert_message(widget.status.value)
    assert not widget.button.enabled
    assert not widget.results.isVisibleTo(widget.native)
    return said(widget)


def overlay_of(viewer):
    (layer,) = [layer for layer in viewer.layers if "lgg comparison" in layer.metadata]
    return layer


# --- the same place ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "part"),
    [
        ({"translate": (0, 3, 0)}, "prediction is shifted by 0 x 3 x 0 pixels against reference"),
        ({"translate": (0, 0.5, 0)}, "is shifted by 0 x 0.5 x 0 pixels"),
        ({"translate": (1, 0, 0)}, "is shifted by 1 x 0 x 0 pixels"),
        (
            {"scale": (2, 1, 1)},
            "prediction has voxels of 2 x 1 x 1 pixels but reference has voxels of 1 x 1 x 1",
        ),
        ({"rotate": (0, 0, 20)}, "prediction is rotated or sheared against reference"),
        ({"shear": (0.2, 0, 0)}, "prediction"),
        ({"affine": np.diag([1, -1, 1, 1])}, "is shifted by"),
        (
            {"scale": (5, 1, 1), "units": MM},
            "voxels of 5 x 1 x 1 mm but reference has voxels of 1 x 1 x 1 pixels",
        ),
    ],
)
@pytest.mark.parametrize("swapped", [False, True])
def test_layers_in_other_places_are_refused(compared, place, part, swapped):
    widget, predicted, true = compared(place, {})
    text = refused(widget)
    assert part in text
    if swapped:
        widget.layers.choose(true, predicted)
        refused(widget)


@pytest.mark.parametrize("kind", ["scale and translate", "affine", "half in each"])
def test_equal_places_are_recognised_however_they_are_written(compared, masks, kind):
    matrix, shift = np.diag([5, 0.9, 0.9, 1.0]), np.eye(4)
    matrix[:3, 3] = shift[:3, 3] = 10, -20, 30
    ways = {
        "scale and translate": {"scale": (5, 0.9, 0.9), "translate": (10, -20, 30)},
        "affine": {"affine": matrix},
        "half in each": {
            "scale": (5, 0.9, 0.9),
            "affine": np.block([[np.eye(3), matrix[:3, 3:]], [0, 0, 0, 1]]),
        },
    }
    widget, *_ = compared({**ways[kind], "units": MM}, {**ways["scale and translate"], "units": MM})
    assert_right(widget, masks, (5, 0.9, 0.9))
    assert "the voxel size is 5 x 0.9 x 0.9 mm" in said(widget)


def test_other_units_of_length_are_the_same_place(compared, masks):
    in_um = {"scale": (5000, 900, 900), "translate": (2000, 0, 0), "units": ("um",) * 3}
    widget, *_ = compared(in_um, {"scale": (5, 0.9, 0.9), "translate": (2, 0, 0), "units": MM})
    assert_right(widget, masks, (5, 0.9, 0.9))


def test_rounding_of_a_files_affine_is_no_difference(compared, masks):
    size = np.float32(0.9375)
    widget, *_ = compared({"scale": (5, size + 1e-6, size)}, {"scale": (5, 0.9375, 0.9375)})
    assert_right(widget, masks, (5 / 0.9375, 1, 1))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_reversed_copies_are_compared_voxel_by_voxel(compared, masks, axis, viewer):
    sizes = np.array([5, 0.9, 0.8])
    flip = np.eye(4)
    flip[axis, axis] = -1
    flip[axis, 3] = (SHAPE[axis] - 1) * sizes[axis]
    scale = {"scale": sizes, "units": MM}
    widget, _, true = compared({**scale, "affine": flip}, scale, lambda mask: np.flip(mask, axis))
    assert_right(widget, masks, tuple(sizes))
    np.testing.assert_array_equal(overlay_of(viewer).data, core.overlay(*masks))
    assert overlay_of(viewer).data_to_world((1, 2, 3)) == true.data_to_world((1, 2, 3))


@pytest.mark.parametrize("axes", [(0, 2, 1), (2, 1, 0), (1, 2, 0), (2, 0, 1)])
def test_copies_with_other_axes_are_compared_voxel_by_voxel(masks, axes):
    """Without a viewer: napari cannot show layers whose first axis lies in the slice."""
    sizes, matrix = np.array([5, 0.9, 0.8]), np.eye(4)
    matrix[:3, :3] = np.eye(3)[:, axes]
    turned = {"scale": sizes[list(axes)], "affine": matrix, "units": MM}
    prediction = Labels(masks[0].transpose(axes), **turned)
    alignment = check_pair(LayerPair(prediction, Labels(masks[1], scale=sizes, units=MM)))
    aligned = alignment.apply(prediction.data, masks[1])
    np.testing.assert_array_equal(aligned, masks)
    assert alignment.spacing == pytest.approx(tuple(sizes))


def test_comparison_is_where_the_reference_is(compared, viewer, wait_until):
    place = {
        "scale": (5, 0.9, 0.8),
        "translate": (1, 2, 3),
        "rotate": (10, 20, 30),
        "affine": np.block([[2 * np.eye(3), np.ones((3, 1))], [0, 0, 0, 1]]),
        "units": MM,
    }
    _, predicted, true = compared(place, place)
    for voxel in ((0, 0, 0), (4, 11, 8)):
        assert overlay_of(viewer).data_to_world(voxel) == pytest.approx(true.data_to_world(voxel))
    for layer in (true, predicted):
        layer.translate = (7, 8, 9)
    wait_until(
        lambda: overlay_of(viewer).data_to_world((0, 0, 0)) == pytest.approx(true.data_to_world((0, 0, 0)))
    )


def test_a_layer_that_is_moved_is_no_longer_compared(compared, masks, wait_until):
    widget, predicted, _ = compared({}, {})
    assert_right(widget, masks)
    predicted.translate = (0, 2, 0)
    wait_until(lambda: "is shifted by 0 x 2 x 0 pixels" in said(widget))
    assert not widget.results.isVisibleTo(widget.native)


def test_a_layer_that_is_moved_during_a_comparison(
    viewer, predicted, dock_compare, during_comparison, wait_until
):
    _, truth = predicted()
    widget = dock_compare()
    during_comparison(widget, lambda: setattr(truth, "translate", (0, 2, 0)))
    wait_until(lambda: widget._worker is None and not widget._update_timer.isActive())
    assert not widget.results.isVisibleTo(widget.native)
    assert_message(widget.status.value)


def test_pixels_of_another_depth_are_taken_into_account(compared, masks):
    widget, *_ = compared({"scale": (3, 1, 1)}, {"scale": (3, 1, 1)})
    assert_right(widget, masks, (3, 1, 1))
    assert widget.results.metrics.value("HD95").endswith("px")
    assert "voxels of 3 x 1 x 1 pixels" in said(widget)
    assert "voxels" in widget.results.metrics.value("Volume")


@pytest.mark.parametrize("shape", ["prediction", "reference", "both"])
def test_the_finest_level_is_compared(viewer, masks, dock_compare, compare, shape):
    """Of layers with several levels of resolution."""
    layers = []
    for mask, name in zip(masks, ("prediction", "reference"), strict=True):
        levels = [mask, mask[:, ::2, ::2]] if shape in (name, "both") else mask
        layers.append(viewer.add_labels(levels, name=name, multiscale=isinstance(levels, list)))
    widget = dock_compare()
    widget.layers.choose(*layers)
    compare(widget)
    assert_right(widget, masks)
    np.testing.assert_array_equal(overlay_of(viewer).data, core.overlay(*masks))


def test_lazy_arrays_are_compared(viewer, masks, dock_compare, compare, tmp_path):
    dask = pytest.importorskip("dask.array")
    layers = [viewer.add_labels(dask.from_array(mask), name=str(i)) for i, mask in enumerate(masks)]
    widget = dock_compare()
    widget.layers.choose(*layers)
    compare(widget)
    assert_right(widget, masks)


def test_the_comparison_follows_the_layers_names(compared, viewer, wait_until):
    widget, predicted, _ = compared({}, {})
    assert overlay_of(viewer).name == "prediction vs reference"
    predicted.name = "second model"
    assert overlay_of(viewer).name == "second model vs reference"
    wait_until(lambda: widget.status.value != messages.STALE)
    overlay_of(viewer).name = "mine"
    predicted.name = "third model"
    assert overlay_of(viewer).name == "mine"


# --- the same slices ---------------------------------------------------------------------------


def numbered(add_labels, mask, name, numbers, **place):
    return add_labels(mask, name, NAME, numbers=numbers, **place)


@pytest.mark.parametrize("z", [0, 1])
def test_slices_are_matched_by_their_numbers(viewer, masks, add_labels, dock_compare, compare, z):
    """Also where the layer was moved to where its first slice is."""
    predicted, true = masks
    reference = numbered(add_labels, true[:4], "reference", [1, 2, 3, 4])
    prediction = numbered(add_labels, predicted[1:], "prediction", [2, 3, 4, 5], translate=(z, 0, 0))
    widget = dock_compare()
    widget.layers.choose(prediction, reference)
    compare(widget)
    common = predicted[1:4], true[1:4]
    assert_right(widget, common)
    assert (
        "Only slices 2 to 4 are compared: slice 5 only in prediction and slice 1 only in reference."
        in said(widget)
    )
    expected = np.zeros_like(true[:4])
    expected[1:4] = core.overlay(*common)
    np.testing.assert_array_equal(overlay_of(viewer).data, expected)
    worst = core.compare(*common, slice_numbers=(2, 3, 4)).worst_slice
    widget.go_to_worst()
    assert viewer.dims.point[0] == worst - 1


@pytest.mark.parametrize(
    ("numbers", "place", "part"),
    [
        ((6, 7, 8, 9, 10), {}, "prediction shows slices 6 to 10 but reference shows slices 1 to 5"),
        ((1, 2, 4, 5, 6), {}, "slices follow each other in both"),
        ((2, 1, 3, 4, 5), {}, "slices follow each other in both"),
        ((2, 3, 4, 5, 6), {"translate": (3, 0, 0)}, "contradict their positions"),
        ((2, 3, 4, 5, 6), {"translate": (0, 3, 0)}, "is shifted by 0 x 3 x 0 pixels"),
        ((1, 2, 3, 4, 5), {"translate": (1, 0, 0)}, "is shifted by 1 x 0 x 0 pixels"),
        ((1, 2, 3, 4, 5), {"affine": np.diag([-1, 1, 1, 1]), "translate": (-4, 0, 0)}, "contradict"),
    ],
)
def test_slices_that_cannot_be_matched_are_refused(masks, add_labels, dock_compare, numbers, place, part):
    reference = numbered(add_labels, masks[1], "reference", [1, 2, 3, 4, 5])
    prediction = numbered(add_labels, masks[0], "prediction", numbers, **place)
    widget = dock_compare()
    widget.layers.choose(prediction, reference)
    assert part in refused(widget)


def test_slices_in_reverse_order_are_matched_by_place_and_number(masks, add_labels, dock_compare, compare):
    reference = numbered(add_labels, masks[1], "reference", [3, 4, 5, 6, 7])
    place = {"affine": np.diag([-1, 1, 1, 1]), "translate": (-4, 0, 0)}
    prediction = numbered(add_labels, masks[0][::-1], "prediction", [7, 6, 5, 4, 3], **place)
    widget = dock_compare()
    widget.layers.choose(prediction, reference)
    compare(widget)
    assert_right(widget, masks)


def test_layers_of_two_patients_are_refused(masks, add_labels, dock_compare):
    reference = add_labels(masks[1], "reference", NAME)
    prediction = add_labels(masks[0], "prediction", OTHER)
    widget = dock_compare()
    widget.layers.choose(prediction, reference)
    assert f"prediction belongs to {OTHER} but reference belongs to {NAME}" in refused(widget)


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ([4], "slice 4"),
        ([4, 5], "slices 4 and 5"),
        ([4, 5, 6], "slices 4 to 6"),
        ([1, 4, 5, 6, 9], "slices 1, 4 to 6 and 9"),
        ([1, 3, 5, 7, 9, 11], "slices 1, 3, 5, 7 and others"),
    ],
)
def test_slices_are_named_by_their_numbers(numbers, text):
    assert messages.slices(numbers) == text
