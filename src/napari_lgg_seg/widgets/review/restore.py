"""Offers to restore edits that an earlier session left unsaved."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import napari
from napari.utils.notifications import show_error
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication, QMessageBox, QPushButton

from ...core.cohort import autosave as edit_files
from ...core.cohort.autosave import Leftover
from ...core.errors import LggSegError
from ...layers import METADATA_KEY, TRUTH, mark_used, same_patient, truth_properties, tumour_properties
from ..shared.open_folder import open_folder
from .autosave import autosaver_of, enable_autosave, window_of

if TYPE_CHECKING:
    from napari.layers import Labels
    from napari.viewer import Viewer

_MOST_LISTED = 6
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
    found = edit_files.leftovers()
    if not found:
        return None
    box = QMessageBox(window_of(viewer))
    box.setWindowTitle("Unsaved edits")
    box.setIcon(QMessageBox.Icon.Question)
    box.setText("An earlier session ended before these edits were saved. Restore them?")
    box.setInformativeText("\n".join(_lines(found)))
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
    except LggSegError as error:
        show_error(str(error))
        return
    about = dict(edit.about)
    info = about.pop(METADATA_KEY)
    if leftover.source:  # the patient's images were opened again, as another subject
        info["subject"] = same_patient(viewer.layers, leftover.patient, leftover.source) or info.get(
            "subject"
        )
    appearance = truth_properties() if info["role"] == TRUTH else tumour_properties(edit.patient)
    appearance["name"] = f"{leftover.title.removesuffix(_RESTORED)}{_RESTORED}"  # also after a second crash
    layer: Labels = viewer.add_labels(edit.labels, metadata={METADATA_KEY: info}, **about, **appearance)
    mark_used(layer)
    autosaver = autosaver_of(viewer)
    if autosaver is not None:
        autosaver.watch_restored(layer)
        edit_files.forget(leftover.path)  # this session saves them from now on
