"""Segment lower-grade glioma in brain MRI with a U-Net, in napari.

The public names are loaded when they are first used, so that importing the package costs nothing.

>>> import napari_lgg_seg as lgg
>>> lgg.SegmentOptions().clean_up is None  # the model's own
True
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._version import __version__ as __version__

if TYPE_CHECKING:
    from .api import (
        Agreement,
        Callback,
        Patient,
        Segmentation,
        SegmentOptions,
        TrainOptions,
        compare,
        load_model,
        read_patient,
        segment,
        segment_cohort,
        train,
        write_masks,
    )

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


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
