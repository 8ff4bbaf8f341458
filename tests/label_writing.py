"""Writes labels as another program would: plain files, without a record of who made them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from napari_lgg_seg.core.choices import FileFormat
from napari_lgg_seg.core.data.label_files import LabelMap, put_labels


def write_labels(output: Path, label_map: LabelMap, file_format: FileFormat = "masks") -> list[Path]:
    """Write labels to ``<output>/<patient>/``; returns the files."""
    folder = output / label_map.patient
    folder.mkdir(parents=True, exist_ok=True)
    return put_labels(folder, label_map, file_format)


def write_masks(
    folder: Path,
    patient: str,
    labels: npt.NDArray[np.generic],
    slice_numbers: Sequence[int] | None = None,
) -> list[Path]:
    """Write masks to a folder with any name; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    return put_labels(folder, LabelMap(patient, labels, tuple(slice_numbers or ())), "masks")
