"""The Segment widget: one column in the order of the work, with one click needed."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from magicgui.widgets import Container
from qtpy.QtCore import QTimer
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import QShortcut

from ...core.data.patients import SEQUENCES
from ...core.errors import LggSegError
from ...core.inference.predict import Event, Notice
from ...core.options import SegmentOptions, option_help
from ...layers import PROBABILITY, TRUTH, TUMOUR, UNCERTAINTY, described, find_layer, outline, spacing_of
from ..review.autosave import enable_autosave
from ..shared import navigation
from ..shared import result_layers as results
from ..shared.device_chooser import DeviceChooser
from ..shared.docking import TabbedDock, on_undocked
from ..shared.export import export_masks, labels_to_export
from ..shared.forms import distinct, update_choices, wrap
from ..shared.model_chooser import ModelChooser
from ..shared.result_layers import Subject
from ..shared.scrolling import ScrollingColumn
from ..shared.worker import Failure, create_worker, unexpected
from . import messages, relabelling
from .controls import Controls
from .inputs import (
    arrays_of,
    candidates,
    describe_subject,
    proposed_sequences,
    subjects_in,
)
from .job import Job, Result, run_job

if TYPE_CHECKING:
    import napari.viewer
    from napari.layers import Image, Labels

#: Milliseconds from the last move of the slider until measurements are updated.
_MEASURE_DELAY = 150


class SegmentWidget(Container):
    """Dock widget: finds the patient, runs the network in a worker, shows and updates the tumour.

    Parameters
    ----------
    napari_viewer : napari.viewer.Viewer
        Where patients are found and results are shown.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        self._viewer = napari_viewer
        self._worker: Any = None
        self._job: Job | None = None
        self._picked: dict[tuple[Subject | None, str], Image | None] = {}
        self._started = 0.0
        self._notice = self._remark = ""
        self._shown: tuple[Job, Labels] | None = None  # a result that is not measured yet
        self._worker_finished = True
        self._changed: set[str] = set()  # options that the user changed since they last applied to labels
        self._devices = DeviceChooser(option_help("device"))
        self._models = ModelChooser(self._set_status)
        self.controls = Controls(
            subjects=lambda _: distinct([(str(s), s) for s in subjects_in(self._viewer.layers)]),
            model=self._models.combo,
            device=self._devices.combo,
            layers=lambda subject: distinct([("Use FLAIR instead", None), *self._candidates(subject)]),
        )
        c = self.controls
        self.patient, self.model, self.device = c.patient, c.model, c.device
        self.button, self.progress, self.status = c.button, c.progress, c.status
        super().__init__(labels=False)
        self._column = Container(widgets=self.controls.column(), labels=False)
        layout = self._column.native.layout()
        for place, section in enumerate(self.controls.folded(), start=2):
            layout.insertWidget(place, section)
        layout.addStretch()
        wrap(c.about, lines=1)
        wrap(c.status, lines=3)
        self.native.layout().addWidget(ScrollingColumn(self._column.native))
        self._connect()
        self._model_chosen()
        self._layers_changed()
        self._devices.find_devices()

    def _connect(self) -> None:
        c = self.controls
        steps = {"Ctrl+Alt+B": lambda: self.go_to_tumour(-1), "Ctrl+Alt+N": lambda: self.go_to_tumour(1)}
        c.button.clicked.connect(self._clicked)
        c.export.clicked.connect(lambda: export_masks(self._viewer))
        c.previous.clicked.connect(steps["Ctrl+Alt+B"])
        c.following.clicked.connect(steps["Ctrl+Alt+N"])
        self._models.changed.connect(self._model_chosen)
        c.patient.changed.connect(self._subject_chosen)
        for sequence, combo in c.sequences.items():
            combo.changed.connect(partial(self._sequence_picked, sequence))
        c.threshold.changed.connect(self._threshold_moved)
        c.automatic.changed.connect(partial(self._option_changed, "threshold"))
        for name in ("clean_up", "smallest_volume", "fill_holes"):
            getattr(c, name).changed.connect(partial(self._option_changed, name))
        for axis, box in enumerate(c.spacing.values()):
            box.changed.connect(partial(self._spacing_changed, axis))
        for keys, action in {"Ctrl+Alt+G": self._clicked, **steps}.items():
            QShortcut(QKeySequence(keys), self.native).activated.connect(action)
        # The timers are deleted with the widget.
        self._measure_timer = QTimer(self.native, singleShot=True, interval=_MEASURE_DELAY)
        self._measure_timer.timeout.connect(lambda: self._show_measurements())
        # Measuring takes as long as showing layers does; in between, the window can respond.
        self._conclude_timer = QTimer(self.native, singleShot=True, interval=0)
        self._conclude_timer.timeout.connect(lambda: self._conclude())
        for event in navigation.list_events(self._viewer):
            event.connect(self._layers_changed)
        enable_autosave(self._viewer)
        self.native.destroyed.connect(self._closed)
        on_undocked(self.native, self.cancel)
        TabbedDock(self.native)

    # --- choosing ------------------------------------------------------------------------------

    @property
    def subject(self) -> Subject | None:
        """The chosen patient or image."""
        chosen: Subject | None = self.patient.value
        return chosen

    def _set_status(self, text: str) -> None:
        self.status.value = text

    def _layers_changed(self, event: Any = None) -> None:
        combo = self.controls.patient
        newest = update_choices(combo)
        if newest:
            combo.value = newest[-1]
        self._subject_chosen()
        self.controls.export.enabled = labels_to_export(self._viewer) is not None

    def _subject_chosen(self, _: Subject | None = None) -> None:
        """Propose a layer for each sequence, and describe them."""
        subject = self.subject
        proposed = proposed_sequences(self._viewer.layers, subject) if subject is not None else {}
        for sequence, combo in self.controls.sequences.items():
            picked = self._picked.get((subject, sequence), proposed.get(sequence))
            with combo.changed.blocked():
                combo.reset_choices()
                fitting = [layer for layer in (picked, proposed.get(sequence)) if layer in combo.choices]
                combo.value = fitting[0] if fitting else None
        spacing = spacing_of(flair) if (flair := proposed.get("FLAIR")) is not None else None
        for box, size in zip(self.controls.spacing.values(), spacing or (0, 0, 0), strict=True):
            with box.changed.blocked():
                box.value = size
        self._describe()

    def _sequence_picked(self, sequence: str, layer: Image | None) -> None:
        self._picked[self.subject, sequence] = layer
        self._describe()

    def _candidates(self, subject: Subject | None) -> list[tuple[str, Any]]:
        found = candidates(self._viewer.layers, subject) if subject is not None else []
        return [(layer.name, layer) for layer in found]

    def _sequences(self) -> dict[str, Image | None]:
        return {name: combo.value for name, combo in self.controls.sequences.items()}

    def _describe(self, _: Any = None) -> None:
        subject = self.subject
        used = card.sequences if (card := self._models.card) is not None else SEQUENCES
        about = describe_subject(self._sequences(), used) if subject is not None else ""
        self.controls.about.value = about
        has_result = self._result_layer(TUMOUR) is not None
        if self._worker is None and not has_result:
            text = messages.NO_PATIENT if subject is None else messages.READY
            self._set_status(f"{self._models.problem} {text}".strip())
        for step in (self.controls.previous, self.controls.following):
            step.enabled = has_result

    def _model_chosen(self) -> None:
        card = self._models.card
        if card is not None:
            # Labels are not updated: the probability shown is another model's.
            self.controls.set_defaults(card)
            self._changed.clear()
            self.controls.show_sequences(card.sequences)
        self._describe()

    def offer_model(self, path: Path) -> None:
        """List a model file and select it; a file that is not a model is refused with a message."""
        self._models.offer(path)

    # --- running -------------------------------------------------------------------------------

    def _clicked(self) -> None:
        if self._worker is not None:
            self.cancel()
        else:
            self.run()

    def run(self) -> None:
        """Segment the chosen patient, like a click on Segment."""
        if self._worker is not None:
            return
        if self.subject is None:
            self._set_status(messages.NO_PATIENT)
            return
        try:
            self._job = self._make_job(self.subject)
        except LggSegError as error:
            self._set_status(str(error))
            return
        self._started, self._notice, self._worker_finished = monotonic(), "", False
        self._changed.clear()
        self.button.text = "Cancel"
        self.progress.value, self.progress.max = 0, 1
        self.progress.visible = True
        self._set_status(messages.LOADING)
        self._worker = create_worker(
            run_job,
            self._job,
            _connect={
                "yielded": self._show_progress,
                "returned": self._show_result,
                "errored": self._show_error,
                "finished": self._finished,
            },
        )

    def cancel(self) -> None:
        """Stop the run; layers stay as they were."""
        if self._worker is not None:
            self.button.text = "Cancelling..."
            self.button.enabled = False
            self._set_status(messages.CANCELLED)
            self._worker.quit()

    def _make_job(self, subject: Subject) -> Job:
        sequences = self._sequences()
        arrays = arrays_of(sequences)
        flair, wants_one = sequences["FLAIR"], self.controls.current_slice.value
        assert flair is not None
        only = navigation.slice_in_view(self._viewer, flair) if wants_one else None
        numbers = tuple((described(flair) or {}).get("slice_numbers", ()))
        model, options = self._models.path, self.controls.options()
        return Job(subject, flair, sequences, arrays, only, numbers, model, options)

    def _show_progress(self, event: Event | None) -> None:
        if event is None or self._worker is None or not self.button.enabled:
            return
        if isinstance(event, Notice):
            self._notice = f"{event.text} "
            return
        self.progress.max, self.progress.value = event.total, event.done
        self._set_status(self._notice + messages.progress(event, self._started))

    def _show_result(self, result: Result | Failure) -> None:
        job = self._job
        if job is None or not self.button.enabled:
            return
        if isinstance(result, Failure):
            self._set_status(result.message)
            return
        layers, subject = self._viewer.layers, job.subject
        if job.flair not in layers or result.images_changed or not job.has_same_images():
            self._set_status(messages.layers_gone(subject.name))
            return
        probability = relabelling.on_whole_grid(layers, job, PROBABILITY, result.probability)
        uncertainty = relabelling.on_whole_grid(layers, job, UNCERTAINTY, result.uncertainty)
        made_with = relabelling.made_with_run(layers, job, result)
        layer = results.show_maps(self._viewer, job.flair, subject, probability, uncertainty, made_with)
        results.describe_further(layer, **{relabelling.MODEL_ID: result.model_id})
        tumour = self._show_labels(job.flair, subject, layer, job.options)
        if (truth := find_layer(layers, subject.id, TRUTH)) is not None:
            outline(truth)
        layers.selection.active = tumour
        self._remark = f"{self._notice}{result.seconds:.1f} s on {result.device}."
        if job.only_slice is not None:
            self._remark = f"Slice {navigation.slice_number(job.flair, job.only_slice)} only. {self._remark}"
        if self._changed or self._models.path != job.model:
            self._remark += messages.settings_changed(result.model)
        self._shown = job, tumour
        self._conclude_timer.start()

    def _conclude(self) -> None:
        """Measure the labels that were just shown, and go to them."""
        if self._shown is None:
            return
        (job, tumour), self._shown = self._shown, None
        if self._worker_finished:  # first, in case something below fails
            self._reset()
        self._show_measurements(job.subject)
        if job.only_slice is None:
            navigation.go_to_largest(self._viewer, tumour)

    def _show_error(self, error: Exception) -> None:
        self._set_status(f"Segment failed: {unexpected(error)}")

    def _finished(self) -> None:
        self._worker_finished = True
        if self._shown is None:
            self._reset()

    def _reset(self) -> None:
        self._worker = self._job = None
        self.button.text = "Segment"
        self.button.enabled = True
        self.progress.visible = False

    def _closed(self) -> None:
        """Stop the run and disconnect from the viewer; the widget is gone."""
        for event in navigation.list_events(self._viewer):
            event.disconnect(self._layers_changed)
        self._models.close()
        self._devices.close()
        worker, self._worker, self._job, self._shown = self._worker, None, None, None
        if worker is not None:
            for signal in (worker.yielded, worker.returned, worker.errored, worker.finished):
                signal.disconnect()
            worker.quit()

    # --- after the run -------------------------------------------------------------------------

    def _threshold_moved(self, _: float) -> None:
        """Moving the slider turns the automatic threshold off."""
        with self.controls.automatic.changed.blocked():
            self.controls.automatic.value = False
        self._option_changed("threshold")

    def _option_changed(self, name: str, _: Any = None) -> None:
        self._changed.add(name)
        self.relabel()

    def relabel(self) -> None:
        """Recompute labels from the probability with the current threshold, clean-up and hole filling.

        Labels that were edited by hand are kept; the new ones get a layer of their own.
        """
        probability, before = map(self._result_layer, (PROBABILITY, TUMOUR))
        if probability is None or before is None or self._worker is not None:
            return
        subject = self.subject
        assert subject is not None
        options, is_chosen_model = relabelling.options_of(
            probability, before, self.controls.options(), self._changed, self._models.path
        )
        self._changed.clear()
        try:
            layer = self._show_labels(probability, subject, probability, options)
        except LggSegError as error:  # its values were replaced
            self._set_status(str(error))
            return
        if layer != before:
            self._remark = messages.corrections_kept(before.name, layer.name)
        elif not is_chosen_model and (model := relabelling.made_with(probability).get("model")):
            self._remark = messages.other_model(model)
        self._measure_timer.start()

    def _show_labels(
        self, reference: Any, subject: Subject, probability: Image, options: SegmentOptions
    ) -> Labels:
        labels, threshold = relabelling.labels_from(probability.data, options)
        if options.threshold == "auto" and self.controls.automatic.value:
            self.controls.show_threshold(threshold)
        made_with = relabelling.made_with_now(probability, options, threshold)
        return results.show_labels(self._viewer, reference, subject, labels, made_with)

    def _show_measurements(self, of: Subject | None = None) -> None:
        """Show and store measurements of the result of a subject, by default the chosen one."""
        subject = of or self.subject
        layers = self._viewer.layers
        layer = find_layer(layers, subject.id, TUMOUR) if subject is not None else None
        if subject is None or layer is None:
            return
        try:
            text = relabelling.summary(layers, subject, layer, is_named=subject != self.subject)
        except LggSegError as error:
            text = str(error)
        self._set_status(f"{text} {self._remark}".strip())

    def _result_layer(self, role: str) -> Any:
        subject = self.subject
        return find_layer(self._viewer.layers, subject.id, role) if subject is not None else None

    def _spacing_changed(self, axis: int, size: float) -> None:
        """Set the voxel size along one axis; along all of them once they are known, if they were not."""
        flair, subject = self._sequences()["FLAIR"], self.subject
        if flair is None or subject is None:
            return
        all_sizes = (box.value for box in self.controls.spacing.values())
        sizes = dict(enumerate(all_sizes)) if spacing_of(flair) is None else {axis: size}
        if all(sizes.values()):
            results.set_spacing(self._viewer, subject, flair, sizes)
            self._measure_timer.start()

    def go_to_tumour(self, direction: int) -> None:
        """Show the next (1) or previous (-1) slice with tumour, wrapping around at the ends."""
        layer = self._result_layer(TUMOUR)
        if layer is None or layer.ndim != 3:
            return
        index = navigation.next_labelled_slice(self._viewer, layer, direction)
        if index is not None:
            navigation.go_to_slice(self._viewer, layer, index)
            self._set_status(messages.at_slice(navigation.slice_number(layer, index), self.status.value))
