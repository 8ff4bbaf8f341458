"""Menu commands: open a patient, export masks, go through a cohort; with one sentence if it fails."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .core.atomic import safe_name
from .core.errors import ExistingMasksError, LggSegError
from .layers import TRUTH, TUMOUR, LayerData, described, find_layer, is_comparison, patients_in
from .preferences import dataset_folder
from .widgets.shared.worker import Failure, returns_failure

if TYPE_CHECKING:
    from napari.layers import Labels
    from napari.viewer import Viewer


def open_patient() -> None:
    """Ask for a folder and open the patient, or the dataset, that it holds."""
    from napari.utils.notifications import show_error
    from qtpy.QtWidgets import QFileDialog

    viewer = _viewer()
    if viewer is None:
        return
    folder = QFileDialog.getExistingDirectory(
        None, "Open LGG patient: choose the patient's folder", dataset_folder()
    )
    if not folder:
        return
    open_folder(viewer, Path(folder), on_failure=show_error)


def open_folder(
    viewer: Viewer,
    folder: Path,
    on_failure: Callable[[str], object],
    then: Callable[[], object] | None = None,
) -> None:
    """Read a folder in a worker and add its layers.

    Parameters
    ----------
    viewer : Viewer
        Where the layers are added.
    folder : Path
        A patient, or a dataset.
    on_failure : callable
        Given one sentence if the folder cannot be read.
    then : callable, optional
        Called after either.
    """
    from napari.qt.threading import create_worker
    from napari.utils.notifications import show_info

    from .reader import layers_of

    def returned(result: Any) -> None:
        if isinstance(result, Failure):
            on_failure(result.sentence)
            return
        patients, notice = result
        add_layers(viewer, layers_of(patients, patients_in(viewer.layers)))
        if notice:
            show_info(notice)

    def finished() -> None:
        if then is not None:
            then()

    # Connected before the worker starts: it may be done before this returns.
    create_worker(_read_folder, folder, _connect={"returned": returned, "finished": finished})


@returns_failure
def _read_folder(folder: Path) -> Generator[None, None, Any]:
    from .reader import read_patients

    yield
    return read_patients([folder])


def add_layers(viewer: Viewer, layers: list[LayerData]) -> None:
    """Add layer data to a viewer."""
    from napari.layers import Layer

    for data in layers:
        viewer.add_layer(Layer.create(*data))


def export_masks() -> None:
    """Ask for a folder and write the selected, or the predicted, labels there as dataset masks."""
    from napari.utils.notifications import show_error, show_info
    from qtpy.QtWidgets import QFileDialog

    viewer = _viewer()
    if viewer is None:
        return
    layer = labels_to_export(viewer)
    if layer is None:
        show_error("There are no labels to export; segment a patient or select a labels layer first.")
        return
    patient = patient_of(layer)
    chosen = QFileDialog.getExistingDirectory(
        None, f"Export masks of {layer.name}: a folder {patient} is made in"
    )
    if not chosen:
        return
    folder = Path(chosen) / patient
    try:
        count = _export(layer, folder)
    except LggSegError as error:
        show_error(str(error))
        return
    if count:
        show_info(f"{count} masks of {layer.name} are in {folder}.")


def labels_to_export(viewer: Viewer) -> Labels | None:
    """The active layer if it holds labels, else the newest prediction, else the newest truth or labels.

    A comparison is not exported: it also marks what is no tumour.
    """
    from napari.layers import Labels

    active = viewer.layers.selection.active
    if isinstance(active, Labels) and not is_comparison(active):
        return active
    for role in (TUMOUR, TRUTH):
        for patient in reversed(patients_in(viewer.layers)):
            layer = find_layer(viewer.layers, patient, role)
            if layer is not None:
                return layer
    labels = [layer for layer in viewer.layers if isinstance(layer, Labels) and not is_comparison(layer)]
    return labels[-1] if labels else None


def patient_of(layer: Labels) -> str:
    """The patient whose labels these are; for foreign layers, the layer's name as a file may have it."""
    info = described(layer)
    return safe_name(info["patient"] if info is not None else layer.name)


def _export(layer: Labels, folder: Path) -> int:
    """Write the masks, asking before older ones are replaced; returns how many were written."""
    from qtpy.QtWidgets import QMessageBox

    from .writers import write_mask_folder

    meta = {"metadata": layer.metadata}
    try:
        return len(write_mask_folder(folder, layer.data, meta))
    except ExistingMasksError:
        question = f"{folder} holds masks already. Replace them?"
        answer = QMessageBox.question(None, "Export masks", question)
        if answer != QMessageBox.StandardButton.Yes:
            return 0
        return len(write_mask_folder(folder, layer.data, meta, overwrite=True))


def next_patient() -> None:
    """Open the patient that comes next in the cohort browser's table."""
    _step(1)


def previous_patient() -> None:
    """Open the patient that comes before in the cohort browser's table."""
    _step(-1)


def _step(direction: int) -> None:
    from napari.utils.notifications import show_info

    from .widgets.cohort.messages import NO_BROWSER
    from .widgets.cohort.widget import CohortBrowser

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
    import napari

    return napari.current_viewer()
