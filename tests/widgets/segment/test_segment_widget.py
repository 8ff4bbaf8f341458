from __future__ import annotations

import threading

import numpy as np
import pytest
import tifffile
from flair_model import write_flair_model
from qtpy.QtCore import QEvent, QThreadPool
from qtpy.QtWidgets import QApplication, QComboBox, QFileDialog, QLabel, QVBoxLayout, QWidget

from napari_lgg_seg.core import devices, memory
from napari_lgg_seg.core.data.patients import SEQUENCES
from napari_lgg_seg.core.evaluation.metrics import dice
from napari_lgg_seg.core.model.checkpoint import DEFAULT_MODEL
from napari_lgg_seg.core.model.networks import UNet
from napari_lgg_seg.widgets.segment import widget as segment
from napari_lgg_seg.widgets.segment.controls import Controls

NAME = "TCGA_DU_0001_19990101"
OTHER = "TCGA_HT_0002_20000202"

pytestmark = pytest.mark.filterwarnings("error:Private attribute access:FutureWarning")


def layer_names(viewer):
    return [layer.name for layer in viewer.layers]


def contents(viewer):
    """Every layer's name and a copy of its values, to compare with later."""
    return {layer.name: np.array(layer.data) for layer in viewer.layers}


def assert_same(before, after):
    assert list(before) == list(after)
    for name, values in before.items():
        np.testing.assert_array_equal(values, after[name], err_msg=name)


def assert_sentence(text):
    assert text.endswith("."), text
    assert "\n" not in text
    assert "Traceback" not in text


def visible_text(widget):
    """Everything that the widget's labels say."""
    return "\n".join(label.text() for label in widget.native.findChildren(QLabel))


def offered(widget):
    """Names of the patients to choose from."""
    return [str(choice) for choice in widget.patient.choices]


def choose(widget, name):
    widget.patient.value = next(choice for choice in widget.patient.choices if str(choice) == name)


def threads_done():
    return QThreadPool.globalInstance().activeThreadCount() == 0


# --- one click ---------------------------------------------------------------------------------


def test_segment_is_the_only_click_needed(viewer, open_patient, dock, run, notices):
    open_patient()
    widget = dock()
    run(widget)
    tumour, probability = viewer.layers[f"{NAME} tumour"], viewer.layers[f"{NAME} probability"]
    truth = viewer.layers["truth"].data
    assert tumour.data.dtype == np.uint8
    assert set(np.unique(tumour.data)) == {0, 1}
    assert tumour.data.shape == probability.data.shape == truth.shape
    assert dice(tumour.data, truth) > 0.85
    assert tumour.visible
    assert not probability.visible
    assert probability.data.dtype == np.float32
    assert 0 <= probability.data.min() < 0.5 < probability.data.max() <= 1
    np.testing.assert_array_equal(tumour.data, probability.data >= 0.5)
    assert viewer.layers.selection.active == tumour
    assert f"{dice(tumour.data, truth):.2f}" in widget.status.value
    assert f"{np.count_nonzero(tumour.data):,} voxels" in widget.status.value
    assert notices == []


def test_results_lie_on_the_patients_grid_and_say_whose_they_are(viewer, open_patient, dock, run):
    open_patient()
    for layer in viewer.layers:
        layer.scale, layer.translate, layer.units = (5, 0.9, 0.9), (10, 2, 3), ("mm", "mm", "mm")
    flair = viewer.layers["FLAIR"]
    run(dock())
    for role in ("tumour", "probability"):
        layer = viewer.layers[f"{NAME} {role}"]
        for key in ("scale", "translate", "rotate", "shear"):
            np.testing.assert_array_equal(getattr(layer, key), getattr(flair, key), err_msg=key)
        assert layer.units == flair.units
        assert layer.axis_labels == flair.axis_labels
        assert layer.metadata["lgg"].items() >= {**flair.metadata["lgg"], "role": role}.items()


