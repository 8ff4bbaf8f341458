"""Trainings whose network sees neighbouring slices."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
from narrow_network import narrow_network
from training_runs import about, note_batch_shapes, notices, of, start, step_losses, until

from napari_lgg_seg.core.errors import TrainingError
from napari_lgg_seg.core.evaluation.metrics import dice
from napari_lgg_seg.core.inference.postprocess import postprocess
from napari_lgg_seg.core.inference.predict import Predictor, run_to_end
from napari_lgg_seg.core.model.checkpoint import load_model, read_card
from napari_lgg_seg.core.options import SegmentOptions
from napari_lgg_seg.core.training.events import StepDone, Validated

pytestmark = pytest.mark.usefixtures("narrow")


@pytest.fixture(scope="module")
def with_neighbours(make_patient, tmp_path_factory):
    """A training with a neighbour on each side, of a patient with slices without a mask; and its patients."""
    first = dataclasses.replace(make_patient("first", shape=(6, 64, 64)), slices_without_mask=(2, 5))
    patients = [first], [make_patient("second", shape=(4, 64, 64), seed=1)]
    path = tmp_path_factory.mktemp("neighbours") / "neighbours.safetensors"
    with narrow_network():
        events = list(start(patients, path, neighbouring_slices=1, epochs=4, slices_per_epoch=16))
    yield events, path, patients
    shutil.rmtree(path.parent)


def test_a_network_with_neighbours_learns(with_neighbours):
    events, path, _ = with_neighbours
    losses = step_losses(events)
    assert len(losses) == 16
    assert np.mean(losses[-4:]) < 0.9 * np.mean(losses[:4])
    model = load_model(path)
    assert model.card.neighbouring_slices == model.card.training["neighbouring_slices"] == 1
    assert model.network.down[0][0].in_channels == 9


def test_the_model_file_segments_as_in_its_validation(with_neighbours):
    _, path, (_, [patient]) = with_neighbours
    model = load_model(path)
    probability = run_to_end(Predictor(model, "cpu").predict(patient.volume))
    labels = postprocess(probability, model.card.complete(SegmentOptions()))
    assert dice(labels, patient.truth) == pytest.approx(model.card.results["validation"]["second"], abs=0.02)


def test_a_slice_depends_on_its_neighbours_only(with_neighbours):
    _, path, (_, [patient]) = with_neighbours
    model = load_model(path)
    probability = run_to_end(Predictor(model, "cpu").predict(patient.volume))
    other = run_to_end(Predictor(model, "cpu").predict(patient.volume[[1, 0, 2, 3]]))
    assert not np.allclose(other[2], probability[2], atol=1e-3)
    np.testing.assert_allclose(other[3], probability[3], atol=1e-4)


def test_batches_hold_slices_and_neighbours(patients, output, monkeypatch):
    shapes = note_batch_shapes(monkeypatch)
    options = {"neighbouring_slices": 2, "sequences": "flair", "epochs": 1, "slices_per_epoch": 8}
    list(start(patients, output, small_share=0.5, **options))
    assert shapes == [(4, 5, 16, 16), (4, 5, 32, 32)]


def test_fine_tuning_keeps_the_neighbouring_slices(with_neighbours, output):
    _, initial, patients = with_neighbours
    events = list(start(patients, output, init=str(initial), epochs=1))
    assert len(of(events, Validated)) == 1
    card = read_card(output)
    assert (card.neighbouring_slices, card.training["neighbouring_slices"]) == (1, None)
    assert load_model(output).network.down[0][0].in_channels == 9


@pytest.mark.parametrize("neighbours", [0, 2])
def test_fine_tuning_with_other_neighbouring_slices_is_refused(with_neighbours, output, neighbours):
    _, initial, patients = with_neighbours
    with pytest.raises(TrainingError, match=r"with 1 neighbouring slice on each side, not .*\.$"):
        list(start(patients, output, init=str(initial), neighbouring_slices=neighbours))
    assert not output.exists()


def test_the_shipped_model_has_no_neighbouring_slices(patients, output):
    events = until(start(patients, output, init=None, neighbouring_slices=1), StepDone)
    assert any("neighbouring slice on each side; starting from scratch." in text for text in notices(events))


def test_a_resumed_training_continues_as_if_never_stopped(with_neighbours, output):
    events, _, patients = with_neighbours
    options = {"neighbouring_slices": 1, "epochs": 4, "slices_per_epoch": 16}
    before = until(start(patients, output, **options), StepDone, 6)
    after = list(start(patients, output, resume=True, **options))
    assert step_losses(before) + step_losses(after) == about(step_losses(events))
    with pytest.raises(TrainingError, match=r"to a training with neighbouring slices 1, not None; .*\.$"):
        list(start(patients, output, resume=True, epochs=4, slices_per_epoch=16))
