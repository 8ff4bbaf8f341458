"""npe2 writers: labels layers as dataset masks, TIFF or NIfTI."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .core.cohort.saved_labels import labels_saved
from .core.data.label_files import write_nifti, write_tiff
from .layers import full_array, patient_in, to_label_map
from .widgets.shared.export import write_mask_folder

#: Extension that npe2 appends to a folder's name to select the writer of masks.
_EXTENSION = ".masks"

LabelArray = npt.NDArray[np.generic]


def write_dataset_masks(path: str, data: LabelArray, meta: dict[str, Any]) -> list[str]:
    """Write a labels layer as a folder of ``<patient>_<n>_mask.tif``, uint8, 0 and 255.

    Parameters
    ----------
    path : str
        The folder to create; it must not hold images or masks of the dataset.
    data : ndarray of integers
        Shape (z, y, x) or (y, x).
    meta : dict
        The layer's properties. Patient and slice numbers come from its metadata, otherwise from the
        folder's name.

    Returns
    -------
    list of str
        The written files.

    Raises
    ------
    ExportError
        If the folder holds files of the dataset, or cannot be written.
    """
    return [str(file) for file in write_mask_folder(Path(path.removesuffix(_EXTENSION)), data, meta)]


def write_tiff_labels(path: str, data: LabelArray, meta: dict[str, Any]) -> list[str]:
    """Write a labels layer as one compressed multi-page TIFF with axes and voxel size; labels are kept.

    Raises
    ------
    ExportError
        If labels are not integers or have more than 4 dimensions, or the file cannot be written.
    """
    write_tiff(Path(path), to_label_map(data, meta, Path(path).stem))
    labels_saved(np.asarray(full_array(data, meta)), patient_in(meta))
    return [path]


def write_nifti_labels(path: str, data: LabelArray, meta: dict[str, Any]) -> list[str]:
    """Write a labels layer as NIfTI, (z, y, x) as (x, y, z); labels are kept.

    Raises
    ------
    ExportError
        As :func:`write_tiff_labels`, or if the package nibabel is missing.
    """
    write_nifti(Path(path), to_label_map(data, meta, Path(path).name.split(".")[0]))
    labels_saved(np.asarray(full_array(data, meta)), patient_in(meta))
    return [path]