def test_viewer_goes_to_the_slice_with_most_tumour(viewer, open_patient, dock, run):
    open_patient()
    for layer in viewer.layers:
        layer.scale = (5, 1, 1)
    viewer.dims.set_current_step(0, 0)
    run(dock())
    most = int(viewer.layers[f"{NAME} tumour"].data.sum(axis=(1, 2)).argmax())
    assert most != 0
    assert viewer.dims.current_step[0] == most


def test_viewer_goes_there_with_a_time_series_open_too(viewer, open_patient, dock, run):
    open_patient()
    viewer.add_image(np.zeros((2, 6, 64, 64), np.uint8))
    run(dock())
    most = int(viewer.layers[f"{NAME} tumour"].data.sum(axis=(1, 2)).argmax())
    assert viewer.dims.current_step[1] == most


def test_truth_becomes_an_outline_over_the_result(viewer, open_patient, dock, run):
    open_patient()
    assert viewer.layers["truth"].contour == 0
    run(dock())
    assert viewer.layers["truth"].contour > 0
    assert viewer.layers[f"{NAME} tumour"].contour == 0


def test_no_tumour_is_said(viewer, open_patient, dock, run, tmp_path):
    open_patient()
    widget = dock()
    widget.offer_model(write_flair_model(tmp_path / "sees none.safetensors", cut=100))
    run(widget)
    assert "No tumour found" in widget.status.value
    assert not viewer.layers[f"{NAME} tumour"].data.any()


def test_single_slice_is_enough(viewer, patient_on_disk, dock, run):
    viewer.open(str(patient_on_disk() / f"{NAME}_3.tif"), plugin="napari-lgg-seg")
    run(dock())
    assert viewer.layers[f"{NAME} tumour"].data.shape == (1, 64, 64)
    assert viewer.layers[f"{NAME} tumour"].data.any()


def test_button_reads_cancel_and_progress_is_shown_while_running(
    viewer, open_patient, dock, click, gate, wait_until
):
    open_patient(shape=(12, 64, 64))
    widget = dock()
    click(widget, "Segment")
    assert widget.button.text == "Cancel"
    assert not widget.progress.native.isHidden()
    wait_until(lambda: "of 12 slices" in widget.status.value)
    assert widget.progress.max == 12
    gate.open()
    wait_until(lambda: widget.button.text == "Segment")
    assert widget.progress.native.isHidden()
    assert "Tumour" in widget.status.value


# --- which patient -----------------------------------------------------------------------------


def test_without_a_patient_a_sentence_says_how_to_open_one(viewer, dock, click, menu_action):
    widget = dock()
    click(widget, "Segment")
    assert widget.button.text == "Segment"
    assert len(viewer.layers) == 0
    assert_sentence(widget.status.value)
    assert "No patient is open" in widget.status.value
    # The menus it names are there.
    for path in ("File > IO Utilities > Open LGG patient...", "File > Open Sample > LGG patient (made)"):
        assert path in widget.status.value
        menu_action(*path.split(" > "))


def test_patient_opened_after_the_widget_is_found(viewer, open_patient, dock, run):
    widget = dock()
    open_patient()
    assert str(widget.patient.value) == NAME
    run(widget)
    assert f"{NAME} tumour" in layer_names(viewer)


def test_foreign_layers_are_no_patient(viewer, dock):
    viewer.add_labels(np.zeros((6, 64, 64), np.uint8), name="truth", metadata={"lgg": "mine"})
    viewer.add_points(np.zeros((2, 3)), metadata={"lgg": {"role": "FLAIR"}})
    widget = dock()
    assert offered(widget) == []


def test_patient_is_found_by_metadata_whatever_its_layers_are_called(viewer, open_patient, dock, run):
    open_patient()
    for index, layer in enumerate(viewer.layers):
        layer.name = f"layer {index}"
    run(dock())
    assert f"{NAME} tumour" in layer_names(viewer)


