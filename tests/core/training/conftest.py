"""Fixtures for whole trainings of a narrow network on small patients."""

from __future__ import annotations

import gc
import shutil

import pytest
import torch
from narrow_network import narrow_network
from training_runs import start, until

from napari_lgg_seg.core.model.checkpoint import ModelCard, save_model
from napari_lgg_seg.core.model.networks import build_network
from napari_lgg_seg.core.model.preprocess import PreprocessOptions
from napari_lgg_seg.core.training import validation
from napari_lgg_seg.core.training.events import StepDone


@pytest.fixture(scope="module")
def narrow():
    """Narrow networks; and no garbage collection of existing objects, which each training asks for."""
    gc.freeze()
    with narrow_network():
        yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def patients(make_patient):
    """One patient for training, one for validation."""
    return [make_patient("first", shape=(4, 64, 64))], [make_patient("second", shape=(3, 64, 64), seed=1)]


@pytest.fixture
def output(tmp_path):
    """Where the model goes; the training state next to it is deleted at the end."""
    yield tmp_path / "my model.safetensors"
    shutil.rmtree(tmp_path)


@pytest.fixture
def state(output):
    """The file of the training state."""
    return output.with_name("my model.state") / "last.pt"


@pytest.fixture
def scores(monkeypatch):
    """Set the Dice of each validation of a single patient."""

    def set_scores(*values):
        left = iter(values)
        monkeypatch.setattr(validation, "dice", lambda labels, truth: next(left))

    return set_scores


@pytest.fixture(scope="session")
def whole_run(patients, tmp_path_factory):
    """An uninterrupted training: its events and its model file."""
    path = tmp_path_factory.mktemp("train") / "whole.safetensors"
    with narrow_network():
        events = list(start(patients, path))
    yield events, path
    shutil.rmtree(path.parent)


@pytest.fixture(scope="session")
def initial(tmp_path_factory):
    """A model to fine-tune, with everything in its card that fine-tuning must preserve."""
    path = tmp_path_factory.mktemp("initial") / "older.safetensors"
    card = ModelCard(
        "Older",
        preprocess=PreprocessOptions(working_size=32, clip_percentile=98.0),
        threshold=0.3,
        training_patients=("first", "third"),
        earlier_patients=("long ago", "second"),
        data="synthetic patients",
        licence="CC0",
    )
    with narrow_network():
        torch.manual_seed(3)
        save_model(path, build_network("unet", 3), card)
    yield path
    shutil.rmtree(path.parent)


@pytest.fixture
def one_step(patients, output):
    """A training that was stopped after its first step."""
    until(start(patients, output), StepDone)
