"""A training in the Fine-tune widget, from Start to the model."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest
from flair_model import write_flair_model
from window import assert_message, threads_done, visible_text

pytest.importorskip("pyqtgraph")
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
from napari_lgg_seg.widgets.finetune.messages import FEW_WARNING, NEEDS_EXTRA, Progress
from napari_lgg_seg.widgets.shared.known_models import KnownModels, known_models
from napari_lgg_seg.widgets.shared.messages import time_left

FIRST, SECOND, THIRD = (f"TCGA_DU_000{n}_19990101" for n in (1, 2, 3))

pytestmark = pytest.mark.filterwarnings("error:Private attribute access:FutureWarning")


def offered(widget):
    """Paths in the Segment widget's list of models."""
    return list(widget.model.choices)


# --- a whole training --------------------------------------------------------------------------


def test_fine_tunes_a_model(viewer, open_patients, dock_finetune, dock, click, wait_until, tuned, notices):
    names = open_patients()
    segment = dock()
    widget = dock_finetune()
    assert "Ready to train on 2 patients, with 1 for validation" in widget.status.value
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
    # Its Dice is shown, and all widgets list it.
    (score,) = card.results["validation"].values()
    assert f"{score:.3f}"[:4] in widget.status.value or f"{score:.2f}" in widget.status.value
    assert "1 validation patient" in widget.status.value
    assert str(tuned) in widget.status.value
    assert_message(widget.status.value)
    assert tuned in offered(segment)
    assert segment.model.value != tuned
    assert tuned in offered(dock())
    assert str(tuned) in widget.controls.start_from.choices
    # The next model gets another name, and all controls are enabled again.
    assert widget.controls.output.value == tuned.with_name("my model 2.safetensors")
    assert widget.sources.table.isEnabled()
    wait_until(threads_done)
    assert notices == []


def test_a_model_with_neighbouring_slices_can_be_fine_tuned(
    viewer, open_patients, dock_finetune, train, tuned, tmp_path, notices
):
    open_patients(2)
    widget = dock_finetune(epochs=1)
    widget.start_from(write_flair_model(tmp_path / "neighbours.safetensors", neighbours=1))
    train(widget)
    assert "Dice" in widget.status.value
    assert_message(widget.status.value)
    assert load_model(tuned).card.neighbouring_slices == 1
    assert notices == []


