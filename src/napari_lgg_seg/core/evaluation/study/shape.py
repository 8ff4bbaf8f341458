"""The original study's three shape features of a tumour.

M. Buda, A. Saha, M. A. Mazurowski, *Association of genomic subtypes of lower-grade gliomas with shape
features automatically extracted by a deep learning algorithm*, Computers in Biology and Medicine 109 (2019),
arXiv:1906.03720. The study's repository (MaciejMazurowski/brain-segmentation) contains no code for the shape
features, so that details left open in its text are decided here:

===================  =================================================================================
from the study       BEVR: tumour volume / volume of its minimum bounding ellipsoid. ASD: average of the
                     radial distances' standard deviations across ten equiangular bins in one slice. MF:
                     standard deviation of the radial distances minus the smoothed ones. Radial
                     distances run from the centroid to the boundary and are normalised for size.
assumed as likely    The slice is the one with the largest tumour area; normalised means a mean of 1;
                     smoothing is a moving average over 10 % of the perimeter.
decided here         BEVR: all tumour voxels, as boxes. ASD, MF: the outer boundary of the slice's largest
                     connected component, holes filled, at half a pixel's precision; averages are over the
                     length of the boundary; angular bins without boundary are left out.
===================  =================================================================================

The study keeps only the largest connected component of an automatic segmentation before measuring. Here, that
is a choice of the segmentation (``segment --clean-up``); the mask is measured as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

#: The features, by the names of their fields and columns.
FEATURES = ("bevr", "asd", "mf")

_BINS = 10
# Number of points along the boundary, and 10 % of it: odd, so that the moving average is centred.
_POINTS, _WINDOW = 990, 99
# Relative tolerance of the minimum ellipsoid's volume.
_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Shape:
    """Dimensionless shape features of one patient's tumour; None without tumour.

    Attributes
    ----------
    bevr : float or None
        Bounding ellipsoid volume ratio: 1 for an ellipsoid, lower the more irregular the tumour.
    asd : float or None
        Angular standard deviation: 0 for a disc, higher the more the margin varies.
    mf : float or None
        Margin fluctuation: 0 for a disc, higher the rougher the margin.
    slice : int or None
        Number of the slice in which ASD and MF were measured, the first with the largest tumour area.
    voxels : int
        Tumour volume in voxels.
    """

    bevr: float | None
    asd: float | None
    mf: float | None
    slice: int | None
    voxels: int


def measure_shape(labels: npt.NDArray[np.generic], slice_numbers: Sequence[int] = ()) -> Shape:
    """Measure the shape features of one patient's mask.

    Parameters
    ----------
    labels : ndarray of bool or integers
        Shape (z, y, x); non-zero is tumour. In-plane pixels are assumed to be square; the slice distance
        does not matter, since BEVR is invariant to stretching.
    slice_numbers : sequence of int
        The number of each slice; 1, 2, ... if there are none.

    Returns
    -------
    Shape
        Without features if there is no tumour.

    Raises
    ------
    ValueError
        If the mask does not have three dimensions.
    """
    if labels.ndim != 3:
        raise ValueError(f"a mask of {labels.ndim} dimensions; it must be slices x height x width")
    tumour = labels != 0
    areas = tumour.sum(axis=(1, 2), dtype=np.int64)
    voxels = int(areas.sum())
    if not voxels:
        return Shape(None, None, None, None, 0)
    index = int(areas.argmax())
    points = _boundary(tumour[index])
    return Shape(
        bevr=bounding_ellipsoid_volume_ratio(tumour),
        asd=angular_standard_deviation(points),
        mf=margin_fluctuation(points),
        slice=slice_numbers[index] if slice_numbers else index + 1,
        voxels=voxels,
    )


# --- three dimensions --------------------------------------------------------------------------


def bounding_ellipsoid_volume_ratio(tumour: npt.NDArray[np.bool_]) -> float:
    """Tumour volume divided by the volume of the smallest ellipsoid around the corners of all tumour voxels.

    Parameters
    ----------
    tumour : ndarray of bool
        Shape (z, y, x), with at least one tumour voxel.

    Returns
    -------
    float
        Above 0 and below 1; any box, such as a single voxel, has 2 / (pi sqrt(3)) = 0.368.
    """
    return int(tumour.sum()) / minimum_ellipsoid(_corners(tumour)).volume


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid, the points x with ``(x - centre) @ matrix @ (x - centre) <= 1``.

    Attributes
    ----------
    centre : ndarray of float
        Shape (d,).
    matrix : ndarray of float
        Shape (d, d), symmetric and positive definite.
    volume : float
        Its volume; only for d = 3.
    """

    centre: FloatArray
    matrix: FloatArray
    volume: float


