"""Agreement of two masks of one patient: the only place where these metrics are computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import ComparisonError
from .metrics import dice

Mask = npt.NDArray[np.bool_]

#: Surfaces agree where they are at most this far apart: in millimetres where the spacing is known, otherwise
#: in voxels.
SURFACE_TOLERANCE = 1.0
#: Values of :func:`overlay`: tumour in both masks, only in the ground truth, only in the prediction.
AGREED, FALSE_NEGATIVE, FALSE_POSITIVE = 1, 2, 3


@dataclass(frozen=True)
class Agreement:
    """Agreement of a patient's prediction with the ground truth.

    Two empty masks agree: their Dice, IoU and surface Dice are 1. If only one mask is empty, these are 0.
    Undefined ratios are None.

    Attributes
    ----------
    dice : float
        Dice coefficient over the whole volume.
    median_slice_dice : float or None
        Median of ``slice_dice``; None without any tumour.
    slice_dice : dict of int to float
        Dice by slice number. Slices that are empty in both masks are left out; slices with tumour in only
        one of them have 0.
    true_voxels, true_slices, true_lesions : int
        Voxels, slices with tumour, and lesions of the ground truth. A lesion is a 26-connected component
        of any size.
    missed_lesions, false_positive_lesions : int
        Lesions of the ground truth without any predicted voxel, and predicted lesions without any true
        voxel.
    hd95 : float or None
        95th percentile of the surface distances, the larger of both directions: in millimetres where the
        spacing is known, otherwise in voxels, with slices one pixel apart. None if a mask is empty.
    surface_dice : float
        Share of both surfaces that lies within :data:`SURFACE_TOLERANCE` of the other one.
    iou : float
        Intersection over union of the whole volume.
    precision : float or None
        Share of the predicted voxels that are true; None if there are none.
    recall : float or None
        Share of the true voxels that are predicted; None if there are none.
    predicted_voxels, predicted_lesions : int
        Voxels and lesions of the prediction.
    volume_error : float or None
        Predicted minus true volume, relative to the true volume; None if that is 0.
    false_voxels_on_empty_slices : int
        Predicted voxels on slices without tumour in the ground truth.
    worst_slice : int or None
        Number of the slice with the lowest Dice; among equals, the one with the most wrong voxels. None
        without any tumour.
    spacing : tuple of float or None
        Voxel size along z, y and x (y and x for a single slice) in millimetres, if known.
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
    """Compare a prediction with the ground truth.

    Parameters
    ----------
    prediction, truth : array_like of bool or integers
        Masks of the same slices, shape (z, y, x) or (y, x); non-zero is tumour.
    spacing : sequence of float, optional
        Voxel size along z, y and x (y and x suffice for a single slice) in millimetres. With it, surface
        distances are in millimetres; without it, in voxels.
    slice_numbers : sequence of int, optional
        The slices' numbers in ``slice_dice``; 1, 2, ... by default.

    Returns
    -------
    Agreement
        Overlap, surface distances, volumes and lesions.

    Raises
    ------
    ComparisonError
        If the shapes differ, an array is not a mask, or the spacing or slice numbers do not fit.

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
    numbers = range(1, len(true) + 1) if slice_numbers is None else slice_numbers
    if len(numbers) != len(true):
        raise ComparisonError(f"{len(numbers)} slice numbers were given for {len(true)} slices.")
    if len(set(numbers)) < len(numbers):
        raise ComparisonError("A slice number occurs twice; give each slice a number of its own.")
    return _measure(predicted, true, _as_spacing(spacing, predicted.shape), numbers)


def _measure(
    predicted: Mask, true: Mask, spacing: tuple[float, ...] | None, numbers: Sequence[int]
) -> Agreement:
    by_slice = {
        int(number): dice(p, t)
        for number, p, t in zip(numbers, predicted, true, strict=True)
        if (p | t).any()
    }
    both, voxels, true_voxels = (int(mask.sum()) for mask in (predicted & true, predicted, true))
    with_tumour = true.any(axis=(1, 2))
    box = _box(predicted | true)
    hd95, surface_dice = _surfaces(predicted[box], true[box], spacing)
    return Agreement(
        dice=(whole := dice(predicted, true)),
        median_slice_dice=float(np.median(list(by_slice.values()))) if by_slice else None,
        slice_dice=by_slice,
        true_voxels=true_voxels,
        true_slices=int(with_tumour.sum()),
        true_lesions=count_components(true[box]),
        missed_lesions=_count_untouched(true[box], predicted[box]),
        false_positive_lesions=_count_untouched(predicted[box], true[box]),
        hd95=hd95,
        surface_dice=surface_dice,
        iou=whole / (2 - whole),
        precision=both / voxels if voxels else None,
        recall=both / true_voxels if true_voxels else None,
        predicted_voxels=voxels,
        predicted_lesions=count_components(predicted[box]),
        volume_error=(voxels - true_voxels) / true_voxels if true_voxels else None,
        false_voxels_on_empty_slices=int(predicted[~with_tumour].sum()),
        worst_slice=_worst_slice(by_slice, numbers, predicted ^ true),
        spacing=spacing,
    )


def overlay(prediction: npt.ArrayLike, truth: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Label the voxels in which two masks agree or differ.

    Parameters
    ----------
    prediction, truth : array_like of bool or integers
        As for :func:`compare`.

    Returns
    -------
    ndarray of uint8
        :data:`AGREED`, :data:`FALSE_NEGATIVE`, :data:`FALSE_POSITIVE`, or 0 where both are background, in
        the shape of ``truth``.

    Raises
    ------
    ComparisonError
        If the shapes differ or an array is not a mask.
    """
    predicted, true = _as_masks(prediction, truth)
    result = np.zeros(predicted.shape, np.uint8)
    result[predicted & true] = AGREED
    result[true & ~predicted] = FALSE_NEGATIVE
    result[predicted & ~true] = FALSE_POSITIVE
    return result.reshape(np.shape(truth))


