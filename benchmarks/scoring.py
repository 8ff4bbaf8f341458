"""The metrics that the experiments compute of a trained model, for each test patient."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from calibration import Reliability, measure_reliability
from scipy.ndimage import convolve1d

from napari_lgg_seg.core.data.patients import Patient
from napari_lgg_seg.core.evaluation.label_pairs import Volumes
from napari_lgg_seg.core.evaluation.metrics import dice
from napari_lgg_seg.core.evaluation.patient_metrics import (
    Agreement,
    PatientMetrics,
    measure_cohort,
    measure_patient,
)
from napari_lgg_seg.core.evaluation.study.shape import FEATURES, measure_shape
from napari_lgg_seg.core.inference.postprocess import postprocess
from napari_lgg_seg.core.inference.predict import Predictor, run_to_end
from napari_lgg_seg.core.model.checkpoint import Model
from napari_lgg_seg.core.options import SegmentOptions

Probability = npt.NDArray[np.float32]
Labels = npt.NDArray[np.uint8]

#: The options that the other post-processing choices start from.
PLAIN = SegmentOptions(threshold=0.5, clean_up="off")


def _with(**choices: Any) -> Callable[[Probability], Labels]:
    options = dataclasses.replace(PLAIN, **choices)
    return lambda probability: postprocess(probability, options)


def _smoothed(probability: Probability) -> Labels:
    """Labels of the probability smoothed across slices, with a fifth from each neighbour."""
    return postprocess(convolve1d(probability, [0.2, 0.6, 0.2], axis=0, mode="nearest"), PLAIN)


#: Other post-processing of the same probabilities; its Dice is stored as well, under these names.
CHOICES: dict[str, Callable[[Probability], Labels]] = {
    "threshold 0.5": _with(),
    "0.3": _with(threshold=0.3),
    "0.4": _with(threshold=0.4),
    "0.6": _with(threshold=0.6),
    "0.7": _with(threshold=0.7),
    "automatic": _with(threshold="auto"),
    "0.5, largest piece": _with(clean_up="largest"),
    "0.5, without pieces under 100 voxels": _with(clean_up="small"),
    "0.5, without pieces under a quarter of the largest": _with(clean_up="minor"),
    "0.5, holes filled": _with(fill_holes=True),
    "0.5, smoothed over slices": _smoothed,
    "automatic, largest piece": _with(threshold="auto", clean_up="largest"),
    "automatic, without pieces under a quarter of the largest": _with(threshold="auto", clean_up="minor"),
}
#: Those that are also computed with test-time augmentation.
MIRRORED = {
    f"{name}, with test-time augmentation": CHOICES[name]
    for name in ("threshold 0.5", "automatic", "automatic, without pieces under a quarter of the largest")
}


def score(model: Model, test: list[Patient]) -> dict[str, Any]:
    """Metrics of a model on test patients, ready for JSON; each list is in the order of the patients.

    Labels are made with the model's own threshold and clean-up, except for ``choices``.
    """
    own = model.card.complete(SegmentOptions())
    predictor, mirrored = Predictor(model), Predictor(model, tta=True)
    metrics: list[PatientMetrics] = []
    rows: list[dict[str, Any]] = []
    reliability: Reliability | None = None
    choices: dict[str, list[float]] = {name: [] for name in (*CHOICES, *MIRRORED)}
    for patient in test:
        assert patient.volume is not None
        assert patient.truth is not None
        probability = run_to_end(predictor.predict(patient.volume))
        metrics.append(_metrics(patient, postprocess(probability, own)))
        rows.append(_row(metrics[-1], patient, probability, own))
        counted = measure_reliability(probability, patient.truth)
        if counted is not None:
            reliability = counted if reliability is None else reliability + counted
        for name, to_labels in CHOICES.items():
            choices[name].append(_rounded(dice(to_labels(probability), patient.truth)))
        probability = run_to_end(mirrored.predict(patient.volume))
        for name, to_labels in MIRRORED.items():
            choices[name].append(_rounded(dice(to_labels(probability), patient.truth)))
    cohort = measure_cohort(metrics)
    assert cohort is not None
    assert reliability is not None
    return {
        "cohort": dataclasses.asdict(cohort),
        "patients": rows,
        "choices": choices,
        "reliability": {k: [_rounded(v) for v in a] for k, a in vars(reliability).items()},
    }


def dice_by_patient(model: Model, test: Iterable[Patient]) -> dict[str, float]:
    """Dice of each test patient over the volume, with the model's own threshold and clean-up."""
    own, predictor = model.card.complete(SegmentOptions()), Predictor(model)
    scores = {}
    for patient in test:
        assert patient.volume is not None
        assert patient.truth is not None
        labels = postprocess(run_to_end(predictor.predict(patient.volume)), own)
        scores[patient.name] = _rounded(dice(labels, patient.truth))
    return scores


def _metrics(patient: Patient, labels: Labels) -> PatientMetrics:
    return measure_patient(Volumes(patient.name, patient.slice_numbers, labels, patient.truth))


def _row(
    metrics: PatientMetrics, patient: Patient, probability: Probability, own: SegmentOptions
) -> dict[str, Any]:
    """A patient's metrics in one row: agreement, slices, false positives on slices without tumour, shape."""
    agreement = metrics.agreement
    assert isinstance(agreement, Agreement)
    labels, truth = postprocess(probability, own), patient.truth
    # The original study kept only the largest component before it measured shapes.
    largest = postprocess(probability, dataclasses.replace(own, clean_up="largest"))
    empty = ~truth.any(axis=(1, 2))
    by_slice = list(agreement.slice_dice.values())
    tumour_slices = [dice(p, t) for p, t in zip(labels[~empty], truth[~empty], strict=True)]
    row = metrics.as_row() | {
        "tumour_slice_dice": float(np.mean(tumour_slices)) if tumour_slices else None,
        # As notebooks count it: a slice that is correctly empty has a Dice of 1.
        "slice_dice_with_empty": (sum(by_slice) + len(labels) - len(by_slice)) / len(labels),
        "false_voxels_on_empty_slices": int(labels[empty].sum()),
        "filled_sequences": list(patient.filled_sequences),
    }
    for suffix, mask in (("", labels), ("_largest", largest)):
        shape = measure_shape(mask)
        row |= {f"{feature}{suffix}": getattr(shape, feature) for feature in FEATURES}
    return {k: _rounded(v) if isinstance(v, float) else v for k, v in row.items()}


def _rounded(value: float) -> float:
    return round(float(value), 5)
