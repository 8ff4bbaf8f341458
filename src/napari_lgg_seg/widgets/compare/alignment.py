"""Whether two layers show the same slices on the same grid, and which voxels correspond.

Only exact correspondences count: axes may be swapped or reversed, but nothing is interpolated.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ...core.errors import ComparisonError
from ...core.evaluation.compare import format_shape
from ...layers import described, full_data
from ...placement import millimetres
from . import messages

#: Largest distance between corresponding voxels of two layers, in voxels.
_TOLERANCE = 0.05
#: Largest relative difference between voxel sizes, and largest cosine between perpendicular axes.
_PRECISION = 1e-3

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Grid:
    """Where the voxels of a layer are.

    Attributes
    ----------
    name : str
        The layer's name.
    patient : str or None
        The patient it belongs to.
    shape : tuple of int
        At full resolution.
    linear, origin : tuple
        Rows of the matrix, and the vector, that take voxel indices to world coordinates; in millimetres if
        ``in_mm``.
    in_mm : bool
        Whether the layer's units are lengths.
    slice_numbers : tuple of int or None
        The number in the file name of each slice along the first axis, if known.
    """

    name: str
    patient: str | None
    shape: tuple[int, ...]
    linear: tuple[tuple[float, ...], ...]
    origin: tuple[float, ...]
    in_mm: bool
    slice_numbers: tuple[int, ...] | None

    @property
    def place(self) -> tuple[Any, ...]:
        """What takes voxels to world coordinates."""
        return self.linear, self.origin, self.in_mm

    @property
    def sizes(self) -> tuple[float, ...]:
        """Size of a voxel along each axis of the array."""
        return tuple(np.linalg.norm(np.array(self.linear), axis=0).tolist())

    @property
    def is_sheared(self) -> bool:
        """Whether the axes are not perpendicular, so that distances along them do not add up."""
        axes = np.array(self.linear) / self.sizes
        return bool(np.abs(axes.T @ axes - np.eye(len(axes))).max() > _PRECISION)

    @property
    def is_default(self) -> bool:
        """Whether nothing is known of where the layer is: no scale, position or unit was set."""
        return (
            not self.in_mm and not any(self.origin) and np.array_equal(self.linear, np.eye(len(self.shape)))
        )


@dataclass(frozen=True)
class Alignment:
    """Which voxels of a prediction and of a reference correspond, see :meth:`apply`.

    Attributes
    ----------
    axes : tuple of int
        The prediction's axis for each axis of the reference.
    reversed_axes : tuple of int
        Axes of the reference along which the prediction then runs backwards.
    prediction_start, reference_start : int
        First slice to compare, along the first axis.
    slice_numbers : tuple of int
        Numbers of the slices to compare.
    spacing : tuple of float or None
        Voxel size along the reference's axes in millimetres, if known.
    ratio : tuple of float or None
        Otherwise, the voxel size relative to the last axis; None if axes are not perpendicular.
    notice : str
        Which slices are left out; empty if none are.
    grids : tuple of Grid
        Of prediction and reference.
    """

    axes: tuple[int, ...]
    reversed_axes: tuple[int, ...]
    prediction_start: int
    reference_start: int
    slice_numbers: tuple[int, ...]
    spacing: tuple[float, ...] | None
    ratio: tuple[float, ...] | None
    notice: str
    grids: tuple[Grid, Grid]

    def apply(
        self, prediction: npt.NDArray[np.bool_], reference: npt.NDArray[np.bool_]
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """The slices of both masks that are compared, on the reference's grid."""
        prediction = np.flip(np.transpose(prediction, self.axes), self.reversed_axes)
        return prediction[self._run(self.prediction_start)], reference[self.reference_slices]

    @property
    def is_identity(self) -> bool:
        """Whether the arrays correspond as they are."""
        whole = len(self.axes) == 2 or len(self.slice_numbers) == self.grids[1].shape[0]
        return self.axes == tuple(sorted(self.axes)) and not self.reversed_axes and whole

    def is_like(self, other: Alignment) -> bool:
        """Whether both are of the same grids, whatever the layers are called."""
        unnamed = [[replace(grid, name="") for grid in one.grids] for one in (self, other)]
        return unnamed[0] == unnamed[1]

    @property
    def reference_slices(self) -> Any:
        """Index of the slices in the reference that are compared."""
        return self._run(self.reference_start)

    def _run(self, start: int) -> Any:
        return slice(start, start + len(self.slice_numbers)) if len(self.axes) == 3 else ...


