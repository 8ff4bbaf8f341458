"""The public Python API: read a patient, load a model, segment, write labels; cohorts; compare; train."""

from __future__ import annotations

from .core.cohort.run import segment_cohort
from .core.data.patients import Patient, read_patient
from .core.evaluation.compare import Agreement, compare
from .core.inference.segmentation import Segmentation, segment, write_masks
from .core.model.checkpoint import load_model
from .core.options import SegmentOptions
from .core.training.callbacks import Callback
from .core.training.options import TrainOptions
from .core.training.train import train

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
