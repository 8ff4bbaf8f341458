"""From the probabilities in a viewer to labels, and what is measured of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...core.data.provenance import model_checksum
from ...core.errors import LggSegError
from ...core.evaluation.measurements import TumourMeasurements, measure_labels
from ...core.evaluation.metrics import dice
from ...core.inference.postprocess import postprocess, threshold_of
from ...core.inference.uncertainty import expected_dice
from ...core.options import SegmentOptions
from ...layers import METADATA_KEY, PROBABILITY, TRUTH, find_layer, full_data, spacing_of
from ..shared import result_layers as results
from ..shared.navigation import slice_number
from . import messages
from .inputs import grid_of
from .job import Job, Result

#: Options that turn a probability into labels; the others belong to the run that computed it.
_LABEL_OPTIONS = ("threshold", "clean_up", "smallest_volume", "fill_holes")
#: Metadata key of a probability layer: checksum of the model file that computed it.
MODEL_ID = "model_id"


def labels_from(
    probability: npt.NDArray[np.float32], options: SegmentOptions
) -> tuple[npt.NDArray[np.uint8], float]:
    """Labels of a probability map, (z, y, x) or (y, x), and the threshold that was used."""
    threshold = threshold_of(probability, options.threshold)
    volume = probability[None] if probability.ndim == 2 else probability
    labels = postprocess(volume, dataclasses.replace(options, threshold=threshold))
    return labels.reshape(probability.shape), threshold


def made_with_now(probability: Any, options: SegmentOptions, threshold: float) -> dict[str, Any]:
    """Model and options behind labels: those of the probability layer's run, relabelled with ``options``."""
    run = made_with(probability)
    now = {name: getattr(options, name) for name in _LABEL_OPTIONS}
    found = {**run, "options": {**run.get("options", {}), **now}, "threshold": threshold}
    if "provenance" in run:
        before = run["provenance"]
        found["provenance"] = {**before, "options": {**before["options"], **now}}
    return found


def made_with(layer: Any) -> dict[str, Any]:
    """Model and options behind a result layer; empty for None."""
    if layer is None:
        return {}
    found: dict[str, Any] = layer.metadata[METADATA_KEY].get("made_with", {})
    return found


def made_with_run(layers: Iterable[Any], job: Job, result: Result) -> dict[str, Any]:
    """Model and options of a run; for a single slice, also the model of the other slices."""
    new = result.made_with(job.options)
    before = made_with(find_layer(layers, job.subject.id, PROBABILITY)).get("model")
    if job.only_slice is not None and before not in (None, result.model):
        number = slice_number(job.flair, job.only_slice)
        new["model"] = f"{result.model} (slice {number}), {before} (other slices)"
    return new


def options_of(
    probability: Any, labels: Any, shown: SegmentOptions, changed: Iterable[str], model: Path
) -> tuple[SegmentOptions, bool]:
    """The options for new labels from a probability layer, and whether ``model`` has computed it.

    For another model's probability, the controls show the defaults of ``model``. Then the labels keep their
    own options, except for those that the user has changed.

    Parameters
    ----------
    probability, labels : Layer
        Of one result.
    shown : SegmentOptions
        As the controls are set.
    changed : iterable of str
        Names of the options that the user has changed.
    model : Path
        The model file that is chosen.
    """
    provenance = made_with(probability).get("provenance") or {}
    known = probability.metadata[METADATA_KEY].get(MODEL_ID) or provenance.get("model")
    try:
        if known == model_checksum(model):
            return shown, True
    except LggSegError:
        pass  # the file is gone, so it is not known to be the same model
    own = made_with(labels).get("options", {})
    kept = {name: own[name] for name in _LABEL_OPTIONS if own.get(name) is not None}
    return dataclasses.replace(shown, **kept | {name: getattr(shown, name) for name in changed}), False


def on_whole_grid(
    layers: Iterable[Any], job: Job, role: str, computed: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """A run's result on the image's grid; a single slice is inserted into the existing layer's values."""
    grid = grid_of(job.flair)
    if len(grid) == 2:
        return computed[0]
    if job.only_slice is None:
        return computed
    before = find_layer(layers, job.subject.id, role)
    if before is None or before.data.shape != grid:
        whole = np.zeros(grid, np.float32)
    else:
        whole = np.array(before.data)
    whole[job.only_slice] = computed[0]
    return whole


@dataclasses.dataclass(frozen=True)
class Measured:
    """What is measured of a result layer.

    Attributes
    ----------
    tumour : TumourMeasurements
        Volume, slices and diameter.
    dice, expected_dice : float or None
        With the ground truth, and as the probabilities promise; None if unknown.
    """

    tumour: TumourMeasurements
    dice: float | None
    expected_dice: float | None


def measure(layers: Iterable[Any], subject: str, layer: Any) -> Measured:
    """Measure a subject's result layer, and store the measurements in it."""
    labels = full_data(layer)
    tumour = measure_labels(labels[None] if layer.ndim == 2 else labels, spacing_of(layer))
    results.store_measurements(layer, tumour)
    truth, probability = (
        None if found is None or full_data(found).shape != labels.shape else full_data(found)
        for found in (find_layer(layers, subject, role) for role in (TRUTH, PROBABILITY))
    )
    return Measured(
        tumour,
        None if truth is None else dice(labels, truth),
        None if probability is None or not tumour.voxels else (expected_dice(probability, labels) or 0.0),
    )


def summary(layers: Iterable[Any], subject: results.Subject, layer: Any, *, is_named: bool) -> str:
    """Measure a subject's result layer, and say what was found."""
    measured = measure(layers, subject.id, layer)
    run = made_with(layer)
    clean_up = run.get("options", {}).get("clean_up") or ""
    return messages.result(
        measured.tumour, measured.dice, measured.expected_dice, subject.name if is_named else ""
    ) + messages.small_components_missing(clean_up, coarse_to_fine=bool(run.get("coarse_to_fine")))
