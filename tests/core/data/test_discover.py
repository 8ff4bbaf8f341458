"""Which folders and files are recognised as patients and slices, and which are not."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from napari_lgg_seg.core.data.discover import (
    find_patients,
    is_dataset_folder,
    is_patient_folder,
    is_slice_file,
    list_patients,
    patient_folders,
)
from napari_lgg_seg.core.data.patients import read_patient, read_slices
from napari_lgg_seg.core.errors import PatientError

PIXELS = np.arange(12 * 10 * 3, dtype=np.uint8).reshape(12, 10, 3)


def other_folder(tmp_path, kind):
    folder = tmp_path / kind
    if kind == "not there":
        return folder
    if kind == "file":
        folder.write_bytes(b"x")
        return folder
    folder.mkdir()
    if kind == "plain tif":
        tifffile.imwrite(folder / "picture.tif", PIXELS, photometric="rgb")
    elif kind == "float slices":
        tifffile.imwrite(folder / "x_1.tif", PIXELS.astype(np.float32), photometric="rgb")
    elif kind == "grey slices":
        tifffile.imwrite(folder / "x_1.tif", PIXELS[..., 0])
    elif kind == "stacks":
        tifffile.imwrite(folder / "x_1.tif", np.stack([PIXELS, PIXELS]), photometric="rgb")
    elif kind == "text":
        (folder / "x_1.tif").write_text("hello")
    elif kind == "cut":
        tifffile.imwrite(folder / "x_1.tif", PIXELS, photometric="rgb")
        (folder / "x_1.tif").write_bytes((folder / "x_1.tif").read_bytes()[:60])
    elif kind == "hidden slices":
        tifffile.imwrite(folder / "._x_1.tif", PIXELS, photometric="rgb")
    elif kind == "folder like a slice":
        (folder / "x_1.tif").mkdir()
    elif kind == "dangling link":
        try:
            (folder / "x_1.tif").symlink_to(folder / "gone.tif")
        except OSError:
            pytest.skip("no links here")
    return folder


@pytest.mark.parametrize(
    "kind",
    [
        "not there",
        "file",
        "empty",
        "plain tif",
        "float slices",
        "grey slices",
        "stacks",
        "text",
        "cut",
        "hidden slices",
        "folder like a slice",
        "dangling link",
    ],
)
def test_other_folders_and_files_are_not_recognised(tmp_path, kind):
    folder = other_folder(tmp_path, kind)
    assert not is_patient_folder(folder)
    assert not is_dataset_folder(folder)
    assert not is_dataset_folder(tmp_path)
    assert not is_slice_file(folder)
    assert not is_slice_file(folder / "x_1.tif")
    assert not is_slice_file(folder / "picture.tif")
    assert not is_slice_file(folder / "._x_1.tif")


@pytest.mark.parametrize(
    "name", ["x" * 300, "a\0b", "1" * 5000], ids=["too long", "null byte", "huge number"]
)
def test_impossible_names_are_not_recognised(tmp_path, name):
    assert not is_patient_folder(tmp_path / name)
    assert not is_dataset_folder(tmp_path / name)
    assert not is_slice_file(tmp_path / f"x_{name}.tif")
    assert not is_slice_file(tmp_path / f"{name}_1.tif")


@pytest.mark.parametrize("writer", ["tifffile", "pillow"])
@pytest.mark.parametrize(("images", "masks"), [(True, True), (True, False), (False, True), (True, (2,))])
def test_patient_folders_are_recognised(tmp_path, write_slices, images, masks, writer):
    folder = tmp_path / "anything"
    write_slices(folder, "p", 3, images=images, masks=masks, writer=writer)
    assert is_patient_folder(folder)
    assert not is_patient_folder(tmp_path)
    assert is_dataset_folder(tmp_path)
    assert not is_dataset_folder(folder)
    for path in folder.iterdir():
        assert is_slice_file(path)


def test_a_colour_image_named_like_a_mask_is_not_recognised(tmp_path):
    tifffile.imwrite(tmp_path / "x_1_mask.tif", PIXELS, photometric="rgb")
    assert not is_slice_file(tmp_path / "x_1_mask.tif")


def test_patient_folders_of_a_dataset(tmp_path, write_slices):
    for name in ("TCGA_HT_2_1", "TCGA_CS_1_1"):
        write_slices(tmp_path / name, name, 1)
    write_slices(tmp_path / ".hidden", "p", 1)
    (tmp_path / "notes").mkdir()
    (tmp_path / "data.csv").write_text("Patient")
    assert patient_folders(tmp_path) == [tmp_path / "TCGA_CS_1_1", tmp_path / "TCGA_HT_2_1"]


def test_only_some_subfolders_are_checked(tmp_path, write_slices):
    for index in range(100):
        (tmp_path / f"a{index:03}").mkdir()
    write_slices(tmp_path / "z", "p", 1)
    assert not is_dataset_folder(tmp_path)
    assert patient_folders(tmp_path) == [tmp_path / "z"]


def test_grayscale_slices_with_masks_are_recognised(tmp_path, write_grayscale):
    write_grayscale(tmp_path / "p", masks=(2,))
    assert is_patient_folder(tmp_path / "p")
    assert is_dataset_folder(tmp_path)
    assert is_slice_file(tmp_path / "p" / "p_2.tif")
    assert not is_slice_file(tmp_path / "p" / "p_1.tif")
    np.testing.assert_array_equal(
        read_slices([tmp_path / "p" / "p_2.tif"]).volume, read_patient(tmp_path / "p").volume[1:2]
    )


# --- listing -----------------------------------------------------------------------------------


def test_patients_are_found_among_and_inside_folders(tmp_path, write_slices):
    for name in "abc":
        write_slices(tmp_path / name, name, 1)
    missing = tmp_path / "missing"
    found = find_patients([tmp_path / "b", tmp_path, missing])
    assert found == [tmp_path / "b", tmp_path / "a", tmp_path / "c", missing]


def test_all_folders_are_listed_except_the_results(tmp_path, write_slices):
    dataset = tmp_path / "cohort"
    write_slices(dataset / "patient")
    for name in ("empty", "A", ".hidden", "results"):
        (dataset / name).mkdir()
    (dataset / "data.csv").write_text("")
    assert [f.name for f in list_patients(dataset, dataset / "results")] == ["A", "empty", "patient"]


def test_folders_without_patients_are_refused(tmp_path, write_slices):
    write_slices(tmp_path / "patient")
    (tmp_path / "nothing").mkdir()
    for wrong, what in (
        (tmp_path / "patient", "patient's own"),
        (tmp_path / "nothing", "no folders"),
        (tmp_path / "x", "x"),
    ):
        with pytest.raises(PatientError, match=what):
            list_patients(wrong)
