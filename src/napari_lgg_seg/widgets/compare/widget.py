"""The Compare widget: how far two labels layers agree, where they do not, and the same for a whole folder.

What can be compared is :mod:`.comparison`'s business, the overlay is :mod:`.overlay`'s, what is said
:mod:`.compare_words`', the folders are :mod:`.folders`', and all figures are the core's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from magicgui.widgets import Container, Label, ProgressBar, PushButton
from napari.qt.threading import create_worker
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QTabWidget

from ...core.cohort.sources import Source, source_of
from ...core.cohort.summary_cache import default_cache_file
from ...core.errors import LggSegError
from ...core.evaluation.label_pairs import LabelPair
from ..review.review_session import session_of
from ..shared.docking import Tabbed, WhenEntered, WhenUndocked, WhenWindowCloses
from ..shared.forms import wrap
from ..shared.navigation import go_to_slice, slice_in_view
from ..shared.scrolling import ScrollingColumn, show_from
from ..shared.worker import Failure
from . import messages
from .folder_tab import FolderComparison
from .overlay import Overlay
from .pair import Compared, Taken, data_of, run_comparison, take
from .pair_menus import PairChoice
from .pair_observer import Watch
from .results_panel import Results

if TYPE_CHECKING:
    import napari.viewer

#: Milliseconds from the last change of a layer to new figures.
_QUIET_MS = 600
_MARGINS = (6, 8, 6, 6)


class CompareWidget(Container):
    """Dock widget: compares two labels layers in a worker, or two folders of patients.

    Parameters
    ----------
    napari_viewer : napari.viewer.Viewer
        Where labels layers are looked for and the overlay is shown.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__(labels=False)
        self._viewer = napari_viewer
        self._worker: Any = None
        self._taken: Taken | None = None
        self._asked = False  # by a click; else the figures only follow the layers
        self._shown: Compared | None = None
        self.button = PushButton(text="Compare", tooltip="Compute all figures and show where the two agree.")
        self.progress = ProgressBar(min=0, max=0, visible=False)
        self.status = Label(value="")
        self.results = Results(napari_viewer.theme)
        self.layers = PairChoice(napari_viewer, self._pair_chosen)
        self._overlay = Overlay(napari_viewer, self._overlay_changed)
        self._watch = Watch(napari_viewer, self._labels_changed)
        self.session = session_of(napari_viewer)
        self.session.join(self)
        self.folders = FolderComparison(self._open_pair, self._keep_first)
        self._lay_out()
        self._connect()
        self.layers.look_at_layers()

    def _lay_out(self) -> None:
        column = Container(widgets=[self.button, self.progress, self.status], labels=False)
        layout = column.native.layout()
        layout.insertWidget(0, self.layers.menus())
        layout.addWidget(self.results)
        layout.addStretch()
        wrap(self.status, lines=2)
        self._column = column
        self.tabs = QTabWidget()
        self.tabs.addTab(ScrollingColumn(column.native), "Two layers")
        self.tabs.addTab(ScrollingColumn(self.folders.native), "All patients")
        for page in (column.native, self.folders.native):
            page.layout().setContentsMargins(*_MARGINS)
        self.native.layout().addWidget(self.tabs)

    def _connect(self) -> None:
        self.button.clicked.connect(self._clicked)
        self.results.worst.clicked.connect(self.go_to_worst)
        if self.results.plot is not None:
            self.results.plot.chosen.connect(self.go_to)
        self.results.show_overlay.changed.connect(lambda shown: self._overlay.switch(shown=shown))
        self._soon = QTimer(self.native, singleShot=True, interval=_QUIET_MS)
        self._soon.timeout.connect(self._follow)
        self._viewer.layers.events.removed.connect(self._layer_removed)
        self._viewer.dims.events.current_step.connect(self._show_place)
        self._viewer.events.theme.connect(self._theme_changed)
        self.native.destroyed.connect(self._closed)
        self.session.changed.connect(self._patient_changed)
        self.session.cohort_chosen.connect(self.folders.propose)
        if self.session.cohort is not None:
            self.folders.propose(*self.session.cohort)
        WhenUndocked(self.native, self._undocked)
        Tabbed(self.native)
        WhenWindowCloses(self.native, lambda: self.session.may_close(self.native.window()))
        WhenEntered(self.native, lambda: self._labels_changed(False))

    def _pair_chosen(self, _: Any = None) -> None:
        if self._shown is not None and self._shown.pair != self.layers.pair:
            self._forget()
        if self._taken is not None and self._taken.pair != self.layers.pair:
            self._abandon()
        problem = self.layers.problem()
        self.button.enabled = not problem
        if problem or (self._shown is None and self._worker is None):
            self._set_status(problem or messages.READY)

    def _set_status(self, text: str) -> None:
        self.status.value = text

    # --- running -------------------------------------------------------------------------------

    def _clicked(self) -> None:
        if self._asked:
            self.cancel()
        else:
            self.run()

    def run(self) -> None:
        """Compare the chosen layers; what a click on Compare does."""
        if not self._asked and self._start(None):
            self._asked = True
            self.button.text = "Cancel"
            self.progress.visible = True
            self._set_status(messages.COMPARING)

    def cancel(self) -> None:
        """Compare no further; layers and figures stay as they were."""
        if self._worker is not None:
            asked = self._asked
            self._abandon()
            if asked:
                self._set_status(messages.CANCELLED)

    def _start(self, known: int | None) -> bool:
        """Compare in a worker, unless all has the checksum ``known``."""
        self._abandon()
        try:
            if self.layers.pair is None:
                return False
            self._taken = take(self.layers.pair)
        except LggSegError as error:
            self._forget()
            self._set_status(str(error))
            return False
        self._watch.follow(self.layers.pair)
        self._worker = create_worker(
            run_comparison,
            self._taken,
            known,
            _connect={
                "returned": self._show_result,
                "errored": self._show_error,
                "finished": self._finished,
            },
        )
        return True

    def _abandon(self) -> None:
        """Forget the comparison that is going on."""
        worker = self._worker
        self._finished()
        if worker is not None:
            for signal in (worker.returned, worker.errored, worker.finished):
                signal.disconnect()
            worker.quit()

    def _finished(self) -> None:
        self._worker = self._taken = None
        self._asked = False
        self.button.text = "Compare"
        self.progress.visible = False

    def _show_error(self, error: Exception) -> None:
        self._set_status(f"The comparison failed: {error} ({type(error).__name__}).")

    def _show_result(self, result: Compared | Failure | None) -> None:
        if isinstance(result, Failure):
            self._set_status(result.sentence)
            return
        pair = self.layers.pair
        if result is None or pair is None:  # nothing has changed
            self._say_what_is_shown()
            return
        if result.pair != pair or data_of(pair.truth).shape != result.overlay.shape or self.layers.problem():
            self._set_status(messages.GONE)
            return
        self._shown = result
        self.results.show_comparison(result)
        self._show_place()
        if self._asked:
            self._overlay.show(pair, result.overlay)
            show_from(self.status.native)
        else:
            self._overlay.update(result.overlay)
        self._say_what_is_shown()

    def _say_what_is_shown(self) -> None:
        if self._shown is not None:
            self._set_status(messages.compared(self._shown.agreement))

    def _forget(self) -> None:
        """Show no figures; the overlay stays, it says itself of which layers it is."""
        self._shown = None
        self._soon.stop()
        self._watch.follow(None)
        self.results.hide()

    # --- after the run -------------------------------------------------------------------------

    def _labels_changed(self, certain: bool) -> None:
        """Somebody painted, or may have: the figures follow when that is over."""
        if self._shown is None and self._worker is None:
            return
        if certain and self._shown is not None and not self._asked:
            self._set_status(messages.STALE)
        self._soon.start()

    def _follow(self) -> None:
        if self._worker is not None:
            self._soon.start()
        elif self._shown is not None:
            self._start(self._shown.checksum)

    def _layer_removed(self, _: Any = None) -> None:
        self._overlay.layers_changed()

    def _overlay_changed(self) -> None:
        self.results.show_switch(is_open=self._overlay.is_open, is_shown=self._overlay.is_shown)

    def _show_place(self, _: Any = None) -> None:
        if self._shown is not None and self._shown.pair.truth in self._viewer.layers:
            self.results.show_place(slice_in_view(self._viewer, self._shown.pair.truth))

    def go_to(self, index: int) -> None:
        """Show a slice of the layers that were compared, counted from 0."""
        if self._shown is not None and self._shown.pair.truth.ndim == 3:
            go_to_slice(self._viewer, self._shown.pair.truth, index)

    def go_to_worst(self) -> None:
        """Show the slice with the lowest Dice."""
        if self._shown is not None and self._shown.agreement.worst_slice is not None:
            self.go_to(self._shown.slice_numbers.index(self._shown.agreement.worst_slice))

    # --- all patients --------------------------------------------------------------------------

    def _keep_first(self, then: Callable[[], None]) -> None:
        """What was done to the open patient comes into its files before they are compared."""
        self.session.keep_first(self, self.folders.say, then)

    def _open_pair(self, case: LabelPair) -> None:
        source = source_of(case, default_cache_file())
        self.session.open(source, self, self.folders.say, partial(self._patient_opened, source))

    def _patient_opened(self, source: Source) -> None:
        """A patient of the table is open: compare."""
        self.folders.say_summary()
        opened = self.session.case
        if opened is not None and opened.source.key == source.key:
            self.folders.mark_open(source)
            self.tabs.setCurrentIndex(0)
            self.layers.choose(opened.labels, opened.truth)
            self.run()

    def _patient_changed(self) -> None:
        self.folders.mark_open(self.session.source)

    def _theme_changed(self, _: Any = None) -> None:
        self.results.take_theme(self._viewer.theme)

    def _undocked(self) -> None:
        """Nobody looks any more: neither compare nor follow the layers."""
        self.cancel()
        self.folders.cancel()
        self.session.put_away(self)
        self._soon.stop()
        self._watch.follow(None)
        self._overlay.forget()

    def _closed(self) -> None:
        """The widget is gone: stop, and forget the viewer."""
        worker, self._worker = self._worker, None
        if worker is not None:
            for signal in (worker.returned, worker.errored, worker.finished):
                signal.disconnect()
            worker.quit()
        self.folders.close()
        self.session.changed.disconnect(self._patient_changed)
        self.session.cohort_chosen.disconnect(self.folders.propose)
        self.session.drop(self)
        self._watch.follow(None)
        self._overlay.forget()
        self.layers.close()
        self._viewer.layers.events.removed.disconnect(self._layer_removed)
        self._viewer.dims.events.current_step.disconnect(self._show_place)
        self._viewer.events.theme.disconnect(self._theme_changed)