def test_newest_of_two_patients_is_chosen_and_the_other_can_be(viewer, open_patient, dock, run):
    widget = dock()
    open_patient(NAME)
    open_patient(OTHER, shape=(4, 48, 64))
    assert offered(widget) == [NAME, OTHER]
    assert str(widget.patient.value) == OTHER
    run(widget)
    assert viewer.layers[f"{OTHER} tumour"].data.shape == (4, 48, 64)
    assert f"{NAME} tumour" not in layer_names(viewer)
    choose(widget, NAME)
    run(widget)
    assert str(widget.patient.value) == NAME
    assert viewer.layers[f"{NAME} tumour"].data.shape == (6, 64, 64)


def test_result_belongs_to_the_patient_chosen_when_segment_was_clicked(
    viewer, open_patient, dock, click, gate, wait_until
):
    widget = dock()
    open_patient(NAME)
    click(widget, "Segment")
    open_patient(OTHER, shape=(4, 64, 64))
    assert str(widget.patient.value) == OTHER
    gate.open()
    wait_until(lambda: widget.button.text == "Segment")
    assert viewer.layers[f"{NAME} tumour"].data.shape == (6, 64, 64)
    assert f"{OTHER} tumour" not in layer_names(viewer)


def test_closed_patient_is_not_offered_any_more(viewer, open_patient, dock, click):
    open_patient(NAME)
    open_patient(OTHER)
    widget = dock()
    for layer in [layer for layer in viewer.layers if layer.metadata["lgg"]["patient"] == OTHER]:
        viewer.layers.remove(layer)
    assert offered(widget) == [NAME]
    assert str(widget.patient.value) == NAME
    viewer.layers.clear()
    assert offered(widget) == []
    click(widget, "Segment")
    assert widget.button.text == "Segment"
    assert "No patient is open" in widget.status.value


def test_patient_without_flair_layer_is_refused_with_a_sentence(viewer, open_patient, dock, click):
    open_patient()
    widget = dock()
    viewer.layers.remove("FLAIR")
    click(widget, "Segment")
    assert widget.button.text == "Segment"
    assert_sentence(widget.status.value)
    assert "FLAIR" in widget.status.value


def test_missing_sequence_is_told_and_flair_stands_in(viewer, open_patient, dock, run):
    open_patient()
    widget = dock()
    assert "missing" not in visible_text(widget)
    viewer.layers.remove("post-contrast")
    assert "post-contrast missing" in visible_text(widget)
    run(widget)
    assert f"{NAME} tumour" in layer_names(viewer)


def test_sequence_may_be_left_out(viewer, open_patient, dock):
    open_patient()
    widget = dock()
    combo = next(c for c in widget.native.findChildren(QComboBox) if c.currentText() == "post-contrast")
    combo.setCurrentText("FLAIR stands in")
    assert "post-contrast missing" in visible_text(widget)


def test_sequence_that_is_a_copy_of_flair_is_told(viewer, tmp_path, make_patient, dock):
    from napari_lgg_seg.core.data.masks import write_patient

    patient = make_patient(NAME)
    patient.volume[..., 0] = patient.volume[..., 1]
    write_patient(tmp_path / "filled_sequences", patient)
    viewer.open(str(tmp_path / "filled_sequences"), plugin="napari-lgg-seg")
    assert "pre-contrast missing" in visible_text(dock())


# --- models of FLAIR alone ---------------------------------------------------------------------


@pytest.fixture
def flair_only(tmp_path):
    """Finds what the small model finds, from FLAIR alone."""
    return write_flair_model(tmp_path / "FLAIR alone.safetensors", sequences=("FLAIR",))


def asked_for(widget):
    """Sequences whose controls can be seen once their section is unfolded, and so their names."""
    combos = [s for s, c in widget.controls.sequences.items() if c.native.isVisibleTo(widget.native)]
    labels = [label for label in widget.native.findChildren(QLabel) if label.isVisibleTo(widget.native)]
    assert {label.text() for label in labels} & {*SEQUENCES} == {*combos}
    return combos


