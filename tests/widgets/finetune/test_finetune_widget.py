from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest
from flair_model import write_flair_model
from qtpy.QtCore import QThreadPool
from qtpy.QtWidgets import QLabel

pytest.importorskip("monai")
pytest.importorskip("pyqtgraph")

from napari_lgg_seg.core.data.patients import Patient
from napari_lgg_seg.core.errors import TrainingError
from napari_lgg_seg.core.evaluation.metrics import summarise
from napari_lgg_seg.core.model.checkpoint import load_model, read_card
from napari_lgg_seg.core.training import callbacks
from napari_lgg_seg.core.training.events import Ended, EpochDone, Notice, PatientRead, StepDone, Validated
from napari_lgg_seg.core.training.paths import state_file
from napari_lgg_seg.layers import describe
from napari_lgg_seg.widgets.finetune import widget as finetune
from napari_lgg_seg.widgets.finetune.labelled import as_uint8
from napari_lgg_seg.widgets.finetune.messages import FEW_WARNING, NEEDS_EXTRA, Progress, in_time
from napari_lgg_seg.widgets.finetune.preview import Preview
from napari_lgg_seg.widgets.shared.known_models import KnownModels, known_models

FIRST, SECOND, THIRD = (f"TCGA_DU_000{n}_19990101" for n in (1, 2, 3))

pytestmark = pytest.mark.filterwarnings("error:Private attribute access:FutureWarning")


def threads_done():
    return QThreadPool.globalInstance().activeThreadCount() == 0


def assert_sentence(text):
    assert text.endswith("."), text
    assert "\n" not in text
    assert "Traceback" not in text


def offered(widget):
    """Paths in the Segment widget's list of models."""
    return list(widget.model.choices)


# --- a whole training --------------------------------------------------------------------------


def test_tunes_a_model(viewer, open_patients, dock_finetune, dock, click, wait_until, tuned, notices):
    names = open_patients()
    segment = dock()
    widget = dock_finetune()
    assert "2 patients train, 1 validates" in widget.status.value
    assert FEW_WARNING in widget.status.value
    click(widget, "Start")
    assert widget.button.text == "Stop"
    wait_until(lambda: "Epoch 2 of 2, loss" in widget.status.value)
    assert "best Dice" in widget.status.value
    wait_until(lambda: widget.button.text == "Start")
    card = read_card(tuned)
    assert {*card.training_patients, *card.validation_patients} == set(names)
    assert not set(card.training_patients) & set(card.validation_patients)
    assert card.training["initial_model"] == "bright FLAIR"
    # What it is worth is said, and every list has it.
    (score,) = card.results["validation"].values()
    assert f"{score:.3f}"[:4] in widget.status.value or f"{score:.2f}" in widget.status.value
    assert "1 validation patient" in widget.status.value
    assert str(tuned) in widget.status.value
    assert_sentence(widget.status.value)
    assert tuned in offered(segment)
    assert segment.model.value != tuned
    assert tuned in offered(dock())
    assert str(tuned) in widget.controls.start_from.choices
    # The next one goes elsewhere, and everything can be chosen again.
    assert widget.controls.output.value == tuned.with_name("my model 2.safetensors")
    assert widget.sources.table.isEnabled()
    wait_until(threads_done)
    assert notices == []


def test_a_model_with_neighbouring_slices_is_tuned_as_any_other(
    viewer, open_patients, dock_finetune, train, tuned, tmp_path, notices
):
    open_patients(2)
    widget = dock_finetune(epochs=1)
    widget.start_from(write_flair_model(tmp_path / "neighbours.safetensors", neighbours=1))
    train(widget)
    assert "Dice" in widget.status.value
    assert_sentence(widget.status.value)
    assert load_model(tuned).card.neighbouring_slices == 1
    assert notices == []


