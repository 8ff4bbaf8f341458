"""A small dataset, a fast model, and the commands that the tests run."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from program import NAME, Done

from napari_lgg_seg.core.data.masks import write_patient


@pytest.fixture
def dataset(tmp_path) -> Path:
    """Where patients are."""
    return tmp_path / "dataset"


@pytest.fixture
def write(dataset, make_patient) -> Callable[..., Path]:
    """Factory: write a small patient's folder; returns the folder."""

    def write_(name: str = NAME, **head: object) -> Path:
        write_patient(dataset / name, make_patient(name, **head))
        return dataset / name

    return write_


@pytest.fixture
def segment(run, small_model, tmp_path) -> Callable[..., Done]:
    """Factory: ``segment`` with the small model into tmp_path / "masks"."""
    return lambda *arguments: run(
        "segment", "--model", small_model, "--output", tmp_path / "masks", *arguments
    )


@pytest.fixture
def masks(tmp_path) -> Path:
    return tmp_path / "masks"


@pytest.fixture
def output(tmp_path) -> Iterator[Path]:
    """Where a model goes; the large state beside it is removed at the end."""
    yield tmp_path / "out" / "model.safetensors"
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
