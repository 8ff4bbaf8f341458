from __future__ import annotations

import numpy as np
import pytest

from napari_lgg_seg.core.evaluation.study.shape import (
    Shape,
    angular_standard_deviation,
    bounding_ellipsoid_volume_ratio,
    margin_fluctuation,
    measure_shape,
    minimum_ellipsoid,
)

#: Volume of a box / volume of the smallest ellipsoid around it: abc / (4/3 pi (abc / 8) 3 sqrt(3)).
BOX = 2 / (np.pi * np.sqrt(3))


def ellipsoid(*semi_axes: float, shift: float = 0.0) -> np.ndarray:
    """Voxels whose centres lie inside an ellipsoid centred in its box."""
    axes = [np.arange(-np.ceil(a) - 1, np.ceil(a) + 2) for a in semi_axes]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    a, b, c = semi_axes
    return (z / a) ** 2 + (y / b) ** 2 + ((x - shift) / c) ** 2 <= 1


def flower(lobes: int, amplitude: float, radius: float = 150.0) -> np.ndarray:
    """One slice of r = radius (1 + amplitude cos(lobes angle))."""
    reach = int(radius * (1 + amplitude)) + 3
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return (np.hypot(y, x) <= radius * (1 + amplitude * np.cos(lobes * np.arctan2(y, x))))[None]


def outline(lobes: int, amplitude: float, points: int = 990) -> np.ndarray:
    """The flower's boundary; with a small amplitude, its points are equidistant."""
    angles = np.linspace(-np.pi, np.pi, points, endpoint=False)
    radii = 7 * (1 + amplitude * np.cos(lobes * angles))
    return np.stack([radii * np.sin(angles), radii * np.cos(angles)], axis=1)


# --- the minimum ellipsoid ---------------------------------------------------------------------


@pytest.mark.parametrize("sides", [(1, 1, 1), (2, 3, 5), (0.1, 40, 7)])
def test_ellipsoid_around_a_box(sides):
    corners = np.array(np.meshgrid(*[(0, side) for side in sides])).reshape(3, -1).T
    found = minimum_ellipsoid(corners)
    assert found.volume == pytest.approx(np.prod(sides) / BOX, rel=1e-4)
    np.testing.assert_allclose(found.centre, np.array(sides) / 2, atol=1e-4 * max(sides))


def test_ellipsoid_around_a_tetrahedron_and_an_octahedron_is_a_ball():
    tetrahedron = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    octahedron = np.concatenate([np.eye(3), -np.eye(3)])
    assert minimum_ellipsoid(tetrahedron).volume == pytest.approx(4 / 3 * np.pi * 3**1.5, rel=1e-4)
    assert minimum_ellipsoid(octahedron).volume == pytest.approx(4 / 3 * np.pi, rel=1e-4)


def test_ellipsoid_around_points_of_an_ellipsoid_is_that_ellipsoid():
    rng = np.random.default_rng(0)
    directions = rng.standard_normal((4000, 3))
    points = directions / np.linalg.norm(directions, axis=1)[:, None] * (2, 5, 9) + (100, -3, 40)
    found = minimum_ellipsoid(points)
    assert found.volume == pytest.approx(4 / 3 * np.pi * 2 * 5 * 9, rel=0.01)
    np.testing.assert_allclose(found.matrix, np.diag([1 / 4, 1 / 25, 1 / 81]), atol=0.005)


@pytest.mark.parametrize("seed", range(5))
def test_ellipsoid_encloses_and_is_affine_invariant(seed):
    rng = np.random.default_rng(seed)
    points = rng.standard_normal((60, 3)) ** 3
    matrix = rng.standard_normal((3, 3)) + np.diag([1, 5, 20])
    plain, mapped = minimum_ellipsoid(points), minimum_ellipsoid(points @ matrix + (5, -300, 80))
    assert mapped.volume == pytest.approx(plain.volume * abs(np.linalg.det(matrix)), rel=1e-4)
    offsets = points - plain.centre
    assert np.einsum("ni,ij,nj->n", offsets, plain.matrix, offsets).max() <= 1 + 1e-9


