from __future__ import annotations

import numpy as np
import pytest

from napari_lgg_seg.core.postprocess import to_labels


@pytest.mark.parametrize(
    ("threshold", "expected"), [(0.5, [0, 0, 1, 1]), (0.25, [0, 1, 1, 1]), (0.9, [0, 0, 0, 1])]
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_labels_from_the_threshold_on(threshold, expected, dtype):
    labels = to_labels(np.array([0, 0.25, 0.5, 1], dtype), threshold)
    assert labels.dtype == np.uint8
    assert labels.tolist() == expected


def test_shape_is_kept():
    assert to_labels(np.zeros((2, 3, 4), np.float32), 0.5).shape == (2, 3, 4)