def test_model_of_flair_alone_asks_for_flair_alone(viewer, open_patient, dock, small_model, flair_only):
    open_patient()
    widget = dock()
    assert asked_for(widget) == [*SEQUENCES]
    assert "6 slices, pre-contrast, FLAIR, post-contrast." in visible_text(widget)
    widget.offer_model(flair_only)
    assert asked_for(widget) == ["FLAIR"]
    assert "6 slices, FLAIR." in visible_text(widget)
    viewer.layers.remove("post-contrast")
    assert "6 slices, FLAIR." in visible_text(widget)
    widget.model.value = small_model
    assert asked_for(widget) == [*SEQUENCES]
    assert "post-contrast missing: FLAIR stands in" in visible_text(widget)


def test_model_of_two_sequences_asks_for_both(viewer, open_patient, dock, tmp_path):
    open_patient()
    widget = dock()
    sequences = ("FLAIR", "post-contrast")
    widget.offer_model(write_flair_model(tmp_path / "two.safetensors", sequences=sequences))
    assert asked_for(widget) == ["FLAIR", "post-contrast"]
    viewer.layers.remove("pre-contrast")
    assert "6 slices, FLAIR, post-contrast." in visible_text(widget)
    viewer.layers.remove("post-contrast")
    assert "6 slices; post-contrast missing" in visible_text(widget)


def test_model_of_flair_alone_sees_flair_alone(viewer, open_patient, dock, run, flair_only):
    open_patient()
    widget = dock()
    widget.offer_model(flair_only)
    run(widget)
    expected = viewer.layers[f"{NAME} tumour"].data.copy()
    assert dice(expected, viewer.layers["truth"].data) > 0.85
    viewer.layers["pre-contrast"].data = 255 - viewer.layers["FLAIR"].data
    viewer.layers.remove("post-contrast")
    run(widget)
    np.testing.assert_array_equal(viewer.layers[f"{NAME} tumour"].data, expected)


def test_second_channel_of_a_colour_image_is_flair(viewer, make_head, dock, run, flair_only):
    volume, truth = make_head()
    viewer.add_image(volume, name="colour", rgb=True)
    widget = dock()
    assert "three colour channels are taken as pre-contrast, FLAIR, post-contrast" in visible_text(widget)
    widget.offer_model(flair_only)
    assert "6 slices; the second colour channel is taken as FLAIR." in visible_text(widget)
    run(widget)
    assert dice(viewer.layers["colour tumour"].data, truth) > 0.85


def test_gray_image_is_flair_and_nothing_is_missing(viewer, make_head, dock, run, flair_only):
    volume, truth = make_head()
    viewer.add_image(volume[..., 1], name="gray")
    widget = dock()
    assert "missing" in visible_text(widget)
    widget.offer_model(flair_only)
    assert "missing" not in visible_text(widget)
    run(widget)
    assert dice(viewer.layers["gray tumour"].data, truth) > 0.85


def test_patient_of_gray_slices(viewer, patient_on_disk, dock, run, flair_only):
    folder = patient_on_disk()
    for path in folder.glob("*_?.tif"):
        tifffile.imwrite(path, tifffile.imread(path)[..., 1])
    viewer.open(str(folder), plugin="napari-lgg-seg")
    widget = dock()
    assert "pre-contrast and post-contrast missing: FLAIR stands in" in visible_text(widget)
    widget.offer_model(flair_only)
    assert "6 slices, FLAIR." in visible_text(widget)
    run(widget)
    assert dice(viewer.layers[f"{NAME} tumour"].data, viewer.layers["truth"].data) > 0.85


def test_model_trained_anew_under_its_name_is_asked_what_it_wants(viewer, open_patient, dock, flair_only):
    open_patient()
    widget = dock()
    widget.offer_model(flair_only)
    write_flair_model(flair_only)
    widget.offer_model(flair_only)
    assert asked_for(widget) == [*SEQUENCES]