def test_stop_keeps_the_best_and_the_training_can_go_on(
    viewer, open_patients, dock_finetune, click, wait_until, tuned, monkeypatch, train
):
    import torch

    saved_in = []
    save = callbacks.save_state
    monkeypatch.setattr(
        callbacks, "save_state", lambda *a: (saved_in.append(threading.current_thread()), save(*a))
    )
    open_patients()
    widget = dock_finetune(epochs=50)
    click(widget, "Start")
    wait_until(lambda: "Epoch 2 of 50" in widget.status.value)
    click(widget, "Stop")
    assert widget.button.text == "Stopping..."
    assert not widget.button.enabled
    wait_until(lambda: widget.button.text == "Start")
    assert widget.status.value.startswith("Stopped in epoch 2 of 50.")
    assert str(tuned) in widget.status.value
    assert_sentence(widget.status.value)
    assert tuned in dict(map(reversed, known_models.known()))
    load_model(tuned)
    state = torch.load(state_file(tuned), weights_only=True)
    assert state["steps_done"] > 2
    # A file of 130 MB must not be written where the window is drawn.
    assert threading.main_thread() not in saved_in
    wait_until(threads_done)
    # The same name is for going on only.
    assert not widget.button.enabled
    assert not widget.controls.resume.native.isHidden()
    widget.controls.resume.value = True
    assert "Ready to go on" in widget.status.value
    widget.controls.epochs.value = 3
    train(widget)
    assert "All 3 epochs are done." in widget.status.value
    assert "Stopped" not in widget.status.value
    assert torch.load(state_file(tuned), weights_only=True)["epoch"] == 3


@pytest.mark.parametrize("close", ["dock", "viewer"])
def test_closing_stops_the_training_and_keeps_the_best(
    viewer, open_patients, dock_finetune, click, wait_until, tuned, close
):
    import torch

    open_patients(2)
    widget = dock_finetune(epochs=50)
    click(widget, "Start")
    wait_until(lambda: "Epoch 2 of 50" in widget.status.value)
    if close == "dock":
        viewer.window.remove_dock_widget(widget.native)
    else:
        viewer.close()
    wait_until(threads_done)
    load_model(tuned)
    assert torch.load(state_file(tuned), weights_only=True)["steps_done"] >= 2
    wait_until(lambda: [path for _, path in known_models.known()][-1] == tuned)


def test_stop_before_the_first_step_leaves_nothing(
    viewer, open_patients, dock_finetune, click, wait_until, tuned, gate
):
    open_patients(2)
    widget = dock_finetune()
    click(widget, "Start")
    wait_until(gate.reached.is_set)
    click(widget, "Stop")
    gate.open()
    wait_until(lambda: widget.button.text == "Start")
    assert "Nothing was saved" in widget.status.value
    assert not tuned.exists()
    assert widget.button.enabled


def test_no_second_training_beside_the_first(
    viewer, open_patients, dock_finetune, click, wait_until, gate, asked
):
    from qtpy.QtWidgets import QPushButton

    asked.events = (PatientRead(FIRST, 1, 1), Ended("Done."))
    open_patients(2)
    widget = dock_finetune()
    click(widget, "Start")
    worker = widget._worker
    widget.run()
    assert widget._worker is worker
    texts = [button.text() for button in widget.native.findChildren(QPushButton)]
    assert "Start" not in texts
    wait_until(lambda: widget.button.text == "Start")


def test_layers_may_go_during_the_training(
    viewer, open_patients, dock_finetune, click, wait_until, tuned, gate
):
    open_patients(2)
    widget = dock_finetune(epochs=1)
    click(widget, "Start")
    wait_until(gate.reached.is_set)
    viewer.layers.clear()
    gate.open()
    wait_until(lambda: widget.button.text == "Start")
    assert tuned.exists()
    assert len(viewer.layers) == 0
    assert str(tuned) in widget.status.value


# --- the preview -------------------------------------------------------------------------------