def world_grid(layer: Any) -> Grid:
    """The grid of a layer with 2 or 3 dimensions, besides colour channels.

    Raises
    ------
    ComparisonError
        If it has another number of dimensions, or its transform has no volume.
    """
    shape = tuple(int(n) for n in full_data(layer).shape[: layer.ndim])
    if len(shape) not in (2, 3):
        raise ComparisonError(f"{layer.name} has {len(shape)} dimensions; choose a layer with 2 or 3.")
    # napari has no public matrix of scale, translate, rotate, shear and affine taken together.
    origin = np.array(layer.data_to_world((0,) * len(shape)), np.float64)
    linear = np.array([layer.data_to_world(tuple(unit)) for unit in np.eye(len(shape))]).T - origin[:, None]
    if not np.isfinite(linear).all() or not np.linalg.det(linear):
        raise ComparisonError(f"{layer.name} has a scale or affine without volume; correct it.")
    unit = millimetres(layer.units)
    if unit is not None:
        factors = np.array(unit[-len(shape) :])
        origin, linear = origin * factors, linear * factors[:, None]
    info = described(layer)
    return Grid(
        layer.name,
        info["patient"] if info is not None else None,
        shape,
        tuple(map(tuple, linear.tolist())),
        tuple(origin.tolist()),
        unit is not None,
        _numbers_of(info, shape) if info is not None else None,
    )


