"""The review session of a viewer: one patient is open at a time, whichever widget opened it.

Before another patient takes its place, edits are saved. Files are read and written in a worker, and layers
are removed only once the edits in them are among the results.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from psygnal import Signal
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QMessageBox, QWidget

from ...core.cohort.edits import Edits, SavedEdits
from ...core.cohort.saved_labels import labels_saved
from ...core.cohort.sources import Opened, Source
from ...core.errors import LggSegError
from ...preferences import preferences
from ..shared.navigation import batched_update
from ..shared.plain_text import literal, show_error
from ..shared.worker import Failure, create_worker, unexpected
from .messages import not_saved
from .open_patient import OpenPatient, Visibility
from .paint_events import StrokeTimer
from .requests import Request, SwitchResult, UnreadablePatient, ignore_status, save_and_read

if TYPE_CHECKING:
    from napari.components import ViewerModel

SetStatus = Callable[[str], None]


class ReviewSession:
    """The open patient of a viewer; use :func:`session_of` to get a viewer's session.

    Parameters
    ----------
    viewer : ViewerModel
        Where patients are shown.

    Attributes
    ----------
    patient : OpenPatient or None
        The patient that is open.
    cohort : tuple of Path or None
        Folders of the dataset and of the results that are being reviewed.
    """

    #: Another patient is open, or none, or its labels have changed.
    changed = Signal()
    #: Emitted with the :class:`SavedEdits` of a patient.
    saved = Signal(object)
    #: Emitted with the :class:`Opened` of a patient whose files were read.
    patient_read = Signal(object)
    #: Emitted with a source whose files cannot be read, and why.
    read_failed = Signal(object, str)
    #: Emitted with the folders of the dataset and of the results that are reviewed from now on.
    cohort_chosen = Signal(Path, Path)

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._owners: list[object] = []
        self._visibility: Visibility = {}
        self._worker: Any = None
        self._requests: list[Request] = []
        self._edits: Edits | None = None  # of the first request, being saved
        self._is_switching = self._discards_edits = False
        self.patient: OpenPatient | None = None
        self.cohort: tuple[Path, Path] | None = None
        self._stroke_timer: StrokeTimer | None = None

    # --- widgets that use it -------------------------------------------------------------------

    def register(self, owner: object) -> None:
        """Start using the session."""
        if not self._owners:
            self._viewer.layers.events.removing.connect(self._layer_removing)
            self._stroke_timer = StrokeTimer(self._viewer, self.autosave, _autosave_delay)
        self._owners.append(owner)

    def suspend(self, owner: object) -> None:
        """Save edits because a widget was undocked, and send it no more messages about its requests."""
        self._detach(owner)
        if message := self.save_now():
            show_error(message)

    def release(self, owner: object) -> None:
        """Stop using the session; it ends with its last widget."""
        self._detach(owner)
        if owner in self._owners:
            self._owners.remove(owner)
            if not self._owners:
                self._close()

    def _detach(self, owner: object) -> None:
        self._requests = [
            replace(request, set_status=ignore_status, then=None) if request.owner is owner else request
            for request in self._requests
        ]

    def _close(self) -> None:
        self._viewer.layers.events.removing.disconnect(self._layer_removing)
        timer, self._stroke_timer = self._stroke_timer, None
        if timer is not None:
            timer.close()
        self._requests.clear()
        self.patient = None
        worker, self._worker = self._worker, None
        if worker is not None:
            for signal in (worker.returned, worker.errored, worker.finished):
                signal.disconnect()
            worker.quit()

    def choose_cohort(self, dataset: Path, results: Path) -> None:
        """Tell all widgets which cohort is reviewed."""
        self.cohort = dataset, results
        self.cohort_chosen.emit(dataset, results)

    # --- state ---------------------------------------------------------------------------------

    @property
    def source(self) -> Source | None:
        """Source of the patient that is open."""
        return self.patient.source if self.patient is not None else None

    @property
    def destination(self) -> Source | None:
        """Source of the patient that will be open after all pending requests."""
        openings = [request.source for request in self._requests if request.opens_another]
        return openings[-1] if openings else self.source

    def has_unsaved_corrections(self, source: Source) -> bool:
        """Whether a patient is open with edits that are not saved yet."""
        if self.patient is None or source.key != self.patient.source.key:
            return False
        edits = self.patient.edits()
        return edits is not None and edits.by_hand

    # --- requests ------------------------------------------------------------------------------

    def open(
        self, source: Source, owner: object, set_status: SetStatus, then: Callable[[], None] | None = None
    ) -> None:
        """Open a patient in place of the current one; if it is open already, read its files again."""
        while len(self._requests) > 1 and self._requests[-1].opens_another:
            self._requests.pop()  # not started yet, and superseded by this request
        destination = self.destination
        is_open = destination is not None and destination.key == source.key
        if self.patient is not None and destination is self.source and not self.patient.is_shown:
            is_open = False  # its layers were removed by the user, who wants them back
        self._add(Request(owner, set_status, source, close_current=not is_open, then=then))

    def close_patient(self, owner: object, set_status: SetStatus, then: Callable[[], None]) -> None:
        """Save the open patient's labels, remove it, and continue; not if they cannot be saved."""
        self._add(Request(owner, set_status, close_current=True, then=then))

    def save_first(self, owner: object, set_status: SetStatus, then: Callable[[], None]) -> None:
        """Save the open patient's labels and continue; not if they cannot be saved."""
        self._add(Request(owner, set_status, then=then))

    def accept(self, owner: object, set_status: SetStatus, then: Callable[[], None]) -> None:
        """Save the open patient's current labels as corrected."""
        self._add(Request(owner, set_status, accept=True, then=then))

    def refresh(self, source: Source, owner: object, set_status: SetStatus) -> None:
        """Show a patient's new result, if that patient is open."""
        if self.source is not None and self.source.key == source.key:
            self._add(Request(owner, set_status, source))

    def autosave(self) -> None:
        """Save edits made so far; the patient stays open."""
        if self._requests and self._stroke_timer is not None:
            self._stroke_timer.restart()
        elif self.source is not None and self.has_unsaved_corrections(self.source):
            self._add(Request(None, show_error))

    def _layer_removing(self, event: Any = None) -> None:
        """A layer is removed from outside, perhaps with the whole viewer: save the edits in it."""
        if self.patient is not None and not self._is_switching and (message := self.save_now()):
            show_error(message)

    def save_now(self) -> str:
        """Save the open patient's labels without a worker; returns a message if that fails."""
        patient = self.patient
        edits = self._edits_to_save(leaving=True)
        if patient is None or edits is None:
            return ""
        if self._edits is not None:
            self._edits.is_old.set()  # a worker may be about to write them
        try:
            saved = patient.save(edits)
        except LggSegError as error:
            return not_saved(patient.name, str(error))
        self._mark_saved(patient, saved)
        return ""

    def _mark_saved(self, patient: OpenPatient | None, saved: SavedEdits) -> None:
        """Announce saved edits, so that nothing else keeps them in case of a crash."""
        if patient is not None:
            patient.mark_saved(saved.edits)
        for labels in saved.edits.painted if not saved.edits.is_old.is_set() else ():
            labels_saved(labels, "" if patient is None else patient.name)
        self.saved.emit(saved)

    def may_close(self, window: QWidget) -> bool:
        """Whether the window may be closed: the open patient's labels are saved, or may be lost."""
        message = "" if self._discards_edits else self.save_now()
        if not message:
            return True
        buttons = QMessageBox.StandardButton
        question = literal(f"{message}\n\nClose the window anyway and lose the edits?")
        answer = QMessageBox.question(window, "Cohort", question, buttons.Yes | buttons.No, buttons.No)
        # Several docked widgets ask in turn, the user is asked once. Something else may keep the window open.
        self._discards_edits = answer == buttons.Yes
        QTimer.singleShot(0, self._reset_discard)
        return self._discards_edits

    def _reset_discard(self) -> None:
        self._discards_edits = False

    # --- running requests ----------------------------------------------------------------------

    def _edits_to_save(self, *, accept: bool = False, leaving: bool = False) -> Edits | None:
        """Edits of the open patient, if its source can store them."""
        if self.patient is None or not self.patient.source.can_save:
            return None
        return self.patient.edits(accept=accept, leaving=leaving)

    def _add(self, request: Request) -> None:
        self._requests.append(request)
        if len(self._requests) == 1:
            self._start()

    def _start(self) -> None:
        """Start the first request."""
        request = self._requests[0]
        self._edits = self._edits_to_save(accept=request.accept, leaving=request.close_current)
        if request.source is not None and request.close_current:
            request.set_status(f"Opening {request.source.name}...")
        if self._edits is None and request.source is None:
            self._finish(request)
            return
        self._worker = create_worker(
            save_and_read,
            self._edits,
            self.patient,
            request.source,
            _connect={"returned": self._done, "errored": self._failed},
        )

    def _failed(self, error: Exception) -> None:
        self._abort(unexpected(error))

    def _abort(self, message: str) -> None:
        """Drop all requests and tell their owners why."""
        self._worker = None
        receivers = dict.fromkeys(request.set_status for request in self._requests)
        self._requests.clear()
        self.changed.emit()
        for set_status in receivers:
            set_status(message)

    def _done(self, result: SwitchResult | Failure) -> None:
        """Show what the worker did; start again if the user has edited labels in the meantime."""
        self._worker = None
        request, patient = self._requests[0], self.patient
        name = patient.name if patient is not None else ""
        if isinstance(result, Failure):
            self._abort(result.message if self._edits is None else not_saved(name, result.message))
            return
        if isinstance(result.saved, Failure):
            self._abort(not_saved(name, result.saved.message))
            return
        if result.saved is not None:
            self._mark_saved(patient, result.saved)
        if isinstance(result.opened, Failure):
            if isinstance(result.opened, UnreadablePatient):
                self.read_failed.emit(request.source, result.opened.message)
            self._abort(result.opened.message)
        elif request.close_current and self._edits_to_save(leaving=True) is not None:
            self._start()
        else:
            self._finish(request, result.opened)
            if result.saved is not None and result.saved.sentence:
                request.set_status(result.saved.sentence)

    def _finish(self, request: Request, opened: Opened | None = None) -> None:
        if opened is not None:
            if opened.status.by_hand and opened.labels is not None:
                # Undoing all edits leads back to labels that are saved.
                labels_saved(opened.labels, opened.patient.name)
            self.patient_read.emit(opened)
        if request.close_current:
            with batched_update(self._viewer):
                self._switch_to(opened)
        elif opened is not None and self.patient is not None:
            self.patient.show_labels(opened)
        self._requests.pop(0)
        self.changed.emit()
        if request.then is not None:
            request.then()
        if self._requests and self._worker is None:
            self._start()

    def _switch_to(self, opened: Opened | None) -> None:
        """Remove the open patient and show another one, if given."""
        patient = self.patient
        if patient is not None and (patient.source.can_save or patient.edits(leaving=True) is None):
            self._is_switching = True
            try:
                self._visibility = patient.remove()
            finally:
                self._is_switching = False
        self.patient = OpenPatient(self._viewer, opened, self._visibility) if opened is not None else None


# A session lives as long as a widget uses it, so that it does not keep a closed viewer alive.
_SESSIONS: WeakValueDictionary[int, ReviewSession] = WeakValueDictionary()


def session_of(viewer: ViewerModel) -> ReviewSession:
    """The session of a viewer, shared by all its widgets; each widget registers with it."""
    identity = id(getattr(viewer, "__wrapped__", viewer))  # plugins get different proxies of one viewer
    session = _SESSIONS.get(identity)
    if session is None:
        session = _SESSIONS[identity] = ReviewSession(viewer)
    return session


def _autosave_delay() -> int:
    """Milliseconds from a brush stroke until edits are saved."""
    return preferences().autosave_seconds * 1000
