"""What goes wrong in a run: failing networks, layers and windows that disappear."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from qtpy.QtCore import QEvent
from qtpy.QtWidgets import QApplication
from window import assert_message, assert_same, contents, layer_names, raising, threads_done

from napari_lgg_seg.core import devices, memory
from napari_lgg_seg.core.model.networks import UNet

NAME = "TCGA_DU_0001_19990101"

pytestmark = pytest.mark.filterwarnings("error:Private attribute access:FutureWarning")


def test_failing_network_is_reported_and_the_widget_stays_usable(
    viewer, open_patient, dock, run, monkeypatch, notices
):
    open_patient()
    widget = dock()
    before = contents(viewer)
    for error, part in (
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied\nsecond line"), "mat1 and mat2"),
        (RuntimeError(""), "RuntimeError"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "not enough memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "not enough memory"),
        (MemoryError(), "not enough memory"),
    ):
        with monkeypatch.context() as broken:
            broken.setattr(UNet, "forward", raising(error))
            run(widget)
        assert_message(widget.status.value)
        assert part in widget.status.value
        assert widget.button.enabled
        assert widget.progress.native.isHidden()
        assert_same(before, contents(viewer))
    assert notices == []
    run(widget)
    assert f"{NAME} tumour" in layer_names(viewer)


@pytest.mark.parametrize("where", ["model.checkpoint.load_model", "memory.free_memory"])
def test_failure_outside_the_network_is_reported(viewer, open_patient, dock, run, monkeypatch, where):
    open_patient()
    widget = dock()
    for error, part in (
        (RuntimeError("no kernel image\nsecond line"), "no kernel image"),
        (RuntimeError(), "RuntimeError"),
        (MemoryError(), "not enough memory"),
    ):
        with monkeypatch.context() as broken:
            broken.setattr(f"napari_lgg_seg.core.{where}", raising(error))
            run(widget)
        assert_message(widget.status.value)
        assert part in widget.status.value
    run(widget)
    assert f"{NAME} tumour" in layer_names(viewer)


def test_smaller_batches_are_reported_and_give_the_same_result(viewer, open_patient, dock, run, monkeypatch):
    open_patient(shape=(12, 64, 64))
    widget = dock()
    widget.controls.batch_size.value = 8
    run(widget)
    expected = viewer.layers[f"{NAME} tumour"].data.copy()
    forward = UNet.forward

    def short_of_memory(network, slices):
        if len(slices) > 2:
            raise RuntimeError("CUDA out of memory")
        return forward(network, slices)

    monkeypatch.setattr(UNet, "forward", short_of_memory)
    run(widget)
    assert "2 instead of 4 slices" in widget.status.value
    assert "Tumour" in widget.status.value
    np.testing.assert_array_equal(viewer.layers[f"{NAME} tumour"].data, expected)


def test_unexpected_exception_is_reported(viewer, open_patient, dock, run, monkeypatch, qtbot):
    open_patient()
    widget = dock()
    with monkeypatch.context() as broken, qtbot.captureExceptions():
        broken.setattr(memory, "free_memory", lambda _: 1 / 0)
        run(widget)
    assert "division by zero" in widget.status.value
    run(widget)
    assert f"{NAME} tumour" in layer_names(viewer)


# --- closed in the middle ----------------------------------------------------------------------


@pytest.mark.parametrize("what", ["all", "FLAIR"])
def test_layers_removed_during_the_run(viewer, open_patient, dock, click, gate, wait_until, what):
    open_patient()
    widget = dock()
    click(widget, "Segment")
    wait_until(gate.reached.is_set)
    if what == "all":
        viewer.layers.clear()
    else:
        viewer.layers.remove(what)
    left = contents(viewer)
    gate.open()
    wait_until(lambda: widget.button.text == "Segment")
    assert_same(left, contents(viewer))
    assert_message(widget.status.value)
    assert "nothing was added" in widget.status.value


def undock(viewer, widget):
    """Like a click on the dock's x: napari keeps the widget alive."""
    viewer.window.remove_dock_widget(widget.native)


def delete(viewer, widget):
    """Like Qt when the window of a widget is destroyed."""
    undock(viewer, widget)
    widget.native.deleteLater()
    QApplication.sendPostedEvents(widget.native, QEvent.Type.DeferredDelete)


def close_viewer(viewer, widget):
    viewer.close()


@pytest.mark.parametrize("close", [undock, delete, close_viewer])
def test_closed_during_the_run(viewer, open_patient, dock, click, gate, wait_until, notices, close):
    open_patient()
    widget = dock()
    before = set(layer_names(viewer))
    click(widget, "Segment")
    wait_until(gate.reached.is_set)
    close(viewer, widget)
    QApplication.processEvents()
    gate.open()
    wait_until(threads_done)
    QApplication.processEvents()
    assert set(layer_names(viewer)) <= before
    assert notices == []


@pytest.mark.parametrize("close", [undock, delete, close_viewer])
def test_closed_while_devices_are_being_found(viewer, dock, wait_until, monkeypatch, notices, close):
    resume = threading.Event()

    def find_devices():
        assert resume.wait(60)
        return ("cpu",)

    monkeypatch.setattr(devices, "available_devices", find_devices)
    widget = dock()
    close(viewer, widget)
    QApplication.processEvents()
    resume.set()
    wait_until(threads_done)
    QApplication.processEvents()
    assert notices == []


def test_widget_docked_again_finds_the_patient(viewer, open_patient, dock, run):
    open_patient()
    undock(viewer, dock())
    run(dock())
    assert f"{NAME} tumour" in layer_names(viewer)


@pytest.mark.parametrize("close", [undock, delete])
def test_layers_may_come_and_go_after_the_widget_was_closed(viewer, open_patient, dock, close, notices):
    widget = dock()
    close(viewer, widget)
    open_patient()
    viewer.layers.clear()
    assert notices == []