def test_stop_saves_the_best_model_and_the_training_can_be_resumed(
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
    assert_message(widget.status.value)
    assert tuned in dict(map(reversed, known_models.known()))
    load_model(tuned)
    state = torch.load(state_file(tuned), weights_only=True)
    assert state["steps_done"] > 2
    # Writing 130 MB in the main thread would freeze the window.
    assert threading.main_thread() not in saved_in
    wait_until(threads_done)
    # With the same name, the training can only be resumed.
    assert not widget.button.enabled
    assert not widget.controls.resume.native.isHidden()
    widget.controls.resume.value = True
    assert "Ready to resume" in widget.status.value
    widget.controls.epochs.value = 3
    train(widget)
    assert "All 3 epochs are done." in widget.status.value
    assert "Stopped" not in widget.status.value
    assert torch.load(state_file(tuned), weights_only=True)["epoch"] == 3


@pytest.mark.parametrize("close", ["dock", "viewer"])
def test_closing_stops_the_training_and_saves_the_best_model(
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


def test_no_second_training_during_the_first(
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


def test_layers_may_be_removed_during_the_training(
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


# --- how a training ends -------------------------------------------------------------------------------


def test_an_existing_model_is_never_replaced(viewer, open_patients, dock_finetune, tuned):
    open_patients(2)
    widget = dock_finetune()
    tuned.parent.mkdir()
    tuned.write_bytes(b"precious")
    widget.run()
    assert widget.button.text == "Start"
    assert "already exists" in widget.status.value
    assert_message(widget.status.value)
    assert tuned.read_bytes() == b"precious"
    widget.controls.output.value = tuned.with_name("another.safetensors")
    assert widget.button.enabled
    widget.controls.output.value = tuned.with_name("another.txt")
    assert "must end in .safetensors" in widget.status.value


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (TrainingError("The loss is no longer a number at step 3."), "no longer a number"),
        (RuntimeError("CUDA out of memory"), "CUDA out of memory"),
        (MemoryError(), "not enough memory"),
    ],
)
def test_a_failure_is_reported(viewer, open_patients, dock_finetune, train, asked, notices, error, text):
    asked.events = (PatientRead(FIRST, 1, 1), StepDone(1, 4, 1, 0.5), error)
    open_patients(2)
    widget = dock_finetune()
    train(widget)
    assert text in widget.status.value
    assert_message(widget.status.value)
    assert widget.button.enabled
    assert notices == []


def test_the_best_model_is_saved_if_the_loss_diverges(
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
        Notice("One patient was left out."),
        Validated(0, 0, summarise({THIRD: 0.5}), 0.5),
        StepDone(1, 2, 1, 0.5),
        EpochDone(1, 2, 0.5, summarise({THIRD: 0.7}), 0.7),
        Ended("All is done."),
    )
    open_patients(2)
    widget = dock_finetune()
    train(widget)
    assert "One patient was left out." in widget.status.value
    widget.plot.redraw()
    assert widget.plot._dice == [(0, 0.5), (1, 0.7)]
    assert widget.plot._losses == [0.5]


def test_message_if_no_epoch_was_better(viewer, open_patients, dock_finetune, train, tuned, small_model):
    open_patients(2)
    widget = dock_finetune(epochs=1)
    widget.controls.learning_rate.value = 0.1  # so high that it spoils the model
    widget.controls.slices_per_epoch.value = 16
    train(widget)
    if read_card(tuned).training["epoch"] == 0:
        assert "No epoch was better than the initial model" in widget.status.value
    else:
        assert "after (epoch 1 of 1)" in widget.status.value


# --- the widget around it ---------------------------------------------------------------------------------


def test_plot_follows_the_theme(viewer, dock_finetune):
    widget = dock_finetune()
    colours = []
    for theme in ("dark", "light"):
        viewer.theme = theme
        colours.append(widget.plot.backgroundBrush().color().lightness())
    assert colours[0] < 100 < 200 < colours[1]


def test_remaining_time_is_rounded():
    assert time_left(3) == "5 s left"
    assert time_left(83) == "85 s left"
    assert time_left(240) == "4 min left"
    assert time_left(2 * 3600 + 60) == "2 h 1 min left"
    assert Progress(2).text


def test_intensities_keep_their_order_in_uint8():
    rng = np.random.default_rng(0)
    values = rng.normal(1000, 200, (4, 32, 32)).clip(0)
    values[0, 0, 0] = 1e7  # one hot voxel must not take the range
    small = as_uint8(values)
    assert small.max() == 255
    assert 100 < small.mean() < 200
    assert (as_uint8(np.zeros((2, 8, 8))) == 0).all()


def test_models_with_the_same_name_are_listed_with_their_folders(tmp_path):
    models = KnownModels()
    for folder in ("a", "b"):
        models.add(tmp_path / folder / "mine.safetensors")
        models.add(tmp_path / folder / "mine.safetensors")
    assert [name for name, _ in models.known()] == [f"mine ({tmp_path / f})" for f in ("a", "b")]


def test_without_the_extra_a_message_says_what_to_install(viewer, monkeypatch):
    monkeypatch.setattr(finetune, "find_spec", lambda name: None)
    _, widget = viewer.window.add_plugin_dock_widget("napari-lgg-seg", "Fine-tune")
    assert visible_text(widget) == NEEDS_EXTRA


def test_a_foreign_layer_with_our_key_does_no_harm(viewer, dock_finetune):
    viewer.add_labels(np.zeros((6, 64, 64), np.uint8), metadata={"lgg": "mine"})
    viewer.add_image(np.zeros((6, 64, 64)), metadata=describe("ghost", "FLAIR", range(1, 7)))
    widget = dock_finetune()
    assert "No patient is ticked" in widget.status.value


def test_creating_the_widget_does_not_import_torch():
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


def test_patients_have_the_type_that_the_core_expects(viewer, open_patients, dock_finetune, train, asked):
    open_patients(2)
    train(dock_finetune())
    assert all(isinstance(patient, Patient) for patient in asked.patients.values())