def test_ellipsoid_is_smaller_than_the_one_along_principal_axes():
    rng = np.random.default_rng(1)
    points = np.concatenate([rng.standard_normal((500, 3)), [[0, 0, 30], [0, 20, 0]]])
    offsets = points - points.mean(axis=0)
    covariance = np.cov(offsets.T)
    reach = np.einsum("ni,ij,nj->n", offsets, np.linalg.inv(covariance), offsets).max()
    along_axes = 4 / 3 * np.pi * np.sqrt(np.linalg.det(covariance * reach))
    assert minimum_ellipsoid(points).volume < 0.7 * along_axes


@pytest.mark.parametrize("points", [np.zeros((0, 3)), np.eye(3), np.mgrid[:3, :3, :1].reshape(3, -1).T])
def test_coplanar_points_have_no_ellipsoid(points):
    with pytest.raises(ValueError, match="coplanar points"):
        minimum_ellipsoid(points)


# --- BEVR --------------------------------------------------------------------------------------


@pytest.mark.parametrize("box", [(1, 1, 1), (1, 1, 9), (1, 12, 5), (6, 7, 8)])
def test_bevr_of_a_box_is_its_analytic_value(box):
    tumour = np.zeros((10, 20, 20), np.uint8)
    tumour[1 : 1 + box[0], 3 : 3 + box[1], 2 : 2 + box[2]] = 1
    assert measure_shape(tumour).bevr == pytest.approx(BOX, rel=1e-4)


def test_bevr_of_a_ball_approaches_one_with_resolution():
    ratios = [bounding_ellipsoid_volume_ratio(ellipsoid(r, r, r)) for r in (5, 10, 20, 40)]
    assert ratios == sorted(ratios)
    assert ratios[-1] > 0.93
    assert max(ratios) < 1


def test_bevr_of_an_ellipsoid_is_close_to_one():
    assert bounding_ellipsoid_volume_ratio(ellipsoid(20.5, 30.5, 45.5)) > 0.9


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_bevr_is_invariant_to_stretching_and_slice_orientation(axis):
    tumour = ellipsoid(4, 9, 7) | ellipsoid(4, 9, 7, shift=3)
    plain = bounding_ellipsoid_volume_ratio(tumour)
    assert bounding_ellipsoid_volume_ratio(tumour.repeat(3, axis=axis)) == pytest.approx(plain, rel=1e-4)
    assert bounding_ellipsoid_volume_ratio(np.moveaxis(tumour, axis, 0)) == pytest.approx(plain, rel=1e-4)


def test_bevr_of_a_disc_in_one_slice_is_that_of_a_cylinder():
    # The volume is 2 pi h for radius 1 and height 2h, that of the ellipsoid 4/3 pi (sqrt(3) h) (3/2).
    disc = ellipsoid(1, 60, 60)[[2]]
    assert bounding_ellipsoid_volume_ratio(disc) == pytest.approx(1 / np.sqrt(3), rel=0.03)


def test_bevr_includes_all_components():
    ball = ellipsoid(15, 15, 15)
    tumour = np.concatenate([ball, np.zeros((33, 33, 33), bool), ball], axis=2)
    # The smallest ellipsoid of revolution around two balls, minimised over its axis ratio.
    angles = np.linspace(0, 2 * np.pi, 2000)
    distance = (tumour.shape[2] - ball.shape[2]) / 2
    along, across = distance + 15 * np.cos(angles), 15 * np.sin(angles)
    ratios = np.linspace(0.02, 1, 2000)[:, None]
    volumes = 4 / 3 * np.pi * (ratios * along**2 + across**2).max(axis=1) ** 1.5 / np.sqrt(ratios[:, 0])
    expected = 2 * 4 / 3 * np.pi * 15**3 / volumes.min()
    assert bounding_ellipsoid_volume_ratio(tumour) == pytest.approx(expected, rel=0.1)
    assert bounding_ellipsoid_volume_ratio(tumour) < expected < 0.6


# --- ASD and MF --------------------------------------------------------------------------------


@pytest.mark.parametrize("lobes", [1, 2, 3, 5, 10, 20])
def test_margin_fluctuation_of_a_wave_is_what_the_moving_average_removes(lobes):
    # Averaging cos(k angle) over a tenth of a turn scales it by sin(pi k / 10) / (pi k / 10).
    expected = 1e-3 / np.sqrt(2) * abs(1 - np.sinc(lobes / 10))
    assert margin_fluctuation(outline(lobes, 1e-3)) == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize("lobes", [1, 2, 3, 5, 10, 20])
