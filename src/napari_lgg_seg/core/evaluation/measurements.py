"""Measurements of one patient's labels: volume, slices, largest diameter."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from ..errors import counted


@dataclass(frozen=True)
class TumourMeasurements:
    """Measurements of a patient's tumour.

    Attributes
    ----------
    voxels : int
        Tumour volume in voxels.
    slices : int
        Number of slices with tumour.
    of_slices : int
        Number of slices in the volume.
    diameter : float
        Largest in-plane diameter, pixel edges included: in millimetres where the spacing is known, otherwise
        in pixels.
    millilitres : float or None
        Tumour volume in ml, where the spacing is known.
    """

    voxels: int
    slices: int
    of_slices: int
    diameter: float
    millilitres: float | None = None

    def summary(self) -> str:
        """Describe the tumour in one line."""
        if not self.voxels:
            return "No tumour found."
        volume = counted(self.voxels, "voxel")
        if self.millilitres is not None:
            volume = f"{self.millilitres:.1f} ml ({volume})"
        diameter = f"{self.diameter:.0f} mm"
        if self.millilitres is None:
            diameter = counted(round(self.diameter), "pixel")
        return (
            f"Tumour: {volume} in {self.slices} of {counted(self.of_slices, 'slice')}, "
            f"largest diameter {diameter}."
        )

    def as_columns(self) -> dict[str, list[float | int | None]]:
        """Return a one-row table, for a layer's features."""
        return {name: [value] for name, value in asdict(self).items()}


def measure_labels(
    labels: npt.NDArray[np.generic], spacing: tuple[float, float, float] | None = None
) -> TumourMeasurements:
    """Measure the tumour in a label volume.

    Parameters
    ----------
    labels : ndarray of bool or integers
        Shape (z, y, x); non-zero is tumour.
    spacing : tuple of float, optional
        Voxel size along z, y and x in millimetres, if known.

    Returns
    -------
    TumourMeasurements
        Of all tumour in the volume.
    """
    tumour = labels != 0
    by_slice = tumour.sum(axis=(1, 2), dtype=np.int64)
    voxels = int(by_slice.sum())
    pixel = spacing[1:] if spacing is not None else (1.0, 1.0)
    diameters = [_diameter(tumour[z], pixel) for z in np.flatnonzero(by_slice)]
    return TumourMeasurements(
        voxels=voxels,
        slices=len(diameters),
        of_slices=len(labels),
        diameter=max(diameters, default=0.0),
        millilitres=None if spacing is None else voxels * float(np.prod(spacing)) / 1000,
    )


def _diameter(mask: npt.NDArray[np.bool_], pixel: tuple[float, ...]) -> float:
    """Largest distance between any two corners of a slice's tumour pixels."""
    from scipy.spatial import ConvexHull
    from scipy.spatial.distance import pdist

    # The first and last tumour pixel of each row suffice for the convex hull.
    rows = np.flatnonzero(mask.any(axis=1))
    first = mask[rows].argmax(axis=1)
    last = mask.shape[1] - mask[rows, ::-1].argmax(axis=1)
    corners = np.concatenate(
        [np.stack([rows + down, column], axis=1) for down in (0, 1) for column in (first, last)]
    )
    points = np.unique(corners, axis=0) * np.asarray(pixel)
    return float(pdist(points[ConvexHull(points).vertices]).max())
