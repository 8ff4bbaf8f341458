"""Reading patient folders: pixels, masks, names, and errors that name the file."""

from __future__ import annotations

import os
import re
import stat

import numpy as np
import pytest
import tifffile

from napari_lgg_seg.core.data.discover import (
    is_dataset_folder,
    is_patient_folder,
    is_slice_file,
    patient_folders,
)
from napari_lgg_seg.core.data.patients import institution, parse_name, read_patient, read_slices
from napari_lgg_seg.core.errors import PatientError

PIXELS = np.arange(12 * 10 * 3, dtype=np.uint8).reshape(12, 10, 3)


def sentence_of(error: pytest.ExceptionInfo[PatientError]) -> str:
    text = str(error.value)
    assert text.endswith(".")
    assert "\n" not in text
    assert not re.search(r"\. [A-Z]", text), "more than one sentence"
    return text


def refusal(folder) -> str:
    with pytest.raises(PatientError) as error:
        read_patient(folder)
    return sentence_of(error)


# --- reading -----------------------------------------------------------------------------------


@pytest.mark.parametrize("writer", ["tifffile", "pillow"])
def test_pixels_equal_those_of_the_files_in_numeric_order(tmp_path, write_slices, writer):
    image, mask = write_slices(tmp_path, "TCGA_DU_0001_19990101", 12, writer=writer)
    patient = read_patient(tmp_path)
    assert patient.slice_numbers == tuple(range(1, 13))
    np.testing.assert_array_equal(patient.volume, image)
    np.testing.assert_array_equal(patient.truth, mask // 255)
    assert (patient.volume.dtype, patient.truth.dtype) == (np.uint8, np.uint8)
    assert patient.name == "TCGA_DU_0001_19990101"
    assert patient.folder == tmp_path
    assert patient.shape == (12, 12, 10)
    assert patient.slices_without_mask == ()


def test_folder_may_be_given_as_text(tmp_path, write_slices):
    write_slices(tmp_path)
    assert read_patient(str(tmp_path)).folder == tmp_path


def test_numbers_need_not_start_at_one(tmp_path, write_slices):
    write_slices(tmp_path, numbers=range(9, 12))
    assert read_patient(tmp_path).slice_numbers == (9, 10, 11)


def test_masks_are_optional(tmp_path, write_slices):
    image, _ = write_slices(tmp_path, masks=False)
    patient = read_patient(tmp_path)
    assert patient.truth is None
    assert patient.slices_without_mask == ()
    np.testing.assert_array_equal(patient.volume, image)


def test_folder_of_masks_only(tmp_path, write_slices):
    _, mask = write_slices(tmp_path, images=False)
    patient = read_patient(tmp_path)
    assert patient.volume is None
    assert patient.filled_sequences == ()
    assert patient.shape == (3, 12, 10)
    np.testing.assert_array_equal(patient.truth, mask // 255)


def test_slices_without_mask_are_listed_and_empty(tmp_path, write_slices):
    _, mask = write_slices(tmp_path, numbers=4, masks=(2, 4))
    patient = read_patient(tmp_path)
    assert patient.slices_without_mask == (1, 3)
    assert not patient.truth[[0, 2]].any()
    np.testing.assert_array_equal(patient.truth[[1, 3]], mask[[1, 3]] // 255)


@pytest.mark.parametrize("folder", ["patient 7", "Пациент", "患者 #1", "ünïcode_1_mask", "a'b\"c%20"])
@pytest.mark.parametrize("name", ["p", "my patient", "Zoë_2", "a_1_mask_b"])
def test_any_folder_and_patient_name(tmp_path, write_slices, folder, name):
    write_slices(tmp_path / folder, name, 2, shape=(3, 4))
    patient = read_patient(tmp_path / folder)
    assert patient.name == name
    assert is_patient_folder(tmp_path / folder)


@pytest.mark.parametrize(("value", "dtype"), [(1, np.uint8), (255, np.uint8), (7, np.uint16), (-1, np.int8)])
def test_all_non_zero_mask_values_are_tumour(tmp_path, write_slices, value, dtype):
    write_slices(tmp_path, "p", 1, masks=False, shape=(4, 4))
    mask = np.zeros((4, 4), dtype)
    mask[1, 2] = value
    tifffile.imwrite(tmp_path / "p_1_mask.tif", mask)
    truth = read_patient(tmp_path).truth
    assert truth[0, 1, 2] == 1
    assert truth.sum() == 1


def test_black_and_white_mask(tmp_path, write_slices):
    image = pytest.importorskip("PIL.Image")
    write_slices(tmp_path, "p", 1, masks=False, shape=(9, 11))
    mask = np.arange(99).reshape(9, 11) % 3 == 0
    image.fromarray(mask).save(tmp_path / "p_1_mask.tif")
    np.testing.assert_array_equal(read_patient(tmp_path).truth[0], mask)


@pytest.mark.parametrize(
    "name", ["._p_1.tif", "._p_2_mask.tif", ".p_9.tif", "Thumbs.db", "p.tif", "p_x.tif", "data.csv"]
)
def test_other_files_are_ignored(tmp_path, write_slices, name):
    write_slices(tmp_path, "p")
    (tmp_path / name).write_bytes(b"not a slice")
    assert read_patient(tmp_path).slice_numbers == (1, 2, 3)


def test_folder_named_like_a_slice_is_ignored(tmp_path, write_slices):
    write_slices(tmp_path, "p")
    (tmp_path / "p_4.tif").mkdir()
    assert read_patient(tmp_path).slice_numbers == (1, 2, 3)


@pytest.mark.parametrize("suffix", [".tif", ".TIF", ".tiff"])
def test_spelling_of_the_suffix(tmp_path, suffix):
    for number in (1, 2):
        tifffile.imwrite(tmp_path / f"p_{number}{suffix}", PIXELS, photometric="rgb")
    assert read_patient(tmp_path).slice_numbers == (1, 2)


@pytest.mark.parametrize(
    ("copied", "expected"),
    [
        ((), ()),
        ((0,), ("pre-contrast",)),
        ((2,), ("post-contrast",)),
        ((0, 2), ("pre-contrast", "post-contrast")),
    ],
)
def test_copies_of_flair_are_found(tmp_path, write_slices, copied, expected):
    image, _ = write_slices(tmp_path, "p", 2)
    for number, pixels in enumerate(image, 1):
        for channel in copied:
            pixels[..., channel] = pixels[..., 1]
        tifffile.imwrite(tmp_path / f"p_{number}.tif", pixels, photometric="rgb")
    assert read_patient(tmp_path).filled_sequences == expected


def test_sequence_equal_in_one_slice_only_is_no_copy(tmp_path, write_slices):
    image, _ = write_slices(tmp_path, "p", 2)
    image[0, ..., 2] = image[0, ..., 1]
    tifffile.imwrite(tmp_path / "p_1.tif", image[0], photometric="rgb")
    assert read_patient(tmp_path).filled_sequences == ()


# --- FLAIR only --------------------------------------------------------------------------------


def test_grayscale_slices_are_flair_and_fill_the_other_sequences(tmp_path, write_grayscale):
    image, mask = write_grayscale(tmp_path)
    patient = read_patient(tmp_path)
    assert patient.volume.shape == (3, 12, 10, 3)
    assert patient.volume.dtype == np.uint8
    for channel in range(3):
        np.testing.assert_array_equal(patient.volume[..., channel], image)
    np.testing.assert_array_equal(patient.truth, mask // 255)
    assert patient.filled_sequences == ("pre-contrast", "post-contrast")


def test_grayscale_slices_from_another_program(tmp_path):
    image = pytest.importorskip("PIL.Image")
    image.fromarray(PIXELS[..., 1]).save(tmp_path / "p_1.tif")
    np.testing.assert_array_equal(read_patient(tmp_path).volume[0, ..., 1], PIXELS[..., 1])


def test_grayscale_slices_without_masks_are_read_on_request(tmp_path, write_grayscale):
    image, _ = write_grayscale(tmp_path, masks=False)
    assert not is_patient_folder(tmp_path)
    patient = read_patient(tmp_path)
    assert patient.truth is None
    np.testing.assert_array_equal(patient.volume[..., 1], image)


@pytest.mark.parametrize("gray", [1, 2, 3])
def test_error_names_a_grayscale_slice_among_colour_slices(tmp_path, write_slices, write_grayscale, gray):
    write_slices(tmp_path, "p", 3)
    write_grayscale(tmp_path, "p", (gray,))
    text = refusal(tmp_path)
    assert f"p_{gray}.tif is grayscale" in text
    assert "has three channels" in text


def test_error_names_a_grayscale_slice_of_another_size(tmp_path, write_grayscale):
    write_grayscale(tmp_path)
    write_grayscale(tmp_path, "p", (2,), shape=(12, 11))
    text = refusal(tmp_path)
    assert "p_2.tif" in text
    assert "12 x 11" in text


def test_black_and_white_images_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "p_1.tif", (PIXELS[..., 1] > 9) * np.uint8(255), photometric="minisblack")
    assert "like masks" in refusal(tmp_path)


# --- selected slices -----------------------------------------------------------------------------


def test_selected_slices_may_have_gaps_and_include_their_masks(tmp_path, write_slices):
    image, mask = write_slices(tmp_path, "p", 11, masks=(1, 10))
    patient = read_slices([tmp_path / f"p_{n}.tif" for n in (10, 1, 3)])
    assert patient.slice_numbers == (1, 3, 10)
    assert patient.slices_without_mask == (3,)
    np.testing.assert_array_equal(patient.volume, image[[0, 2, 9]])
    np.testing.assert_array_equal(patient.truth[[0, 2]], mask[[0, 9]] // 255)


def test_a_single_selected_mask(tmp_path, write_slices):
    _, mask = write_slices(tmp_path, "p")
    patient = read_slices([tmp_path / "p_2_mask.tif"])
    assert patient.volume is None
    assert patient.slice_numbers == (2,)
    np.testing.assert_array_equal(patient.truth[0], mask[1] // 255)


def test_a_selected_mask_without_its_image_is_refused(tmp_path, write_slices):
    write_slices(tmp_path, "p")
    with pytest.raises(PatientError) as error:
        read_slices([tmp_path / "p_1.tif", tmp_path / "p_2_mask.tif"])
    assert "p_2_mask.tif" in sentence_of(error)


# --- broken patients ---------------------------------------------------------------------------


@pytest.mark.parametrize("images", [True, False])
def test_error_names_a_missing_slice(tmp_path, write_slices, images):
    write_slices(tmp_path, "p", (1, 2, 4, 5), images=images)
    assert ("p_3.tif" if images else "p_3_mask.tif") in refusal(tmp_path)


def test_error_names_a_mask_without_image(tmp_path, write_slices):
    write_slices(tmp_path, "p", 4)
    (tmp_path / "p_4.tif").unlink()
    text = refusal(tmp_path)
    assert "p_4_mask.tif" in text
    assert "p_4.tif" in text


@pytest.mark.parametrize("shape", [(12, 11), (10, 12), (24, 10)])
def test_error_names_a_slice_of_another_shape(tmp_path, write_slices, shape):
    write_slices(tmp_path, "p", 3)
    write_slices(tmp_path, "p", (3,), shape=shape)
    text = refusal(tmp_path)
    assert "p_3.tif" in text
    assert f"{shape[0]} x {shape[1]}" in text


def test_error_names_masks_of_another_shape_than_the_images(tmp_path, write_slices):
    write_slices(tmp_path, "p", 3, masks=False)
    write_slices(tmp_path, "p", 3, images=False, shape=(10, 12))
    assert "p_1_mask.tif" in refusal(tmp_path)


def test_error_names_a_mask_of_another_shape_than_the_others(tmp_path, write_slices):
    write_slices(tmp_path, "p", 3)
    write_slices(tmp_path, "p", (2,), images=False, shape=(10, 12))
    assert "p_2_mask.tif" in refusal(tmp_path)


@pytest.mark.parametrize("victim", ["p_2.tif", "p_2_mask.tif"])
@pytest.mark.parametrize("share", [0, 0.01, 0.1, 0.4, 0.7, 0.95, "one byte less"])
@pytest.mark.parametrize("writer", ["tifffile", "pillow"])
def test_error_names_a_truncated_file(tmp_path, write_slices, writer, share, victim):
    write_slices(tmp_path, "p", 3, shape=(40, 30), writer=writer)
    path = tmp_path / victim
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - 1 if share == "one byte less" else int(share * len(content))])
    assert victim in refusal(tmp_path)


def test_strips_as_in_the_dataset_with_the_last_one_padded(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (44, 30, 3)).astype(np.uint8)
    path = tmp_path / "p_1.tif"
    tifffile.imwrite(path, pixels, photometric="rgb", rowsperstrip=11)
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tiff.pages[0].tags["ImageLength"].overwrite(40)
    np.testing.assert_array_equal(read_patient(tmp_path).volume[0], pixels[:40])
    content = path.read_bytes()
    for missing in (1, 100, 400, 1000, 3000):
        path.write_bytes(content[:-missing])
        assert "p_1.tif" in refusal(tmp_path)


def test_error_names_a_truncated_compressed_file(tmp_path, write_slices):
    write_slices(tmp_path, "p", 2)
    path = tmp_path / "p_2.tif"
    pixels = np.random.default_rng(0).integers(0, 256, (12, 10, 3), np.uint8)
    tifffile.imwrite(path, pixels, photometric="rgb", compression="zlib")
    np.testing.assert_array_equal(read_patient(tmp_path).volume[1], pixels)
    path.write_bytes(path.read_bytes()[:-20])
    assert "p_2.tif" in refusal(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"hello, this is no picture\n" * 40, b"II*\0", b"\x89PNG\r\n\x1a\n" * 9]
)
@pytest.mark.parametrize("victim", ["p_2.tif", "p_2_mask.tif"])
def test_error_names_a_file_that_is_not_a_tiff(tmp_path, write_slices, content, victim):
    write_slices(tmp_path, "p", 3)
    (tmp_path / victim).write_bytes(content)
    assert victim in refusal(tmp_path)


@pytest.mark.parametrize(
    "pixels",
    [
        np.stack([PIXELS, PIXELS]),
        PIXELS.astype(np.float32),
        PIXELS.astype(np.uint16),
        PIXELS[..., 0],
        np.concatenate([PIXELS, PIXELS[..., :1]], axis=-1),
    ],
    ids=["two pages", "float", "uint16", "grey", "four channels"],
)
def test_error_names_an_unsuitable_image(tmp_path, write_slices, pixels):
    write_slices(tmp_path, "p", 3)
    photometric = "rgb" if pixels.ndim > 2 else "minisblack"
    tifffile.imwrite(tmp_path / "p_2.tif", pixels, photometric=photometric)
    assert "p_2.tif" in refusal(tmp_path)


def test_error_says_which_images_are_suitable(tmp_path):
    tifffile.imwrite(tmp_path / "p_1.tif", PIXELS.astype(np.uint16), photometric="rgb")
    assert "uint8, height x width x 3, or height x width for FLAIR alone" in refusal(tmp_path)


@pytest.mark.parametrize(
    "pixels",
    [PIXELS, PIXELS[..., 0].astype(np.float32), np.zeros((3, 12, 10), np.uint8)],
    ids=["colour", "float", "three pages"],
)
def test_error_names_an_unsuitable_mask(tmp_path, write_slices, pixels):
    write_slices(tmp_path, "p", 3)
    photometric = "rgb" if pixels.shape[-1] == 3 else "minisblack"
    tifffile.imwrite(tmp_path / "p_2_mask.tif", pixels, photometric=photometric)
    assert "p_2_mask.tif" in refusal(tmp_path)


def test_error_names_two_patients_in_one_folder(tmp_path, write_slices):
    write_slices(tmp_path, "first")
    write_slices(tmp_path, "second")
    text = refusal(tmp_path)
    assert "first_" in text
    assert "second_" in text


@pytest.mark.parametrize("suffix", [".tif", "_mask.tif"])
def test_error_names_duplicate_slice_numbers(tmp_path, write_slices, suffix):
    write_slices(tmp_path, "p")
    (tmp_path / f"p_01{suffix}").write_bytes((tmp_path / f"p_1{suffix}").read_bytes())
    text = refusal(tmp_path)
    assert f"p_01{suffix}" in text
    assert f"p_1{suffix}" in text


def test_error_names_a_folder_without_slices(tmp_path):
    (tmp_path / "picture.tif").write_bytes(b"x")
    assert str(tmp_path) in refusal(tmp_path)


def test_error_names_a_missing_folder(tmp_path):
    assert "nowhere" in refusal(tmp_path / "nowhere")


def test_error_names_a_file_instead_of_a_folder(tmp_path, write_slices):
    write_slices(tmp_path, "p")
    assert "p_1.tif" in refusal(tmp_path / "p_1.tif")


def test_folder_without_permission_is_refused(tmp_path, write_slices):
    if not hasattr(os, "geteuid") or os.geteuid() == 0:
        pytest.skip("everything is permitted to this user")
    folder = tmp_path / "closed"
    write_slices(folder, "p")
    folder.chmod(0)
    try:
        assert not is_patient_folder(folder)
        assert not is_slice_file(folder / "p_1.tif")
        assert not is_dataset_folder(folder)
        assert "closed" in refusal(folder)
    finally:
        folder.chmod(stat.S_IRWXU)


# --- names -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("TCGA_DU_6404_19850629_10.tif", ("TCGA_DU_6404_19850629", 10, False)),
        ("TCGA_DU_6404_19850629_10_mask.tif", ("TCGA_DU_6404_19850629", 10, True)),
        ("p_007.TIFF", ("p", 7, False)),
        ("p_1.png", None),
        ("_1.tif", None),
        ("p1.tif", None),
        ("p_1_mask.tif.bak", None),
        ("._p_1.tif", None),
    ],
)
def test_parse_name(tmp_path, name, expected):
    assert parse_name(tmp_path / name) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [("TCGA_DU_6404_19850629", "DU"), ("TCGA_HT_A61B", "HT"), ("p", ""), ("TCGA_DU", ""), ("a_b_c", "")],
)
def test_institution(name, expected):
    assert institution(name) == expected


