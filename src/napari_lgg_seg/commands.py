"""Menu commands: open a patient, export masks, step through a cohort."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import napari
from qtpy.QtWidgets import QFileDialog

from .preferences import dataset_folder
from .widgets.cohort.messages import NO_BROWSER
from .widgets.cohort.widget import CohortBrowser
from .widgets.shared import export
from .widgets.shared.open_folder import open_folder
from .widgets.shared.plain_text import show_error, show_info

if TYPE_CHECKING:
    from napari.viewer import Viewer


def open_patient() -> None:
    """Ask for a folder and open the patient, or the first patient of the dataset, in it."""
    viewer = _viewer()
    if viewer is None:
        return
    folder = QFileDialog.getExistingDirectory(
        None, "Open LGG patient: choose the patient's folder", dataset_folder()
    )
    if folder:
        open_folder(viewer, Path(folder), on_failure=show_error)


def export_masks() -> None:
    """Ask for a folder and write the selected or predicted labels there as dataset masks."""
    viewer = _viewer()
    if viewer is not None:
        export.export_masks(viewer)


def next_patient() -> None:
    """Open the next patient in the cohort browser's table."""
    _step(1)


def previous_patient() -> None:
    """Open the previous patient in the cohort browser's table."""
    _step(-1)


def _step(direction: int) -> None:
    viewer = _viewer()
    if viewer is None:
        return
    docked = viewer.window.dock_widgets.values()
    browser = next((widget for widget in docked if isinstance(widget, CohortBrowser)), None)
    if browser is None:
        show_info(NO_BROWSER)
    else:
        browser.step(direction)


def _viewer() -> Viewer | None:
    return napari.current_viewer()
