"""The menus of models, devices and engines."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from qtpy.QtWidgets import QFileDialog
from window import assert_message, layer_names, raising

from napari_lgg_seg.core import devices
from napari_lgg_seg.core.evaluation.metrics import dice
from napari_lgg_seg.core.model.checkpoint import DEFAULT_MODEL

NAME = "TCGA_DU_0001_19990101"

pytestmark = pytest.mark.filterwarnings("error:Private attribute access:FutureWarning")


def write_text(path):
    path.write_text("not a model")


def write_nothing(path):
    path.write_bytes(b"")


def write_other_network(path):
    import torch
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(2)}, path)


def write_folder(path):
    path.mkdir()


def test_files_that_are_not_models_are_refused_with_a_message(viewer, dock, small_model, tmp_path):
    widget = dock()
    for write in (None, write_text, write_nothing, write_other_network, write_folder):
        file = tmp_path / f"{write and write.__name__}.safetensors"
        if write is not None:
            write(file)
        widget.offer_model(file)
        assert_message(widget.status.value)
        assert str(file) in widget.status.value
        assert widget.model.value == small_model
        assert file not in widget.model.choices


def test_shipped_model_is_the_default(viewer):
    _, widget = viewer.window.add_plugin_dock_widget("napari-lgg-seg", "Segment")
    assert widget.model.value == DEFAULT_MODEL
    assert "Research use only" in widget.model.tooltip


def test_model_is_chosen_through_a_dialog(viewer, dock, small_model, generous_model, monkeypatch):
    widget = dock()
    answers = [("", ""), (str(generous_model), "")]
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_, **__: answers.pop(0))
    combo = widget.model.native
    entry = combo.findText("Choose a model file...")
    combo.setCurrentIndex(entry)  # cancelled
    assert widget.model.value == small_model
    combo.setCurrentIndex(entry)
    assert widget.model.value == generous_model
    assert answers == []


def test_model_offered_twice_is_listed_once(viewer, dock, generous_model):
    widget = dock()
    widget.offer_model(generous_model)
    count = len(widget.model.choices)
    widget.offer_model(generous_model)
    assert len(widget.model.choices) == count


def test_missing_model_file_is_reported(viewer, open_patient, dock, run, generous_model):
    open_patient()
    widget = dock()
    widget.offer_model(generous_model)
    generous_model.unlink()
    run(widget)
    assert_message(widget.status.value)
    assert str(generous_model) in widget.status.value
    assert f"{NAME} tumour" not in layer_names(viewer)


def test_damaged_weights_are_reported(viewer, open_patient, dock, run, small_model, generous_model):
    open_patient()
    widget = dock()
    whole = generous_model.read_bytes()
    generous_model.write_bytes(whole[:-1000])
    widget.offer_model(generous_model)
    assert_message(widget.status.value)
    assert str(generous_model) in widget.status.value
    assert widget.model.value == small_model
    generous_model.write_bytes(whole)
    widget.offer_model(generous_model)
    generous_model.write_bytes(whole[:-1000])  # after it was chosen
    run(widget)
    assert_message(widget.status.value)
    assert str(generous_model) in widget.status.value


def test_only_present_devices_are_offered(viewer, dock, wait_until):
    widget = dock()
    wait_until(lambda: len(widget.device.choices) > 1)
    assert widget.device.choices == ("auto", *devices.available_devices())
    assert widget.device.value == "auto"


def test_auto_shows_the_device_it_picks(viewer, dock, wait_until, monkeypatch):
    monkeypatch.setattr(devices, "available_devices", lambda: ("mps", "cpu"))
    widget = dock()
    wait_until(lambda: len(widget.device.choices) > 1)
    assert widget.device.choices == ("auto", "mps", "cpu")
    assert widget.device.current_choice == "Auto (MPS)"


def test_only_installed_engines_are_offered(viewer, dock):
    engine = dock().controls.engine
    assert engine.choices == ("auto", "torch")
    assert engine.value == "auto"


@pytest.mark.usefixtures("openvino")
def test_openvino_is_offered_and_recorded_in_the_result(viewer, open_patient, dock, run):
    open_patient()
    widget = dock()
    assert widget.controls.engine.choices == ("auto", "openvino", "torch", "openvino-int8")
    run(widget)
    assert "on CPU (OpenVINO)." in widget.status.value
    tumour = viewer.layers[f"{NAME} tumour"]
    assert tumour.metadata["lgg"]["made_with"]["engine"] == "openvino"
    with_openvino = np.array(tumour.data)
    widget.controls.engine.value = "torch"
    run(widget)
    assert "on CPU." in widget.status.value
    assert tumour.metadata["lgg"]["made_with"]["engine"] == "torch"
    assert dice(with_openvino, tumour.data) > 0.99


def test_pytorch_takes_over_from_failing_openvino(openvino, viewer, open_patient, dock, run, monkeypatch):
    monkeypatch.setattr(openvino, "convert_model", raising(RuntimeError("No such operation.")))
    open_patient()
    widget = dock()
    run(widget)
    assert "OpenVINO failed (No such operation): continuing with PyTorch." in widget.status.value
    assert viewer.layers[f"{NAME} tumour"].metadata["lgg"]["made_with"]["engine"] == "torch"


def test_torch_is_used_in_worker_threads_only(viewer, open_patient, dock, run, wait_until, monkeypatch):
    threads = set()
    choose = devices.choose_device

    def choose_device(*choices):
        threads.add(threading.current_thread())
        return choose(*choices)

    monkeypatch.setattr(devices, "choose_device", choose_device)
    open_patient()
    widget = dock()
    wait_until(lambda: len(widget.device.choices) > 1)
    run(widget)
    assert threads
    assert threading.main_thread() not in threads