def test_preview_lies_over_the_validation_patient(
    viewer, open_patients, dock_finetune, click, wait_until, tuned
):
    open_patients(2)
    for layer in viewer.layers:
        layer.scale = (5, 1, 1)
    painting = viewer.layers[0]
    viewer.layers.selection.active = painting
    widget = dock_finetune(epochs=50)
    click(widget, "Start")

    def previews():
        return [layer for layer in viewer.layers if layer.name.endswith("preview")]

    wait_until(lambda: len(previews()) == 1)
    (preview,) = previews()
    (name,) = {FIRST, SECOND} & {preview.metadata["lgg"]["patient"]}
    assert preview.metadata["lgg"]["role"] == "preview"
    assert tuple(preview.scale) == (5, 1, 1)
    assert preview.data.shape == painting.data.shape
    assert viewer.layers.selection.active == painting
    # Switched off it goes, switched on it comes back, and who removes it has switched it off.
    widget.controls.preview.value = False
    assert not previews()
    widget.controls.preview.value = True
    assert previews()
    viewer.layers.remove(previews()[0])
    assert not widget.controls.preview.value
    epoch = widget.status.value
    wait_until(lambda: widget.status.value != epoch)
    click(widget, "Stop")
    wait_until(lambda: widget.button.text == "Start")
    assert not previews()
    assert name in read_card(tuned).validation_patients
    # It is nobody's truth.
    widget.controls.preview.value = True
    assert all("preview" not in layer.name for _, layer in widget.sources.table.chosen())


def test_preview_of_a_folder_opens_a_validation_patient(
    viewer, patient_on_disk, dock_finetune, train, wait_until
):
    for seed, name in enumerate((FIRST, SECOND)):
        folder = patient_on_disk(name, seed=seed)
    widget = dock_finetune(epochs=1)
    choose_folder(widget, folder.parent, wait_until)
    train(widget)
    (preview,) = [layer for layer in viewer.layers if layer.name.endswith("preview")]
    patient = preview.metadata["lgg"]["patient"]
    assert f"{patient} FLAIR" in viewer.layers
    assert {layer.metadata["lgg"]["patient"] for layer in viewer.layers} == {patient}


def test_a_patient_that_the_preview_opens_is_shown_where_its_tumour_is_largest(viewer, make_patient):
    patient = make_patient(FIRST, shape=(6, 64, 64))
    labels = np.zeros((6, 64, 64), np.uint8)
    labels[1, 10:12, 10] = labels[4, 10:20, 10:20] = 1
    preview = Preview(viewer, shown=True)
    preview.offer_patient(patient)
    preview.update(FIRST, labels)
    assert viewer.dims.current_step[0] == 4
    viewer.dims.set_current_step(0, 2)
    preview.update(FIRST, labels)  # the next epoch leaves the view alone
    assert viewer.dims.current_step[0] == 2


def test_the_preview_covers_nothing_that_somebody_paints_in(viewer, make_patient):
    mine = viewer.add_labels(np.zeros((6, 64, 64), np.uint8))
    mine.mode = "paint"
    preview = Preview(viewer, shown=True)
    preview.offer_patient(make_patient(FIRST, shape=(6, 64, 64)))
    preview.update(FIRST, np.ones((6, 64, 64), np.uint8))
    assert list(viewer.layers) == [mine]
    mine.mode = "pan_zoom"
    preview.update(FIRST, np.ones((6, 64, 64), np.uint8))
    assert f"{FIRST} FLAIR" in viewer.layers


# --- on whom -----------------------------------------------------------------------------------


def choose_folder(widget, folder, wait_until):
    widget.controls.source.value = "Folder of patients..."
    widget.controls.folder.value = folder
    wait_until(lambda: widget.controls.found.value not in ("", "Looking for patients..."))


def test_truth_is_learned_from(viewer, open_patients, dock_finetune, train, asked, tuned):
    open_patients(2)
    truths = [layer.data.copy() for layer in viewer.layers if layer.metadata["lgg"]["role"] == "truth"]
    train(dock_finetune())
    assert asked.output == tuned
    assert asked.options.epochs == 2
    assert asked.options.slices_per_epoch == 4
    for name, truth in zip((FIRST, SECOND), truths, strict=True):
        patient = asked.patients[name]
        np.testing.assert_array_equal(patient.truth, truth)
        assert patient.volume.dtype == np.uint8
        assert patient.slice_numbers == tuple(range(1, len(truth) + 1))


