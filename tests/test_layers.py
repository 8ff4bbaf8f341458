"""Colours of layers, and metadata of earlier versions; the rest is in the reader's tests."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from napari_lgg_seg.layers import comparison_colours, describe, described

# Machado, Oliveira and Fernandes (2009): linear RGB as seen without one kind of cone.
SEEN_BY = {
    "trichromats": np.eye(3),
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
def test_colours_of_a_comparison_are_distinguishable_over_any_grey(eyes):
    from skimage.color import deltaE_ciede2000

    for grey in (0.0, 0.2, 0.6):
        over = [0.7 * linear(c) + 0.3 * grey for c in comparison_colours().values()]
        seen = [as_lab(values @ np.transpose(SEEN_BY[eyes])) for values in over]
        for one, other in itertools.combinations(seen, 2):
            assert deltaE_ciede2000(one, other) > 12


def test_metadata_of_version_0_1_0_are_understood():
    from napari.layers import Image

    metadata = describe("A", "FLAIR", [1, 2], ["post-contrast"])
    metadata["lgg"]["copies"] = metadata["lgg"].pop("filled_sequences")
    layer = Image(np.zeros((2, 4, 4)), metadata=metadata)
    assert described(layer)["filled_sequences"] == ["post-contrast"]


@pytest.mark.parametrize("value", [None, "mine", {}, {"patient": "A"}, {"role": "FLAIR"}])
def test_foreign_metadata_are_ignored(value):
    from napari.layers import Image

    assert described(Image(np.zeros((2, 4, 4)), metadata={"lgg": value})) is None
