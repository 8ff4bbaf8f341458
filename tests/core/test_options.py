"""Options: limits, help, and what post-processing does with them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from napari_lgg_seg.core.options import OptionsError, SegmentOptions, option_help
from napari_lgg_seg.core.postprocess import postprocess


@pytest.mark.parametrize(
    "wrong",
    [{"threshold": 0}, {"threshold": 1.2}, {"clean_up": "x"}, {"smallest_volume": 0}, {"batch_size": 0}],
)
def test_values_outside_their_limits_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(OptionsError, match="choose"):
        SegmentOptions(**wrong)


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(SegmentOptions)])
def test_each_option_says_what_it_does(field: str) -> None:
    assert option_help(field).endswith(".")


@pytest.fixture
def probability() -> np.ndarray:
    """A ring of 32 voxels with a hole, a piece of 4 that touches nothing, and a faint voxel."""
    volume = np.zeros((3, 12, 12), np.float32)
    volume[1, 1:7, 1:7] = 0.9
    volume[1, 3:5, 3:5] = 0.1
    volume[1, 9:11, 9:11] = 0.8
    volume[2, 0, 0] = 0.3
    return volume


@pytest.mark.parametrize(
    ("options", "voxels"),
    [
        ({}, 36),
        ({"threshold": 0.2}, 37),
        ({"threshold": 0.85}, 32),
        ({"clean_up": "largest"}, 32),
        ({"clean_up": "small", "smallest_volume": 5}, 32),
        ({"clean_up": "small", "smallest_volume": 4}, 36),
        ({"fill_holes": True}, 40),
        ({"clean_up": "largest", "fill_holes": True}, 36),
        ({"threshold": 0.95, "clean_up": "largest", "fill_holes": True}, 0),
    ],
)
def test_options_change_labels(probability: np.ndarray, options: dict[str, object], voxels: int) -> None:
    labels = postprocess(probability, SegmentOptions(**options), 0.5)
    assert labels.dtype == np.uint8
    assert int(labels.sum()) == voxels


def test_the_models_threshold_is_the_default(probability: np.ndarray) -> None:
    assert int(postprocess(probability, SegmentOptions(), 0.85).sum()) == 32


def test_pieces_that_touch_by_a_corner_or_across_slices_are_one() -> None:
    probability = np.zeros((2, 4, 4), np.float32)
    probability[0, 0, 0] = probability[1, 1, 1] = 1
    labels = postprocess(probability, SegmentOptions(clean_up="largest"), 0.5)
    assert int(labels.sum()) == 2