def test_unfolded_sequences_have_room_when_they_return(qtbot):
    choices = [lambda _: [("one", 1)]] * 3
    controls = Controls(*choices, layers=lambda _: [("FLAIR stands in", None)])
    section = controls.folded()[0]
    column = QWidget()
    qtbot.addWidget(column)
    QVBoxLayout(column).addWidget(section)
    column.layout().addStretch()
    column.resize(300, 400)
    column.show()
    section.expand(animate=False)
    content = section.content()
    full = content.sizeHint().height()
    qtbot.waitUntil(lambda: content.height() == full)
    controls.show_sequences(("FLAIR",))
    qtbot.waitUntil(lambda: content.height() < full)
    controls.show_sequences(SEQUENCES)
    qtbot.waitUntil(lambda: content.height() == full)


# --- again -------------------------------------------------------------------------------------


@pytest.fixture
def generous_model(tmp_path):
    """Finds more than the small model."""
    return write_flair_model(tmp_path / "generous.safetensors", cut=0.3)


def test_second_run_replaces_the_result_in_place(viewer, open_patient, dock, run, generous_model):
    open_patient()
    widget = dock()
    run(widget)
    before, voxels = list(viewer.layers), np.count_nonzero(viewer.layers[f"{NAME} tumour"].data)
    share = viewer.layers[f"{NAME} probability"].data.mean()
    viewer.layers[f"{NAME} tumour"].opacity = 0.3
    widget.offer_model(generous_model)
    run(widget)
    assert list(viewer.layers) == before
    assert np.count_nonzero(viewer.layers[f"{NAME} tumour"].data) > voxels
    assert viewer.layers[f"{NAME} probability"].data.mean() > share
    assert viewer.layers[f"{NAME} tumour"].opacity == 0.3


def test_painted_result_is_never_replaced(viewer, open_patient, dock, run, generous_model):
    open_patient()
    widget = dock()
    run(widget)
    painted = viewer.layers[f"{NAME} tumour"]
    voxels = np.count_nonzero(painted.data)
    painted.paint((0, 5, 5), 1)
    as_painted = painted.data.copy()
    count = len(viewer.layers)
    widget.offer_model(generous_model)
    run(widget)
    np.testing.assert_array_equal(painted.data, as_painted)
    assert len(viewer.layers) == count + 1
    new = viewer.layers.selection.active
    assert new != painted
    assert new.name.startswith(f"{NAME} tumour")
    assert np.count_nonzero(new.data) > voxels
    assert not new.data[0, 5, 5]
    # The new one was not painted in, so a third run may replace it, and still not the painted one.
    run(widget)
    assert len(viewer.layers) == count + 1
    np.testing.assert_array_equal(painted.data, as_painted)


def test_removed_result_comes_back_as_a_new_layer(viewer, open_patient, dock, run):
    open_patient()
    widget = dock()
    run(widget)
    viewer.layers.remove(f"{NAME} tumour")
    viewer.layers.remove(f"{NAME} probability")
    run(widget)
    assert {f"{NAME} tumour", f"{NAME} probability"} <= set(layer_names(viewer))


# --- Cancel ------------------------------------------------------------------------------------


def test_cancel_leaves_layers_as_they_were(viewer, open_patient, dock, click, gate, wait_until):
    open_patient(shape=(12, 64, 64))
    widget = dock()
    before = contents(viewer)
    click(widget, "Segment")
    wait_until(gate.reached.is_set)
    click(widget, "Cancel")
    gate.open()
    wait_until(lambda: widget.button.text == "Segment")
    assert widget.button.enabled
    assert_same(before, contents(viewer))
    assert widget.status.value == "Cancelled."
    assert widget.progress.native.isHidden()


