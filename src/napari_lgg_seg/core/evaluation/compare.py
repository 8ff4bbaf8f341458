"""How far two masks of one patient agree: the one place where any figure about that is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import ComparisonError
from .metrics import dice

Mask = npt.NDArray[np.bool_]

#: Surfaces agree where they are no further apart than this: in voxel steps, or in millimetres where
#: the spacing is known.
SURFACE_TOLERANCE = 1.0
#: Values of :func:`overlay`: tumour in both masks, in the truth alone, in the prediction alone.
AGREED, FALSE_NEGATIVE, FALSE_POSITIVE = 1, 2, 3


@dataclass(frozen=True)
class Agreement:
    """How far a patient's prediction agrees with the truth.

    Two empty masks agree: Dice, IoU and surface Dice are 1. If only one of them is empty, these are 0.
    What would be divided by nothing is None.

    Attributes
    ----------
    dice : float
        Over the whole volume.
    median_slice_dice : float or None
        Of ``slice_dice``; None without any tumour.
    slice_dice : dict of int to float
        By slice number. Slices that are empty in both do not count; a slice with tumour in one of
        them alone has 0.
    true_voxels, true_slices, true_lesions : int
        Of the truth: volume, slices with tumour, pieces (joined also by a corner).
    missed_lesions, false_positive_lesions : int
        Pieces of the truth that no predicted voxel touches, and the reverse; of any size.
    hd95 : float or None
        95th percentile of the distances between the surfaces, the larger of both directions: in
        millimetres where the spacing is known, else in voxel steps, with slices one pixel apart,
        since files do not say how far they are. None if one of them is empty.
    surface_dice : float
        Share of both surfaces that is within :data:`SURFACE_TOLERANCE` of the other.
    iou : float
        Intersection over union, over the whole volume.
    precision : float or None
        Share of the predicted voxels that are true; None if nothing was predicted.
    recall : float or None
        Share of the true voxels that were predicted; None if there are none.
    predicted_voxels, predicted_lesions : int
        Of the prediction: volume, pieces.
    volume_error : float or None
        Predicted less true volume, as a share of the true one; None if that is nothing.
    false_voxels_on_empty_slices : int
        Predicted voxels on slices that show no tumour in the truth.
    worst_slice : int or None
        Number of the slice with the lowest Dice, of several the one with most wrong voxels; None
        without any tumour.
    spacing : tuple of float or None
        Distance of voxels along z, y and x in millimetres (along y and x of a single slice), if it
        is known.
    """

    dice: float
    median_slice_dice: float | None
    slice_dice: Mapping[int, float]
    true_voxels: int
    true_slices: int
    true_lesions: int
    missed_lesions: int
    false_positive_lesions: int
    hd95: float | None
    surface_dice: float
    iou: float
    precision: float | None
    recall: float | None
    predicted_voxels: int
    predicted_lesions: int
    volume_error: float | None
    false_voxels_on_empty_slices: int
    worst_slice: int | None
    spacing: tuple[float, ...] | None = None


def compare(
    prediction: npt.ArrayLike,
    truth: npt.ArrayLike,
    spacing: Sequence[float] | None = None,
    *,
    slice_numbers: Sequence[int] | None = None,
) -> Agreement:
    """Compare two masks of the same slices, for instance a prediction and the truth.

    Parameters
    ----------
    prediction, truth : array_like of bool or whole numbers
        Shape (z, y, x) or (y, x); non-zero is tumour.
    spacing : sequence of float, optional
        Distance of voxels along z, y and x in millimetres (of a single slice, along y and x), if it
        is known. It makes distances between surfaces millimetres; without it they are voxel steps.
    slice_numbers : sequence of int, optional
        What the slices are called in ``slice_dice``; 1, 2, ... by default.

    Returns
    -------
    Agreement
        Dice, IoU, precision, recall, distances, volumes, lesions.

    Raises
    ------
    ComparisonError
        One sentence: shapes that differ, masks that are none, an impossible spacing.

    Examples
    --------
    >>> import numpy as np
    >>> import napari_lgg_seg as lgg
    >>> truth = np.zeros((5, 32, 32), np.uint8)
    >>> truth[1:4, 8:24, 8:24] = 1
    >>> prediction = truth.copy()
    >>> prediction[1:4, 8:24, 8:12] = 0
    >>> agreement = lgg.compare(prediction, truth)
    >>> round(agreement.dice, 3), agreement.precision, agreement.recall, agreement.volume_error
    (0.857, 1.0, 0.75, -0.25)
    >>> agreement.hd95, lgg.compare(prediction, truth, spacing=(5, 0.5, 0.5)).hd95
    (4.0, 2.0)
    """
    predicted, true = _as_masks(prediction, truth)
    steps = _as_spacing(spacing, predicted.shape)
    numbers = range(1, len(true) + 1) if slice_numbers is None else slice_numbers
    if len(numbers) != len(true):
        raise ComparisonError(f"{len(numbers)} slice numbers were given for {len(true)} slices.")
    by_slice = {
        int(number): dice(p, t)
        for number, p, t in zip(numbers, predicted, true, strict=True)
        if (p | t).any()
    }
    both, voxels, true_voxels = (int(mask.sum()) for mask in (predicted & true, predicted, true))
    box = _box(predicted | true)
    hd95, surface_dice = _surfaces(predicted[box], true[box], steps)
    return Agreement(
        dice=(whole := dice(predicted, true)),
        median_slice_dice=float(np.median(list(by_slice.values()))) if by_slice else None,
        slice_dice=by_slice,
        true_voxels=true_voxels,
        true_slices=int(true.any(axis=(1, 2)).sum()),
        true_lesions=count_pieces(true[box]),
        missed_lesions=_untouched(true[box], predicted[box]),
        false_positive_lesions=_untouched(predicted[box], true[box]),
        hd95=hd95,
        surface_dice=surface_dice,
        iou=whole / (2 - whole),
        precision=both / voxels if voxels else None,
        recall=both / true_voxels if true_voxels else None,
        predicted_voxels=voxels,
        predicted_lesions=count_pieces(predicted[box]),
        volume_error=(voxels - true_voxels) / true_voxels if true_voxels else None,
        false_voxels_on_empty_slices=int(predicted[~true.any(axis=(1, 2))].sum()),
        worst_slice=_worst(by_slice, numbers, predicted ^ true),
        spacing=steps,
    )


def overlay(prediction: npt.ArrayLike, truth: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Where two masks agree and where they do not.

    Parameters
    ----------
    prediction, truth : array_like of bool or whole numbers
        As :func:`compare` takes them.

    Returns
    -------
    ndarray of uint8
        Of their shape: :data:`AGREED`, :data:`FALSE_NEGATIVE`, :data:`FALSE_POSITIVE`, and 0 elsewhere.

    Raises
    ------
    ComparisonError
        As :func:`compare` does.
    """
    predicted, true = _as_masks(prediction, truth)
    result = np.zeros(predicted.shape, np.uint8)
    result[predicted & true] = AGREED
    result[true & ~predicted] = FALSE_NEGATIVE
    result[predicted & ~true] = FALSE_POSITIVE
    return result.reshape(np.shape(truth))


