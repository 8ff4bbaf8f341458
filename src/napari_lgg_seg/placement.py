"""Where layers lie in space, for measurements and files."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from napari.layers import Layer


def millimetres(units: Iterable[Any]) -> list[float] | None:
    """What each unit is in millimetres; None if they are not lengths."""
    factors = [_in_millimetres(str(unit)) for unit in units]
    return None if None in factors else [factor for factor in factors if factor is not None]


@lru_cache(maxsize=64)
def _in_millimetres(unit: str) -> float | None:
    """A unit in millimetres; None if it is no length. pint takes a while to read it."""
    import pint

    try:
        return float(pint.get_application_registry().Quantity(1, unit).to("mm").magnitude)
    except (pint.DimensionalityError, pint.UndefinedUnitError):
        return None


def world_matrix(meta: dict[str, Any], *, any_unit: bool = False) -> npt.NDArray[np.float64] | None:
    """Where a layer lies in space, from its properties.

    Parameters
    ----------
    meta : dict
        Scale, translate, rotate, shear, affine and units, as far as they are known.
    any_unit : bool
        Take units that are not lengths, such as pixels, as they are.

    Returns
    -------
    ndarray of float64 or None
        Shape (4, 4), voxel (z, y, x) to world coordinates in millimetres; None if units are not lengths. A
        picture has pixels as thick as they are high.
    """
    from napari.utils.transforms import CompositeAffine

    scale, units = meta.get("scale"), meta.get("units")
    if scale is None:
        return None
    factors = None if units is None else millimetres(units)
    if factors is None and any_unit:
        factors = [1.0] * len(scale)
    if factors is None:
        return None
    factors = factors[-3:]
    parts = {key: np.asarray(meta[key]) for key in ("rotate", "shear") if meta.get(key) is not None}
    translate = meta.get("translate") if meta.get("translate") is not None else np.zeros(len(scale))
    matrix = CompositeAffine(np.asarray(scale), translate, ndim=len(scale), **parts).affine_matrix
    if (affine := meta.get("affine")) is not None:
        matrix = np.asarray(getattr(affine, "affine_matrix", affine)) @ matrix
    count = len(factors)
    result = np.eye(4)
    result[3 - count :, 3 - count :] = matrix[-count - 1 :, -count - 1 :]
    result[3 - count : 3] *= np.reshape(factors, (-1, 1))
    if count == 2:
        result[0, 0] = np.linalg.norm(result[:3, 1])
    return result


def lie_together(first: Layer, second: Layer) -> bool:
    """Whether the voxels of two layers of the same shape coincide, to a twentieth of a voxel.

    A layer whose place was never set, with scale 1 and at the origin, is taken to lie where another one does
    that has a voxel size in millimetres: the files of the dataset have none.
    """
    last = np.array(second.data.shape[: second.ndim]) - 1
    corners = np.array(list(product((0, 1), repeat=second.ndim))) * last
    one, other = (np.array([layer.data_to_world(c) for c in corners]) for layer in (first, second))
    units = [millimetres(layer.units) for layer in (first, second)]
    unset = [
        unit is None and np.allclose(places, corners)
        for unit, places in zip(units, (one, other), strict=True)
    ]
    if any(unset) and units != [None, None]:
        return True
    factors = [np.ones(second.ndim) if unit is None else np.array(unit)[-second.ndim :] for unit in units]
    distance = np.linalg.norm(one * factors[0] - other * factors[1], axis=1).max()
    voxel = np.linalg.norm(np.diff(other[[0, 1]] * factors[1], axis=0)) / max(last[-1], 1)
    return bool(distance <= 0.05 * voxel)


def voxel_size(matrix: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """Voxel size along z, y and x in millimetres."""
    z, y, x = (float(size) for size in np.linalg.norm(matrix[:3, :3], axis=0))
    return z, y, x


def nifti_affine(matrix: npt.NDArray[np.float64] | None) -> npt.NDArray[np.float64] | None:
    """Voxel (x, y, z) to NIfTI's coordinates, whose x and y run against those of the viewer."""
    if matrix is None:
        return None
    swap = np.eye(4)[[2, 1, 0, 3]]
    affine: npt.NDArray[np.float64] = np.diag([-1.0, -1.0, 1.0, 1.0]) @ swap @ matrix @ swap
    return affine