def minimum_ellipsoid(points: npt.NDArray[np.generic]) -> Ellipsoid:
    """Compute the minimum-volume enclosing ellipsoid of points in three dimensions.

    Khachiyan's algorithm (1996) with the away steps of M. J. Todd and E. A. Yildirim, *On Khachiyan's
    algorithm for the computation of minimum-volume enclosing ellipsoids*, Discrete Applied
    Mathematics 155 (2007), which speed up convergence. The result encloses all points; its volume is at
    most about 1e-5 larger than the minimum, relatively.

    Parameters
    ----------
    points : ndarray
        Shape (n, 3), not coplanar.

    Raises
    ------
    ValueError
        If there are too few points or they are coplanar.
    """
    from scipy.spatial import ConvexHull, QhullError

    try:
        hull = np.asarray(points, dtype=np.float64)[ConvexHull(points).vertices]
    except (QhullError, ValueError) as error:
        raise ValueError("coplanar points have no enclosing ellipsoid with a volume") from error
    weights = _khachiyan(hull)
    centre = weights @ hull
    offsets = hull - centre
    covariance = offsets.T @ (weights[:, None] * offsets)
    inverse = np.linalg.inv(covariance)
    # Enlarged by what the tolerance left, so that it encloses all points.
    reach = float(np.einsum("ni,ij,nj->n", offsets, inverse, offsets).max())
    volume = 4 / 3 * np.pi * np.sqrt(np.linalg.det(covariance * reach))
    return Ellipsoid(centre, inverse / reach, float(volume))


def _khachiyan(points: FloatArray) -> FloatArray:
    """Weights for which the points' weighted covariance has the shape of the minimum ellipsoid."""
    lifted = np.column_stack([points - points.mean(axis=0), np.ones(len(points))])
    size = lifted.shape[1]
    weights = np.full(len(points), 1 / len(points))
    for _ in range(100_000):
        inverse = np.linalg.inv(lifted.T @ (weights[:, None] * lifted))
        distances = np.einsum("ni,ij,nj->n", lifted, inverse, lifted)
        far = int(distances.argmax())
        near = int(np.where(weights > 0, distances, np.inf).argmin())
        too_far, too_near = distances[far] - size, size - distances[near]
        if too_far <= size * _TOLERANCE / 2:
            break
        if too_far >= too_near:
            step = too_far / (size * (distances[far] - 1))
            weights *= 1 - step
            weights[far] += step
        else:
            # Away step: a point well inside the ellipsoid loses weight, at most all of it.
            step = weights[near] / (1 - weights[near])
            if distances[near] > 1:
                step = min(step, too_near / (size * (distances[near] - 1)))
            weights *= 1 + step
            weights[near] = max(weights[near] - step, 0)
    return weights


def _corners(tumour: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Corners of the first and last tumour voxel of each row, which suffice for the convex hull."""
    z, y = np.nonzero(tumour.any(axis=2))
    rows = tumour[z, y]
    ends = (rows.argmax(axis=1), rows.shape[1] - rows[:, ::-1].argmax(axis=1))
    corners = [np.stack([z + dz, y + dy, x], axis=1) for dz in (0, 1) for dy in (0, 1) for x in ends]
    return np.unique(np.concatenate(corners), axis=0)


# --- one slice ---------------------------------------------------------------------------------


def angular_standard_deviation(boundary: npt.NDArray[np.floating]) -> float:
    """Standard deviation of the distance to the boundary, averaged over ten equiangular bins.

    Parameters
    ----------
    boundary : ndarray of float
        Shape (n, 2): points at equal distances along a closed boundary, relative to the centroid.

    Returns
    -------
    float
        Relative to the mean distance. The first bin starts at the negative x axis.
    """
    distances = _radial_distances(boundary)
    angles = np.arctan2(boundary[:, 0], boundary[:, 1])
    bins = np.minimum(((angles + np.pi) / (2 * np.pi) * _BINS).astype(int), _BINS - 1)
    return float(np.mean([distances[bins == number].std() for number in np.unique(bins)]))


def margin_fluctuation(boundary: npt.NDArray[np.floating]) -> float:
    """Standard deviation of the distance to the boundary after subtracting its moving average.

    Parameters
    ----------
    boundary : ndarray of float
        Shape (n, 2): points at equal distances along a closed boundary, relative to the centroid.

    Returns
    -------
    float
        Relative to the mean distance; the average is over 10 % of the boundary.
    """
    from scipy.ndimage import uniform_filter1d

    distances = _radial_distances(boundary)
    window = max(round(len(distances) * _WINDOW / _POINTS), 1)
    return float(np.std(distances - uniform_filter1d(distances, window, mode="wrap")))


def _radial_distances(boundary: npt.NDArray[np.floating]) -> FloatArray:
    distances = np.hypot(boundary[:, 0], boundary[:, 1])
    relative: FloatArray = distances / distances.mean()
    return relative


def _boundary(tumour: npt.NDArray[np.bool_]) -> FloatArray:
    """Outer boundary of a slice's largest component, as (y, x) relative to its centroid."""
    from scipy import ndimage
    from skimage.measure import find_contours

    components, _ = ndimage.label(tumour)
    largest = ndimage.binary_fill_holes(components == np.bincount(components[tumour]).argmax())
    # Padded, so that a tumour at the edge of the image has a closed boundary as well.
    contour = max(find_contours(np.pad(largest, 1).astype(np.float64), 0.5), key=len) - 1
    lengths = np.hypot(*np.diff(contour, axis=0).T)
    along = np.concatenate([[0], lengths.cumsum()])
    positions = np.linspace(0, along[-1], _POINTS, endpoint=False)
    points = np.stack([np.interp(positions, along, axis) for axis in contour.T], axis=1)
    centred: FloatArray = points - np.argwhere(largest).mean(axis=0)
    return centred
