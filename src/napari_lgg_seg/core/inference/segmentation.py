"""One patient -> labels, probability and measurements -> files."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..choices import FileFormat
from ..data import label_files
from ..data.label_files import LabelMap
from ..data.patients import Patient, UInt8Array
from ..errors import ImageError
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
    """

    patient: Patient
    labels: npt.NDArray[np.uint8]
    probability: npt.NDArray[np.float32]
    options: SegmentOptions
    threshold: float
    model: str
    engine: str
    measurements: TumourMeasurements

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
    probability = yield from predictor.predict(voxels_of(patient))
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
    )


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


def write_labels(
    output: str | os.PathLike[str],
    segmentation: Segmentation,
    file_format: FileFormat = "masks",
    *,
    overwrite: bool = False,
    provenance: str | None = None,
) -> list[Path]:
    """Write a segmentation to ``<output>/<patient>/``.

    Parameters
    ----------
    output : path
        Created if it does not exist.
    segmentation : Segmentation
        From :func:`segment`.
    file_format : {"masks", "tiff", "nifti"}
        The dataset's ``<patient>_<n>_mask.tif``, one ``<patient>_tumour.tif``, or
        ``<patient>_tumour.nii.gz`` (needs the extra ``nifti``).
    overwrite : bool
        Replace existing labels.
    provenance : str, optional
        Stored with the labels, see :mod:`napari_lgg_seg.core.data.provenance`.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    ExportError
        If labels exist already, or files cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> import napari_lgg_seg as lgg
    >>> from napari_lgg_seg.core.data.phantom import make_sample_patient
    >>> result = lgg.segment(make_sample_patient(), options=lgg.SegmentOptions(device="cpu"))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     files = lgg.write_labels(folder, result)
    >>> files[0].name
    'LGG_sample_1_mask.tif'
    """
    return label_files.write_labels(
        Path(output), segmentation.label_map(), file_format, overwrite=overwrite, provenance=provenance
    )


def write_masks(*arguments: Any, **keywords: Any) -> list[Path]:
    """Earlier name of :func:`write_labels`."""
    warnings.warn("write_masks is now called write_labels.", DeprecationWarning, stacklevel=2)
    return write_labels(*arguments, **keywords)
