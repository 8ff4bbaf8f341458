"""Fixtures of the speed benchmarks' tests: two patients on disk."""

from __future__ import annotations

import pytest


@pytest.fixture
def folders(write_cohort):
    """Two patients' folders."""
    names = ["TCGA_DU_0001_19990101", "TCGA_DU_0002_19990101"]
    dataset = write_cohort(names)
    return [str(dataset / name) for name in names]
