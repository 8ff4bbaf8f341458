"""The one patient that is open for review in a viewer, whichever widget opened it.

Another one takes its place after what was done to it is kept. Files are read and written in a worker, and
layers go only when the work in them is among the results.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from napari.qt.threading import create_worker
from napari.utils.notifications import show_error
from psygnal import Signal
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QMessageBox, QWidget

from ...core.cohort.edits import Edits, SavedEdits
from ...core.cohort.saved_labels import labels_saved
from ...core.cohort.sources import Opened, Source
from ...core.errors import LggSegError
from ...preferences import preferences
from ..shared.messages import not_kept
from ..shared.navigation import at_once
from ..shared.worker import Failure
from .open_patient import OpenPatient, Visibility
from .paint_events import Strokes
from .requests import Broken, Request, SwitchResult, keep_and_open, say_nothing

if TYPE_CHECKING:
    from napari.components import ViewerModel


class ReviewSession:
    """The patient that is open; get a viewer's desk from :func:`session_of`.

    Parameters
    ----------
    viewer : ViewerModel
        Where patients are shown.
    """

    #: Another patient is open now, or none, or more is known of it.
    changed = Signal()
    #: A :class:`SavedEdits`: what was done to a patient is among the results.
    kept = Signal(object)
    #: An :class:`Opened`: a patient was read.
    was_read = Signal(object)
    #: A source whose files cannot be read, and why.
    was_broken = Signal(object, str)
    #: The folders of dataset and results that somebody goes through.
    cohort_chosen = Signal(Path, Path)

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._owners: list[object] = []
        self._visibility: Visibility = {}
        self._worker: Any = None
        self._requests: list[Request] = []
        self._work: Edits | None = None
        self._is_swapping = self._is_given_up = False
        self.case: OpenPatient | None = None
        self.cohort: tuple[Path, Path] | None = None
        self._strokes: Strokes | None = None

    # --- who uses it ---------------------------------------------------------------------------

    def join(self, owner: object) -> None:
        """Use the desk from now on."""
        if not self._owners:
            self._viewer.layers.events.removing.connect(self._layer_goes)
            self._strokes = Strokes(self._viewer, self.autosave, _autosave_delay)
        self._owners.append(owner)

    def put_away(self, owner: object) -> None:
        """Keep what was done, since a widget is out of sight now, and tell it of its wishes no more."""
        self._forget(owner)
        if sentence := self.keep_now():
            show_error(sentence)

    def drop(self, owner: object) -> None:
        """A widget is gone; the last one ends all work."""
        self._forget(owner)
        if owner in self._owners:
            self._owners.remove(owner)
            if not self._owners:  # nobody is left to ask
                self._close()

    def _forget(self, owner: object) -> None:
        self._requests = [
            replace(request, say=say_nothing, then=None) if request.owner is owner else request
            for request in self._requests
        ]

    def _close(self) -> None:
        self._viewer.layers.events.removing.disconnect(self._layer_goes)
        strokes, self._strokes = self._strokes, None
        if strokes is not None:
            strokes.close()
        self._requests.clear()
        self.case = None
        worker, self._worker = self._worker, None
        if worker is not None:
            for signal in (worker.returned, worker.errored, worker.finished):
                signal.disconnect()
            worker.quit()

    def choose_cohort(self, dataset: Path, results: Path) -> None:
        """Let everybody know which cohort somebody goes through."""
        self.cohort = dataset, results
        self.cohort_chosen.emit(dataset, results)

    # --- what is open --------------------------------------------------------------------------

    @property
    def source(self) -> Source | None:
        """Of the patient that is open."""
        return self.case.source if self.case is not None else None

    @property
    def destination(self) -> Source | None:
        """Of the patient that will be open once all wishes are fulfilled."""
        openings = [request.source for request in self._requests if request.is_opening]
        return openings[-1] if openings else self.source

    def is_corrected(self, source: Source) -> bool:
        """Whether a patient is open with labels that somebody painted in since they were kept."""
        work = self.case.work() if self.case is not None and source.key == self.case.source.key else None
        return work is not None and work.by_hand

    # --- wishes --------------------------------------------------------------------------------

    def open(
        self,
        source: Source,
        owner: object,
        say: Callable[[str], None],
        then: Callable[[], None] | None = None,
    ) -> None:
        """Show a patient in place of the one that is open; one that is open already is read anew."""
        while len(self._requests) > 1 and self._requests[-1].is_opening:
            self._requests.pop()  # it has not begun, and only the last of several is wanted
        going_to = self.destination
        is_there = going_to is not None and going_to.key == source.key
        if self.case is not None and going_to is self.source and not self.case.is_shown:
            is_there = False  # somebody removed its layers and wants them again
        self._ask(Request(owner, say, source, leave=not is_there, then=then))

    def leave(self, owner: object, say: Callable[[str], None], then: Callable[[], None]) -> None:
        """Keep the open patient's labels, take it away, and go on; not if they cannot be kept."""
        self._ask(Request(owner, say, leave=True, then=then))

    def keep_first(self, owner: object, say: Callable[[str], None], then: Callable[[], None]) -> None:
        """Keep the open patient's labels, leave it open, and go on; not if they cannot be kept."""
        self._ask(Request(owner, say, then=then))

    def accept(self, owner: object, say: Callable[[str], None], then: Callable[[], None]) -> None:
        """Keep the open patient's labels as they are now, as corrected."""
        self._ask(Request(owner, say, accept=True, then=then))

    def refresh(self, source: Source, owner: object, say: Callable[[str], None]) -> None:
        """Show the new result of a patient, if that is the one that is open."""
        if self.source is not None and self.source.key == source.key:
            self._ask(Request(owner, say, source))

    def autosave(self) -> None:
        """Keep what was painted so far; the patient stays open."""
        if self._requests and self._strokes is not None:
            self._strokes.look_again()
        elif self.source is not None and self.is_corrected(self.source):
            self._ask(Request(None, show_error))

    def _layer_goes(self, event: Any = None) -> None:
        """Somebody else removes a layer, perhaps by mistake or with the whole viewer: keep what is in it."""
        if self.case is not None and not self._is_swapping and (sentence := self.keep_now()):
            show_error(sentence)

    def keep_now(self) -> str:
        """Keep the open patient's labels at once, since they go; a sentence if it fails."""
        case = self.case
        work = self._work_on(case, leaving=True)
        if case is None or work is None:
            return ""
        if self._work is not None:
            self._work.is_old.set()  # a worker may still be about to write it
        try:
            kept = case.keep(work)
        except LggSegError as error:
            return not_kept(case.name, str(error))
        self._was_kept(case, kept)
        return ""

    def _was_kept(self, case: OpenPatient | None, kept: SavedEdits) -> None:
        """Let everybody know what is among the results: nothing else has to keep it from a crash now."""
        if case is not None:
            case.was_kept(kept.edits)
        for labels in kept.edits.painted if not kept.edits.is_old.is_set() else ():
            labels_saved(labels)
        self.kept.emit(kept)

    def may_close(self, window: QWidget) -> bool:
        """Whether the window may be closed: the open patient's labels are kept, or given up."""
        sentence = "" if self._is_given_up else self.keep_now()
        if not sentence:
            return True
        buttons = QMessageBox.StandardButton
        question = f"{sentence}\n\nClose the window all the same, and lose them?"
        answer = QMessageBox.question(window, "Cohort", question, buttons.Yes | buttons.No, buttons.No)
        # Each docked widget asks, the user is asked once; the window may yet stay for another reason.
        self._is_given_up = answer == buttons.Yes
        QTimer.singleShot(0, self._take_back)
        return self._is_given_up

    def _take_back(self) -> None:
        self._is_given_up = False

    # --- how they come true --------------------------------------------------------------------

    @staticmethod
    def _work_on(case: OpenPatient | None, *, accept: bool = False, leaving: bool = False) -> Edits | None:
        """What is to be kept of a patient for which there is a place."""
        if case is None or not case.source.can_save:
            return None
        return case.work(accept=accept, leaving=leaving)

    def _ask(self, request: Request) -> None:
        self._requests.append(request)
        if len(self._requests) == 1:
            self._begin()

    def _begin(self) -> None:
        """Start with the first wish."""
        request = self._requests[0]
        self._work = self._work_on(self.case, accept=request.accept, leaving=request.leave)
        if request.source is not None and request.leave:
            request.say(f"Opening {request.source.name}...")
        if self._work is None and request.source is None:
            self._finish(request)
            return
        self._worker = create_worker(
            keep_and_open,
            self._work,
            self.case,
            request.source,
            _connect={"returned": self._take, "errored": self._failed},
        )

    def _failed(self, error: Exception) -> None:
        self._give_up(f"{error} ({type(error).__name__}).")

    def _give_up(self, sentence: str) -> None:
        self._worker = None
        says = dict.fromkeys(request.say for request in self._requests)
        self._requests.clear()
        self.changed.emit()
        for say in says:
            say(sentence)

    def _take(self, move: SwitchResult | Failure) -> None:
        """Show what a worker did; begin again if the user went on painting meanwhile."""
        self._worker = None
        request, case, work = self._requests[0], self.case, self._work
        name = case.name if case is not None else ""
        if isinstance(move, Failure):
            self._give_up(move.sentence if work is None else not_kept(name, move.sentence))
            return
        if isinstance(move.kept, Failure):
            self._give_up(not_kept(name, move.kept.sentence))
            return
        if move.kept is not None:
            self._was_kept(case, move.kept)
        if isinstance(move.opened, Failure):
            if isinstance(move.opened, Broken):
                self.was_broken.emit(request.source, move.opened.sentence)
            self._give_up(move.opened.sentence)
        elif request.leave and self._work_on(case, leaving=True) is not None:
            self._begin()
        else:
            self._finish(request, move.opened)
            if move.kept is not None and move.kept.sentence:
                request.say(move.kept.sentence)

    def _finish(self, request: Request, opened: Opened | None = None) -> None:
        if opened is not None:
            if opened.status.by_hand and opened.labels is not None:  # who undoes all is where they are
                labels_saved(opened.labels)
            self.was_read.emit(opened)
        if request.leave:
            self._swap(opened)
        elif opened is not None and self.case is not None:
            self.case.show_labels(opened)
        self._requests.pop(0)
        self.changed.emit()
        if request.then is not None:
            request.then()
        if self._requests and self._worker is None:
            self._begin()

    def _swap(self, opened: Opened | None) -> None:
        """Take the open patient away; another one in its place, if there is one."""
        with at_once(self._viewer):
            self._swap_layers(opened)

    def _swap_layers(self, opened: Opened | None) -> None:
        case = self.case
        if case is not None and (case.source.can_save or case.work(leaving=True) is None):
            self._is_swapping = True
            try:
                self._visibility = case.remove()
            finally:
                self._is_swapping = False
        self.case = OpenPatient(self._viewer, opened, self._visibility) if opened is not None else None


# Sessions live as long as a widget uses them: a viewer that is closed is not to be held by its desk.
_SESSIONS: WeakValueDictionary[int, ReviewSession] = WeakValueDictionary()


def session_of(viewer: ViewerModel) -> ReviewSession:
    """The desk of a viewer, the same for all its widgets; each of them is to join it."""
    identity = _identity(viewer)
    session = _SESSIONS.get(identity)
    if session is None:
        session = _SESSIONS[identity] = ReviewSession(viewer)
    return session


def _autosave_delay() -> int:
    """Milliseconds from a stroke until what was painted is kept: a crash costs no more than that."""
    return preferences().autosave_seconds * 1000


def _identity(viewer: ViewerModel) -> int:
    """What all proxies of a viewer that plugins are given have in common."""
    return id(getattr(viewer, "__wrapped__", viewer))
