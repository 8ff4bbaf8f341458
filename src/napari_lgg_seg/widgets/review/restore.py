"""Offers to restore edits that an earlier session left unsaved."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import napari
import numpy as np
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication, QMessageBox, QPushButton

from ...core.cohort import autosave as edit_files
from ...core.cohort.autosave import Edit, Leftover
from ...core.data import layer_metadata
from ...core.errors import DamagedEditsError, LggSegError
from ...layers import METADATA_KEY, TRUTH, mark_used, same_patient, truth_properties, tumour_properties
from ..shared.open_folder import open_folder
from ..shared.plain_text import literal, show_error, show_warning
from .autosave import autosaver_of, enable_autosave, window_of

if TYPE_CHECKING:
    from napari.layers import Labels
    from napari.viewer import Viewer

_MOST_LISTED = 6
#: Properties that say where a layer is, as the autosaver stores them.
_PLACE = ("scale", "translate", "rotate", "shear", "affine", "units")
_RESTORED = " (restored)"


def on_activate(_: Any = None) -> None:
    """npe2's hook when the plugin is first used: enable autosave, and offer earlier edits."""
    if QApplication.instance() is not None:
        QTimer.singleShot(0, _begin)


def _begin() -> None:
    viewer = napari.current_viewer()
    if viewer is not None:
        enable_autosave(viewer)
        offer(viewer)


def offer(viewer: Viewer) -> QMessageBox | None:
    """Ask whether to restore the edits of earlier sessions.

    Returns
    -------
    QMessageBox or None
        The question, which does not block the window; None if there is nothing to restore.
    """
    for sentence in edit_files.set_aside_damaged():
        show_warning(sentence)
    found = edit_files.leftovers()
    if not found:
        return None
    box = QMessageBox(window_of(viewer))
    box.setWindowTitle("Unsaved edits")
    box.setIcon(QMessageBox.Icon.Question)
    box.setText("An earlier session ended before these edits were saved. Restore them?")
    box.setInformativeText(literal("\n".join(_lines(found))))
    restore_button = box.addButton("Restore", QMessageBox.ButtonRole.AcceptRole)
    discard_button = box.addButton("Discard", QMessageBox.ButtonRole.DestructiveRole)
    box.addButton("Later", QMessageBox.ButtonRole.RejectRole)
    box.setDefaultButton(restore_button)

    def answered(button: QPushButton) -> None:
        if button is restore_button:
            restore(viewer, found)
        elif button is discard_button:
            for leftover in found:
                edit_files.forget(leftover.path)

    box.buttonClicked.connect(answered)
    box.setModal(False)
    box.open()
    return box


def _lines(found: list[Leftover]) -> list[str]:
    lines = [
        f"{leftover.title}  ({time.strftime('%d %b, %H:%M', time.localtime(leftover.saved))})"
        for leftover in found[:_MOST_LISTED]
    ]
    return lines if len(found) <= _MOST_LISTED else [*lines, f"and {len(found) - _MOST_LISTED} more"]


def restore(viewer: Viewer, found: list[Leftover]) -> None:
    """Show edits again, over their patients' images if these still exist."""
    waiting: dict[str, list[Leftover]] = {}
    for leftover in found:
        is_open = same_patient(viewer.layers, leftover.patient, leftover.source) is not None
        if not is_open and Path(leftover.source or "-").is_dir():
            waiting.setdefault(leftover.source, []).append(leftover)
        else:
            _show(viewer, leftover)
    for source, leftovers in waiting.items():

        def opened(leftovers: list[Leftover] = leftovers) -> None:
            for leftover in leftovers:
                _show(viewer, leftover)

        open_folder(viewer, Path(source), show_error, opened)


def _show(viewer: Viewer, leftover: Leftover) -> None:
    try:
        edit = edit_files.read(leftover.path)
    except DamagedEditsError as error:
        show_error(edit_files.set_aside(leftover.path, error))
        return
    except LggSegError as error:
        show_error(str(error))
        return
    slices = len(edit.labels) if edit.labels.ndim == 3 else None
    info = layer_metadata.checked(edit.about.get(METADATA_KEY), slices)
    is_truth = info is not None and info["role"] == TRUTH
    appearance = truth_properties() if is_truth else tumour_properties(edit.patient)
    appearance["name"] = f"{leftover.title.removesuffix(_RESTORED)}{_RESTORED}"  # also after a second crash
    if info is not None and leftover.source:  # the patient's images were opened again, as another subject
        subject = same_patient(viewer.layers, leftover.patient, leftover.source)
        info["subject"] = subject or info.get("subject")
    metadata = {} if info is None else {METADATA_KEY: info}
    grid = _grid_of(edit)
    layer: Labels = viewer.add_labels(edit.labels, metadata=metadata, **grid, **appearance)
    mark_used(layer)
    if info is None:
        problem = f"{leftover.path} does not say where its edits belong; they are shown without a patient."
        show_warning(edit_files.set_aside(leftover.path, DamagedEditsError(problem)))
        return
    autosaver = autosaver_of(viewer)
    if autosaver is not None:
        autosaver.watch_restored(layer)
        edit_files.forget(leftover.path)  # this session saves them from now on


def _grid_of(edit: Edit) -> dict[str, Any]:
    """Where a layer of edits was; napari's defaults if that is invalid."""
    from napari.layers import Labels

    grid = {name: edit.about[name] for name in _PLACE if name in edit.about}
    try:
        for name in set(grid) - {"units"}:
            grid[name] = np.asarray(grid[name], np.float64)
            if not np.isfinite(grid[name]).all():
                return {}
        pixels = np.zeros((1,) * edit.labels.ndim, np.uint8)
        layer = Labels(pixels, **grid)  # napari checks that all of it fits together
    except Exception:  # noqa: BLE001 - many kinds of errors, for values that may be anything
        return {}
    return grid if all(size > 0 for size in layer.scale) else {}
