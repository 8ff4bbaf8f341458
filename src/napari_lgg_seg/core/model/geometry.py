"""Where slices lie on the network's grid and on the patient's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Box:
    """A square in the plane of the slices; it may reach beyond the picture, where voxels are 0."""

    top: int
    left: int
    side: int


@dataclass(frozen=True)
class Extent:
    """Rows from ``top`` to ``bottom`` and columns from ``left`` to ``right``, the ends not included."""

    top: int
    bottom: int
    left: int
    right: int

    def grown(self, by: int) -> Extent:
        """With so much more on each side."""
        return Extent(self.top - by, self.bottom + by, self.left - by, self.right + by)

    def within(self, other: Extent) -> Extent | None:
        """What both have; None where that is nothing."""
        top, bottom = max(self.top, other.top), min(self.bottom, other.bottom)
        left, right = max(self.left, other.left), min(self.right, other.right)
        return Extent(top, bottom, left, right) if top < bottom and left < right else None

    def cut(self, slices: Tensor) -> Tensor:
        """That part of slices, (..., y, x)."""
        return slices[..., self.top : self.bottom, self.left : self.right]

    def put_back(self, values: Tensor, size: int) -> Tensor:
        """What was computed of the part, (n, h, w), in squares of a size, (n, size, size); 0 elsewhere."""
        from torch.nn.functional import pad

        return pad(values, (self.left, size - self.right, self.top, size - self.bottom))
