"""npe2 sample data: the synthetic patient."""

from __future__ import annotations

from .core.data.phantom import make_sample_patient
from .layers import LayerData, layers_of, patients_open


def make_sample() -> list[LayerData]:
    """Layers of the sample patient, as the reader would return them."""
    return layers_of([make_sample_patient()], patients_open())
