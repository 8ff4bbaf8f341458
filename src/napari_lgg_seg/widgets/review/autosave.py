"""Saves edits of patients' labels every few seconds, so that a crash costs little work."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import ref

import numpy as np
from napari.layers import Labels
from qtpy.QtCore import QEvent, QObject, QTimer

from ...core.cohort import autosave as edit_files
from ...core.cohort.autosave import Edit
from ...core.cohort.saved_labels import checksum, saved
from ...core.data.layer_metadata import FIELDS
from ...core.errors import LggSegError
from ...layers import METADATA_KEY, described
from ...preferences import preferences
from ..shared.plain_text import show_warning
from ..shared.result_layers import is_edited
from ..shared.worker import create_worker
from .paint_events import PAINTED, LabelsObserver

if TYPE_CHECKING:
    from napari.components import ViewerModel

#: How long to wait for a worker that is still writing, in milliseconds.
_RETRY = 200


def enable_autosave(viewer: ViewerModel) -> None:
    """Save edits in a viewer from now on; once for each window."""
    if autosaver_of(viewer) is None:
        EditAutosaver(viewer, window_of(viewer))


def autosaver_of(viewer: ViewerModel) -> EditAutosaver | None:
    """The autosaver of a viewer, if there is one."""
    found: EditAutosaver | None = window_of(viewer).findChild(EditAutosaver)
    return found


def window_of(viewer: ViewerModel) -> Any:
    """The main window of a viewer or of its proxy."""
    return getattr(viewer, "__wrapped__", viewer).window._qt_window


class EditAutosaver(QObject):
    """Watches the labels of a viewer's patients; created by :func:`enable_autosave`.

    Parameters
    ----------
    viewer : Viewer
        Whose layers are watched.
    window : QWidget
        The viewer's main window, which owns this object.
    """

    def __init__(self, viewer: ViewerModel, window: Any) -> None:
        super().__init__(window)
        self._viewer = ref(getattr(viewer, "__wrapped__", viewer))
        self._edited: list[Labels] = []
        self._files: dict[int, Path] = {}  # by the id of an edited layer
        self._checksums: dict[
            Path, tuple[str, int]
        ] = {}  # of the files' labels, with their patient, also of layers that are gone
        self._saved: set[tuple[str, int]] = set()  # patients and checksums of labels in the user's own files
        self._writer: EditWriter | None = None
        self._timer = QTimer(self, singleShot=True)
        self._timer.timeout.connect(self._save)
        self._observer = LabelsObserver(viewer, self._changed)
        viewer.layers.events.removing.connect(self._removing)
        saved.labels.connect(self._user_saved)
        window.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        """Save what the timer has not saved yet before the window closes."""
        if event.type() == QEvent.Type.Close:
            self.save_now()
        return False

    # --- watching ------------------------------------------------------------------------------

    def _removing(self, event: Any) -> None:
        viewer = self._viewer()
        layer = viewer.layers[event.index] if viewer is not None else None
        if layer in self._edited:
            self._save_at_once([layer])
            self._edited.remove(layer)
            self._files.pop(id(layer), None)  # ids are reused

    def _changed(self, event: Any) -> None:
        """A layer was painted in or, if it is edited already, redrawn as after undo."""
        layer = event.source
        if event.type != PAINTED and layer not in self._edited:
            return
        if described(layer) is None:
            return
        if layer not in self._edited:
            self._edited.append(layer)
        if not self._timer.isActive():  # not restarted, so that painting without a pause is saved as well
            self._timer.start(preferences().autosave_seconds * 1000)

    def watch_restored(self, layer: Labels) -> None:
        """Save labels that were restored: they are not in a file of the user's yet."""
        if layer not in self._edited:
            self._edited.append(layer)
        self._save_at_once([layer])

    # --- saving --------------------------------------------------------------------------------

    def _unsaved(self, layers: list[Labels]) -> list[tuple[Labels, int]]:
        """Layers with unsaved edits and their checksums; removes files that are no longer needed."""
        found = []
        for layer in layers:
            now, file = checksum(layer.data), self._files.get(id(layer))
            if (_patient_of(layer), now) in self._saved or not is_edited(layer):
                self._remove(file)
            elif file is None or self._checksums.get(file) != (_patient_of(layer), now):
                found.append((layer, now))
        return found

    def _remove(self, file: Path | None) -> None:
        if file is not None and self._checksums.pop(file, None) is not None:
            edit_files.forget(file)

    def _save(self) -> None:
        if self._writer is not None:
            self._timer.start(_RETRY)
            return
        unsaved = self._unsaved(self._edited)
        if unsaved:
            edits = [(id(layer), now, _edit_of(layer)) for layer, now in unsaved]
            self._writer = EditWriter()
            create_worker(self._writer.write, edits, _connect={"returned": self._written})

    def _written(self, result: list[Written] | str) -> None:
        writer, self._writer = self._writer, None
        if writer is None or writer.is_stopped:  # its files were noted when it was stopped
            return
        if isinstance(result, str):
            _warn(result)
            return
        for written in result:
            self._note(*written)

    def _note(self, layer: int, patient: str, now: int, path: Path) -> None:
        if layer in map(id, self._edited):
            before = self._files.get(layer)
            if before != path:  # the layer was renamed
                self._remove(before)
            self._files[layer] = path
        self._checksums[path] = patient, now
        if (patient, now) in self._saved:  # by the user, while it was being written
            self._remove(path)

    def save_now(self) -> None:
        """Save all edits in this thread, because there is no time left for a worker."""
        self._save_at_once(self._edited)

    def _save_at_once(self, layers: list[Labels]) -> None:
        if self._writer is not None:
            for written in self._writer.stop():  # it may be about to write older labels
                self._note(*written)
            self._timer.start(0)
        try:
            for layer, now in self._unsaved(layers):
                self._note(id(layer), _patient_of(layer), now, edit_files.save(_edit_of(layer)))
        except LggSegError as error:
            _warn(str(error))

    def _user_saved(self, patient: str, labels: int) -> None:
        self._saved.add((patient, labels))
        for file in [file for file, now in self._checksums.items() if now == (patient, labels)]:
            self._remove(file)


