"""Regions of slices, on the patient's grid or at the network's working size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Box:
    """A square in the slice plane, in pixels; it may extend beyond the image, where voxels count as 0."""

    top: int
    left: int
    side: int


@dataclass(frozen=True)
class Rectangle:
    """Rows ``top`` to ``bottom`` and columns ``left`` to ``right`` of a slice, ends excluded, in pixels."""

    top: int
    bottom: int
    left: int
    right: int

    def grown(self, by: int) -> Rectangle:
        """Enlarge by ``by`` pixels on each side."""
        return Rectangle(self.top - by, self.bottom + by, self.left - by, self.right + by)

    def within(self, other: Rectangle) -> Rectangle | None:
        """Intersect with another rectangle; None if they do not overlap."""
        top, bottom = max(self.top, other.top), min(self.bottom, other.bottom)
        left, right = max(self.left, other.left), min(self.right, other.right)
        return Rectangle(top, bottom, left, right) if top < bottom and left < right else None

    def cut(self, slices: Tensor) -> Tensor:
        """Crop slices of shape (..., y, x)."""
        return slices[..., self.top : self.bottom, self.left : self.right]

    def put_back(self, values: Tensor, size: int) -> Tensor:
        """Pad the values of a crop, (n, h, w), with zeros to whole slices, (n, size, size)."""
        from torch.nn.functional import pad

        return pad(values, (self.left, size - self.right, self.top, size - self.bottom))
