"""npe2 writers: labels layers -> files. The writing itself is the core's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .core.atomic import safe_name
from .core.cohort.saved_labels import labels_saved
from .core.data.label_files import LabelMap, write_nifti, write_tiff
from .core.data.masks import write_masks
from .layers import METADATA_KEY, spacing_in_mm

#: What npe2 adds to a folder's name, so that it reaches the writer of masks.
_ENDING = ".masks"

LabelArray = npt.NDArray[np.generic]


def write_dataset_masks(path: str, data: LabelArray, meta: dict[str, Any]) -> list[str]:
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
    return [str(file) for file in write_mask_folder(Path(path.removesuffix(_ENDING)), data, meta)]


def write_tiff_labels(path: str, data: LabelArray, meta: dict[str, Any]) -> list[str]:
    """Write a labels layer as one compressed multi-page TIFF with axes and voxel size; labels are kept.

    Raises
    ------
    ExportError
        One sentence: labels that are no whole numbers or have more than 4 dimensions, a full disk.
    """
    write_tiff(Path(path), to_label_map(data, meta, Path(path).stem))
    labels_saved(data)
    return [path]


def write_nifti_labels(path: str, data: LabelArray, meta: dict[str, Any]) -> list[str]:
    """Write a labels layer as NIfTI, (z, y, x) as (x, y, z); labels are kept.

    Raises
    ------
    ExportError
        As :func:`write_tiff_labels`, or if the package nibabel is missing.
    """
    write_nifti(Path(path), to_label_map(data, meta, Path(path).name.split(".")[0]))
    labels_saved(data)
    return [path]


def write_mask_folder(
    folder: Path, data: LabelArray, meta: dict[str, Any], *, overwrite: bool = False
) -> list[Path]:
    """As :func:`write_dataset_masks`, with the choice to replace masks written before."""
    label_map = to_label_map(data, meta, folder.name)
    labels = label_map.labels[None] if label_map.labels.ndim == 2 else label_map.labels
    _say_if_merged(labels)
    numbers = label_map.slice_numbers if len(label_map.slice_numbers) == len(labels) else None
    files = write_masks(folder, label_map.patient, labels, numbers, overwrite=overwrite)
    labels_saved(data)
    return files


def to_label_map(data: LabelArray, meta: dict[str, Any], name: str) -> LabelMap:
    """A layer's data and properties as the core knows them; ``name`` is for layers of no patient."""
    info = meta.get("metadata", {}).get(METADATA_KEY, {})
    scale, units = meta.get("scale"), meta.get("units")
    affine = info.get("affine")
    return LabelMap(
        patient=safe_name(info.get("patient", name)),
        labels=np.asarray(data),
        slice_numbers=tuple(info.get("slice_numbers", ())),
        spacing=spacing_in_mm(scale, units) if scale is not None and units is not None else None,
        affine=None if affine is None else np.asarray(affine, np.float64),
        made_with=info.get("made_with", {}),
    )


def _say_if_merged(labels: LabelArray) -> None:
    """Dataset masks know tumour and not tumour: say so where a layer knows more."""
    if labels.dtype.kind in "iu" and labels.size and labels.max() > 1 and len(np.unique(labels)) > 2:
        from napari.utils.notifications import show_info

        show_info(
            "Dataset masks hold tumour or not: all labels were written as tumour. TIFF and NIfTI keep them."
        )