#: The id of a layer, its patient, the checksum of its labels, and the file that holds them.
Written = tuple[int, str, int, Path]


class EditWriter:
    """Writes edits in a worker until it is stopped.

    Attributes
    ----------
    is_stopped : bool
        Whether it was stopped because there are newer edits.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.is_stopped = False
        self._written: list[Written] = []

    def write(self, edits: list[tuple[int, int, Edit]]) -> list[Written] | str:
        """Write edits; returns what was written, or a message if that failed."""
        try:
            for layer, now, edit in edits:
                with self._lock:
                    if self.is_stopped:
                        return []
                    self._written.append((layer, edit.patient, now, edit_files.save(edit)))
        except LggSegError as error:
            return str(error)
        return self._written

    def stop(self) -> list[Written]:
        """Wait for the file being written and write no more; returns what was written."""
        with self._lock:
            self.is_stopped = True
            return self._written


def _warn(reason: str) -> None:
    show_warning(f"Edits could not be autosaved, so a crash would lose them: {reason}")


def _edit_of(layer: Labels) -> Edit:
    """A copy of a layer's labels, with all that is needed to show them again."""
    info = described(layer) or {}
    about = {
        METADATA_KEY: {name: info[name] for name in FIELDS if name in info},
        "scale": [float(size) for size in layer.scale],
        "translate": [float(offset) for offset in layer.translate],
        "rotate": np.asarray(layer.rotate, float).tolist(),
        "shear": np.asarray(layer.shear, float).tolist(),
        "affine": np.asarray(layer.affine.affine_matrix, float).tolist(),
        "units": [str(unit) for unit in layer.units],
    }
    source, layer_id = info.get("folder") or "", str(layer.unique_id)
    return Edit(_patient_of(layer), layer.name, np.array(layer.data), source, about, layer_id)


def _patient_of(layer: Labels) -> str:
    info = described(layer)
    return layer.name if info is None else str(info["patient"])  # the metadata may have become invalid
