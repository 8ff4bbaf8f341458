"""Intensities of any origin -> finite, non-negative intensities with the background at 0.

Scanners, converters and other programs add offsets, fill what lies outside of the field of view with a
constant, and leave single absurd voxels. Padding differs from air by the empty gap of intensities between it
and everything else: in the dataset's 90 patients, no gap is wider than 7 % of a sequence's range.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Volume = npt.NDArray[np.generic]
Sorted = npt.NDArray[np.float64]

#: Fraction of voxels that lie at or below what counts as the highest intensity of a sequence.
_HIGHEST = 0.995
#: Narrowest gap below which intensities can be padding or outliers, as a fraction of the range above it.
_GAP = 0.1
#: Wider than any gap in the intensities of tissue and air, as a multiple of the range on the other side.
_WIDE_GAP = 2.0
#: The same for a constant above everything else, which can also be a bright structure.
_GAP_ABOVE = 5.0
#: Outliers are at most this fraction of the voxels, and what is left without padding is at least this one.
_FEW, _TISSUE = 0.001, 0.05
#: Air is a peak at the lowest intensities: this fraction of the range has at least this fraction of the
#: voxels, and this many times as many as the next one.
_AIR_RANGE, _AIR_SHARE, _AIR_PEAK = 0.1, 0.05, 2
#: A lowest intensity this close to 0, as a fraction of the highest, counts as 0; the larger fraction applies
#: where padding may have replaced all of the air.
_ZERO, _ZERO_WITHOUT_AIR = 0.01, 0.15
#: Fraction of voxels that may lie below the background, where that is not 0.
_BELOW_BACKGROUND = 1e-4
#: Brighter voxels are outliers, as a multiple of the range. Clipping follows after resampling, which would
#: smear them over their neighbours.
_BRIGHTEST = 10.0


@dataclass(frozen=True)
class Intensities:
    """Range of the intensities of one sequence without padding and outliers.

    Attributes
    ----------
    background : float
        Intensity of the background; 0 for all patients of the dataset.
    brightest : float
        Higher intensities are outliers.
    padding_from : float
        Intensities from here on are padding.
    """

    background: float = 0.0
    brightest: float = np.inf
    padding_from: float = np.inf


def subtract_background(volume: Volume) -> npt.NDArray[Any]:
    """Make a volume's intensities finite and non-negative, with the background at 0.

    Parameters
    ----------
    volume : ndarray
        Shape (z, y, x, c); any real dtype. Not modified.

    Returns
    -------
    ndarray
        Same shape: the volume itself if it is uint8 and nothing is to be changed, else float32. Padding and
        values that are not finite become background.
    """
    found = [find_intensities(volume[..., c]) for c in range(volume.shape[-1])]
    if volume.dtype == np.uint8 and all(_is_unchanged(volume[..., c], i) for c, i in enumerate(found)):
        return volume
    result = np.empty(volume.shape, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for c, intensities in enumerate(found):
            values, raw = result[..., c], volume[..., c]
            # In double precision: a large offset would leave no contrast in single precision.
            np.subtract(raw, intensities.background, out=values, dtype=np.float64, casting="unsafe")
            values[~np.isfinite(values) | np.greater_equal(raw, intensities.padding_from)] = 0
            limit = min(intensities.brightest - intensities.background, 1e37)  # sums stay finite
            np.clip(values, 0, limit, out=values)
    return result


def _is_unchanged(values: Volume, intensities: Intensities) -> bool:
    limit = min(intensities.brightest, intensities.padding_from)
    return intensities.background == 0 and bool(values.max() < limit)


def find_intensities(values: Volume) -> Intensities:
    """Find background, padding and outliers of one sequence, shape (z, y, x), any real dtype.

    The result follows any scale and offset, except that a background close to 0 is taken for 0.
    """
    step = 2 if min(values.shape[1:]) >= 64 else 1
    sample = values[:: max(1, len(values) // 32), ::step, ::step].astype(np.float64)
    tissue = np.sort(sample[np.isfinite(sample)])
    padding_from, zero = np.inf, _ZERO
    if len(tissue) < (1 - _FEW) * sample.size:
        zero = _ZERO_WITHOUT_AIR
    while len(tissue):
        part = _without_padding(tissue)
        if part is None:
            break
        if part.start is None:
            padding_from, zero = float(tissue[part.stop]), _ZERO_WITHOUT_AIR
        elif tissue[0] < 0 and part.start > _FEW * len(tissue):
            zero = _ZERO_WITHOUT_AIR
        tissue = tissue[part]
    if not len(tissue):
        return Intensities()
    lowest, highest = tissue[0], _highest(tissue)
    # The lowest voxel may not be in the sample.
    lowest = float(np.min(values, where=values >= lowest - _GAP * (highest - lowest), initial=lowest))
    span = highest - lowest
    if span <= 0:
        return Intensities(min(lowest, 0.0), padding_from=padding_from)
    near_zero = abs(lowest) <= (zero * highest if lowest > 0 else _ZERO * span)
    background = 0.0 if near_zero else float(tissue[int(_BELOW_BACKGROUND * len(tissue))])
    return Intensities(background, background + _BRIGHTEST * (highest - background), padding_from)


def _highest(tissue: Sorted) -> float:
    return float(tissue[int(_HIGHEST * (len(tissue) - 1))])


def _without_padding(tissue: Sorted) -> slice | None:
    """The part of sorted intensities without their farthest padding or outliers; None if there are none."""
    highest = _highest(tissue)
    gaps = np.diff(tissue[: np.searchsorted(tissue, highest, "right")])
    if not len(gaps) or tissue[0] == highest:
        return None
    start = int(gaps.argmax()) + 1
    gap, below, above = gaps[start - 1], tissue[:start], tissue[start:]
    if above[0] == highest:  # a constant
        return slice(None, start) if gap > _GAP_ABOVE * (below[-1] - below[0]) > 0 else None
    span = highest - above[0]
    if start <= _FEW * len(tissue):  # outliers
        return slice(start, None) if gap > _GAP * span else None
    is_padding = (gap > _GAP * (span + below[-1] - below[0]) and len(above) >= _TISSUE * len(tissue)) and (
        gap > _WIDE_GAP * span or (below[-1] < 0 and above[0] >= -_ZERO * span) or _has_air(above, span)
    )
    return slice(start, None) if is_padding else None


def _has_air(tissue: Sorted, span: float) -> bool:
    first, second = (tissue[0] + n * _AIR_RANGE * span for n in (1, 2))
    lowest, both = np.searchsorted(tissue, (first, second), "right")
    return bool(lowest >= max(_AIR_SHARE * len(tissue), _AIR_PEAK * (both - lowest)))
