from __future__ import annotations

import numpy as np
import pytest

from napari_lgg_seg.core.model.neighbours import input_channels, with_neighbours


@pytest.mark.parametrize(("neighbours", "channels"), [(0, 3), (1, 9), (3, 21)])
def test_channels_of_a_slice_and_its_neighbours(neighbours, channels):
    assert input_channels(("pre-contrast", "FLAIR", "post-contrast"), neighbours) == channels
    assert input_channels(("FLAIR",), neighbours) == channels // 3


def test_neighbours_are_on_both_sides_in_ascending_order():
    around = with_neighbours(np.array([5, 2]), 9, 2)
    assert around.tolist() == [[3, 4, 5, 6, 7], [0, 1, 2, 3, 4]]


def test_the_outermost_slice_is_repeated_beyond_either_end():
    assert with_neighbours(np.array([0, 1, 3]), 4, 2).tolist() == [
        [0, 0, 0, 1, 2],
        [0, 0, 1, 2, 3],
        [1, 2, 3, 3, 3],
    ]


def test_a_single_slice_is_its_own_neighbour():
    assert with_neighbours(np.array([0]), 1, 3).tolist() == [[0] * 7]


def test_without_neighbours_the_slices_themselves_remain():
    assert with_neighbours(np.array([3, 0]), 4, 0).tolist() == [[3], [0]]
