"""TIFF files are read as they are displayed: by their tags, not by their stored numbers alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_lgg_seg.core.data.label_reading import read_labels
from napari_lgg_seg.core.data.patients import read_patient
from napari_lgg_seg.core.errors import LggSegWarning, PatientError

IMAGE = np.arange(16 * 12 * 3, dtype=np.uint16).reshape(16, 12, 3).astype(np.uint8)
TUMOUR = np.zeros((16, 12), bool)
TUMOUR[4:8, 6:11] = True
MASK = np.where(TUMOUR, np.uint8(255), np.uint8(0))
#: By the value of the orientation tag: what is stored of a displayed picture.
STORED = {
    1: lambda p: p,
    2: np.fliplr,
    3: lambda p: np.rot90(p, 2),
    4: np.flipud,
    5: lambda p: np.swapaxes(p, 0, 1),
    6: lambda p: np.rot90(p, 1),
    7: lambda p: np.rot90(np.swapaxes(p, 0, 1), 2),
    8: lambda p: np.rot90(p, -1),
}


def write_slice(folder: Path, mask=None, image=IMAGE, **how) -> None:
    folder.mkdir(exist_ok=True)
    photometric = "rgb" if image.ndim == 3 else "minisblack"
    tifffile.imwrite(folder / "p_1.tif", image, photometric=photometric)
    if mask is not None:
        tifffile.imwrite(folder / "p_1_mask.tif", mask, **{"photometric": "minisblack"} | how)


def palette(*colours: tuple[int, int, int], bits: int = 8) -> np.ndarray:
    table = np.zeros((3, 2**bits), np.uint16)
    table[:, : len(colours)] = np.array(colours, np.uint16).T * 257
    return table


@pytest.mark.parametrize("stored", [255 - MASK, ~TUMOUR], ids=["8 bits", "1 bit"])
def test_masks_in_which_0_is_white(tmp_path, stored):
    write_slice(tmp_path, stored, photometric="miniswhite")
    np.testing.assert_array_equal(read_patient(tmp_path).truth[0], TUMOUR)


def test_images_in_which_0_is_white(tmp_path):
    flair = IMAGE[..., 1]
    tifffile.imwrite(tmp_path / "p_1.tif", 255 - flair, photometric="miniswhite")
    np.testing.assert_array_equal(read_patient(tmp_path).volume[0, ..., 1], flair)


@pytest.mark.parametrize(
    "colours",
    [
        [(255, 255, 255), (0, 0, 0)],
        [(0, 0, 0), (255, 255, 255)],
        [(0, 0, 0), (200, 0, 0)],
        [(9, 200, 9), (0, 0, 0)],
    ],
)
def test_masks_with_a_palette(tmp_path, colours):
    stored = (any(colours[0]) != TUMOUR).astype(np.uint8)
    write_slice(tmp_path, stored, photometric="palette", colormap=palette(*colours))
    np.testing.assert_array_equal(read_patient(tmp_path).truth[0], TUMOUR)


def test_masks_whose_palette_has_no_black_or_several_colours_are_refused(tmp_path):
    for name, colours in {
        "white": [(255, 255, 255), (255, 0, 0)],
        "labels": [(0, 0, 0), (200, 0, 0), (0, 200, 0)],
    }.items():
        stored = TUMOUR.astype(np.uint8)
        stored[0, 0] = len(colours) - 1
        write_slice(tmp_path / name, stored, photometric="palette", colormap=palette(*colours))
        with pytest.raises(PatientError, match=r"p_1_mask.tif has \d colours"):
            read_patient(tmp_path / name)


def test_images_with_a_colour_palette_are_refused(tmp_path):
    colours = palette(*((n, 0, 255 - n) for n in range(256)))
    tifffile.imwrite(tmp_path / "p_1.tif", IMAGE[..., 1], photometric="palette", colormap=colours)
    with pytest.raises(PatientError, match=r"p_1\.tif has a colour palette"):
        read_patient(tmp_path)


@pytest.mark.parametrize("tag", STORED)
def test_orientation_of_images_and_masks(tmp_path, tag):
    turned = [(274, "H", 1, tag, False)]
    colour, gray = tmp_path / "colour", tmp_path / "gray"
    for folder, image in ((colour, IMAGE), (gray, IMAGE[..., 1])):
        write_slice(folder, STORED[tag](MASK), image, extratags=turned)
        photometric = "rgb" if image.ndim == 3 else "minisblack"
        tifffile.imwrite(folder / "p_1.tif", STORED[tag](image), photometric=photometric, extratags=turned)
        patient = read_patient(folder)
        np.testing.assert_array_equal(patient.volume[0, ..., 1], IMAGE[..., 1])
        np.testing.assert_array_equal(patient.truth[0], TUMOUR)
    np.testing.assert_array_equal(read_patient(colour).volume[0], IMAGE)


def test_tags_of_label_files_count_as_well(tmp_path):
    volume = np.stack([MASK, np.zeros_like(MASK)])
    path = tmp_path / "p_tumour.tif"
    tifffile.imwrite(path, 255 - volume, photometric="miniswhite")
    np.testing.assert_array_equal(read_labels(path), volume // 255)
    tag = [(274, "H", 1, 3, False)]
    tifffile.imwrite(path, volume[:, ::-1, ::-1], photometric="minisblack", extratags=tag)
    np.testing.assert_array_equal(read_labels(path), volume // 255)


def test_colours_that_are_not_rgb_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "p_1.tif", IMAGE, photometric="cielab")
    with pytest.raises(PatientError, match="CIELAB"):
        read_patient(tmp_path)


def test_planes_that_are_stored_one_after_the_other(tmp_path):
    planes = np.moveaxis(IMAGE, -1, 0)
    tifffile.imwrite(tmp_path / "p_1.tif", planes, photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(read_patient(tmp_path).volume[0], IMAGE)


def test_thumbnails_are_ignored(tmp_path):
    with tifffile.TiffWriter(tmp_path / "p_1.tif") as tiff:
        tiff.write(IMAGE, photometric="rgb")
        tiff.write(IMAGE[::2, ::2], photometric="rgb", subfiletype=1)
    np.testing.assert_array_equal(read_patient(tmp_path).volume[0], IMAGE)


@pytest.mark.parametrize("compression", ["lzw", "zstd", "deflate", "packbits"])
def test_compressed_files(tmp_path, compression):
    pytest.importorskip("imagecodecs")
    write_slice(tmp_path, MASK, compression=compression)
    tifffile.imwrite(tmp_path / "p_1.tif", IMAGE, photometric="rgb", compression=compression)
    patient = read_patient(tmp_path)
    np.testing.assert_array_equal(patient.volume[0], IMAGE)
    np.testing.assert_array_equal(patient.truth[0], TUMOUR)


def test_masks_from_jpeg_are_cut_at_half_of_white_with_a_notice(tmp_path):
    pytest.importorskip("imagecodecs")
    square = np.zeros((48, 48), np.uint8)
    square[11:25, 13:27] = 255
    image = np.arange(48 * 48, dtype=np.uint16).reshape(48, 48).astype(np.uint8)
    write_slice(tmp_path, square, image, compression="jpeg", compressionargs={"level": 50})
    stored = tifffile.imread(tmp_path / "p_1_mask.tif")
    assert len(np.unique(stored)) > 2, "the compression must have left its traces"
    with pytest.warns(LggSegWarning, match=r"p_1_mask\.tif holds shades of gray"):
        truth = read_patient(tmp_path).truth
    np.testing.assert_array_equal(truth[0], square // 255)


def test_a_missing_decoder_is_named(tmp_path):
    pytest.importorskip("imagecodecs")
    tifffile.imwrite(tmp_path / "p_1.tif", IMAGE, photometric="rgb", compression="lzw")
    program = (
        "import sys; sys.modules['imagecodecs'] = None\n"
        "from napari_lgg_seg.core.data.patients import read_patient\n"
        f"read_patient({str(tmp_path)!r})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "p_1.tif is compressed in a way that needs the package imagecodecs" in done.stderr
    assert "napari-lgg-seg[codecs]" in done.stderr


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are not for every system")
@pytest.mark.parametrize("name", ["p_1.tif", "p_1_mask.tif"])
def test_a_named_pipe_instead_of_a_slice_does_not_block(tmp_path, name):
    write_slice(tmp_path, MASK)
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with pytest.raises(PatientError, match=f"{name} cannot be read .*not a regular file"):
        read_patient(tmp_path)
