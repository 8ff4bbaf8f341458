"""npe2 sample data: the made patient as layers."""

from __future__ import annotations

from .core.data.phantom import make_sample_patient
from .layers import LayerData
from .reader import layers_of, patients_open


def make_sample() -> list[LayerData]:
    """Layers of the sample patient, as the reader would make them."""
    return layers_of([make_sample_patient()], patients_open())