def count_components(mask: Mask) -> int:
    """Count the 26-connected components of a mask, shape (z, y, x)."""
    return _components(mask)[1]


def format_shape(shape: Sequence[int]) -> str:
    """Format an array's shape for messages: "30 x 256 x 256"."""
    return " x ".join(str(n) for n in shape)


# --- input -------------------------------------------------------------------------------------


def _as_masks(prediction: npt.ArrayLike, truth: npt.ArrayLike) -> tuple[Mask, Mask]:
    """Both arrays as boolean masks of shape (z, y, x)."""
    arrays = {"prediction": np.asarray(prediction), "ground truth": np.asarray(truth)}
    for name, array in arrays.items():
        if array.ndim not in (2, 3) or not array.size:
            raise ComparisonError(f"The {name} has the shape {array.shape}; it must be (z, y, x) or (y, x).")
        if array.dtype.kind not in "buif" or (array.dtype.kind == "f" and (array % 1 != 0).any()):
            raise ComparisonError(
                f"The {name} ({array.dtype}) is not a mask; use integers, 0 for background."
            )
    predicted, true = arrays.values()
    if predicted.shape != true.shape:
        raise ComparisonError(
            f"The prediction has {format_shape(predicted.shape)} voxels but the ground truth has "
            f"{format_shape(true.shape)}; they must be the same slices."
        )
    slices = (-1, *true.shape[-2:])
    return (predicted != 0).reshape(slices), (true != 0).reshape(slices)


def _as_spacing(spacing: Sequence[float] | None, shape: tuple[int, ...]) -> tuple[float, ...] | None:
    """The spacing along the axes in which surfaces are measured: only two for a single slice."""
    if spacing is None:
        return None
    sizes = tuple(float(size) for size in spacing)
    axes = 3 if shape[0] > 1 else 2
    if len(sizes) not in (axes, 3) or not all(0 < size < np.inf for size in sizes):
        raise ComparisonError(
            f"The spacing {sizes} is invalid; give a size above 0 in millimetres for each axis."
        )
    return sizes[-axes:]


# --- metrics -----------------------------------------------------------------------------------


def _box(mask: Mask) -> tuple[slice, ...]:
    """Bounding box of a mask with a margin of one voxel, so that cropping does not alter surfaces."""
    from scipy.ndimage import find_objects

    boxes = find_objects(mask.astype(np.uint8))
    return tuple(slice(max(part.start - 1, 0), part.stop + 1) for part in boxes[0]) if boxes else ()


def _worst_slice(by_slice: Mapping[int, float], numbers: Sequence[int], wrong: Mask) -> int | None:
    errors = dict(zip(numbers, wrong.sum(axis=(1, 2)).tolist(), strict=True))
    return min(by_slice, key=lambda number: (by_slice[number], -errors[number]), default=None)


def _components(mask: Mask) -> tuple[npt.NDArray[np.int32], int]:
    from scipy.ndimage import label

    components, count = label(mask, structure=np.ones((3, 3, 3)))
    return components, int(count)


def _count_untouched(mask: Mask, other: Mask) -> int:
    """Number of components of a mask that do not overlap with the other mask."""
    components, count = _components(mask)
    return count - len(np.unique(components[mask & other]))


def _surfaces(predicted: Mask, true: Mask, spacing: tuple[float, ...] | None) -> tuple[float | None, float]:
    """HD95 and surface Dice. As in MONAI, the surface is the mask minus its erosion."""
    from scipy.ndimage import binary_erosion, distance_transform_edt

    if not predicted.any() or not true.any():
        return None, 0.0 if predicted.any() or true.any() else 1.0
    # The surface of a single slice is its outline.
    masks = (predicted[0], true[0]) if len(true) == 1 else (predicted, true)
    surfaces = [mask & ~binary_erosion(mask) for mask in masks]
    distances = [
        distance_transform_edt(~other, sampling=spacing)[surface]
        for surface, other in zip(surfaces, reversed(surfaces), strict=True)
    ]
    near = sum(int((d <= SURFACE_TOLERANCE).sum()) for d in distances)
    hd95 = max(float(np.percentile(d, 95)) for d in distances)
    return hd95, near / sum(len(d) for d in distances)
