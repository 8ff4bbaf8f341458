"""Open a patient of a table in the viewer: images, truth, and the predicted labels from their file."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from napari.qt.threading import create_worker

from ..core.cases import Case, Volumes, read_case
from ..core.patients import Patient, read_patient
from ..layers import (
    METADATA_KEY,
    PREDICTION,
    TRUTH,
    LayerData,
    describe,
    described,
    is_comparison,
    patient_layers,
    prediction_properties,
)
from .view import go_to_slice
from .worker import Failure, failing_softly

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels

_FILE, _CHECKSUM = "file", "checksum"


@failing_softly
def read_layers(case: Case) -> Generator[None, None, list[LayerData]]:
    """Layers of a patient, in the worker's thread: images and truth, then the prediction."""
    yield
    volumes = read_case(case)
    yield
    patient = _patient(case, volumes)
    layers = patient_layers(patient, prefix=True)
    (_, like, _), name = layers[0], patient.name
    metadata = describe(
        name, PREDICTION, patient.slice_numbers, patient.copies, patient.affine, str(patient.folder)
    )
    metadata[METADATA_KEY][_FILE] = str(case.labels)
    grid = {key: like[key] for key in ("scale", "units", "axis_labels")}
    properties = {**grid, **prediction_properties(name), "metadata": metadata}
    layers.append((volumes.prediction, properties, "labels"))
    for data, properties, kind in layers:
        if kind == "labels":
            properties["metadata"][METADATA_KEY][_CHECKSUM] = _checksum(data)
    return layers


def _patient(case: Case, volumes: Volumes) -> Patient:
    """The patient as the table knows it: images from one place, truth perhaps from another."""
    if case.images is not None:
        return dataclasses.replace(read_patient(case.images), name=case.name, truth=volumes.truth)
    return Patient(case.name, case.truth or case.labels, None, volumes.truth, volumes.slice_numbers)


class CaseOpener:
    """Opens one patient at a time; the one before makes room, unless something was made of it.

    Parameters
    ----------
    viewer : Viewer
        Where it is opened.
    opened : callable
        Called with the labels layers of prediction and truth.
    failed : callable
        Called with a sentence if the patient cannot be opened.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        opened: Callable[[Labels, Labels], None],
        failed: Callable[[str], None],
    ) -> None:
        self._viewer, self._done, self._failed = viewer, opened, failed
        self._worker: Any = None
        self._added: list[Any] = []

    def open(self, case: Case) -> None:
        """Read a patient in a worker and show it; the one that was asked for before no more."""
        self.close()
        self._worker = create_worker(read_layers, case, _connect={"returned": self._show})

    def close(self) -> None:
        """Open nobody."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.returned.disconnect(self._show)
            worker.quit()

    def _show(self, result: list[LayerData] | Failure) -> None:
        self._worker = None
        if isinstance(result, Failure):
            self._failed(result.sentence)
            return
        before = self._added
        self._added = []
        layers = [self._put(data) for data in result]
        prediction = layers[-1]
        truth = next(layer for layer in layers if _info(layer)["role"] == TRUTH)
        if before and _info(before[0])["patient"] == _info(prediction)["patient"]:
            self._added += before
        elif before:
            self._make_room(before)
        self._go_to_largest(prediction, truth)
        self._done(prediction, truth)

    def _put(self, data: LayerData) -> Any:
        """A layer of the patient: the one that is open already, or a new one."""
        from napari.layers import Layer

        values, properties, _ = data
        info = properties["metadata"][METADATA_KEY]
        layer = self._find(info, values.shape)
        if layer is None:
            layer = self._viewer.add_layer(Layer.create(*data))
            self._added.append(layer)
        elif info["role"] == PREDICTION and not _is_changed(layer):
            layer.data = values
            _info(layer)[_CHECKSUM] = info[_CHECKSUM]
        return layer

    def _find(self, wanted: dict[str, Any], shape: tuple[int, ...]) -> Any:
        """The layer of the same patient and role, for predictions of the same file, on the same grid."""
        for layer in reversed(self._viewer.layers):
            info = described(layer) or {}
            same = all(info.get(key) == wanted.get(key) for key in ("patient", "role", _FILE))
            if same and layer.data.shape == shape:
                return layer
        return None

    def _make_room(self, layers: list[Any]) -> None:
        """Remove the layers of the patient before, unless something was painted or added."""
        patient = _info(layers[0])["patient"]
        present = [
            layer for layer in self._viewer.layers if (described(layer) or {}).get("patient") == patient
        ]
        own = [layer for layer in present if not is_comparison(layer)]
        if all(layer in layers for layer in own) and not any(map(_is_changed, own)):
            for layer in reversed(present):
                self._viewer.layers.remove(layer)

    def _go_to_largest(self, prediction: Any, truth: Any) -> None:
        tumour = (prediction.data != 0) | (truth.data != 0)
        if tumour.any():
            go_to_slice(self._viewer, truth, int(tumour.sum(axis=(1, 2)).argmax()))


def _info(layer: Any) -> dict[str, Any]:
    info: dict[str, Any] = layer.metadata[METADATA_KEY]
    return info


def _is_changed(layer: Any) -> bool:
    """Whether somebody painted in labels since they were read."""
    known = _info(layer).get(_CHECKSUM)
    return known is not None and known != _checksum(layer.data)


def _checksum(labels: npt.NDArray[np.generic]) -> int:
    return zlib.crc32(np.ascontiguousarray(labels).tobytes())
