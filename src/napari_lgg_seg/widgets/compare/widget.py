"""The Compare widget: how well two labels layers agree and where they differ, and the same for folders."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from magicgui.widgets import Container, Label, ProgressBar, PushButton
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QTabWidget

from ...core.cohort.sources import Source, source_of
from ...core.cohort.summary_cache import default_cache_file
from ...core.errors import LggSegError
from ...core.evaluation.label_pairs import LabelPair
from ..review.review_session import session_of
from ..shared.docking import CloseGuard, SingleDock, TabbedDock, on_mouse_enter, on_undocked
from ..shared.forms import wrap
from ..shared.navigation import go_to_slice, nearest_slice
from ..shared.scrolling import ScrollingColumn, scroll_into_view
from ..shared.worker import Failure, create_worker, unexpected
from . import messages
from .folder_tab import FolderTab
from .overlay import Overlay
from .pair import ComparisonInput, ComparisonResult, check_pair, comparison_input, run_comparison
from .pair_menus import PairMenus
from .pair_observer import PairObserver
from .results_panel import ResultsPanel

if TYPE_CHECKING:
    import napari.viewer

#: Milliseconds from the last change of a layer until the metrics are updated.
_UPDATE_DELAY = 600
_MARGINS = (6, 8, 6, 6)


class CompareWidget(Container):
    """Dock widget: compares two labels layers in a worker, or two folders of patients.

    Parameters
    ----------
    napari_viewer : napari.viewer.Viewer
        Where labels layers are found and the overlay is shown.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__(labels=False)
        self._viewer = napari_viewer
        self._worker: Any = None
        self._job: ComparisonInput | None = None
        self._requested = False  # by a click; otherwise the metrics only follow the layers
        self._shown: ComparisonResult | None = None
        self.button = PushButton(text="Compare", tooltip="Compute all metrics and show where the two agree.")
        self.progress = ProgressBar(min=0, max=0, visible=False)
        self.status = Label(value="")
        self.results = ResultsPanel(napari_viewer.theme)
        self.layers = PairMenus(napari_viewer, self._pair_chosen)
        self._overlay = Overlay(napari_viewer, self._overlay_changed)
        self._observer = PairObserver(napari_viewer, self._labels_changed)
        self.session = session_of(napari_viewer)
        self.session.register(self)
        self.folders = FolderTab(self._open_pair, self._save_first)
        self._lay_out()
        self._connect()
        self.layers.update()

    def _lay_out(self) -> None:
        column = Container(widgets=[self.button, self.progress, self.status], labels=False)
        layout = column.native.layout()
        layout.insertWidget(0, self.layers.form())
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
        self._update_timer = QTimer(self.native, singleShot=True, interval=_UPDATE_DELAY)
        self._update_timer.timeout.connect(self._update)
        self._viewer.layers.events.removed.connect(self._layer_removed)
        self._viewer.dims.events.current_step.connect(self._show_position)
        self._viewer.events.theme.connect(self._theme_changed)
        self.native.destroyed.connect(self._closed)
        self.session.changed.connect(self._patient_changed)
        self.session.cohort_chosen.connect(self.folders.propose)
        if self.session.cohort is not None:
            self.folders.propose(*self.session.cohort)
        on_undocked(self.native, self._undocked)
        TabbedDock(self.native)
        SingleDock(self.native, "Compare", self._viewer)
        CloseGuard(self.native, lambda: self.session.may_close(self.native.window()))
        on_mouse_enter(self.native, lambda: self._labels_changed(False))

    def _pair_chosen(self, _: Any = None) -> None:
        if self._shown is not None and self._shown.pair != self.layers.pair:
            self._hide_results()
        if self._job is not None and self._job.pair != self.layers.pair:
            self._abandon()
        self._overlay.rename()
        problem = self.layers.problem()
        self.button.enabled = not problem
        if problem or (self._shown is None and self._worker is None):
            self._set_status(problem or messages.READY)

    def _set_status(self, text: str) -> None:
        self.status.value = text

    # --- running -------------------------------------------------------------------------------

    def _clicked(self) -> None:
        if self._requested:
            self.cancel()
        else:
            self.run()

    def run(self) -> None:
        """Compare the chosen layers, like a click on Compare."""
        if not self._requested and self._start(None):
            self._requested = True
            self.button.text = "Cancel"
            self.progress.visible = True
            self._set_status(messages.COMPARING)

    def cancel(self) -> None:
        """Stop; layers and metrics stay as they were."""
        if self._worker is not None:
            requested = self._requested
            self._abandon()
            if requested:
                self._set_status(messages.CANCELLED)

    def _start(self, known: int | None) -> bool:
        """Compare in a worker, unless the input has the checksum ``known``."""
        self._abandon()
        try:
            if self.layers.pair is None:
                return False
            self._job = comparison_input(self.layers.pair)
        except LggSegError as error:
            self._hide_results()
            self._set_status(str(error))
            return False
        self._observer.follow(self.layers.pair)
        self._worker = create_worker(
            run_comparison,
            self._job,
            known,
            _connect={
                "returned": self._show_result,
                "errored": self._show_error,
                "finished": self._finished,
            },
        )
        return True

    def _abandon(self) -> None:
        """Discard the comparison in progress."""
        worker = self._worker
        self._finished()
        if worker is not None:
            for signal in (worker.returned, worker.errored, worker.finished):
                signal.disconnect()
            worker.quit()

    def _finished(self) -> None:
        self._worker = self._job = None
        self._requested = False
        self.button.text = "Compare"
        self.progress.visible = False

    def _show_error(self, error: Exception) -> None:
        self._set_status(f"The comparison failed: {unexpected(error)}")

    def _show_result(self, result: ComparisonResult | Failure | None) -> None:
        if isinstance(result, Failure):
            self._set_status(result.message)
            return
        pair = self.layers.pair
        if result is None or pair is None:  # nothing has changed
            self._describe_results()
            return
        if not self._is_current(result):
            self._set_status(messages.GONE)
            return
        self._shown = result
        self.results.show_comparison(result)
        self._show_position()
        if self._requested:
            self._overlay.show(pair, result.overlay)
            scroll_into_view(self.status.native)
        else:
            self._overlay.update(result.overlay)
        self._describe_results()

    def _is_current(self, result: ComparisonResult) -> bool:
        """Whether the layers that were compared are still those chosen, in the same place."""
        try:
            return result.pair == self.layers.pair and check_pair(result.pair).is_like(result.alignment)
        except LggSegError:
            return False

    def _describe_results(self) -> None:
        if self._shown is not None:
            self._set_status(self._shown.summary())

    def _hide_results(self) -> None:
        """Hide the metrics; the overlay stays, its name says which layers it compares."""
        self._shown = None
        self._update_timer.stop()
        self._observer.follow(None)
        self.results.hide()

    # --- after the run -------------------------------------------------------------------------

    def _labels_changed(self, certain: bool) -> None:
        """Labels have changed, or may have: update the metrics once they stay the same for a while."""
        if self._shown is None and self._worker is None:
            return
        if certain and self._shown is not None and not self._requested:
            self._set_status(messages.STALE)
        self._update_timer.start()

    def _update(self) -> None:
        if self._worker is not None:
            self._update_timer.start()
        elif self._shown is not None:
            self._start(self._shown.checksum)

    def _layer_removed(self, _: Any = None) -> None:
        self._overlay.layers_changed()

    def _overlay_changed(self) -> None:
        self.results.show_switch(is_open=self._overlay.is_open, is_shown=self._overlay.is_shown)

    def _show_position(self, _: Any = None) -> None:
        if self._shown is not None and self._shown.pair.truth in self._viewer.layers:
            truth = self._shown.pair.truth
            index = nearest_slice(self._viewer, truth) if truth.ndim == 3 else 0
            self.results.show_position(index - self._shown.alignment.reference_start)

    def go_to(self, index: int) -> None:
        """Show a slice of those that were compared, counted from 0."""
        if self._shown is not None and self._shown.pair.truth.ndim == 3:
            go_to_slice(self._viewer, self._shown.pair.truth, index + self._shown.alignment.reference_start)

    def go_to_worst(self) -> None:
        """Show the slice with the lowest Dice."""
        if self._shown is not None and self._shown.agreement.worst_slice is not None:
            self.go_to(self._shown.slice_numbers.index(self._shown.agreement.worst_slice))

    # --- all patients --------------------------------------------------------------------------

    def _save_first(self, then: Callable[[], None]) -> None:
        """Save the open patient's edits before its files are compared."""
        self.session.save_first(self, self.folders.set_status, then)

    def _open_pair(self, pair: LabelPair) -> None:
        source = source_of(pair, default_cache_file())
        self.session.open(source, self, self.folders.set_status, partial(self._patient_opened, source))

    def _patient_opened(self, source: Source) -> None:
        """Compare the layers of a patient that was opened from the table."""
        self.folders.show_summary()
        opened = self.session.patient
        if opened is not None and opened.source.key == source.key:
            self.folders.mark_open(source)
            self.tabs.setCurrentIndex(0)
            self.layers.choose(opened.labels, opened.truth)
            self.run()

    def _patient_changed(self) -> None:
        self.folders.mark_open(self.session.source)

    def _theme_changed(self, _: Any = None) -> None:
        self.results.set_theme(self._viewer.theme)

    def _undocked(self) -> None:
        """Stop comparing and following layers, because the widget is out of sight."""
        self.cancel()
        self.folders.cancel()
        self.session.suspend(self)
        self._update_timer.stop()
        self._observer.follow(None)
        self._overlay.forget()

    def _closed(self) -> None:
        """Stop and disconnect from the viewer; the widget is gone."""
        worker, self._worker = self._worker, None
        if worker is not None:
            for signal in (worker.returned, worker.errored, worker.finished):
                signal.disconnect()
            worker.quit()
        self.folders.close()
        self.session.changed.disconnect(self._patient_changed)
        self.session.cohort_chosen.disconnect(self.folders.propose)
        self.session.release(self)
        self._observer.follow(None)
        self._overlay.forget()
        self.layers.close()
        self._viewer.layers.events.removed.disconnect(self._layer_removed)
        self._viewer.dims.events.current_step.disconnect(self._show_position)
        self._viewer.events.theme.disconnect(self._theme_changed)