def test_angular_standard_deviation_of_a_wave_is_that_within_the_bins(lobes):
    # In an interval of width w around m: E[cos] = cos m sin(w/2) / (w/2), E[cos^2] = 1/2 + cos 2m sin w/2w.
    width = lobes * np.pi / 5
    middle = lobes * (-np.pi + np.pi / 5 * (np.arange(10) + 0.5))
    mean = np.cos(middle) * np.sin(width / 2) / (width / 2)
    square = 0.5 + np.cos(2 * middle) * np.sin(width) / (2 * width)
    expected = 1e-3 * np.mean(np.sqrt(square - mean**2))
    assert angular_standard_deviation(outline(lobes, 1e-3)) == pytest.approx(expected, rel=0.01)


def test_a_disc_has_almost_no_deviation_or_fluctuation():
    shape = measure_shape(flower(10, 0.0, radius=60))
    assert 0 <= shape.asd < 0.008
    assert 0 <= shape.mf < 0.008


def test_deviation_and_fluctuation_of_a_flower_grow_with_its_lobes():
    shapes = [measure_shape(flower(10, amplitude)) for amplitude in (0.01, 0.02, 0.04, 0.08)]
    for amplitude, shape in zip((0.01, 0.02, 0.04), shapes, strict=False):
        # One lobe per bin, over which the average is constant: both equal the wave's standard deviation.
        assert shape.asd == pytest.approx(amplitude / np.sqrt(2), rel=0.08)
        assert shape.mf == pytest.approx(amplitude / np.sqrt(2), rel=0.08)
    assert shapes[3].asd > shapes[2].asd
    assert shapes[3].mf > shapes[2].mf


def test_asd_and_mf_are_scale_invariant():
    small, large = measure_shape(flower(6, 0.2, radius=40)), measure_shape(flower(6, 0.2, radius=160))
    assert small.asd == pytest.approx(large.asd, rel=0.03)
    assert small.mf == pytest.approx(large.mf, rel=0.03)


def test_measured_slice_has_the_largest_area():
    stack = flower(10, 0.2).repeat(3, axis=0)
    stack[0, 100:] = 0
    stack[2, 300:] = 0
    shape = measure_shape(stack)
    assert shape.slice == 2
    assert shape.voxels == stack.sum()
    assert shape.mf == measure_shape(stack[[1]]).mf


def test_holes_small_components_and_the_image_edge_do_not_matter():
    disc = flower(1, 0.0, radius=30)
    expected = measure_shape(disc)
    changed = disc.copy()
    changed[0, 30:34, 30:34] = 0
    changed[0, 0:2, 0:2] = 1
    found = measure_shape(changed)
    assert (found.asd, found.mf) == (expected.asd, expected.mf)
    rows = np.flatnonzero(disc[0].any(axis=1))
    cut = disc[:, rows[0] : rows[-1] + 1, rows[0] : rows[-1] + 1]
    at_edge = measure_shape(cut)
    assert (at_edge.asd, at_edge.mf) == pytest.approx((expected.asd, expected.mf), rel=1e-9)


def test_angular_bins_without_boundary_are_left_out():
    arc = flower(1, 0.0, radius=60)
    arc[0, 20:110, 20:] = 0
    shape = measure_shape(arc)
    assert np.isfinite([shape.asd, shape.mf, shape.bevr]).all()
    assert shape.asd > 0.1


def test_a_single_voxel_and_a_thin_line_have_features():
    tumour = np.zeros((3, 9, 9), np.uint8)
    tumour[1, 4, 4] = 7
    assert np.isfinite([measure_shape(tumour).asd, measure_shape(tumour).mf]).all()
    tumour[1, 4] = 1
    assert measure_shape(tumour).asd > 0.1


def test_an_empty_mask_has_no_features():
    assert measure_shape(np.zeros((3, 4, 5), bool)) == Shape(None, None, None, None, 0)


def test_a_single_slice_is_not_a_volume():
    with pytest.raises(ValueError, match="2 dimensions"):
        measure_shape(np.ones((4, 4)))
