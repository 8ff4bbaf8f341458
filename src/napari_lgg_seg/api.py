"""The public Python API: read a patient, load a model, segment, write labels; cohorts; compare; train."""

from __future__ import annotations

from .core.callbacks import Callback
from .core.checkpoint import load_model
from .core.compare import Agreement, compare
from .core.options import SegmentOptions, TrainOptions
from .core.patients import Patient, read_patient
from .core.segment_many import segment_cohort
from .core.segmentation import Segmentation, segment, write_masks
from .core.train import train

__all__ = [
    "Agreement",
    "Callback",
    "Patient",
    "SegmentOptions",
    "Segmentation",
    "TrainOptions",
    "compare",
    "load_model",
    "read_patient",
    "segment",
    "segment_cohort",
    "train",
    "write_masks",
]
