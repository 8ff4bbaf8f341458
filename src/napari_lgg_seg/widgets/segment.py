"""The Segment widget: finds the patient, runs the network in a worker, shows the tumour.

It knows layers and controls; what is computed, and how, is the core's business.
"""

from __future__ import annotations

import zlib
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from magicgui.widgets import ComboBox, Container, Label, ProgressBar, PushButton
from napari.qt.threading import create_worker

from ..commands import export_masks, labels_to_export
from ..core.checkpoint import DEFAULT_MODEL, ModelCard, read_card
from ..core.errors import LggSegError
from ..core.metrics import dice
from ..core.patients import SEQUENCES
from ..core.predict import Event, Notice, SlicesDone
from ..layers import (
    PROBABILITY,
    TRUTH,
    TUMOUR,
    describe,
    described,
    find_layer,
    outline,
    patients_in,
    probability_properties,
    tumour_properties,
)
from .worker import Failure, failing_softly

if TYPE_CHECKING:
    import napari.viewer
    from napari.layers import Image, Labels, Layer

_NO_PATIENT = (
    "No patient is open. Use File > IO Utilities > Open LGG patient..., "
    "or File > Open Sample > LGG segmentation."
)
_OTHER_MODEL = "Choose a model file..."
_AUTO = ("Auto", "auto")


@dataclass(frozen=True)
class Job:
    """What one run needs, taken from the viewer when Segment is clicked."""

    patient: str
    images: tuple[npt.NDArray[np.generic], ...]
    model: Path
    device: str


@dataclass(frozen=True)
class Result:
    """What one run gives: labels and probability on the patient's grid, and where it was computed."""

    labels: npt.NDArray[np.uint8]
    probability: npt.NDArray[np.float32]
    device: str
    seconds: float


