"""Which labels layers of a viewer can be compared, and the comparison in a worker."""

from __future__ import annotations

import zlib
from collections.abc import Generator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ...core.errors import ComparisonError
from ...core.evaluation.compare import (
    AGREED,
    FALSE_NEGATIVE,
    FALSE_POSITIVE,
    Agreement,
    compare,
    overlay,
)
from ...layers import TRUTH, TUMOUR, described, full_data, is_comparison, subject_of
from ..shared.worker import returns_failure
from .alignment import Alignment, Grid, align, world_grid
from .messages import compared

if TYPE_CHECKING:
    from napari.layers import Labels


@dataclass(frozen=True)
class LayerPair:
    """Two labels layers of the same slices.

    Attributes
    ----------
    prediction : Labels
        The labels to evaluate.
    truth : Labels
        The reference.
    """

    prediction: Labels
    truth: Labels

    @property
    def layers(self) -> tuple[Labels, Labels]:
        """Prediction and reference."""
        return self.prediction, self.truth


# --- choosing ----------------------------------------------------------------------------------


def labels_in(layers: Iterable[Any]) -> list[Labels]:
    """All labels layers except comparisons, in the order of the layer list."""
    return [layer for layer in layers if layer._type_string == "labels" and not is_comparison(layer)]


def is_prediction(layer: Any) -> bool:
    """Whether a layer's metadata says that it is a prediction."""
    return bool(_info(layer, "role") == TUMOUR)


def proposed_prediction(labels: Sequence[Labels]) -> Labels | None:
    """The newest prediction, otherwise the newest labels that are not ground truth, otherwise any labels."""
    grids = _grids(labels)
    paired = [layer for layer in labels if any(_fits(layer, other, grids) for other in labels)]
    candidates = (
        [layer for layer in labels if is_prediction(layer)],
        [layer for layer in paired if _info(layer, "role") != TRUTH],
        paired,
        labels,
    )
    return next((group[-1] for group in candidates if group), None)


def proposed_reference(labels: Sequence[Labels], prediction: Labels | None) -> Labels | None:
    """The likeliest reference of a prediction: the ground truth, or other labels on its grid."""
    others = [layer for layer in labels if layer != prediction]
    grids = _grids(labels)
    fitting = [layer for layer in others if prediction is not None and _fits(prediction, layer, grids)]
    truths = [layer for layer in fitting if _info(layer, "role") == TRUTH]
    own = "" if prediction is None else subject_of(prediction)
    candidates = (
        [layer for layer in truths if subject_of(layer) == own][:1],
        truths[:1],
        [layer for layer in fitting if not is_prediction(layer)],
        fitting,
        others,
    )
    return next((group[-1] for group in candidates if group), None)


def check_pair(pair: LayerPair) -> Alignment:
    """Find which voxels of two layers correspond.

    Raises
    ------
    ComparisonError
        If both are the same layer, or they differ in patient, slices or grid.
    """
    prediction, truth = pair.layers
    if prediction == truth:
        raise ComparisonError(f"{prediction.name} is compared with itself; choose another layer.")
    return align(world_grid(prediction), world_grid(truth))


def _grids(labels: Sequence[Labels]) -> dict[Labels, Grid]:
    """Grids of the layers that can be compared at all."""
    grids = {}
    for layer in labels:
        with suppress(ComparisonError):
            grids[layer] = world_grid(layer)
    return grids


def _fits(prediction: Labels, truth: Labels, grids: dict[Labels, Grid]) -> bool:
    if prediction == truth or prediction not in grids or truth not in grids:
        return False
    try:
        align(grids[prediction], grids[truth])
    except ComparisonError:
        return False
    return True


def _info(layer: Any, key: str) -> Any:
    info = described(layer)
    return None if info is None else info[key]


# --- comparing ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class ComparisonInput:
    """A snapshot of two layers for the worker.

    Attributes
    ----------
    pair : LayerPair
        The layers.
    prediction, truth : array
        Labels, shape (z, y, x) or (y, x); possibly lazy. Arrays in memory are copies, so that the user may
        go on painting.
    alignment : Alignment
        Which voxels correspond.
    """

    pair: LayerPair
    prediction: Any
    truth: Any
    alignment: Alignment


@dataclass(frozen=True)
class ComparisonResult:
    """The result of a comparison.

    Attributes
    ----------
    pair : LayerPair
        What was compared.
    alignment : Alignment
        Which voxels were compared.
    agreement : Agreement
        The metrics.
    overlay : ndarray of uint8
        As :func:`napari_lgg_seg.core.evaluation.compare.overlay` returns it, in the shape of the reference;
        0 in slices that were left out.
    by_slice : ndarray of int
        Shape (z, 3): voxels of each compared slice that agree, are false negative and are false positive.
    checksum : int
        Of the input.
    """

    pair: LayerPair
    alignment: Alignment
    agreement: Agreement
    overlay: npt.NDArray[np.uint8]
    by_slice: npt.NDArray[np.int64]
    checksum: int

    @property
    def slice_numbers(self) -> tuple[int, ...]:
        """Numbers of the slices that were compared."""
        return self.alignment.slice_numbers

    def summary(self) -> str:
        """What the metrics are based on."""
        return compared(self.agreement, self.alignment.ratio, self.alignment.notice)


def comparison_input(pair: LayerPair) -> ComparisonInput:
    """A snapshot of the layers as they are now.

    Raises
    ------
    ComparisonError
        If they cannot be compared.
    """
    alignment = check_pair(pair)
    prediction, truth = (full_data(layer) for layer in pair.layers)
    return ComparisonInput(pair, _copy(prediction), _copy(truth), alignment)


def _copy(data: Any) -> Any:
    return data != 0 if isinstance(data, np.ndarray) else data


@returns_failure
def run_comparison(
    job: ComparisonInput, known: int | None = None
) -> Generator[None, None, ComparisonResult | None]:
    """Compare in a worker; returns None if the input has the checksum ``known``."""
    yield
    alignment = job.alignment
    whole = np.asarray(job.truth) != 0
    prediction, truth = alignment.apply(np.asarray(job.prediction) != 0, whole)
    checksum = _checksum(prediction, truth, alignment)
    if checksum == known:
        return None
    yield
    # Distances in pixels take the scale into account, but are not in millimetres.
    spacing = alignment.spacing or alignment.ratio
    agreement = compare(prediction, truth, spacing, slice_numbers=alignment.slice_numbers)
    if alignment.spacing is None:
        agreement = replace(agreement, spacing=None)
    yield
    compared_slices = overlay(prediction, truth)
    slices = compared_slices.reshape(len(alignment.slice_numbers), -1)
    by_slice = np.stack(
        [(slices == kind).sum(axis=1) for kind in (AGREED, FALSE_NEGATIVE, FALSE_POSITIVE)], axis=1
    )
    shown = np.zeros(whole.shape, np.uint8)
    shown[alignment.reference_slices] = compared_slices
    return ComparisonResult(job.pair, alignment, agreement, shown, by_slice, checksum)


def _checksum(prediction: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_], alignment: Alignment) -> int:
    value = zlib.crc32(repr(alignment).encode())
    for mask in (prediction, truth):
        value = zlib.crc32(np.packbits(mask).tobytes(), value)
    return value