def test_volumes_are_the_layers_own(viewer, open_patients, dock_finetune, train, asked):
    open_patients(2)
    flair, before = (
        next(layer.data for layer in viewer.layers if layer.metadata["lgg"]["role"] == role)
        for role in ("FLAIR", "pre-contrast")
    )
    train(dock_finetune())
    np.testing.assert_array_equal(asked.patients[FIRST].volume[..., 1], flair)
    np.testing.assert_array_equal(asked.patients[FIRST].volume[..., 0], before)


def add_tumour(viewer, name, data):
    """A result of the Segment widget, as nobody has edited it."""
    from napari_lgg_seg.widgets.shared.result_layers import show_labels

    flair = next(
        layer
        for layer in viewer.layers
        if layer.metadata["lgg"]["patient"] == name and layer.metadata["lgg"]["role"] == "FLAIR"
    )
    return show_labels(viewer, flair, name, data, {})


def test_corrected_labels_go_before_truth_and_predictions_do_not(
    viewer, open_patients, dock_finetune, train, asked
):
    open_patients(2)
    shape = viewer.layers[0].data.shape
    corrected = add_tumour(viewer, FIRST, np.zeros(shape, np.uint8))
    corrected.data[2, 10:20, 10:20] = 1
    untouched = add_tumour(viewer, SECOND, np.ones(shape, np.uint8))
    widget = dock_finetune()
    chosen = {str(subject): layer for subject, layer in widget.sources.table.chosen()}
    assert chosen[FIRST] == corrected
    assert chosen[SECOND] != untouched
    train(widget)
    np.testing.assert_array_equal(asked.patients[FIRST].truth, corrected.data)


def test_the_user_says_which_labels_count(viewer, open_patients, dock_finetune, train, asked):
    open_patients(3)
    mine = viewer.add_labels(np.zeros((6, 64, 64), np.uint8), name="mine")
    mine.data[3, 5:9, 5:9] = 4
    viewer.add_labels(np.zeros((6, 32, 64), np.uint8), name="of another grid")
    widget = dock_finetune()
    table = widget.sources.table
    table.pick(SECOND, mine)
    table.tick(THIRD, False)
    assert [str(subject) for subject, _ in table.chosen()] == [FIRST, SECOND]
    assert "1 patient trains, 1 validates" in widget.status.value
    train(widget)
    assert set(asked.patients) == {FIRST, SECOND}
    np.testing.assert_array_equal(asked.patients[SECOND].truth, mine.data != 0)
    # What was chosen stays when another layer comes.
    viewer.add_image(np.zeros((6, 64, 64)))
    assert {str(s): layer for s, layer in table.chosen()}[SECOND] == mine
    assert THIRD not in [str(subject) for subject, _ in table.chosen()]


def test_painting_after_start_changes_nothing(viewer, open_patients, dock_finetune, click, wait_until, asked):
    open_patients(2)
    truth = next(layer for layer in viewer.layers if layer.metadata["lgg"]["role"] == "truth")
    before = truth.data.copy()
    widget = dock_finetune()
    click(widget, "Start")
    truth.data[:] = 1
    wait_until(lambda: widget.button.text == "Start")
    np.testing.assert_array_equal(asked.patients[FIRST].truth, before)


def test_any_3d_image_with_labels_will_do(viewer, dock_finetune, make_head, train, asked):
    for number in (1, 2):
        volume, truth = make_head(seed=number)
        viewer.add_image(volume[..., 1] * 3.7 - 10.0, name=f"scan {number}")
        viewer.add_labels(truth, name=f"labels {number}")
    viewer.add_image(np.zeros((64, 64)), name="flat")
    widget = dock_finetune()
    assert "No patient is ticked" in widget.status.value
    assert not widget.button.enabled
    for number in (1, 2):
        widget.sources.table.pick(f"scan {number}", viewer.layers[f"labels {number}"])
    train(widget)
    patient = asked.patients["scan 1"]
    assert patient.volume.shape == (6, 64, 64, 3)
    assert patient.volume.dtype == np.uint8
    assert patient.volume[..., 1].max() > 200
    np.testing.assert_array_equal(patient.volume[..., 0], patient.volume[..., 1])


