"""Segment lower-grade glioma in brain MRI with a U-Net, in napari."""

from __future__ import annotations

__version__ = "0.1.0"
