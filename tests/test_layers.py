"""What layers look like, beyond what the reader's tests see."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from napari_lgg_seg.layers import comparison_colours

# Machado, Oliveira and Fernandes (2009): how linear RGB looks to whoever lacks one kind of cone.
SEEN_BY = {
    "everybody else": np.eye(3),
    "protanopes": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deuteranopes": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "tritanopes": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}


def linear(colour):
    values = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def as_lab(values):
    from skimage.color import rgb2lab

    values = np.clip(values, 0, 1)
    return rgb2lab(np.where(values <= 0.0031308, values * 12.92, 1.055 * values ** (1 / 2.4) - 0.055))


@pytest.mark.parametrize("eyes", SEEN_BY)
def test_colours_of_a_comparison_are_told_apart_over_any_gray(eyes):
    from skimage.color import deltaE_ciede2000

    for gray in (0.0, 0.2, 0.6):
        over = [0.7 * linear(c) + 0.3 * gray for c in comparison_colours().values()]
        seen = [as_lab(values @ np.transpose(SEEN_BY[eyes])) for values in over]
        for one, other in itertools.combinations(seen, 2):
            assert deltaE_ciede2000(one, other) > 12