def test_slices_without_a_mask_file_are_not_called_empty(
    viewer, patient_on_disk, open_patient, dock_finetune, train, asked
):
    folder = patient_on_disk(FIRST)
    for number in (1, 2):
        (folder / f"{FIRST}_{number}_mask.tif").unlink()
    viewer.open(str(folder), plugin="napari-lgg-seg")
    viewer.layers["truth"].data[1] = 1  # slice 2: somebody has drawn there since
    open_patient(SECOND)
    train(dock_finetune())
    assert asked.patients[FIRST].slices_without_mask == (1,)


def test_a_folder_is_learned_from(viewer, patient_on_disk, dock_finetune, train, asked, wait_until):
    folders = {name: patient_on_disk(name) for name in (FIRST, SECOND, THIRD)}
    for mask in folders[THIRD].glob("*_mask.tif"):
        mask.unlink()
    widget = dock_finetune()
    widget.controls.source.value = "Folder of patients..."
    assert widget.sources.table.isHidden()
    assert "Choose the folder" in widget.status.value
    choose_folder(widget, folders[FIRST].parent, wait_until)
    assert widget.controls.found.value == "2 patients with images and masks; 1 left out for lack of either."
    train(widget)
    assert {*asked.training, *asked.validation} == {folders[FIRST], folders[SECOND]}


@pytest.mark.parametrize("kind", ["missing", "empty", "patient"])
def test_a_folder_of_nobody_is_told(viewer, tmp_path, patient_on_disk, dock_finetune, wait_until, kind):
    folder = {"missing": tmp_path / "nowhere", "empty": tmp_path, "patient": patient_on_disk()}[kind]
    if kind == "empty":
        folder = tmp_path / "empty"
        folder.mkdir()
    widget = dock_finetune()
    choose_folder(widget, folder, wait_until)
    assert str(folder) in widget.status.value
    assert_sentence(widget.status.value)
    assert not widget.button.enabled


def test_one_patient_is_too_few(viewer, open_patients, open_patient, dock_finetune):
    widget = dock_finetune()
    assert "open at least two patients" in widget.status.value
    assert not widget.button.enabled
    open_patients(1)
    assert "Only one patient is ticked" in widget.status.value
    assert not widget.button.enabled
    open_patient(SECOND)
    assert widget.button.enabled
    assert "1 patient trains, 1 validates" in widget.status.value


# --- how it ends -------------------------------------------------------------------------------


def test_an_older_model_is_never_replaced(viewer, open_patients, dock_finetune, tuned):
    open_patients(2)
    widget = dock_finetune()
    tuned.parent.mkdir()
    tuned.write_bytes(b"precious")
    widget.run()
    assert widget.button.text == "Start"
    assert "exists already" in widget.status.value
    assert_sentence(widget.status.value)
    assert tuned.read_bytes() == b"precious"
    widget.controls.output.value = tuned.with_name("another.safetensors")
    assert widget.button.enabled
    widget.controls.output.value = tuned.with_name("another.txt")
    assert "must end in .safetensors" in widget.status.value


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (TrainingError("The loss is no longer a number at step 3."), "no longer a number"),
        (RuntimeError("CUDA out of memory"), "CUDA out of memory"),
        (MemoryError(), "not enough memory"),
    ],
)
def test_a_failure_is_a_sentence(viewer, open_patients, dock_finetune, train, asked, notices, error, said):
    asked.events = (PatientRead(FIRST, 1, 1), StepDone(1, 4, 1, 0.5), error)
    open_patients(2)
    widget = dock_finetune()
    train(widget)
    assert said in widget.status.value
    assert_sentence(widget.status.value)
    assert widget.button.enabled
    assert notices == []


def test_a_loss_that_is_no_number_leaves_the_best_model(
    viewer, open_patients, dock_finetune, train, tuned, monkeypatch
):
    from napari_lgg_seg.core.training.learner import Learner

    gradients = Learner._gradients
    monkeypatch.setattr(
        Learner,
        "_gradients",
        lambda learner, *batch: gradients(learner, *batch) if learner.steps < 3 else float("nan"),
    )
    open_patients(2)
    widget = dock_finetune()
    train(widget)
    assert "not finite" in widget.status.value
    assert f"The best model so far is in {tuned}." in widget.status.value
    load_model(tuned)


