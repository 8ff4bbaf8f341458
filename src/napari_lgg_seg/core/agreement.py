"""How well two masks of one patient agree, in every figure that the field asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .metrics import dice

Mask = npt.NDArray[np.generic]

#: Distance, in the units of the spacing, within which two surfaces count as the same.
SURFACE_TOLERANCE = 1.0


@dataclass(frozen=True)
class Agreement:
    """Figures of a predicted mask against the truth.

    Attributes
    ----------
    dice, iou, precision, recall : float
        Over all voxels; two empty masks agree in all of them.
    tumour_slice_dice : float
        Mean of the Dice per slice over the slices that show tumour in the truth; NaN without any.
    hd95 : float
        95th percentile of the distances between the surfaces, in units of the spacing; NaN where one
        mask is empty and infinite distances would tell nothing.
    surface_dice : float
        Share of both surfaces that lies within :data:`SURFACE_TOLERANCE` of the other; NaN likewise.
    predicted_voxels, true_voxels : int
        Volumes.
    missed_lesions, invented_lesions : int
        Connected pieces of the truth that no predicted voxel touches, and the other way round.
    false_voxels_on_empty_slices : int
        Predicted voxels in slices without tumour.
    """

    dice: float
    iou: float
    precision: float
    recall: float
    tumour_slice_dice: float
    hd95: float
    surface_dice: float
    predicted_voxels: int
    true_voxels: int
    missed_lesions: int
    invented_lesions: int
    false_voxels_on_empty_slices: int


def compare(prediction: Mask, truth: Mask, spacing: Sequence[float] | None = None) -> Agreement:
    """Compare two masks.

    Parameters
    ----------
    prediction, truth : ndarray
        Shape (z, y, x); non-zero is tumour.
    spacing : sequence of float, optional
        Distance of voxels along z, y and x; without it one along each axis, and distances in pixels.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    overlap = dice(prediction, truth)
    predicted, true = prediction != 0, truth != 0
    both, either = int((predicted & true).sum()), int((predicted | true).sum())
    shows = true.any(axis=(1, 2))
    hd95, surface = _surfaces(predicted, true, spacing)
    return Agreement(
        dice=overlap,
        iou=both / either if either else 1.0,
        precision=both / predicted.sum() if predicted.any() else float(not true.any()),
        recall=both / true.sum() if true.any() else 1.0,
        tumour_slice_dice=float(
            np.mean([dice(p, t) for p, t in zip(predicted[shows], true[shows], strict=True)])
        )
        if shows.any()
        else float("nan"),
        hd95=hd95,
        surface_dice=surface,
        predicted_voxels=int(predicted.sum()),
        true_voxels=int(true.sum()),
        missed_lesions=_untouched(true, predicted),
        invented_lesions=_untouched(predicted, true),
        false_voxels_on_empty_slices=int(predicted[~shows].sum()),
    )


def dice_by_slice(prediction: Mask, truth: Mask) -> npt.NDArray[np.float64]:
    """Dice of each slice, shape (z,); NaN where neither mask shows tumour."""
    return np.array(
        [dice(p, t) if p.any() or t.any() else np.nan for p, t in zip(prediction, truth, strict=True)]
    )


def _surfaces(
    predicted: npt.NDArray[np.bool_], true: npt.NDArray[np.bool_], spacing: Sequence[float] | None
) -> tuple[float, float]:
    """Distance and agreement of the surfaces, by MONAI."""
    if not predicted.any() or not true.any():
        return float("nan"), float("nan")
    import torch
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance
    from monai.metrics.surface_dice import compute_surface_dice

    # A box around both masks holds all surfaces, and is quick; its rim keeps them off the border.
    where = np.nonzero(predicted | true)
    box = tuple(slice(max(int(axis.min()) - 1, 0), int(axis.max()) + 2) for axis in where)
    pair = [torch.from_numpy(np.pad(mask[box], 1))[None, None] for mask in (predicted, true)]
    size = [float(length) for length in spacing] if spacing is not None else None
    hd95 = compute_hausdorff_distance(*pair, include_background=True, percentile=95, spacing=size)
    surface = compute_surface_dice(*pair, [SURFACE_TOLERANCE], include_background=True, spacing=size)
    return float(hd95), float(surface)


def _untouched(pieces_of: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> int:
    """How many connected pieces (26 neighbours) of a mask share no voxel with another mask."""
    from scipy.ndimage import label

    pieces, count = label(pieces_of, np.ones((3, 3, 3)))
    return int(count) - len(np.unique(pieces[other & pieces_of]))


def bootstrap_interval(
    values: Sequence[float], share: float = 0.95, draws: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean over patients (Efron 1979).

    Parameters
    ----------
    values : sequence of float
        One for each patient.
    share : float
        Of the draws that the interval holds.
    draws, seed : int
        How many cohorts are drawn with replacement, and from which seed.
    """
    array = np.asarray(values, np.float64)
    chosen = np.random.default_rng(seed).integers(0, len(array), (draws, len(array)))
    low, high = np.quantile(array[chosen].mean(axis=1), [(1 - share) / 2, (1 + share) / 2])
    return float(low), float(high)


def means(agreements: Mapping[str, Agreement]) -> dict[str, float]:
    """Mean of each figure over patients; NaN values are left out."""
    names = [name for name in Agreement.__dataclass_fields__ if agreements]
    return {n: float(np.nanmean([float(getattr(a, n)) for a in agreements.values()])) for n in names}
