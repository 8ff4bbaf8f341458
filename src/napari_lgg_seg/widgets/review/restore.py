"""Offers what an earlier session painted and did not save."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_error
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QMessageBox, QPushButton

from ...core.cohort import autosave as recovery
from ...core.cohort.autosave import Leftover
from ...core.errors import LggSegError
from ...layers import METADATA_KEY, TRUTH, label_colours, patients_in, tumour_properties
from ...preferences import colour
from .autosave import autosaver_of, keep_edits, window_of

if TYPE_CHECKING:
    from napari.layers import Labels
    from napari.viewer import Viewer

_SHOWN = 6
_RESTORED = " (restored)"


def on_activate(_: Any = None) -> None:
    """What npe2 calls when the plugin is first used: keep edits from now on, and offer old ones."""
    from qtpy.QtWidgets import QApplication

    if QApplication.instance() is not None:
        QTimer.singleShot(0, _begin)


def _begin() -> None:
    import napari

    viewer = napari.current_viewer()
    if viewer is not None:
        keep_edits(viewer)
        offer(viewer)


def offer(viewer: Viewer) -> QMessageBox | None:
    """Ask whether to restore what earlier sessions left behind.

    Returns
    -------
    QMessageBox or None
        The question, which does not block the window; None if there is nothing to restore.
    """
    found = recovery.leftovers()
    if not found:
        return None
    box = QMessageBox(window_of(viewer))
    box.setWindowTitle("Edits that were not saved")
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
                recovery.forget(leftover.path)

    box.buttonClicked.connect(answered)
    box.setModal(False)
    box.open()
    return box


def _lines(found: list[Leftover]) -> list[str]:
    lines = [
        f"{leftover.title}  ({time.strftime('%d %b, %H:%M', time.localtime(leftover.saved))})"
        for leftover in found[:_SHOWN]
    ]
    return lines if len(found) <= _SHOWN else [*lines, f"and {len(found) - _SHOWN} more"]


def restore(viewer: Viewer, found: list[Leftover]) -> None:
    """Show edits again, each over its patient's images where these are still there."""
    from ...commands import open_folder

    waiting: dict[str, list[Leftover]] = {}
    for leftover in found:
        if leftover.patient not in patients_in(viewer.layers) and Path(leftover.source or "-").is_dir():
            waiting.setdefault(leftover.source, []).append(leftover)
        else:
            _show(viewer, leftover)
    for source, those in waiting.items():

        def opened(those: list[Leftover] = those) -> None:
            for leftover in those:
                _show(viewer, leftover)

        open_folder(viewer, Path(source), show_error, opened)


def _show(viewer: Viewer, leftover: Leftover) -> None:
    try:
        edit = recovery.read(leftover.path)
    except LggSegError as error:
        show_error(str(error))
        return
    about = dict(edit.about)
    info = about.pop(METADATA_KEY)
    looks = tumour_properties(edit.patient)
    if info["role"] == TRUTH:
        looks["colormap"] = label_colours(colour("truth_colour"))
    looks["name"] = f"{leftover.title.removesuffix(_RESTORED)}{_RESTORED}"  # also after a second crash
    layer: Labels = viewer.add_labels(edit.labels, metadata={METADATA_KEY: info}, **about, **looks)
    keeper = autosaver_of(viewer)
    if keeper is not None:
        keeper.watch_restored(layer)
        recovery.forget(leftover.path)  # this session keeps them now