def _numbers_of(info: dict[str, Any], shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """The slice numbers in a layer's metadata, if there is one for each slice."""
    numbers = info.get("slice_numbers")
    if not isinstance(numbers, list | tuple) or not all(isinstance(number, int) for number in numbers):
        return None
    fits = len(shape) == 3 and len(numbers) == shape[0] == len(set(numbers))
    return tuple(numbers) if fits else None


def align(prediction: Grid, reference: Grid) -> Alignment:
    """Find which voxels of two grids correspond.

    Raises
    ------
    ComparisonError
        If the layers belong to different patients, or if not all their voxels, or all voxels of their common
        slices, correspond.
    """
    grids = prediction, reference
    patients = [grid.patient for grid in grids]
    if None not in patients and patients[0] != patients[1]:
        raise ComparisonError(
            f"{prediction.name} belongs to {patients[0]} but {reference.name} belongs to {patients[1]}; "
            "choose two layers of one patient."
        )
    if len(prediction.shape) != len(reference.shape):
        raise ComparisonError(_shapes(grids))
    known = _measured(grids)
    signs, starts = _correspondence(grids, known)
    axes = tuple(int(column) for column in np.abs(signs).argmax(axis=1))
    backwards = tuple(int(axis) for axis in np.flatnonzero(signs.sum(axis=1) < 0))
    shape = tuple(prediction.shape[axis] for axis in axes)
    numbers = _reordered_numbers(prediction, axes, backwards)
    first, second, common = _common_slices(grids, numbers, starts, shape, reversed_slices=0 in backwards)
    sheared = known.is_sheared
    sizes = known.sizes if known is reference else tuple(known.sizes[axis] for axis in axes)
    return Alignment(
        axes,
        backwards,
        first,
        second,
        common,
        sizes if known.in_mm and not sheared else None,
        None if known.in_mm or sheared else tuple(size / sizes[-1] for size in sizes),
        _left_out(grids, numbers, common),
        grids,
    )


def _measured(grids: tuple[Grid, Grid]) -> Grid:
    """The grid whose voxel size counts: one layer that has it in millimetres is enough."""
    prediction, reference = grids
    return prediction if prediction.in_mm and not reference.in_mm else reference


def _correspondence(
    grids: tuple[Grid, Grid], known: Grid
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Signed permutation from the prediction's axes to the reference's, and where the prediction starts.

    Raises
    ------
    ComparisonError
        If the voxels of the two grids do not coincide.
    """
    prediction, reference = grids
    ndim = len(reference.shape)
    unset = [grid for grid in grids if grid.is_default and grid is not known and known.in_mm]
    if unset and None not in (prediction.patient, reference.patient):
        return np.eye(ndim, dtype=np.int64), np.zeros(ndim, np.int64)  # only one has got its voxel size yet
    back = np.linalg.inv(np.array(reference.linear))
    linear = back @ np.array(prediction.linear)
    offset = back @ (np.array(prediction.origin) - np.array(reference.origin))
    signs, start = np.round(linear).astype(np.int64), np.round(offset)
    is_permutation = np.array_equal(np.abs(signs) @ np.abs(signs).T, np.eye(ndim))
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in prediction.shape])).reshape(ndim, -1)
    error = (linear - signs) @ corners + (offset - start)[:, None]
    # Where an axis is reversed, the prediction's last voxel comes first.
    last = np.minimum(signs @ (np.array(prediction.shape) - 1), 0)
    if not is_permutation or np.abs(error).max() > _TOLERANCE:
        raise ComparisonError(_difference(grids, linear, offset + last))
    return signs, (start + last).astype(np.int64)


def _reordered_numbers(
    prediction: Grid, axes: tuple[int, ...], backwards: tuple[int, ...]
) -> tuple[int, ...] | None:
    """The prediction's slice numbers along the reference's first axis, if they are known."""
    if prediction.slice_numbers is None or axes[0] != 0:
        return None
    return prediction.slice_numbers[::-1] if 0 in backwards else prediction.slice_numbers


def _common_slices(
    grids: tuple[Grid, Grid],
    numbers: tuple[int, ...] | None,
    starts: Integers,
    shape: tuple[int, ...],
    *,
    reversed_slices: bool,
) -> tuple[int, int, tuple[int, ...]]:
    """First slice to compare in the prediction and in the reference, and the numbers of the slices.

    Raises
    ------
    ComparisonError
        If there is no such run of slices, or slice numbers and positions contradict each other.
    """
    prediction, reference = grids
    own = reference.slice_numbers
    if numbers is None or own is None or numbers == own:
        if shape != reference.shape:
            raise ComparisonError(_shapes(grids))
        if starts.any():
            raise ComparisonError(_shifted(grids, starts))
        count = shape[0] if len(shape) == 3 else 1
        return 0, 0, own or numbers or tuple(range(1, count + 1))
    if shape[1:] != reference.shape[1:]:
        raise ComparisonError(_shapes(grids))
    common = tuple(number for number in own if number in numbers)
    if not common:
        raise ComparisonError(messages.no_common_slices(prediction.name, numbers, reference.name, own))
    if reversed_slices:
        raise ComparisonError(_contradiction(grids))
    first, second = numbers.index(common[0]), own.index(common[0])
    if numbers[first : first + len(common)] != common or own[second : second + len(common)] != common:
        raise ComparisonError(messages.gap(prediction.name, numbers, reference.name, own))
    # Slices of a folder start at 0 wherever in the head they are, unless their layer was moved there.
    if starts[1:].any():
        raise ComparisonError(_shifted(grids, starts))
    if starts[0] not in (0, second - first):
        raise ComparisonError(_contradiction(grids))
    return first, second, common


def _left_out(grids: tuple[Grid, Grid], numbers: tuple[int, ...] | None, common: tuple[int, ...]) -> str:
    prediction, reference = grids
    if numbers is None or reference.slice_numbers is None:
        return ""
    only = [
        (grid.name, [number for number in own if number not in common])
        for grid, own in ((prediction, numbers), (reference, reference.slice_numbers))
    ]
    return messages.left_out(common, [(name, left) for name, left in only if left])


# --- how two grids differ ----------------------------------------------------------------------


def _shapes(grids: tuple[Grid, Grid]) -> str:
    prediction, reference = grids
    return (
        f"{prediction.name} has {format_shape(prediction.shape)} voxels but {reference.name} has "
        f"{format_shape(reference.shape)}; choose two layers of the same slices."
    )


def _shifted(grids: tuple[Grid, Grid], start: npt.ArrayLike) -> str:
    """That the prediction starts elsewhere; ``start`` is in voxels of the reference."""
    prediction, reference = grids
    shift = np.round(np.array(reference.linear) @ np.asarray(start, np.float64), 4) + 0.0
    text = messages.in_mm(shift.tolist()) if reference.in_mm else messages.in_pixels(shift.tolist())
    return f"{prediction.name} is shifted by {text} against {reference.name}; choose layers on the same grid."


def _contradiction(grids: tuple[Grid, Grid]) -> str:
    prediction, reference = grids
    return (
        f"The slice numbers of {prediction.name} and {reference.name} contradict their positions in space; "
        "correct the layers' scale, translate or affine."
    )


def _difference(grids: tuple[Grid, Grid], linear: Floats, start: Floats) -> str:
    """Why no voxels correspond: size, direction or position."""
    prediction, reference = grids
    sizes = [np.array(grid.sizes) for grid in grids]
    if not np.allclose(np.sort(sizes[0]), np.sort(sizes[1]), rtol=_PRECISION):
        both = " but ".join(
            f"{grid.name} has voxels of "
            + (messages.in_mm(grid.sizes) if grid.in_mm else messages.in_pixels(grid.sizes))
            for grid in grids
        )
        return f"{both}; choose two layers of the same slices."
    # The prediction's axes in units of the reference's, without the voxel size.
    turned = linear * sizes[1][:, None] / sizes[0]
    if np.abs(np.abs(turned).max(axis=0) - 1).max() > _PRECISION:
        both = f"{prediction.name} is rotated or sheared against {reference.name}"
        return f"{both}; choose two layers on the same grid."
    return _shifted(grids, start)