def count_pieces(mask: Mask) -> int:
    """Pieces of a mask (z, y, x), joined also by a corner."""
    return _pieces(mask)[1]


# --- what may be compared ----------------------------------------------------------------------


def _as_masks(prediction: npt.ArrayLike, truth: npt.ArrayLike) -> tuple[Mask, Mask]:
    """Both as (z, y, x)."""
    arrays = {"prediction": np.asarray(prediction), "truth": np.asarray(truth)}
    for name, array in arrays.items():
        if array.ndim not in (2, 3) or not array.size:
            raise ComparisonError(f"The {name} has the shape {array.shape}; give (z, y, x) or (y, x).")
        if array.dtype.kind not in "buif" or (array.dtype.kind == "f" and (array % 1 != 0).any()):
            raise ComparisonError(f"The {name} ({array.dtype}) is no mask; give whole numbers, 0 outside.")
    predicted, true = arrays.values()
    if predicted.shape != true.shape:
        raise ComparisonError(
            f"The prediction has {in_size(predicted.shape)} voxels but the truth has {in_size(true.shape)}; "
            "they must be the same slices."
        )
    slices = (-1, *true.shape[-2:])
    return (predicted != 0).reshape(slices), (true != 0).reshape(slices)


def in_size(shape: Sequence[int]) -> str:
    """A shape for people: "30 x 256 x 256"."""
    return " x ".join(str(n) for n in shape)


def _as_spacing(spacing: Sequence[float] | None, shape: tuple[int, ...]) -> tuple[float, ...] | None:
    """The spacing along those axes on which surfaces are measured: two of a single slice."""
    if spacing is None:
        return None
    sizes = tuple(float(size) for size in spacing)
    axes = 3 if shape[0] > 1 else 2
    if len(sizes) not in (axes, 3) or not all(0 < size < np.inf for size in sizes):
        raise ComparisonError(
            f"The spacing {sizes} is impossible; give a size above 0 in millimetres for each axis."
        )
    return sizes[-axes:]


# --- figures -----------------------------------------------------------------------------------


def _box(mask: Mask) -> tuple[slice, ...]:
    """Where a mask is, and one voxel around it, so that the box's own border makes no surface different."""
    from scipy.ndimage import find_objects

    boxes = find_objects(mask.astype(np.uint8))
    return tuple(slice(max(part.start - 1, 0), part.stop + 1) for part in boxes[0]) if boxes else ()


def _worst(by_slice: Mapping[int, float], numbers: Sequence[int], wrong: Mask) -> int | None:
    errors = dict(zip(numbers, wrong.sum(axis=(1, 2)).tolist(), strict=True))
    return min(by_slice, key=lambda number: (by_slice[number], -errors[number]), default=None)


def _pieces(mask: Mask) -> tuple[npt.NDArray[np.int32], int]:
    from scipy.ndimage import label

    pieces, count = label(mask, structure=np.ones((3, 3, 3)))
    return pieces, int(count)


def _untouched(mask: Mask, other: Mask) -> int:
    pieces, count = _pieces(mask)
    touched = np.unique(pieces[mask & other])
    return count - len(touched)


def _surfaces(predicted: Mask, true: Mask, spacing: tuple[float, ...] | None) -> tuple[float | None, float]:
    """HD95 and surface Dice, on the surfaces that MONAI takes: a mask without its erosion."""
    from scipy.ndimage import binary_erosion, distance_transform_edt

    if not predicted.any() or not true.any():
        return None, 0.0 if predicted.any() or true.any() else 1.0
    # Of a single slice the surface is the outline.
    masks = (predicted[0], true[0]) if len(true) == 1 else (predicted, true)
    surfaces = [mask & ~binary_erosion(mask) for mask in masks]
    distances = [
        distance_transform_edt(~other, sampling=spacing)[surface]
        for surface, other in zip(surfaces, reversed(surfaces), strict=True)
    ]
    near = sum(int((d <= SURFACE_TOLERANCE).sum()) for d in distances)
    hd95 = max(float(np.percentile(d, 95)) for d in distances)
    return hd95, near / sum(len(d) for d in distances)
