"""Fixtures of the benchmarks' tests: a small cohort on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from napari_lgg_seg.core.data.masks import write_patient
from napari_lgg_seg.core.data.patients import Patient


@pytest.fixture
def write_cohort(tmp_path: Path, make_patient: Callable[..., Patient]) -> Callable[..., Path]:
    """Factory: write synthetic patients, one folder each; returns the folder of all."""

    def write(names: Sequence[str], slices: int = 4) -> Path:
        for seed, name in enumerate(names):
            patient = make_patient(name, shape=(slices, 64, 64), seed=seed)
            write_patient(tmp_path / "data" / name, patient)
        return tmp_path / "data"

    return write
