"""Keeps what is painted in patients' labels, so that a crash takes no more than the last seconds."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import ref

import numpy as np
from napari.layers import Labels
from napari.qt.threading import create_worker
from napari.utils.notifications import show_warning
from qtpy.QtCore import QEvent, QObject, QTimer

from ...core.cohort import autosave as recovery
from ...core.cohort.autosave import Edit
from ...core.cohort.saved_labels import checksum, saved
from ...core.errors import LggSegError
from ...layers import METADATA_KEY, described
from ...preferences import preferences
from ..shared.result_layers import is_edited
from .paint_events import PAINTED, LabelsWatch

if TYPE_CHECKING:
    from napari.components import ViewerModel


def keep_edits(viewer: ViewerModel) -> None:
    """Keep what is painted in a viewer's patients from now on; once for each window."""
    if autosaver_of(viewer) is None:
        EditAutosaver(viewer, window_of(viewer))


def autosaver_of(viewer: ViewerModel) -> EditAutosaver | None:
    """The keeper of a viewer, where there is one."""
    found: EditAutosaver | None = window_of(viewer).findChild(EditAutosaver)
    return found


def window_of(viewer: ViewerModel) -> Any:
    """The main window, also of the proxy of a viewer that plugins are given."""
    return getattr(viewer, "__wrapped__", viewer).window._qt_window


class EditAutosaver(QObject):
    """Watches the labels of a viewer's patients; get one by :func:`keep_edits`.

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
        self._touched: list[Labels] = []
        self._files: dict[int, Path] = {}  # of the touched layers
        self._held: dict[Path, int] = {}  # checksums of what files hold, also of layers that are gone
        self._saved: set[int] = set()
        self._writing: Writing | None = None
        self._soon = QTimer(self, singleShot=True)
        self._soon.timeout.connect(self._keep)
        self._watch = LabelsWatch(viewer, self._changed)
        viewer.layers.events.removing.connect(self._removing)
        saved.labels.connect(self._was_saved)
        window.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        """Qt's hook: what the timer has not kept yet is kept before the window closes."""
        if event.type() == QEvent.Type.Close:
            self.keep_now()
        return False

    # --- what is watched -----------------------------------------------------------------------

    def _removing(self, event: Any) -> None:
        viewer = self._viewer()
        layer = viewer.layers[event.index] if viewer is not None else None
        if layer in self._touched:
            self._keep_at_once([layer])
            self._touched.remove(layer)
            self._files.pop(id(layer), None)  # another layer may get that number

    def _changed(self, event: Any) -> None:
        """Somebody painted; or undid it, which has no event of its own but that the layer is drawn anew."""
        layer = event.source
        if event.type != PAINTED and layer not in self._touched:
            return
        if described(layer) is None:
            return
        if layer not in self._touched:
            self._touched.append(layer)
        if not self._soon.isActive():  # who paints without a pause is kept, too
            self._soon.start(preferences().autosave_seconds * 1000)

    def watch_restored(self, layer: Labels) -> None:
        """Keep labels that were restored: they are as little saved as they were before."""
        if layer not in self._touched:
            self._touched.append(layer)
        self._keep_at_once([layer])

    # --- keeping -------------------------------------------------------------------------------

    def _unkept(self, layers: list[Labels]) -> list[tuple[Labels, int]]:
        """Layers whose edits are not kept yet; files of those that are safe are removed on the way."""
        found = []
        for layer in layers:
            now, file = checksum(layer.data), self._files.get(id(layer))
            if now in self._saved or not is_edited(layer):
                self._forget(file)
            elif file is None or self._held.get(file) != now:
                found.append((layer, now))
        return found

    def _forget(self, file: Path | None) -> None:
        if file is not None and self._held.pop(file, None) is not None:
            recovery.forget(file)

    def _keep(self) -> None:
        if self._writing is not None:
            self._soon.start(200)
            return
        unkept = self._unkept(self._touched)
        if unkept:
            edits = [(id(layer), now, _edit(layer)) for layer, now in unkept]
            self._writing = Writing()
            create_worker(self._writing.write, edits, _connect={"returned": self._written})

    def _written(self, result: list[Written] | str) -> None:
        writing, self._writing = self._writing, None
        if writing is None or writing.is_broken_off:  # what was written is known, and perhaps replaced
            return
        if isinstance(result, str):
            show_warning(f"What you painted is not safe from a crash: {result}")
            return
        for written in result:
            self._note(*written)

    def _note(self, layer: int, held: int, path: Path) -> None:
        if layer in map(id, self._touched):
            before = self._files.get(layer)
            if before != path:  # the layer has another name now
                self._forget(before)
            self._files[layer] = path
        self._held[path] = held
        if held in self._saved:  # meanwhile
            self._forget(path)

    def keep_now(self) -> None:
        """Keep what is not kept yet, without a worker, since there is no time left for one."""
        self._keep_at_once(self._touched)

    def _keep_at_once(self, layers: list[Labels]) -> None:
        if self._writing is not None:
            for written in self._writing.break_off():  # it may be about to write what is older
                self._note(*written)
            self._soon.start(0)
        try:
            for layer, now in self._unkept(layers):
                self._note(id(layer), now, recovery.save(_edit(layer)))
        except LggSegError as error:
            show_warning(f"What you painted is not safe from a crash: {error}")

    def _was_saved(self, what: int) -> None:
        self._saved.add(what)
        for file in [file for file, held in self._held.items() if held == what]:
            self._forget(file)


#: The number of a layer, the checksum of its labels, and the file that holds them.
Written = tuple[int, int, Path]


class Writing:
    """Writes edits in a worker, until it is told that there are newer ones.

    Attributes
    ----------
    is_broken_off : bool
        Whether it was told so.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.is_broken_off = False
        self._written: list[Written] = []

    def write(self, edits: list[tuple[int, int, Edit]]) -> list[Written] | str:
        """Keep edits; returns what was written, or a sentence if that failed."""
        try:
            for layer, now, edit in edits:
                with self._lock:
                    if self.is_broken_off:
                        return []
                    self._written.append((layer, now, recovery.save(edit)))
        except LggSegError as error:
            return str(error)
        return self._written

    def break_off(self) -> list[Written]:
        """Write no more, and wait for what is being written; returns what was."""
        with self._lock:
            self.is_broken_off = True
            return self._written


def _edit(layer: Labels) -> Edit:
    """A layer's labels, copied, with all that shows them again."""
    info = described(layer)
    assert info is not None
    about = {
        METADATA_KEY: json.loads(json.dumps(info, default=str)),
        "scale": [float(size) for size in layer.scale],
        "translate": [float(offset) for offset in layer.translate],
        "units": [str(unit) for unit in layer.units],
    }
    return Edit(info["patient"], layer.name, np.array(layer.data), info.get("folder") or "", about)
