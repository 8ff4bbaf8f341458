"""Calibrate coarse-to-fine inference: find the candidate threshold of a model on patients."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..choices import DROPS_MINOR
from ..evaluation.metrics import dice
from ..options import SegmentOptions
from .postprocess import postprocess
from .predict import Predictor, run_to_end

if TYPE_CHECKING:
    from torch import Tensor

    from ..data.patients import Patient
    from ..devices import DeviceChoice
    from ..model.checkpoint import Model
    from .engines import Engine
    from .postprocess import Labels

#: Candidate thresholds to try, in this order: the higher, the less is computed at full resolution.
THRESHOLDS = (0.01, 0.003, 0.001, 0.0003, 0.0001)
#: Required Dice with the labels of full resolution everywhere: over all voxels, and for each patient.
MIN_OVERALL_DICE, MIN_PATIENT_DICE = 0.999, 0.99
#: Coarse-to-fine inference must compute at most this fraction of the pixels.
_MAX_PIXEL_SHARE = 0.9


@dataclass(frozen=True)
class ThresholdResult:
    """Agreement and cost of coarse-to-fine inference with one candidate threshold.

    Attributes
    ----------
    threshold : float
        Probability from which a voxel is a candidate.
    overall, worst : float
        Dice with the labels of full resolution everywhere: over all voxels, and of the worst patient.
    pixel_share : float
        Pixels that the network computes, as a fraction of those of full resolution everywhere.
    """

    threshold: float
    overall: float
    worst: float
    pixel_share: float

    @property
    def acceptable(self) -> bool:
        """Whether the labels agree and computation is saved."""
        return (
            self.overall >= MIN_OVERALL_DICE
            and self.worst >= MIN_PATIENT_DICE
            and self.pixel_share <= _MAX_PIXEL_SHARE
        )


def calibrate(
    model: Model, patients: Sequence[Patient], device: DeviceChoice = "auto"
) -> Iterator[ThresholdResult]:
    """Try candidate thresholds from high to low until one is acceptable.

    Parameters
    ----------
    model : Model
        Its own threshold is used, and its clean-up if that drops minor components, else "minor".
    patients : sequence of Patient
        Patients with images that the model was not trained on.
    device : str
        Where the network runs; the engine is PyTorch.

    Yields
    ------
    ThresholdResult
        The last one is the model's threshold if it is acceptable. The search ends early once lower
        thresholds could not save any computation.
    """
    card = model.card
    clean_up = card.clean_up if card.clean_up in DROPS_MINOR else "minor"
    options = SegmentOptions(card.threshold, clean_up)
    full, full_pixels = _labels(model, patients, options, device, None)
    for threshold in THRESHOLDS:
        coarse, pixels = _labels(model, patients, options, device, threshold)
        overall = dice(*(np.concatenate([labels.ravel() for labels in side]) for side in (full, coarse)))
        worst = min(dice(*pair) for pair in zip(full, coarse, strict=True))
        result = ThresholdResult(threshold, overall, worst, pixels / max(full_pixels, 1))
        yield result
        if result.acceptable or result.pixel_share > _MAX_PIXEL_SHARE:
            return


def _labels(
    model: Model,
    patients: Sequence[Patient],
    options: SegmentOptions,
    device: DeviceChoice,
    threshold: float | None,
) -> tuple[list[Labels], int]:
    """Labels of each patient with a candidate threshold, and the number of pixels computed."""
    changed = dataclasses.replace(model, card=dataclasses.replace(model.card, coarse_threshold=threshold))
    predictor = Predictor(changed, device, engine="torch", coarse_to_fine=True)
    predictor.engine = counting = _CountingEngine(predictor.engine)
    labels = []
    for patient in patients:
        assert patient.volume is not None
        labels.append(postprocess(run_to_end(predictor.predict(patient.volume)), options))
    return labels, counting.pixels


class _CountingEngine:
    """Wraps an engine and counts the pixels that it computes."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self.name, self.pixels = engine, engine.name, 0

    def logits(self, slices: Tensor) -> Tensor:
        """See :class:`napari_lgg_seg.core.inference.engines.Engine`."""
        self.pixels += slices.shape[0] * slices.shape[-2] * slices.shape[-1]
        return self._engine.logits(slices)