def test_cancelled_second_run_leaves_the_first_result(
    viewer, open_patient, dock, run, click, gate, wait_until, generous_model
):
    open_patient(shape=(12, 64, 64))
    widget = dock()
    gate.open()
    run(widget)
    before = contents(viewer)
    gate.close()
    widget.offer_model(generous_model)
    click(widget, "Segment")
    wait_until(gate.reached.is_set)
    click(widget, "Cancel")
    gate.open()
    wait_until(lambda: widget.button.text == "Segment")
    assert_same(before, contents(viewer))


def test_cancel_before_the_first_batch(viewer, open_patient, dock, click, wait_until):
    open_patient()
    widget = dock()
    before = contents(viewer)
    click(widget, "Segment")
    click(widget, "Cancel")
    wait_until(lambda: widget.button.text == "Segment")
    assert_same(before, contents(viewer))


def test_run_after_cancel_gives_the_result(viewer, open_patient, dock, click, run, gate, wait_until):
    open_patient()
    widget = dock()
    click(widget, "Segment")
    wait_until(gate.reached.is_set)
    click(widget, "Cancel")
    gate.open()
    wait_until(lambda: widget.button.text == "Segment")
    run(widget)
    assert f"{NAME} tumour" in layer_names(viewer)


# --- model and device --------------------------------------------------------------------------


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


def test_foreign_model_files_are_refused_with_a_sentence(viewer, dock, small_model, tmp_path):
    widget = dock()
    for write in (None, write_text, write_nothing, write_other_network, write_folder):
        file = tmp_path / f"{write and write.__name__}.safetensors"
        if write is not None:
            write(file)
        widget.offer_model(file)
        assert_sentence(widget.status.value)
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


def test_model_file_that_vanished_is_a_sentence(viewer, open_patient, dock, run, generous_model):
    open_patient()
    widget = dock()
    widget.offer_model(generous_model)
    generous_model.unlink()
    run(widget)
    assert_sentence(widget.status.value)
    assert str(generous_model) in widget.status.value
    assert f"{NAME} tumour" not in layer_names(viewer)


def test_damaged_weights_are_a_sentence(viewer, open_patient, dock, run, generous_model):
    open_patient()
    widget = dock()
    generous_model.write_bytes(generous_model.read_bytes()[:-1000])
    widget.offer_model(generous_model)
    run(widget)
    assert_sentence(widget.status.value)
    assert str(generous_model) in widget.status.value


def test_only_devices_that_are_there_are_offered(viewer, dock, wait_until):
    widget = dock()
    wait_until(lambda: len(widget.device.choices) > 1)
    assert widget.device.choices == ("auto", *devices.available_devices())
    assert widget.device.value == "auto"


def test_auto_says_what_it_takes(viewer, dock, wait_until, monkeypatch):
    monkeypatch.setattr(devices, "available_devices", lambda: ("mps", "cpu"))
    widget = dock()
    wait_until(lambda: len(widget.device.choices) > 1)
    assert widget.device.choices == ("auto", "mps", "cpu")
    assert widget.device.current_choice == "Auto (MPS)"


def test_only_engines_that_are_installed_are_offered(viewer, dock):
    engine = dock().controls.engine
    assert engine.choices == ("auto", "torch")
    assert engine.value == "auto"


@pytest.mark.usefixtures("openvino")
def test_openvino_is_offered_and_the_result_says_what_computed_it(viewer, open_patient, dock, run):
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


def test_openvino_that_fails_is_told_and_pytorch_goes_on(
    openvino, viewer, open_patient, dock, run, monkeypatch
):
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


# --- what goes wrong ---------------------------------------------------------------------------


def raising(error):
    def fail(*_, **__):
        raise error

    return fail


