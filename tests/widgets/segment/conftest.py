"""Models for the tests of the Segment widget."""

from __future__ import annotations

import pytest
from flair_model import write_flair_model


@pytest.fixture
def generous_model(tmp_path):
    """A model that finds more than the small model."""
    return write_flair_model(tmp_path / "generous.safetensors", cut=0.3)
