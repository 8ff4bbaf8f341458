from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from napari_lgg_seg.core.errors import ExportError
from napari_lgg_seg.core.training.batch_picture import (
    SEPARATOR,
    SEQUENCE_GAP,
    SLICE_GAP,
    TUMOUR_COLOUR,
    batch_picture,
    write_picture,
)
from napari_lgg_seg.preferences import COLOURS

SIDE = 20


def batch(n=5, channels=3):
    images = torch.linspace(-2, 3, SIDE).expand(n, channels, SIDE, SIDE).clone()
    masks = torch.zeros(n, 1, SIDE, SIDE)
    masks[0, 0, 5:9, 6:12] = 1
    return images, masks


def tile(picture, row, column, sequence, channels=3):
    """The pixels of one sequence of one slice."""
    top = row * (channels * (SIDE + SEQUENCE_GAP) - SEQUENCE_GAP + SLICE_GAP) + sequence * (
        SIDE + SEQUENCE_GAP
    )
    left = column * (SIDE + SLICE_GAP)
    return picture[top : top + SIDE, left : left + SIDE]


@pytest.mark.parametrize(("n", "channels", "rows", "columns"), [(5, 3, 2, 4), (1, 3, 1, 1), (4, 1, 1, 4)])
def test_size_of_the_contact_sheet(n, channels, rows, columns):
    picture = batch_picture(*batch(n, channels))
    height = channels * SIDE + (channels - 1) * SEQUENCE_GAP
    assert picture.dtype == np.uint8
    assert picture.shape == (
        rows * height + (rows - 1) * SLICE_GAP,
        columns * SIDE + (columns - 1) * SLICE_GAP,
        3,
    )


def test_more_columns_make_it_wider_and_lower():
    wide, narrow = (batch_picture(*batch(6), columns=columns) for columns in (3, 2))
    assert wide.shape[1] > narrow.shape[1]
    assert wide.shape[0] < narrow.shape[0]


def test_slices_are_grey_and_use_the_full_range():
    plain = tile(batch_picture(*batch()), 0, 1, 0)
    assert (plain[..., 0] == plain[..., 1]).all()
    assert (plain[..., 0] == plain[..., 2]).all()
    assert plain[0, 0, 0] == 0
    assert plain[0, -1, 0] == 255
    assert (np.diff(plain[0, :, 0].astype(int)) >= 0).all()


def test_sequences_are_scaled_separately_and_ignore_outliers():
    images, masks = batch()
    images[:, 2] = 1000 * images[:, 2] + 7
    images[1, 0, 3, 3] = 1e6
    picture = batch_picture(images, masks)
    np.testing.assert_array_equal(tile(picture, 0, 2, 0), tile(picture, 0, 2, 1))
    np.testing.assert_allclose(tile(picture, 0, 2, 2), tile(picture, 0, 2, 1), atol=1)


def test_slices_of_a_batch_share_one_scale():
    images, masks = batch()
    images[3] *= 0.5
    picture = batch_picture(images, masks)
    assert np.ptp(tile(picture, 0, 3, 1)) < 0.7 * np.ptp(tile(picture, 0, 2, 1))


@pytest.mark.parametrize("sequence", range(3))
def test_outline_surrounds_the_tumour_of_its_slice_only(sequence):
    images, masks = batch()
    picture = batch_picture(images, masks)
    coloured = (tile(picture, 0, 0, sequence) == TUMOUR_COLOUR).all(axis=-1)
    expected = np.zeros((SIDE, SIDE), bool)
    expected[4:10, 5:13] = True
    expected[5:9, 6:12] = False
    np.testing.assert_array_equal(coloured, expected)
    assert not (tile(picture, 0, 1, sequence) == TUMOUR_COLOUR).all(axis=-1).any()


def test_neighbours_are_next_to_their_slice_and_have_no_outline():
    images, masks = batch(n=2, channels=9)
    images[:, :3] *= 0.2
    images[:, 6:] *= 0.5
    picture = batch_picture(images, masks, neighbours=1)
    assert picture.shape == (3 * SIDE + 2 * SEQUENCE_GAP, 2 * (3 * SIDE + 2 * SEQUENCE_GAP) + SLICE_GAP, 3)
    for row in range(3):
        top = row * (SIDE + SEQUENCE_GAP)
        tiles = [picture[top : top + SIDE, left : left + SIDE] for left in (0, SIDE + 1, 2 * SIDE + 2)]
        coloured = [(tile == TUMOUR_COLOUR).all(axis=-1).any() for tile in tiles]
        assert coloured == [False, True, False]
        below, itself, above = (np.ptp(tile[0]) for tile in tiles)
        assert 0 < below < above < itself, "all slices of a sequence share one scale"


def test_slices_and_sequences_are_separated():
    picture = batch_picture(*batch())
    assert (picture[:, SIDE : SIDE + SLICE_GAP] == SEPARATOR).all()
    assert (picture[SIDE : SIDE + SEQUENCE_GAP] == SEPARATOR).all()


def test_constant_slices_in_half_precision_are_black():
    images, masks = batch()
    picture = batch_picture(torch.zeros_like(images).bfloat16(), masks.requires_grad_())
    assert not tile(picture, 0, 1, 0).any()
    assert (tile(picture, 0, 0, 0) == TUMOUR_COLOUR).all(axis=-1).any()


def test_outline_has_the_colour_of_the_viewer():
    assert "#{:02x}{:02x}{:02x}".format(*TUMOUR_COLOUR) == COLOURS["vermilion"]


def test_written_picture_can_be_read_back(tmp_path):
    picture = batch_picture(*batch())
    path = tmp_path / "new" / "batch.png"
    write_picture(path, picture)
    write_picture(path, picture)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), picture)
    assert [p.name for p in path.parent.iterdir()] == ["batch.png"]


def test_full_disk_leaves_the_old_picture_intact(tmp_path, monkeypatch):
    path = tmp_path / "batch.png"
    path.write_bytes(b"old")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(ExportError, match="No space left on device"):
        write_picture(path, batch_picture(*batch()))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
