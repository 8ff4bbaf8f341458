"""What the experiments measure of a trained model: figures of each test patient, and of other choices."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import convolve1d

from napari_lgg_seg.core.calibration import Reliability, measure_reliability
from napari_lgg_seg.core.cases import Volumes
from napari_lgg_seg.core.checkpoint import Model
from napari_lgg_seg.core.metrics import dice
from napari_lgg_seg.core.options import SegmentOptions
from napari_lgg_seg.core.patients import Patient
from napari_lgg_seg.core.postprocess import postprocess
from napari_lgg_seg.core.predict import Predictor, drain
from napari_lgg_seg.core.report import Agreement, PatientFigures, measure_cohort, measure_patient
from napari_lgg_seg.core.shape import FEATURES, measure_shape

Probability = npt.NDArray[np.float32]
Labels = npt.NDArray[np.uint8]

#: What a run is measured with, whatever the defaults are at the time.
PLAIN = SegmentOptions(threshold=0.5, clean_up="off")
#: What the original study did before it measured shapes.
LARGEST = SegmentOptions(threshold=0.5, clean_up="largest")


def _with(**choices: Any) -> Callable[[Probability], Labels]:
    options = dataclasses.replace(PLAIN, **choices)
    return lambda probability: postprocess(probability, options, 0.5)


def _smoothed(probability: Probability) -> Labels:
    """A fifth of the probability from each neighbouring slice."""
    return postprocess(convolve1d(probability, [0.2, 0.6, 0.2], axis=0, mode="nearest"), PLAIN, 0.5)


#: Other ways from probabilities to labels, whose Dice is kept beside the run's own.
CHOICES: dict[str, Callable[[Probability], Labels]] = {
    "threshold 0.3": _with(threshold=0.3),
    "threshold 0.4": _with(threshold=0.4),
    "threshold 0.6": _with(threshold=0.6),
    "threshold 0.7": _with(threshold=0.7),
    "largest piece": _with(clean_up="largest"),
    "without pieces under 100 voxels": _with(clean_up="small"),
    "without pieces under a tenth of the largest": _with(clean_up="minor"),
    "holes filled": _with(fill_holes=True),
    "smoothed over slices": _smoothed,
}
WITH_TTA = "test-time augmentation"


def score(model: Model, test: list[Patient]) -> dict[str, Any]:
    """Figures of a model on test patients, ready for JSON; each list is in the order of the patients."""
    predictor, mirrored = Predictor(model), Predictor(model, tta=True)
    figures: list[PatientFigures] = []
    rows: list[dict[str, Any]] = []
    reliability: Reliability | None = None
    choices: dict[str, list[float]] = {name: [] for name in (*CHOICES, WITH_TTA)}
    for patient in test:
        assert patient.volume is not None
        assert patient.truth is not None
        probability = drain(predictor.predict(patient.volume))
        figures.append(_figures(patient, postprocess(probability, PLAIN, 0.5)))
        rows.append(_row(figures[-1], patient, probability))
        counted = measure_reliability(probability, patient.truth)
        if counted is not None:
            reliability = counted if reliability is None else reliability + counted
        for name, to_labels in CHOICES.items():
            choices[name].append(_rounded(dice(to_labels(probability), patient.truth)))
        probability = drain(mirrored.predict(patient.volume))
        choices[WITH_TTA].append(_rounded(dice(postprocess(probability, PLAIN, 0.5), patient.truth)))
    cohort = measure_cohort(figures)
    assert cohort is not None
    assert reliability is not None
    return {
        "cohort": dataclasses.asdict(cohort),
        "patients": rows,
        "choices": choices,
        "reliability": {k: [_rounded(v) for v in a] for k, a in vars(reliability).items()},
    }


def _figures(patient: Patient, labels: Labels) -> PatientFigures:
    return measure_patient(Volumes(patient.name, patient.slice_numbers, labels, patient.truth))


def _row(figures: PatientFigures, patient: Patient, probability: Probability) -> dict[str, Any]:
    """A patient's figures, flat: agreement, slices, false voxels where there is no tumour, shape."""
    agreement = figures.agreement
    assert isinstance(agreement, Agreement)
    labels, truth = postprocess(probability, PLAIN, 0.5), patient.truth
    empty = ~truth.any(axis=(1, 2))
    by_slice = list(agreement.slice_dice.values())
    tumour_slices = [dice(p, t) for p, t in zip(labels[~empty], truth[~empty], strict=True)]
    row = figures.as_row() | {
        "tumour_slice_dice": float(np.mean(tumour_slices)) if tumour_slices else None,
        # As notebooks count it: a slice that is rightly empty has 1.
        "slice_dice_with_empty": (sum(by_slice) + len(labels) - len(by_slice)) / len(labels),
        "false_voxels_on_empty_slices": int(labels[empty].sum()),
        "filled_sequences": list(patient.copies),
    }
    for what, mask in (("", labels), ("_largest", postprocess(probability, LARGEST, 0.5))):
        shape = measure_shape(mask)
        row |= {f"{feature}{what}": getattr(shape, feature) for feature in FEATURES}
    return {k: _rounded(v) if isinstance(v, float) else v for k, v in row.items()}


def _rounded(value: float) -> float:
    return round(float(value), 5)
