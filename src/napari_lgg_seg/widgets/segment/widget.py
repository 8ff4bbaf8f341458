"""The Segment widget: one column that reads in the order of the work, with one needed click.

What can be segmented is :mod:`.subject`'s business, result layers are :mod:`.results`', the controls
are :mod:`.controls`', and all computing is the core's.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from magicgui.widgets import Container
from napari.qt.threading import create_worker

from ...commands import export_masks, labels_to_export
from ...core.choices import DROPS_MINOR
from ...core.data.patients import SEQUENCES
from ...core.errors import LggSegError
from ...core.evaluation.measurements import measure_labels
from ...core.evaluation.metrics import dice
from ...core.inference.postprocess import postprocess, threshold_of
from ...core.inference.predict import Event, Notice
from ...core.inference.uncertainty import expected_dice
from ...core.options import option_help
from ...layers import PROBABILITY, TRUTH, TUMOUR, UNCERTAINTY, find_layer, outline
from ..shared import result_layers as results
from ..shared.device_chooser import DeviceChooser
from ..shared.docking import Tabbed, WhenUndocked
from ..shared.forms import wrap
from ..shared.model_chooser import ModelChooser
from ..shared.navigation import go_to_largest, go_to_slice, slice_in_view
from ..shared.scrolling import ScrollingColumn
from ..shared.worker import Failure
from .controls import Controls
from .inputs import (
    Subject,
    candidates,
    describe_subject,
    grid_of,
    proposed_sequences,
    subjects_in,
    take_arrays,
)
from .job import Job, Result, run_job

if TYPE_CHECKING:
    import napari.viewer
    from napari.layers import Image, Labels

_NO_PATIENT = (
    "No patient is open. Use File > IO Utilities > Open LGG patient..., "
    "or File > Open Sample > LGG patient (made)."
)
_READY = "Click Segment to find the tumour."


class SegmentWidget(Container):
    """Dock widget: finds the patient, runs the network in a worker, shows and updates the tumour.

    Parameters
    ----------
    napari_viewer : napari.viewer.Viewer
        Where patients are looked for and results are shown.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        self._viewer = napari_viewer
        self._worker: Any = None
        self._job: Job | None = None
        self._picked: dict[tuple[Subject | None, str], Image | None] = {}
        self._started = 0.0
        self._notice = self._summary = ""
        self._shown: tuple[Job, Labels] | None = None
        self._ended = True
        self._devices = DeviceChooser(option_help("device"))
        self._models = ModelChooser(self._set_status)
        self.controls = Controls(
            subjects=lambda _: [(str(s), s) for s in subjects_in(self._viewer.layers)],
            model=self._models.combo,
            device=self._devices.combo,
            layers=lambda subject: [("FLAIR stands in", None), *self._candidates(subject)],
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
        self._devices.look()

    def _connect(self) -> None:
        from qtpy.QtCore import QTimer
        from qtpy.QtGui import QKeySequence
        from qtpy.QtWidgets import QShortcut

        c = self.controls
        steps = {"Ctrl+Alt+B": lambda: self.go_to_tumour(-1), "Ctrl+Alt+N": lambda: self.go_to_tumour(1)}
        c.button.clicked.connect(self._clicked)
        c.export.clicked.connect(export_masks)
        c.previous.clicked.connect(steps["Ctrl+Alt+B"])
        c.following.clicked.connect(steps["Ctrl+Alt+N"])
        self._models.changed.connect(self._model_chosen)
        c.patient.changed.connect(self._subject_chosen)
        for sequence, combo in c.sequences.items():
            combo.changed.connect(partial(self._sequence_picked, sequence))
        c.threshold.changed.connect(self._threshold_moved)
        for control in (c.automatic, c.clean_up, c.smallest_volume, c.fill_holes):
            control.changed.connect(self.relabel)
        for box in c.spacing.values():
            box.changed.connect(self._spacing_given)
        for keys, action in {"Ctrl+Alt+G": self._clicked, **steps}.items():
            QShortcut(QKeySequence(keys), self.native).activated.connect(action)
        # Figures follow a moving slider at a distance; the timer goes with the window.
        self._measurements_timer = QTimer(self.native, singleShot=True, interval=150)
        self._measurements_timer.timeout.connect(lambda: self._show_measurements())
        # Figures take as long as layers do: the window answers in between.
        self._shown_timer = QTimer(self.native, singleShot=True, interval=0)
        self._shown_timer.timeout.connect(lambda: self._conclude())
        for event in (self._viewer.layers.events.inserted, self._viewer.layers.events.removed):
            event.connect(self._layers_changed)
        self.native.destroyed.connect(self._closed)
        WhenUndocked(self.native, self.cancel)
        Tabbed(self.native)

    # --- what can be chosen --------------------------------------------------------------------

    @property
    def subject(self) -> Subject | None:
        """The patient or image that is chosen."""
        chosen: Subject | None = self.patient.value
        return chosen

    def _set_status(self, text: str) -> None:
        self.status.value = text

    def _layers_changed(self, event: Any = None) -> None:
        combo = self.controls.patient
        before = combo.choices
        combo.reset_choices()
        newest = [s for s in combo.choices if s not in before]
        if newest:
            combo.value = newest[-1]
        self._subject_chosen()
        self.controls.export.enabled = labels_to_export(self._viewer) is not None

    def _subject_chosen(self, _: Subject | None = None) -> None:
        """Propose which layers are which sequences, and say so."""
        subject = self.subject
        proposed = proposed_sequences(self._viewer.layers, subject) if subject is not None else {}
        for sequence, combo in self.controls.sequences.items():
            picked = self._picked.get((subject, sequence), proposed.get(sequence))
            with combo.changed.blocked():
                combo.reset_choices()
                fitting = [layer for layer in (picked, proposed.get(sequence)) if layer in combo.choices]
                combo.value = fitting[0] if fitting else None
        spacing = results.spacing_of(flair) if (flair := proposed.get("FLAIR")) is not None else None
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
        card = self._models.card
        wanted = card.sequences if card is not None else SEQUENCES
        about = describe_subject(self._sequences(), wanted) if subject is not None else ""
        self.controls.about.value = about
        if self._worker is None and self._result_layer(TUMOUR) is None:
            self._set_status(f"{self._models.problem} {_NO_PATIENT if subject is None else _READY}".strip())
        for step in (self.controls.previous, self.controls.following):
            step.enabled = self._result_layer(TUMOUR) is not None

    def _model_chosen(self) -> None:
        card = self._models.card
        if card is not None:
            # The new model's threshold is for its next run: what is shown is another model's probability.
            self.controls.take_defaults(card)
            self.controls.show_sequences(card.sequences)
        self._describe()

    def offer_model(self, path: Path) -> None:
        """List a model file and choose it; a file that is no model is refused with a sentence."""
        self._models.offer(path)

    # --- running -------------------------------------------------------------------------------

    def _clicked(self) -> None:
        if self._worker is not None:
            self.cancel()
        else:
            self.run()

    def run(self) -> None:
        """Segment the chosen patient; what a click on Segment does."""
        if self._worker is not None:
            return
        if self.subject is None:
            self._set_status(_NO_PATIENT)
            return
        try:
            self._job = self._take_job(self.subject)
        except LggSegError as error:
            self._set_status(str(error))
            return
        self._started, self._notice, self._ended = monotonic(), "", False
        self.button.text = "Cancel"
        self.progress.value, self.progress.max = 0, 1
        self.progress.visible = True
        self._set_status("Loading the model...")
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
            self._set_status("Cancelled.")
            self._worker.quit()

    def _take_job(self, subject: Subject) -> Job:
        sequences = self._sequences()
        arrays = take_arrays(sequences)
        flair = sequences["FLAIR"]
        assert flair is not None
        only = slice_in_view(self._viewer, flair) if self.controls.current_slice.value else None
        return Job(subject, flair, arrays, only, self._models.path, self.controls.options())

    def _show_progress(self, event: Event) -> None:
        if self._worker is None or not self.button.enabled:
            return
        if isinstance(event, Notice):
            self._notice = f"{event.text} "
            return
        self.progress.max, self.progress.value = event.total, event.done
        text = f"{event.done} of {event.total} slices"
        if event.done:
            left = (monotonic() - self._started) / event.done * (event.total - event.done)
            text += f", {left:.0f} s left" if left >= 1 else ""
        self._set_status(self._notice + text)

    def _show_result(self, result: Result | Failure) -> None:
        job = self._job
        if job is None or not self.button.enabled:
            return
        if isinstance(result, Failure):
            self._set_status(result.sentence)
            return
        probability = self._whole(job, PROBABILITY, result.probability)
        uncertainty = self._whole(job, UNCERTAINTY, result.uncertainty)
        if job.flair not in self._viewer.layers or grid_of(job.flair) != probability.shape:
            self._set_status(
                f"The layers of {job.subject} were removed or changed during the run; nothing was added."
            )
            return
        made_with = {
            "model": result.model,
            "engine": result.engine,
            "options": job.options.as_dict(),
            "coarse_to_fine": result.coarse_to_fine,
        }
        name = job.subject.name
        layer = results.show_maps(self._viewer, job.flair, name, probability, uncertainty, made_with)
        tumour = self._show_labels(job.flair, name, layer)
        truth = find_layer(self._viewer.layers, name, TRUTH)
        if truth is not None:
            outline(truth)
        self._viewer.layers.selection.active = tumour
        self._summary = f"{self._notice}{result.seconds:.1f} s on {result.device}."
        self._shown = job, tumour
        self._shown_timer.start()

    def _conclude(self) -> None:
        """Say what the labels that were just shown measure, and go to them."""
        if self._shown is None:
            return
        (job, tumour), self._shown = self._shown, None
        if self._ended:  # whatever may fail below
            self._ready_again()
        self._show_measurements(job.subject)
        if job.only_slice is None:
            go_to_largest(self._viewer, tumour)

    def _whole(self, job: Job, role: str, computed: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """A result on the layer's own grid; a single slice goes into what was there before."""
        grid = grid_of(job.flair)
        if len(grid) == 2 or job.only_slice is None:
            return computed[0] if len(grid) == 2 else computed
        before = find_layer(self._viewer.layers, job.subject.name, role)
        if before is None or before.data.shape != grid:
            whole = np.zeros(grid, np.float32)
        else:
            whole = np.array(before.data)
        whole[job.only_slice] = computed[0]
        return whole

    def _show_error(self, error: Exception) -> None:
        self._set_status(f"Segment failed: {error} ({type(error).__name__}).")

    def _finished(self) -> None:
        self._ended = True
        if self._shown is None:
            self._ready_again()

    def _ready_again(self) -> None:
        self._worker = None
        self._job = None
        self.button.text = "Segment"
        self.button.enabled = True
        self.progress.visible = False

    def _closed(self) -> None:
        """The widget is gone: stop the run and forget the viewer."""
        for event in (self._viewer.layers.events.inserted, self._viewer.layers.events.removed):
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
        """From now on the slider decides."""
        with self.controls.automatic.changed.blocked():
            self.controls.automatic.value = False
        self.relabel()

    def relabel(self, _: Any = None) -> None:
        """Labels anew from the stored probability, as threshold, clean-up and hole filling now are.

        Labels that were edited by hand are kept; the new ones get a layer of their own.
        """
        probability = self._result_layer(PROBABILITY)
        before = self._result_layer(TUMOUR)
        if probability is None or before is None or self._worker is not None:
            return
        subject = self.subject
        assert subject is not None
        layer = self._show_labels(probability, subject.name, probability)
        if layer is not before:
            self._summary = (
                f"Your corrections in '{before.name}' are kept; the new labels are in '{layer.name}'."
            )
        self._measurements_timer.start()

    def _show_labels(self, like: Any, name: str, probability: Image) -> Labels:
        data = probability.data
        options = self.controls.options()
        threshold = threshold_of(data, options.threshold)
        if options.threshold == "auto":
            self.controls.show_threshold(threshold)
        volume = data[None] if data.ndim == 2 else data
        labels = postprocess(volume, dataclasses.replace(options, threshold=threshold))
        # The probability knows its run; only what turns it into labels is as the controls are now.
        run = probability.metadata["lgg"].get("made_with", {})
        now = {k: getattr(options, k) for k in ("threshold", "clean_up", "smallest_volume", "fill_holes")}
        made_with = {**run, "options": {**run.get("options", {}), **now}, "threshold": threshold}
        return results.show_labels(self._viewer, like, name, labels.reshape(data.shape), made_with)

    def _show_measurements(self, of: Subject | None = None) -> None:
        """Say what the newest result of a subject (the chosen one by default) measures; keep it there."""
        subject = of or self.subject
        layer = find_layer(self._viewer.layers, subject.name, TUMOUR) if subject is not None else None
        if subject is None or layer is None:
            return
        labels = layer.data[None] if layer.ndim == 2 else layer.data
        measurements = measure_labels(labels, results.spacing_of(layer))
        results.note_measurements(layer, measurements)
        text = measurements.summary() if subject == self.subject else f"{subject}: {measurements.summary()}"
        truth = find_layer(self._viewer.layers, subject.name, TRUTH)
        if truth is not None and truth.data.shape == layer.data.shape:
            text += f" Dice with truth {dice(layer.data, truth.data):.2f}."
        probability = find_layer(self._viewer.layers, subject.name, PROBABILITY)
        if probability is not None and probability.data.shape == layer.data.shape and measurements.voxels:
            text += f" Uncertainty {1 - (expected_dice(probability.data, layer.data) or 0):.2f}."
        if self._left_out_weak_pieces(probability):
            text += " Segment again for weak pieces that lie apart, which this run did not look for."
        self._set_status(f"{text} {self._summary}".strip())

    def _left_out_weak_pieces(self, probability: Image | None) -> bool:
        """Whether clean-up now keeps what the quick look of a run leaves out."""
        keeps = self.controls.clean_up.value not in DROPS_MINOR
        made_with = {} if probability is None else probability.metadata["lgg"].get("made_with", {})
        return keeps and bool(made_with.get("coarse_to_fine"))

    def _result_layer(self, role: str) -> Any:
        subject = self.subject
        return find_layer(self._viewer.layers, subject.name, role) if subject is not None else None

    def _spacing_given(self, _: Any = None) -> None:
        spacing = tuple(box.value for box in self.controls.spacing.values())
        flair = self._sequences()["FLAIR"]
        subject = self.subject
        if flair is None or subject is None or not all(spacing):
            return
        results.set_spacing(self._viewer, subject.name, flair, spacing)
        self._measurements_timer.start()

    def go_to_tumour(self, direction: int) -> None:
        """Show the next (1) or previous (-1) slice with tumour, going round at the end."""
        layer = self._result_layer(TUMOUR)
        if layer is None or layer.ndim != 3:
            return
        slices = np.flatnonzero(layer.data.any(axis=(1, 2)))
        if len(slices):
            here = slice_in_view(self._viewer, layer)
            ahead = slices[slices > here] if direction > 0 else slices[slices < here][::-1]
            round_the_end = slices[0] if direction > 0 else slices[-1]
            go_to_slice(self._viewer, layer, int(ahead[0] if len(ahead) else round_the_end))