def test_notices_and_scores_are_shown(viewer, open_patients, dock_finetune, train, asked):
    asked.events = (
        Notice("Left out: somebody."),
        Validated(0, 0, summarise({THIRD: 0.5}), 0.5),
        StepDone(1, 2, 1, 0.5),
        EpochDone(1, 2, 0.5, summarise({THIRD: 0.7}), 0.7),
        Ended("All is done."),
    )
    open_patients(2)
    widget = dock_finetune()
    train(widget)
    assert "Left out: somebody." in widget.status.value
    widget.plot.redraw()
    assert widget.plot._dice == [(0, 0.5), (1, 0.7)]
    assert widget.plot._losses == [0.5]


def test_no_better_epoch_is_said(viewer, open_patients, dock_finetune, train, tuned, small_model):
    open_patients(2)
    widget = dock_finetune(epochs=1)
    widget.controls.learning_rate.value = 0.1  # which spoils it
    widget.controls.slices_per_epoch.value = 16
    train(widget)
    if read_card(tuned).training["epoch"] == 0:
        assert "No epoch was better" in widget.status.value
    else:
        assert "after (epoch 1 of 1)" in widget.status.value


# --- around it ---------------------------------------------------------------------------------


def test_plot_follows_the_theme(viewer, dock_finetune):
    widget = dock_finetune()
    colours = []
    for theme in ("dark", "light"):
        viewer.theme = theme
        colours.append(widget.plot.backgroundBrush().color().lightness())
    assert colours[0] < 100 < 200 < colours[1]


def test_time_left_is_said_roughly():
    assert in_time(3) == "5 s left"
    assert in_time(83) == "85 s left"
    assert in_time(240) == "4 min left"
    assert in_time(2 * 3600 + 60) == "2 h 1 min left"
    assert Progress(2).text


def test_intensities_keep_their_order_in_uint8():
    rng = np.random.default_rng(0)
    values = rng.normal(1000, 200, (4, 32, 32)).clip(0)
    values[0, 0, 0] = 1e7  # one hot voxel must not take the range
    small = as_uint8(values)
    assert small.max() == 255
    assert 100 < small.mean() < 200
    assert (as_uint8(np.zeros((2, 8, 8))) == 0).all()


def test_models_called_alike_are_told_apart(tmp_path):
    models = KnownModels()
    for folder in ("a", "b"):
        models.add(tmp_path / folder / "mine.safetensors")
        models.add(tmp_path / folder / "mine.safetensors")
    assert [name for name, _ in models.known()] == [f"mine ({tmp_path / f})" for f in ("a", "b")]


def test_without_the_extra_a_sentence_says_what_to_install(viewer, monkeypatch):
    monkeypatch.setattr(finetune, "find_spec", lambda name: None)
    _, widget = viewer.window.add_plugin_dock_widget("napari-lgg-seg", "Fine-tune")
    assert [label.text() for label in widget.native.findChildren(QLabel)] == [NEEDS_EXTRA]


def test_a_foreign_layer_with_our_key_does_no_harm(viewer, dock_finetune):
    viewer.add_labels(np.zeros((6, 64, 64), np.uint8), metadata={"lgg": "mine"})
    viewer.add_image(np.zeros((6, 64, 64)), metadata=describe("ghost", "FLAIR", range(1, 7)))
    widget = dock_finetune()
    assert "No patient is ticked" in widget.status.value


def test_making_the_widget_leaves_torch_alone():
    code = """if True:
        import sys
        from napari.components import ViewerModel
        from qtpy.QtWidgets import QApplication
        app = QApplication([])
        from napari_lgg_seg.widgets.shared import device_chooser
        from napari_lgg_seg.widgets.finetune import widget as finetune
        device_chooser.present_devices = lambda: [("CPU", "cpu")]
        class Viewer(ViewerModel):
            pass
        widget = finetune.FineTuneWidget(Viewer())
        print([m for m in ("torch", "monai") if m in sys.modules])
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr


def test_patients_are_built_as_the_core_wants_them(viewer, open_patients, dock_finetune, train, asked):
    open_patients(2)
    train(dock_finetune())
    assert all(isinstance(patient, Patient) for patient in asked.patients.values())
