"""Changes of layers and viewer while the network runs: the result fits, or nothing is added."""

from __future__ import annotations

import numpy as np
import pytest
from flair_model import write_flair_model
from qtpy.QtWidgets import QShortcut

NAME = "TCGA_DU_0001_19990101"

pytestmark = pytest.mark.filterwarnings("error:Private attribute access:FutureWarning")


@pytest.fixture
def during(viewer, open_patient, dock, click, gate, wait_until):
    """Factory: do something in the middle of a run, then let it finish; returns the widget."""
    open_patient()
    widget = dock()

    def during_(act):
        click(widget, "Segment")
        wait_until(gate.reached.is_set)
        act()
        gate.open()
        wait_until(lambda: widget.button.text == "Segment")
        return widget

    return during_


def rename(viewer):
    for layer in viewer.layers:
        layer.name = f"my {layer.name}"


def reorder(viewer):
    viewer.layers.reverse()


def transpose(viewer):
    viewer.dims.transpose()


def show_in_3d(viewer):
    viewer.dims.ndisplay = 3


def move(viewer):
    for layer in viewer.layers:
        layer.translate = (3, 4, 5)


@pytest.mark.parametrize("act", [rename, reorder, transpose, show_in_3d, move])
def test_result_fits_nevertheless(viewer, during, act):
    during(lambda: act(viewer))
    tumour = viewer.layers[f"{NAME} tumour"]
    (flair,) = [layer for layer in viewer.layers if layer.metadata["lgg"]["role"] == "FLAIR"]
    assert tumour.data.any()
    assert tumour.data.shape == flair.data.shape
    np.testing.assert_array_equal(tumour.translate, flair.translate)


def test_nothing_is_added_to_an_image_whose_data_were_replaced(viewer, during):
    def change():
        viewer.layers["FLAIR"].data = np.zeros((2, 10, 10), np.uint8)

    widget = during(change)
    assert f"{NAME} tumour" not in viewer.layers
    assert f"{NAME} probability" not in viewer.layers
    assert "nothing was added" in widget.status.value
    assert widget.status.value.endswith(".")


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize("sequence", ["FLAIR", "post-contrast"])
def test_nothing_is_added_to_images_with_other_values(viewer, during, sequence, in_place):
    def change():
        layer = viewer.layers[sequence]
        if in_place:
            layer.data[2] = 0
            layer.refresh()
        else:
            layer.data = np.zeros_like(layer.data)

    widget = during(change)
    assert f"{NAME} tumour" not in viewer.layers
    assert "changed during the run" in widget.status.value
    assert "segment again" in widget.status.value


def test_the_result_has_model_and_options_of_the_click(viewer, during, open_patient, tmp_path):
    other = write_flair_model(tmp_path / "other.safetensors", threshold=0.95, clean_up="largest")

    def change():
        docked(viewer).offer_model(other)
        docked(viewer).controls.fill_holes.value = True

    widget = during(change)
    tumour, probability = viewer.layers[f"{NAME} tumour"], viewer.layers[f"{NAME} probability"]
    np.testing.assert_array_equal(tumour.data, probability.data >= 0.5)
    made_with = tumour.metadata["lgg"]["made_with"]
    assert made_with["model"] == "bright FLAIR"
    assert made_with["options"]["threshold"] == 0.5
    assert made_with["options"]["clean_up"] == "off"
    assert made_with["options"]["fill_holes"] is False
    assert "controls have changed" in widget._remark
    # Only what the user changes applies to the other model's probability.
    widget.controls.threshold.value = 0.6
    made_with = tumour.metadata["lgg"]["made_with"]
    assert made_with["model"] == "bright FLAIR"
    assert made_with["options"]["threshold"] == pytest.approx(0.6)
    assert made_with["options"]["clean_up"] == "off"
    assert "still the probabilities of bright FLAIR" in widget._remark


def docked(viewer):
    """The Segment widget that is docked in a viewer."""
    (widget,) = [w for w in viewer.window.dock_widgets.values() if hasattr(w, "offer_model")]
    return widget


def test_a_second_click_cancels(viewer, during):
    before = [layer.name for layer in viewer.layers]

    def click_again():
        (button,) = [b for b in buttons() if b.text() == "Cancel"]
        button.click()

    widget = during(click_again)
    assert [layer.name for layer in viewer.layers] == before
    assert widget.status.value == "Cancelled."


def test_keys_start_a_run_and_step_through_slices(viewer, open_patient, dock, wait_until):
    open_patient()
    widget = dock()
    keys = {s.key().toString(): s.activated for s in widget.native.findChildren(QShortcut)}
    keys["Ctrl+Alt+G"].emit()
    wait_until(lambda: f"{NAME} tumour" in viewer.layers and widget.button.text == "Segment")
    slices = np.flatnonzero(viewer.layers[f"{NAME} tumour"].data.any(axis=(1, 2)))
    viewer.dims.set_point(0, slices[0])
    keys["Ctrl+Alt+N"].emit()
    assert viewer.dims.current_step[0] == slices[1]
    keys["Ctrl+Alt+B"].emit()
    assert viewer.dims.current_step[0] == slices[0]


def buttons():
    from qtpy.QtWidgets import QApplication, QPushButton

    return [b for b in QApplication.instance().allWidgets() if isinstance(b, QPushButton)]
