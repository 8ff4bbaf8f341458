"""Export labels layers as dataset masks.

The writers import this module without a window, so Qt is imported inside functions.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ...core.atomic import safe_name
from ...core.cohort.patient_results import PatientResults
from ...core.cohort.saved_labels import labels_saved
from ...core.errors import ExistingMasksError, LggSegError, counted
from ...layers import (
    TRUTH,
    TUMOUR,
    current_layer,
    described,
    full_array,
    is_comparison,
    patient_in,
    to_label_map,
)
from .result_layers import is_by_hand

if TYPE_CHECKING:
    from napari.layers import Labels
    from napari.viewer import Viewer


def export_masks(viewer: Viewer) -> None:
    """Ask for a folder and write the selected labels, or those last worked on, there as dataset masks."""
    from qtpy.QtWidgets import QFileDialog

    from .plain_text import show_error, show_info

    layer = labels_to_export(viewer)
    if layer is None:
        show_error("There are no labels to export; segment a patient or select a labels layer first.")
        return
    patient = patient_of(layer)
    chosen = QFileDialog.getExistingDirectory(
        None, f"Export masks of {layer.name}: choose where to create the folder {patient}"
    )
    if not chosen:
        return
    folder = Path(chosen) / patient
    try:
        count = _write_or_ask(layer, folder)
    except LggSegError as error:
        show_error(str(error))
        return
    if count:
        show_info(f"{counted(count, 'mask')} of {layer.name} {'is' if count == 1 else 'are'} in {folder}.")


def labels_to_export(viewer: Viewer) -> Labels | None:
    """The selected labels, else the prediction, ground truth or labels last shown or edited.

    Comparisons are never exported: they also mark voxels that are not tumour.
    """
    from napari.layers import Labels

    labels = [layer for layer in viewer.layers if isinstance(layer, Labels) and not is_comparison(layer)]
    selected = [layer for layer in viewer.layers.selection if layer in labels]
    if len(selected) == 1:
        return selected[0]
    by_role = [
        [layer for layer in labels if (info := described(layer)) is not None and info["role"] == role]
        for role in (TUMOUR, TRUTH)
    ]
    result: Labels | None = current_layer(next(filter(None, [*by_role, labels]), []))
    return result


def patient_of(layer: Labels) -> str:
    """The patient of a labels layer; for a layer of no patient, its name as a valid file name."""
    info = described(layer)
    return safe_name(info["patient"] if info is not None else layer.name)


def write_mask_folder(
    folder: Path, data: npt.NDArray[np.generic], meta: dict[str, Any], *, overwrite: bool = False
) -> list[Path]:
    """Write a labels layer as a folder of dataset masks.

    Parameters
    ----------
    folder : Path
        The folder to create.
    data : ndarray of integers
        Shape (z, y, x) or (y, x).
    meta : dict
        The layer's properties.
    overwrite : bool
        Replace existing masks.

    Returns
    -------
    list of Path
        The written files.

    Raises
    ------
    ExistingMasksError
        If the folder holds masks already and ``overwrite`` is False.
    ExportError
        If the folder holds images, or cannot be written.
    """
    label_map = to_label_map(data, meta, folder.name)
    labels = label_map.labels[None] if label_map.labels.ndim == 2 else label_map.labels
    _warn_if_merged(labels)
    numbers = label_map.slice_numbers if len(label_map.slice_numbers) == len(labels) else ()
    if patient_in(meta) and not numbers and len(labels) > 1:
        _say_renumbered(len(labels))
    files = PatientResults(folder, label_map.patient).write_copy(
        dataclasses.replace(label_map, labels=labels, slice_numbers=numbers),
        "masks",
        by_hand=is_by_hand(data, meta),
        overwrite=overwrite,
    )
    labels_saved(np.asarray(full_array(data, meta)), patient_in(meta))
    return files


def _write_or_ask(layer: Labels, folder: Path) -> int:
    """Write the masks, asking before existing ones are replaced; returns how many were written."""
    from qtpy.QtWidgets import QMessageBox

    from .plain_text import literal

    meta = {"metadata": layer.metadata, "multiscale": layer.multiscale}
    try:
        return len(write_mask_folder(folder, layer.data, meta))
    except ExistingMasksError:
        question = f"{folder} already holds masks. Replace them?"
        answer = QMessageBox.question(None, "Export masks", literal(question))
        if answer != QMessageBox.StandardButton.Yes:
            return 0
        return len(write_mask_folder(folder, layer.data, meta, overwrite=True))


def _say_renumbered(count: int) -> None:
    """Tell the user that slices were added or removed, so that their numbers in the files are unknown."""
    from .plain_text import show_info

    show_info(
        f"The layer has another number of slices than its patient: masks are numbered from 1 to {count}."
    )


def _warn_if_merged(labels: npt.NDArray[np.generic]) -> None:
    """Dataset masks are binary: tell the user if the layer has several labels."""
    if labels.dtype.kind in "iu" and labels.size and labels.max() > 1 and len(np.unique(labels)) > 2:
        from .plain_text import show_info

        show_info(
            "Dataset masks are binary: all labels were written as tumour. TIFF and NIfTI keep them apart."
        )