class SegmentWidget(Container):
    """Dock widget with one needed click: Segment.

    Parameters
    ----------
    napari_viewer : napari.viewer.Viewer
        Where patients are looked for and results are shown.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        self._viewer = napari_viewer
        self._worker: Any = None
        self._job: Job | None = None
        self._started = 0.0
        self._notice = ""
        self._models = [("Default U-Net", DEFAULT_MODEL)]
        self._devices = [_AUTO]
        # Choices are functions: magicgui asks again whenever the widget is docked anew.
        self.patient = ComboBox(
            label="Patient",
            choices=lambda _: patients_in(napari_viewer.layers),
            tooltip="Patients whose layers are open.",
        )
        self.model = ComboBox(label="Model", choices=lambda _: [*self._models, (_OTHER_MODEL, None)])
        self.device = ComboBox(
            label="Device",
            choices=lambda _: self._devices,
            tooltip="Where the network runs. Auto takes CUDA, then MPS, then the CPU; only devices that are "
            "present are listed.",
        )
        self.button = PushButton(text="Segment", tooltip="Find the tumour in every slice of the patient.")
        self.progress = ProgressBar(min=0, max=1, value=0, visible=False)
        self.status = Label(value="")
        self.export = PushButton(
            text="Export masks...",
            tooltip="Write the selected labels, or the newest result, as <patient>_<n>_mask.tif.",
            enabled=False,
        )
        choices = Container(widgets=[self.patient, self.model, self.device], labels=True)
        choices.margins = (0, 0, 0, 0)
        super().__init__(
            widgets=[choices, self.button, self.progress, self.status, self.export], labels=False
        )
        self.status.native.setWordWrap(True)
        self._model_path = DEFAULT_MODEL
        self._describe_model(DEFAULT_MODEL)
        self.button.clicked.connect(self._clicked)
        self.export.clicked.connect(export_masks)
        self.model.changed.connect(self._model_chosen)
        self.patient.changed.connect(self._patient_chosen)
        self._viewer.layers.events.inserted.connect(self._layers_changed)
        self._viewer.layers.events.removed.connect(self._layers_changed)
        self.native.destroyed.connect(self._closed)
        self._layers_changed()
        self._list_devices()

    # --- what can be chosen --------------------------------------------------------------------

    def _layers_changed(self, event: Any = None) -> None:
        before = self.patient.choices
        self.patient.reset_choices()
        newest = [p for p in self.patient.choices if p not in before]
        if newest:
            self.patient.value = newest[-1]
        self._patient_chosen()
        self.export.enabled = labels_to_export(self._viewer) is not None

    def _patient_chosen(self, patient: str | None = None) -> None:
        if self._worker is None:
            self.status.value = self._describe_patient()

    def _describe_patient(self) -> str:
        patient = self.patient.value
        if patient is None:
            return _NO_PATIENT
        flair = find_layer(self._viewer.layers, patient, "FLAIR")
        if flair is None:
            return f"{patient} has no FLAIR layer; open its folder again."
        there = [s for s in SEQUENCES if find_layer(self._viewer.layers, patient, s) is not None]
        info = described(flair)
        assert info is not None
        text = f"{len(flair.data)} slices, {', '.join(there)}."
        absent = [*info["copies"], *(s for s in SEQUENCES if s not in there)]
        if absent:
            text += f" {' and '.join(absent)} missing: FLAIR stands in, which may cost accuracy."
        return text

    def _model_chosen(self, chosen: Path | None) -> None:
        if chosen is not None:
            self._model_path = chosen
            self._describe_model(chosen)
            return
        from qtpy.QtWidgets import QFileDialog

        self.model.value = self._model_path
        name, _ = QFileDialog.getOpenFileName(self.native, "Choose a model", "", "Models (*.safetensors)")
        if name:
            self.offer_model(Path(name))

    def offer_model(self, path: Path) -> None:
        """List a model file and choose it; a file that is no model is refused with a sentence."""
        try:
            read_card(path)
        except LggSegError as error:
            self.status.value = str(error)
            return
        if path not in [known for _, known in self._models]:
            self._models.append((path.stem, path))
            self.model.reset_choices()
        self.model.value = path

    def _describe_model(self, path: Path) -> None:
        try:
            self.model.tooltip = _in_a_sentence(read_card(path))
        except LggSegError as error:
            self.model.tooltip = str(error)

    def _list_devices(self) -> None:
        """Ask torch, in a worker since importing it takes a while, which devices are present."""
        worker = create_worker(_present_devices, _start_thread=False)
        worker.returned.connect(self._show_devices)
        worker.start()

    def _show_devices(self, present: list[tuple[str, str]]) -> None:
        self._devices = [(f"Auto ({present[0][0]})", "auto"), *present]
        self.device.reset_choices()

    # --- running -------------------------------------------------------------------------------

    def _clicked(self) -> None:
        if self._worker is not None:
            self.cancel()
        else:
            self.run()

    def run(self) -> None:
        """Segment the chosen patient; what a click on Segment does."""
        job = self._take_job()
        if job is None:
            self.status.value = self._describe_patient()
            return
        self._job, self._started, self._notice = job, monotonic(), ""
        self.button.text = "Cancel"
        self.progress.value, self.progress.max, self.progress.visible = 0, len(job.images[0]), True
        self.status.value = "Loading the model..."
        self._worker = create_worker(
            _segment,
            job,
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
            self.status.value = "Cancelled."
            self._worker.quit()

    def _take_job(self) -> Job | None:
        patient = self.patient.value
        if patient is None:
            return None
        flair = find_layer(self._viewer.layers, patient, "FLAIR")
        if flair is None:
            return None
        images = []
        for sequence in SEQUENCES:
            layer = find_layer(self._viewer.layers, patient, sequence)
            same_grid = layer is not None and layer.data.shape == flair.data.shape
            images.append(layer.data if layer is not None and same_grid else flair.data)
        return Job(patient, tuple(images), self._model_path, self.device.value)

    def _show_progress(self, event: Event) -> None:
        if self._worker is None or not self.button.enabled:
            return
        if isinstance(event, Notice):
            self._notice = f"{event.text} "
            return
        self.progress.value = event.done
        text = f"{event.done} of {event.total} slices"
        if event.done:
            left = (monotonic() - self._started) / event.done * (event.total - event.done)
            text += f", {left:.0f} s left" if left >= 1 else ""
        self.status.value = self._notice + text

    def _show_result(self, result: Result | Failure) -> None:
        job = self._job
        if job is None:
            return
        if isinstance(result, Failure):
            self.status.value = result.sentence
            return
        flair = find_layer(self._viewer.layers, job.patient, "FLAIR")
        if flair is None or flair.data.shape != result.labels.shape:
            self.status.value = f"The layers of {job.patient} were removed during the run; nothing was added."
            return
        self._add_probability(flair, job.patient, result.probability)
        tumour = self._add_tumour(flair, job.patient, result.labels)
        self.status.value = self._notice + self._show_where(tumour, result)

    def _show_error(self, error: Exception) -> None:
        self.status.value = f"Segment failed: {error} ({type(error).__name__})."

    def _finished(self) -> None:
        self._worker = None
        self._job = None
        self.button.text = "Segment"
        self.button.enabled = True
        self.progress.visible = False

    def _closed(self) -> None:
        """The widget is gone: stop the run and forget the viewer."""
        self._viewer.layers.events.inserted.disconnect(self._layers_changed)
        self._viewer.layers.events.removed.disconnect(self._layers_changed)
        worker, self._worker, self._job = self._worker, None, None
        if worker is not None:
            for signal in (worker.yielded, worker.returned, worker.errored, worker.finished):
                signal.disconnect()
            worker.quit()

    # --- showing results -----------------------------------------------------------------------

    def _add_tumour(self, flair: Image, patient: str, labels: npt.NDArray[np.uint8]) -> Labels:
        """Show new labels: in the last run's layer if nobody painted in it, else in a layer of their own."""
        layer = find_layer(self._viewer.layers, patient, TUMOUR)
        if layer is not None and layer.metadata.get("lgg-written") == zlib.crc32(layer.data):
            layer.data = labels
        else:
            meta = _like(flair, patient, TUMOUR)
            layer = self._viewer.add_labels(labels, **meta, **tumour_properties(patient))
        layer.metadata["lgg-written"] = zlib.crc32(layer.data)
        return layer

    def _add_probability(self, flair: Image, patient: str, probability: npt.NDArray[np.float32]) -> None:
        layer = find_layer(self._viewer.layers, patient, PROBABILITY)
        if layer is not None:
            layer.data = probability
        else:
            meta = _like(flair, patient, PROBABILITY)
            self._viewer.add_image(probability, **meta, **probability_properties(patient))

    def _show_where(self, tumour: Labels, result: Result) -> str:
        """Select the result, go to the slice with most of it, and say what was found."""
        self._viewer.layers.selection.active = tumour
        seconds = f"{result.seconds:.1f} s on {result.device}"
        by_slice = result.labels.sum(axis=(1, 2), dtype=np.int64)
        if not by_slice.any():
            return f"No tumour found ({seconds})."
        position = [float(v) for v in tumour.data_to_world((int(by_slice.argmax()), 0, 0))]
        first = self._viewer.dims.ndim - len(position)
        self._viewer.dims.set_point(first, position[0])
        return (
            f"Tumour: {by_slice.sum():,} voxels in {np.count_nonzero(by_slice)} of {len(by_slice)} slices"
            f"{self._compare_with_truth(result)} ({seconds})."
        )

    def _compare_with_truth(self, result: Result) -> str:
        """Outline the truth over the result, where there is one, and say how well they agree."""
        assert self._job is not None
        truth = find_layer(self._viewer.layers, self._job.patient, TRUTH)
        if truth is None or truth.data.shape != result.labels.shape:
            return ""
        outline(truth)
        return f"; Dice with truth {dice(result.labels, truth.data):.2f}"


