"""Which labels layers of a viewer can be compared, and the comparison itself, in the worker's thread."""

from __future__ import annotations

import zlib
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
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
    format_shape,
    overlay,
)
from ...layers import TRUTH, TUMOUR, described, is_comparison
from ..shared.result_layers import spacing_of
from ..shared.worker import returns_failure
from .messages import in_mm

if TYPE_CHECKING:
    from napari.layers import Labels


@dataclass(frozen=True)
class Pair:
    """Two labels layers of the same slices."""

    prediction: Labels
    truth: Labels

    def __str__(self) -> str:
        return f"{self.prediction.name} against {self.truth.name}"

    @property
    def layers(self) -> tuple[Labels, Labels]:
        """Both."""
        return self.prediction, self.truth


# --- what can be chosen ------------------------------------------------------------------------


def labels_in(layers: Iterable[Any]) -> list[Labels]:
    """All labels layers but comparisons, in the order of the layer list."""
    return [layer for layer in layers if layer._type_string == "labels" and not is_comparison(layer)]


def is_prediction(layer: Any) -> bool:
    """Whether a layer is known to hold a prediction."""
    return bool(_info(layer, "role") == TUMOUR)


def proposed_prediction(labels: Sequence[Labels]) -> Labels | None:
    """The newest prediction; or else the newest labels that are no truth, if there are such."""
    paired = [layer for layer in labels if any(_fits(layer, other) for other in labels)]
    requests = (
        [layer for layer in labels if is_prediction(layer)],
        [layer for layer in paired if _info(layer, "role") != TRUTH],
        paired,
        labels,
    )
    return next((request[-1] for request in requests if request), None)


def proposed_truth(labels: Sequence[Labels], prediction: Labels | None) -> Labels | None:
    """What a prediction is most likely to be compared with: a truth, or other labels, on its grid."""
    others = [layer for layer in labels if layer != prediction]
    fitting = [layer for layer in others if prediction is not None and _fits(prediction, layer)]
    requests = (
        [layer for layer in fitting if _info(layer, "role") == TRUTH][:1],
        [layer for layer in fitting if not is_prediction(layer)],
        fitting,
        others,
    )
    return next((request[-1] for request in requests if request), None)


def check_pair(pair: Pair) -> None:
    """Refuse two layers that cannot be compared.

    Raises
    ------
    ComparisonError
        One sentence: the same layer twice, other slices, another patient, other voxel sizes.
    """
    prediction, truth = pair.layers
    if prediction == truth:
        raise ComparisonError(f"{prediction.name} is compared with itself; choose another layer.")
    for layer in pair.layers:
        if data_of(layer).ndim not in (2, 3):
            raise ComparisonError(
                f"{layer.name} has {data_of(layer).ndim} dimensions; choose labels of 2 or 3."
            )
    patients = [_info(layer, "patient") for layer in pair.layers]
    if None not in patients and patients[0] != patients[1]:
        raise ComparisonError(
            f"{prediction.name} is of {patients[0]} but {truth.name} is of {patients[1]}; "
            "choose two layers of one patient."
        )
    shapes = [data_of(layer).shape for layer in pair.layers]
    if shapes[0] != shapes[1]:
        raise ComparisonError(
            f"{prediction.name} has {format_shape(shapes[0])} voxels but {truth.name} has "
            f"{format_shape(shapes[1])}; choose two layers of the same slices."
        )
    _spacing(pair)


def _fits(prediction: Labels, truth: Labels) -> bool:
    try:
        check_pair(Pair(prediction, truth))
    except ComparisonError:
        return False
    return True


def _spacing(pair: Pair) -> tuple[float, ...] | None:
    """Voxel size in millimetres along the layers' axes; one layer may know it for both."""
    known = [size[-layer.ndim :] for layer in pair.layers if (size := spacing_of(layer)) is not None]
    if len(known) == 2 and not np.allclose(known[0], known[1], rtol=1e-3):
        sizes = " but ".join(
            f"{layer.name} has voxels of {in_mm(size)}"
            for layer, size in zip(pair.layers, known, strict=True)
        )
        raise ComparisonError(f"{sizes}; choose two layers of the same slices.")
    return known[0] if known else None


def _info(layer: Any, key: str) -> Any:
    info = described(layer)
    return None if info is None else info[key]


def data_of(layer: Any) -> Any:
    """A layer's values at full resolution."""
    return layer.data[0] if layer.multiscale else layer.data


# --- the comparison ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Taken:
    """What one comparison needs, taken from the layers in the window's thread.

    Attributes
    ----------
    pair : Pair
        Where it came from.
    prediction, truth : array of bool
        Shape (z, y, x) or (y, x); the user may go on painting in the layers. Perhaps not computed yet.
    spacing : tuple of float or None
        Distance of voxels along these axes in millimetres, if it is known.
    slice_numbers : tuple of int
        The number in each slice's file name, or 1, 2, ...
    """

    pair: Pair
    prediction: Any
    truth: Any
    spacing: tuple[float, ...] | None
    slice_numbers: tuple[int, ...]


@dataclass(frozen=True)
class Compared:
    """What one comparison gives.

    Attributes
    ----------
    pair : Pair
        What was compared.
    agreement : Agreement
        The figures.
    overlay : ndarray of uint8
        As :func:`napari_lgg_seg.core.evaluation.compare.overlay` makes it.
    by_slice : ndarray of int
        Shape (z, 3): voxels of each slice that agree, are missed, are invented.
    slice_numbers : tuple of int
        The slices' numbers.
    checksum : int
        Of all that went in.
    """

    pair: Pair
    agreement: Agreement
    overlay: npt.NDArray[np.uint8]
    by_slice: npt.NDArray[np.int64]
    slice_numbers: tuple[int, ...]
    checksum: int


def take(pair: Pair) -> Taken:
    """Take the layers' contents as they are now.

    Raises
    ------
    ComparisonError
        If they cannot be compared.
    """
    check_pair(pair)
    prediction, truth = (data_of(layer) != 0 for layer in pair.layers)
    return Taken(pair, prediction, truth, _spacing(pair), _slice_numbers(pair))


def _slice_numbers(pair: Pair) -> tuple[int, ...]:
    shape = data_of(pair.truth).shape
    count = shape[0] if len(shape) == 3 else 1
    for layer in pair.layers:
        numbers = _info(layer, "slice_numbers")
        if numbers is not None and len(numbers) == count:
            return tuple(numbers)
    return tuple(range(1, count + 1))


@returns_failure
def run_comparison(taken: Taken, known: int | None = None) -> Generator[None, None, Compared | None]:
    """Compare, in the worker's thread; None if all that goes in has the checksum ``known``."""
    yield
    prediction, truth = (np.asarray(mask, bool) for mask in (taken.prediction, taken.truth))
    checksum = _checksum(prediction, truth, taken)
    if checksum == known:
        return None
    yield
    agreement = compare(prediction, truth, taken.spacing, slice_numbers=taken.slice_numbers)
    yield
    shown = overlay(prediction, truth)
    slices = shown.reshape(len(taken.slice_numbers), -1)
    by_slice = np.stack(
        [(slices == kind).sum(axis=1) for kind in (AGREED, FALSE_NEGATIVE, FALSE_POSITIVE)], axis=1
    )
    return Compared(taken.pair, agreement, shown, by_slice, taken.slice_numbers, checksum)


def _checksum(prediction: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_], taken: Taken) -> int:
    value = zlib.crc32(repr((taken.spacing, taken.slice_numbers)).encode())
    for mask in (prediction, truth):
        value = zlib.crc32(np.packbits(mask).tobytes(), value)
    return value