# --- real patients -----------------------------------------------------------------------------

#: Patients whose missing sequences the dataset fills with FLAIR.
COPIES = {
    **dict.fromkeys(
        ("DU_7013", "FG_A60K", "HT_7877", "HT_8105", "HT_A616", "HT_A61B"), ("pre-contrast", "post-contrast")
    ),
    **dict.fromkeys(("DU_6407", "DU_7301", "DU_8165", "FG_7634"), ("post-contrast",)),
}


@pytest.mark.real_data
def test_real_patients(lgg_dataset):
    image = pytest.importorskip("PIL.Image")
    assert is_dataset_folder(lgg_dataset)
    folders = patient_folders(lgg_dataset)
    assert folders == sorted(path for path in lgg_dataset.iterdir() if path.is_dir())
    for folder in folders:
        patient = read_patient(folder)
        assert patient.name == folder.name
        assert patient.shape == (len(list(folder.glob("*_mask.tif"))), 256, 256)
        assert patient.slice_numbers == tuple(range(1, len(patient.volume) + 1))
        assert patient.slices_without_mask == ()
        assert patient.truth.any()
        assert patient.filled_sequences == COPIES.get("_".join(patient.name.split("_")[1:3]), ()), (
            patient.name
        )
        for index in (0, 9, len(patient.volume) // 2, len(patient.volume) - 1):
            path = folder / f"{folder.name}_{index + 1}.tif"
            with image.open(path) as opened, image.open(path.with_stem(f"{path.stem}_mask")) as mask:
                np.testing.assert_array_equal(patient.volume[index], np.asarray(opened))
                np.testing.assert_array_equal(patient.truth[index], np.asarray(mask) // 255)