def _like(flair: Layer, patient: str, role: str) -> dict[str, Any]:
    """Grid and metadata of a new layer that lies over FLAIR."""
    info = described(flair)
    assert info is not None
    return {
        "scale": flair.scale,
        "translate": flair.translate,
        "rotate": flair.rotate,
        "shear": flair.shear,
        "units": flair.units,
        "axis_labels": flair.axis_labels,
        "metadata": describe(
            patient, role, info["slice_numbers"], info["copies"], info["affine"], info["folder"]
        ),
    }


def _in_a_sentence(card: ModelCard) -> str:
    """The model card as a tooltip."""
    text = f"{card.name}, {card.created}: trained on {len(card.training_patients)} patients"
    summary = card.figures.get("summary")
    if summary:
        text += (
            f"; Dice per patient {summary['mean']:.2f} (mean), {summary['median']:.2f} (median) "
            f"over {len(card.validation_patients)} others"
        )
    return f"{text}. Research use only."


def _present_devices() -> list[tuple[str, str]]:
    """Names for people and for torch of the devices present."""
    from ..core import devices

    return [
        (devices.describe_device(devices.choose_device(name)), name) for name in devices.available_devices()
    ]


@failing_softly
def _segment(job: Job) -> Generator[Event, None, Result]:
    """The run, in the worker's thread."""
    yield SlicesDone(0, len(job.images[0]))
    from ..core import devices
    from ..core.checkpoint import load_model
    from ..core.postprocess import to_labels
    from ..core.predict import Predictor

    started = monotonic()
    predictor = Predictor(load_model(job.model), job.device)
    try:
        probability = yield from predictor.predict(np.stack(job.images, axis=-1))
        labels = to_labels(probability, predictor.card.threshold)
        name = devices.describe_device(predictor.device)
    finally:
        device = predictor.device
        del predictor
        devices.free_memory(device)
    return Result(labels, probability, name, monotonic() - started)
