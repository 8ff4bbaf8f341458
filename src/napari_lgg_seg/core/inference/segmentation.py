"""One patient -> labels, probability and measurements -> files."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..data.label_files import LabelMap
from ..data.patients import Patient, UInt8Array
from ..data.provenance import Provenance, model_checksum, provenance_of
from ..errors import ImageError, ModelError
from ..evaluation.measurements import TumourMeasurements, measure_labels
from ..model.checkpoint import load_model
from ..options import SegmentOptions
from .postprocess import postprocess, threshold_of
from .predict import Event, Predictor, predictor_for, run_to_end
from .uncertainty import expected_dice, mean_entropy, voxel_entropy

if TYPE_CHECKING:
    from ..model.checkpoint import Model


@dataclass(frozen=True)
class Segmentation:
    """Result for one patient.

    Attributes
    ----------
    patient : Patient
        The patient that was segmented.
    labels : ndarray of uint8
        Shape (z, y, x), 0 and 1.
    probability : ndarray of float32
        Shape (z, y, x), 0 to 1.
    options : SegmentOptions
        As used, completed with the model's own values.
    threshold : float
        Probability from which a voxel is labelled; a number even if the option is "auto".
    model : str
        The model's name.
    engine : str
        Engine that ran the network, for instance "torch" or "openvino".
    measurements : TumourMeasurements
        Volume, number of slices and largest diameter.
    provenance : Provenance or None
        Identifies images, model, options and version; None if the model's file is gone.
    """

    patient: Patient
    labels: npt.NDArray[np.uint8]
    probability: npt.NDArray[np.float32]
    options: SegmentOptions
    threshold: float
    model: str
    engine: str
    measurements: TumourMeasurements
    provenance: Provenance | None = None

    @property
    def figures(self) -> TumourMeasurements:
        """Earlier name of ``measurements``."""
        warnings.warn("Segmentation.figures is now called measurements.", DeprecationWarning, stacklevel=2)
        return self.measurements

    @property
    def uncertainty(self) -> npt.NDArray[np.float32]:
        """Entropy of each voxel in bits, shape (z, y, x), from 0 (certain) to 1."""
        return voxel_entropy(self.probability)

    @property
    def mean_uncertainty(self) -> float:
        """Mean entropy over tumour and uncertain voxels, in bits."""
        return mean_entropy(self.probability, self.labels)

    @property
    def expected_dice(self) -> float | None:
        """Expected Dice with the ground truth, if the probabilities are calibrated."""
        return expected_dice(self.probability, self.labels)

    def made_with(self) -> dict[str, Any]:
        """Model, engine and options, as stored in the headers of label files."""
        return {
            "model": self.model,
            "engine": self.engine,
            "options": self.options.as_dict(),
            "threshold": self.threshold,
        }

    def label_map(self) -> LabelMap:
        """The labels with the metadata for writing them to files."""
        patient = self.patient
        return LabelMap(
            patient.name,
            self.labels,
            patient.slice_numbers,
            patient.spacing,
            patient.affine,
            self.made_with(),
            patient.number_width,
        )


def segment(
    patient: Patient,
    model: Model | None = None,
    options: SegmentOptions | None = None,
    *,
    predictor: Predictor | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Segmentation:
    """Segment one patient.

    Parameters
    ----------
    patient : Patient
        From :func:`napari_lgg_seg.core.data.patients.read_patient`.
    model : Model, optional
        From :func:`napari_lgg_seg.core.model.checkpoint.load_model`; the shipped one by default.
    options : SegmentOptions, optional
        Threshold, clean-up, test-time augmentation, batch size, device, engine.
    predictor : Predictor, optional
        To be reused for many patients; ``model`` and the options about device and engine are then ignored.
    on_event : callable, optional
        Called with progress and notices.

    Returns
    -------
    Segmentation
        Labels, probability and measurements on the patient's own grid.

    Raises
    ------
    ImageError, ModelError, DeviceError
        If the patient has no images, the model cannot be used, or the device fails.

    Examples
    --------
    >>> import napari_lgg_seg as lgg
    >>> from napari_lgg_seg.core.data.phantom import make_sample_patient
    >>> result = lgg.segment(make_sample_patient(), options=lgg.SegmentOptions(device="cpu"))
    >>> result.labels.shape, result.labels.dtype.name
    ((30, 256, 256), 'uint8')
    >>> result.measurements.slices > 5
    True
    """
    options = options or SegmentOptions()
    voxels_of(patient)  # fail before loading a model
    if predictor is None:
        predictor = predictor_for(model or load_model(), options)
    return run_to_end(segment_stepwise(patient, predictor, options), on_event)


def segment_stepwise(
    patient: Patient, predictor: Predictor, options: SegmentOptions
) -> Generator[Event, None, Segmentation]:
    """:func:`segment` as a generator of progress and notices; close it to cancel."""
    volume = voxels_of(patient)
    probability = yield from predictor.predict(volume)
    provenance = _provenance(volume, predictor, options, patient.slice_numbers)
    options = predictor.card.complete(options)
    threshold = threshold_of(probability, options.threshold)
    labels = postprocess(probability, dataclasses.replace(options, threshold=threshold))
    return Segmentation(
        patient,
        labels,
        probability,
        options,
        threshold,
        predictor.card.name,
        predictor.engine.name,
        measure_labels(labels, patient.spacing),
        provenance,
    )


def _provenance(
    volume: UInt8Array, predictor: Predictor, options: SegmentOptions, slice_numbers: Sequence[int]
) -> Provenance | None:
    try:
        found = provenance_of(volume, model_checksum(predictor.model_file), options, slice_numbers)
    except ModelError:  # its file was removed after it was loaded
        return None
    return dataclasses.replace(found, engine=predictor.engine.name)


def voxels_of(patient: Patient) -> UInt8Array:
    """A patient's volume, shape (z, y, x, 3).

    Raises
    ------
    ImageError
        If the patient has masks only.
    """
    if patient.volume is None:
        raise ImageError(f"{patient.folder} holds masks only; there is nothing to segment.")
    return patient.volume
