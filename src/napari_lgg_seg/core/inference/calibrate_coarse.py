"""From which probability on a quick look of a model is worth a closer one: measured on patients."""

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

#: What is tried, in this order: the higher, the less is looked at closely.
LIMITS = (0.01, 0.003, 0.001, 0.0003, 0.0001)
#: Labels must agree with those of a close look so far: Dice over all voxels, and for each patient.
OVERALL, EACH = 0.999, 0.99
#: The most that the network may see, of what it sees in a close look, for a quick one to be worth it.
_WORK = 0.9


@dataclass(frozen=True)
class Tried:
    """What a limit does.

    Attributes
    ----------
    limit : float
        Probability from which a closer look is worth it.
    overall, worst : float
        Dice with the labels of a close look at everything: over all voxels, and in the worst patient.
    work : float
        Pixels that the network sees, of those in a close look.
    """

    limit: float
    overall: float
    worst: float
    work: float

    @property
    def keeps(self) -> bool:
        """Whether labels agree and work is saved."""
        return self.overall >= OVERALL and self.worst >= EACH and self.work <= _WORK


def try_limits(model: Model, patients: Sequence[Patient], device: DeviceChoice = "auto") -> Iterator[Tried]:
    """Try one limit after the other, to the first that keeps labels.

    Parameters
    ----------
    model : Model
        Its own threshold is used, and its clean-up if that drops minor pieces, else "minor".
    patients : sequence of Patient
        With images; such as did not train the model.
    device : str
        Where the network runs, computed by PyTorch.

    Yields
    ------
    Tried
        The last one is the model's, if it keeps labels. There is none where no lower limit could save work.
    """
    card = model.card
    clean_up = card.clean_up if card.clean_up in DROPS_MINOR else "minor"
    options = SegmentOptions(card.threshold, clean_up)
    closely, pixels = _labels(model, patients, options, device, None)
    for limit in LIMITS:
        quickly, seen = _labels(model, patients, options, device, limit)
        pairs = list(zip(closely, quickly, strict=True))
        overall = dice(*(np.concatenate([labels.ravel() for labels in side]) for side in (closely, quickly)))
        tried = Tried(limit, overall, min(dice(*pair) for pair in pairs), seen / max(pixels, 1))
        yield tried
        if tried.keeps or tried.work > _WORK:
            return


def _labels(
    model: Model,
    patients: Sequence[Patient],
    options: SegmentOptions,
    device: DeviceChoice,
    limit: float | None,
) -> tuple[list[Labels], int]:
    """Labels of each patient with a limit, and the pixels that the network saw."""
    tried = dataclasses.replace(model, card=dataclasses.replace(model.card, coarse_threshold=limit))
    predictor = Predictor(tried, device, engine="torch", coarse_to_fine=True)
    predictor.engine = counting = _Counting(predictor.engine)
    labels = []
    for patient in patients:
        assert patient.volume is not None
        labels.append(postprocess(run_to_end(predictor.predict(patient.volume)), options))
    return labels, counting.pixels


class _Counting:
    """An engine that counts the pixels that another one sees."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self.name, self.pixels = engine, engine.name, 0

    def logits(self, slices: Tensor) -> Tensor:
        """See :class:`napari_lgg_seg.core.inference.engines.Engine`."""
        self.pixels += slices.shape[0] * slices.shape[-2] * slices.shape[-1]
        return self._engine.logits(slices)
