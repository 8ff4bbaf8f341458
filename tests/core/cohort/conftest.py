"""A model file, a small cohort and its results folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_lgg_seg.core.cohort.store import ResultStore
from napari_lgg_seg.core.data.masks import write_patient
from napari_lgg_seg.core.data.patients import Patient


@pytest.fixture
def cohort(tmp_path, make_patient) -> Path:
    """A dataset folder of three patients with four slices each."""
    names = ("TCGA_CS_0003_20000303", "TCGA_DU_0001_19990101", "TCGA_HT_0002_20000202")
    for seed, name in enumerate(names):
        write_patient(tmp_path / "cohort" / name, make_patient(name, seed=seed, shape=(4, 64, 64)))
    return tmp_path / "cohort"


@pytest.fixture
def patient(make_patient) -> Patient:
    """A patient of six slices."""
    return make_patient("TCGA_DU_0001_19990101")


@pytest.fixture
def folder(tmp_path, patient) -> Path:
    """The folder of ``patient`` in a dataset folder."""
    write_patient(tmp_path / "dataset" / patient.name, patient)
    return tmp_path / "dataset" / patient.name


@pytest.fixture
def results(tmp_path) -> ResultStore:
    """A results folder that does not exist yet."""
    return ResultStore(tmp_path / "results")


@pytest.fixture
def probability() -> np.ndarray:
    """A random probability, shape (4, 6, 5)."""
    return np.random.default_rng(0).random((4, 6, 5)).astype(np.float32)


@pytest.fixture
def labels(probability) -> np.ndarray:
    """The labels of ``probability`` at a threshold of 0.5."""
    return (probability >= 0.5).astype(np.uint8)


@pytest.fixture(scope="session")
def model(small_model) -> Path:
    """A model file whose network labels what is bright in FLAIR."""
    return small_model
