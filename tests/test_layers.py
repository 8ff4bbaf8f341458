"""Colours of layers, and metadata of earlier versions; the rest is in the reader's tests."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from napari_lgg_seg.layers import comparison_colours, describe, described, is_comparison, to_label_map

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


WRONG = {
    "patient": [None, "", 3, ["A"], b"A"],
    "role": [None, "", 3],
    "slice_numbers": [None, "12", 2, [1, "2"], [1.5, 2], [1, 1], [-1, 2], {1, 2}, [True, 2]],
    "filled_sequences": [None, "FLAIR", [1], {"FLAIR": 1}],
    "affine": ["", 1, [], [1, 2, 3, 4], np.eye(3).tolist(), [["1"] * 4] * 4, [[np.nan] * 4] * 4, [[1]] * 4],
    "folder": [3, [], Path()],
    "made_with": [None, "U-Net", [], {"options": 3}, {"provenance": None}, {"provenance": {}}],
    "schema": ["1", None],
}


@pytest.mark.parametrize("name", WRONG)
def test_metadata_with_a_wrong_value_are_ignored(name):
    from napari.layers import Labels

    for value in WRONG[name]:
        metadata = describe("A", "tumour", [1, 2])
        metadata["lgg"][name] = value
        layer = Labels(np.zeros((2, 4, 4), np.uint8), metadata=metadata)
        assert described(layer) is None, value
        assert to_label_map(layer.data, {"metadata": metadata}, "file").patient == "file"


def test_slices_have_no_numbers_if_the_metadata_have_another_number_of_them():
    from napari.layers import Labels

    layer = Labels(np.zeros((3, 4, 4), np.uint8), metadata=describe("A", "tumour", [5, 6]))
    assert described(layer)["slice_numbers"] == []


@pytest.mark.parametrize("value", [None, 3, "ab", [1, 2], {"a": "b"}])
def test_other_values_do_not_mark_a_comparison(value):
    from napari.layers import Labels

    layer = Labels(np.zeros((2, 4, 4), np.uint8), metadata={"lgg comparison": value})
    assert not is_comparison(layer)


@pytest.mark.parametrize("value", [None, "mine", {}, {"patient": "A"}, {"role": "FLAIR"}])
def test_foreign_metadata_are_ignored(value):
    from napari.layers import Image

    assert described(Image(np.zeros((2, 4, 4)), metadata={"lgg": value})) is None
