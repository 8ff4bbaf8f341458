"""Tools to correct labels with."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from napari_lgg_seg.core.data.label_editing import fill_holes, interpolate, keep_piece, piece_at, remove_piece
from napari_lgg_seg.core.errors import CorrectionError
from napari_lgg_seg.core.evaluation.metrics import dice

Labels = npt.NDArray[np.integer]


def _two_pieces() -> Labels:
    labels = np.zeros((4, 20, 20), np.uint8)
    labels[0:2, 2:6, 2:6] = 1
    labels[2, 6:9, 6:9] = 1  # touches by a corner
    labels[1:3, 14:18, 14:18] = 1
    labels[3, 0, 0] = 2
    return labels


def _disc(size: int, centre: tuple[float, float], radius: float) -> npt.NDArray[np.bool_]:
    y, x = np.mgrid[:size, :size]
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2


def test_voxels_that_touch_at_a_corner_are_one_component() -> None:
    piece = piece_at(_two_pieces(), (0, 3, 3))
    assert piece.sum() == 2 * 16 + 9
    assert piece[2, 7, 7]


def test_removing_a_component_keeps_the_others() -> None:
    labels = _two_pieces()
    before = labels.copy()
    result = remove_piece(labels, (1, 15, 15))
    assert result.sum() == before.sum() - 32
    assert result[3, 0, 0] == 2
    assert result.dtype == labels.dtype
    np.testing.assert_array_equal(labels, before)


def test_keeping_a_component_keeps_other_labels() -> None:
    result = keep_piece(_two_pieces(), (1, 15, 15))
    assert (result == 1).sum() == 32
    assert (result == 2).sum() == 1


@pytest.mark.parametrize("position", [(0, 0, 0), (-1, 3, 3), (9, 3, 3)])
def test_there_is_no_component_in_the_background_or_outside(position: tuple[int, int, int]) -> None:
    with pytest.raises(CorrectionError, match="no labelled component"):
        remove_piece(_two_pieces(), position)


def test_holes_are_filled_slice_by_slice() -> None:
    labels = np.zeros((3, 12, 12), np.int32)
    labels[:, 2:9, 2:9] = 3
    labels[:, 4:6, 4:6] = 0  # open at both ends in 3D
    labels[1, 5, 5] = 7
    result = fill_holes(labels, 3)
    assert (result == 3).sum() == 3 * 49 - 1
    assert result[1, 5, 5] == 7
    with pytest.raises(CorrectionError, match="no holes"):
        fill_holes(result, 3)


def test_holes_of_2d_labels_are_filled() -> None:
    labels = np.zeros((8, 8), np.uint8)
    labels[1:6, 1:6] = 1
    labels[3, 3] = 0
    assert fill_holes(labels, 1).sum() == 25


def test_a_growing_shape_is_interpolated_to_its_middle_size() -> None:
    labels = np.zeros((7, 64, 64), np.uint8)
    labels[1], labels[5] = _disc(64, (32, 32), 8), _disc(64, (32, 32), 16)
    result = interpolate(labels, 1, at=2)
    for z, radius in ((2, 10), (3, 12), (4, 14)):
        assert dice(result[z], _disc(64, (32, 32), radius)) > 0.97
    assert not result[0].any()
    assert not result[6].any()
    np.testing.assert_array_equal(result[[1, 5]], labels[[1, 5]])


def test_a_shape_that_moves_farther_than_its_size_is_not_lost() -> None:
    labels = np.zeros((5, 64, 64), np.uint8)
    labels[0], labels[4] = _disc(64, (12, 12), 6), _disc(64, (48, 48), 6)
    result = interpolate(labels, 1, at=2)
    assert dice(result[2], _disc(64, (30, 30), 6)) > 0.95


def test_only_the_gap_around_the_slice_is_filled() -> None:
    labels = np.zeros((9, 32, 32), np.uint8)
    labels[[0, 3, 8]] = _disc(32, (16, 16), 5)
    result = interpolate(labels, 1, at=1)
    assert result[1:3].any(axis=(1, 2)).all()
    assert not result[4:8].any()


def test_other_labels_are_not_painted_over() -> None:
    labels = np.zeros((3, 32, 32), np.uint8)
    labels[0] = labels[2] = _disc(32, (16, 16), 5)
    labels[1, 16, 16] = 4
    result = interpolate(labels, 1, at=1)
    assert result[1, 16, 16] == 4
    assert result[1, 16, 17] == 1


def test_a_shape_that_covers_the_whole_slice_is_interpolated() -> None:
    labels = np.zeros((3, 16, 16), np.uint8)
    labels[0] = labels[2] = 1
    assert interpolate(labels, 1, at=1)[1].all()


@pytest.mark.parametrize(
    ("at", "said"), [(0, "has label 1 already"), (3, "below and above"), (1, "below and above")]
)
def test_a_slice_that_is_not_in_a_gap_is_refused(at: int, said: str) -> None:
    labels = np.zeros((4, 16, 16), np.uint8)
    labels[0, 4:8, 4:8] = 1
    with pytest.raises(CorrectionError, match=said):
        interpolate(labels, 1, at=at)


def test_2d_labels_cannot_be_interpolated() -> None:
    with pytest.raises(CorrectionError, match="3D"):
        interpolate(np.ones((8, 8), np.uint8), 1, at=0)
