"""Shapes and textures in millimetres, from which the synthetic patient's anatomy is composed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Field = npt.NDArray[np.floating[Any]]
Point = tuple[float, float, float]


class Places(NamedTuple):
    """Positions of a plane's pixels in the head, in mm."""

    x: Field
    y: Field
    z: Field

    @property
    def folded(self) -> Places:
        """Both sides mirrored to x > 0, slightly asymmetrically, for structures that are defined once."""
        return Places(np.abs(self.x) * (1 + 0.03 * np.sign(self.x)), self.y, self.z)


class Texture:
    """A smooth, periodic random field in space with mean 0 and standard deviation 1."""

    def __init__(self, rng: np.random.Generator, spacing: float, *, regular: bool = False) -> None:
        """Create values that change sign about every ``spacing`` mm, evenly if ``regular``."""
        smooth = 1.8  # in cells: enough to hide the linear interpolation between them
        values = rng.standard_normal((80, 80, 80), np.float32)
        values = ndimage.gaussian_filter(values, smooth, mode="wrap")
        if regular:
            values -= ndimage.gaussian_filter(values, 1.6 * smooth, mode="wrap")
        self._values = values / np.float32(values.std(dtype=np.float64))
        self._cells_per_mm = (3.4 if regular else 4.4) * smooth / spacing

    def __call__(self, x: Field, y: Field, z: Field) -> Field:
        """Values at positions in mm."""
        where = np.stack((z, y, x)) * np.float32(self._cells_per_mm)
        return np.asarray(ndimage.map_coordinates(self._values, where, order=1, mode="grid-wrap"))


class Grain(NamedTuple):
    """Random variation of the anatomy: two independent samples of each texture on a plane."""

    broad: tuple[Field, Field]
    middle: tuple[Field, Field]
    fine: tuple[Field, Field]


def inside(depth: Field, edge: float = 1.2) -> Field:
    """Fraction of tissue, 0 to 1, at a depth below its boundary, which is blurred over ``edge`` mm."""
    t = np.clip(depth / edge + 0.5, 0, 1)
    return np.asarray(t * t * (3 - 2 * t))


def ellipsoid(at: Places, centre: Point, radii: Point) -> Field:
    """Depth in mm below the surface of an ellipsoid; negative outside."""
    scaled = [(v - c) / r for v, c, r in zip(at, centre, radii, strict=True)]
    reach = np.sqrt(sum(s * s for s in scaled))
    slope = np.sqrt(sum((s / r) * (s / r) for s, r in zip(scaled, radii, strict=True)))
    return np.asarray(reach * (1 - reach) / (slope + 1e-6))


def tube(at: Places, line: Sequence[tuple[float, float, float, float]]) -> Field:
    """Depth in mm below the surface of a tube through points (x, y, z, radius); negative outside."""
    depth = np.full_like(at.x, -np.inf)
    for (*start, r0), (*stop, r1) in pairwise(line):
        way = [b - a for a, b in zip(start, stop, strict=True)]
        offset = [v - a for v, a in zip(at, start, strict=True)]
        along = sum(o * w for o, w in zip(offset, way, strict=True)) / sum(w * w for w in way)
        t = np.clip(along, 0, 1)
        distance = np.sqrt(sum((o - t * w) ** 2 for o, w in zip(offset, way, strict=True)))
        depth = np.maximum(depth, r0 + t * (r1 - r0) - distance)
    return depth
