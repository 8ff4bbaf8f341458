"""npe2 writers: labels layers -> files. The writing itself is the core's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .core.export import write_masks
from .layers import METADATA_KEY


def write_dataset_masks(path: str, data: npt.NDArray[np.generic], meta: dict[str, Any]) -> list[str]:
    """Write a labels layer as a folder of ``<patient>_<n>_mask.tif``, uint8, 0 and 255.

    Parameters
    ----------
    path : str
        The folder to make; it must not hold images or masks of the dataset.
    data : ndarray of integers
        Shape (z, y, x) or (y, x).
    meta : dict
        The layer's properties; patient and slice numbers come from its metadata, else from the
        folder's name.

    Returns
    -------
    list of str
        The files.

    Raises
    ------
    ExportError
        One sentence: what is in the way and what to do.
    """
    return [str(file) for file in write_labels(Path(path), data, meta)]


def write_labels(
    folder: Path, data: npt.NDArray[np.generic], meta: dict[str, Any], *, overwrite: bool = False
) -> list[Path]:
    """As :func:`write_dataset_masks`, with the choice to replace masks written before."""
    info = meta.get("metadata", {}).get(METADATA_KEY, {})
    labels = np.asarray(data)
    if labels.ndim == 2:
        labels = labels[None]
    numbers = info.get("slice_numbers", ())
    return write_masks(
        folder,
        info.get("patient", folder.name),
        labels,
        numbers if len(numbers) == len(labels) else None,
        overwrite=overwrite,
    )