def test_failing_network_is_one_sentence_and_the_window_goes_on(
    viewer, open_patient, dock, run, monkeypatch, notices
):
    open_patient()
    widget = dock()
    before = contents(viewer)
    for error, words in (
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied\nsecond line"), "mat1 and mat2"),
        (RuntimeError(""), "RuntimeError"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "not enough memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "not enough memory"),
        (MemoryError(), "not enough memory"),
    ):
        with monkeypatch.context() as broken:
            broken.setattr(UNet, "forward", raising(error))
            run(widget)
        assert_sentence(widget.status.value)
        assert words in widget.status.value
        assert widget.button.enabled
        assert widget.progress.native.isHidden()
        assert_same(before, contents(viewer))
    assert notices == []
    run(widget)
    assert f"{NAME} tumour" in layer_names(viewer)


@pytest.mark.parametrize("where", ["model.checkpoint.load_model", "memory.free_memory"])
def test_failure_around_the_network_is_one_sentence_too(viewer, open_patient, dock, run, monkeypatch, where):
    open_patient()
    widget = dock()
    for error, words in (
        (RuntimeError("no kernel image\nsecond line"), "no kernel image"),
        (RuntimeError(), "RuntimeError"),
        (MemoryError(), "not enough memory"),
    ):
        with monkeypatch.context() as broken:
            broken.setattr(f"napari_lgg_seg.core.{where}", raising(error))
            run(widget)
        assert_sentence(widget.status.value)
        assert words in widget.status.value
    run(widget)
    assert f"{NAME} tumour" in layer_names(viewer)


def test_short_memory_is_told_and_the_result_is_the_same(viewer, open_patient, dock, run, monkeypatch):
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


def test_bug_of_ours_shows_in_the_window_which_goes_on(viewer, open_patient, dock, run, monkeypatch, qtbot):
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
    assert_sentence(widget.status.value)
    assert "nothing was added" in widget.status.value


def undock(viewer, widget):
    """As a click on the dock's x does it: napari leaves the widget alive."""
    viewer.window.remove_dock_widget(widget.native)


def delete(viewer, widget):
    """As Qt does it with the window around a widget."""
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
def test_closed_while_it_looks_for_devices(viewer, dock, wait_until, monkeypatch, notices, close):
    go_on = threading.Event()

    def look():
        assert go_on.wait(60)
        return ("cpu",)

    monkeypatch.setattr(devices, "available_devices", look)
    widget = dock()
    close(viewer, widget)
    QApplication.processEvents()
    go_on.set()
    wait_until(threads_done)
    QApplication.processEvents()
    assert notices == []


def test_widget_docked_again_finds_the_patient(viewer, open_patient, dock, run):
    open_patient()
    undock(viewer, dock())
    run(dock())
    assert f"{NAME} tumour" in layer_names(viewer)


@pytest.mark.parametrize("close", [undock, delete])
def test_layers_may_come_and_go_after_the_widget_was_closed(viewer, open_patient, dock, close):
    widget = dock()
    close(viewer, widget)
    open_patient()
    viewer.layers.clear()


# --- export from the widget --------------------------------------------------------------------


def test_export_button_wakes_up_with_labels_and_writes_the_result(
    viewer, patient_on_disk, dock, run, find_button, choose_folder, tmp_path
):
    from napari_lgg_seg.core.data.patients import read_patient

    folder = patient_on_disk()
    for mask in folder.glob("*_mask.tif"):
        mask.unlink()
    viewer.open(str(folder), plugin="napari-lgg-seg")
    widget = dock()
    assert not find_button(widget.native, "Export masks...").isEnabled()
    run(widget)
    choose_folder(tmp_path / "masks")
    export = find_button(widget.native, "Export masks...")
    assert export.isEnabled()
    export.click()
    back = read_patient(tmp_path / "masks" / NAME)
    np.testing.assert_array_equal(back.truth, viewer.layers[f"{NAME} tumour"].data)


def test_widget_is_the_one_of_the_layers_menu(viewer, menu_action):
    menu_action("Layers", "Segment", "Segment").trigger()
    (dock,) = viewer.window.dock_widgets.values()
    assert isinstance(dock, segment.SegmentWidget)
