"""Which folders and files are recognised as patients and slices, and which are not."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_lgg_seg.core.data.discover import (
    Problem,
    find_by_name,
    has_slices,
    is_dataset_folder,
    is_patient_folder,
    is_slice_file,
    patient_folders,
    search,
)
from napari_lgg_seg.core.data.label_files import LabelMap, put_labels
from napari_lgg_seg.core.data.label_reading import read_labels
from napari_lgg_seg.core.data.listing import list_patients
from napari_lgg_seg.core.data.masks import write_patient
from napari_lgg_seg.core.data.patients import read_patient, read_slices
from napari_lgg_seg.core.errors import LggSegWarning, PatientError

PIXELS = np.arange(12 * 10 * 3, dtype=np.uint8).reshape(12, 10, 3)


CONTENTS = ("images", "images to segment", "labels", "images and masks")


def touch(folder: Path, *names: str) -> Path:
    """Write empty files: searches go by the names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def touch_patient(folder: Path, name: str = "p") -> Path:
    return touch(folder, f"{name}_1.tif", f"{name}_1_mask.tif")


@pytest.fixture
def locked(monkeypatch):
    """Factory: make a folder one that may not be opened, even by root."""
    scandir = os.scandir

    def lock(folder: Path) -> Path:
        def refuse(path):
            if Path(path) == folder:
                raise PermissionError(13, "Permission denied", str(folder))
            return scandir(path)

        monkeypatch.setattr(os, "scandir", refuse)
        return folder

    return lock


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
    for content in CONTENTS:
        assert find_by_name(content, tmp_path / "nothing here").patients == {}
        assert set(find_by_name(content, folder).patients) <= {"x", "file"}


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
    assert patient_folders(tmp_path / "TCGA_CS_1_1") == [tmp_path / "TCGA_CS_1_1"]


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


# --- patients and labels by name ---------------------------------------------------------------


def test_hidden_files_and_folders_are_ignored(tmp_path):
    touch_patient(tmp_path / ".half written")
    touch(tmp_path / "a", "._p_1.tif", "._p_1_mask.tif", "._p_tumour.tif", ".p_tumour.nii")
    for content in CONTENTS:
        found = find_by_name(content, tmp_path)
        assert (found.patients, found.problems) == ({}, ())


@pytest.mark.parametrize("content", CONTENTS)
def test_links_are_followed_and_each_folder_counts_once(tmp_path, content):
    elsewhere = touch_patient(tmp_path / "elsewhere" / "folder")
    dataset = tmp_path / "dataset"
    dataset.mkdir()
    try:
        for name in ("a", "b"):
            (dataset / name).symlink_to(elsewhere, target_is_directory=True)
        (dataset / "gone").symlink_to(tmp_path / "gone", target_is_directory=True)
        (dataset / "itself").symlink_to(dataset / "itself", target_is_directory=True)
    except OSError:
        pytest.skip("no links here")
    found = find_by_name(content, dataset, elsewhere)
    assert (found.patients, found.problems, found.empty) == ({"p": dataset / "a"}, (), ())


@pytest.mark.parametrize("content", CONTENTS)
def test_a_patients_name_is_that_in_its_files(tmp_path, content):
    names = {"1": "z", "2": "a", "B": "m"}
    for folder, name in names.items():
        touch_patient(tmp_path / folder, name)
    touch(tmp_path / "empty")
    found = find_by_name(content, tmp_path)
    assert list(found.patients.items()) == [(name, tmp_path / folder) for folder, name in names.items()]
    assert (found.problems, found.empty) == ((), ())


@pytest.mark.parametrize("content", CONTENTS)
def test_the_subfolders_of_a_patients_own_folder_are_not_searched(tmp_path, content):
    touch_patient(tmp_path, "p")
    touch_patient(tmp_path / "earlier", "p")
    found = find_by_name(content, tmp_path)
    assert (found.patients, found.problems) == ({"p": tmp_path}, ())
    touch_patient(tmp_path / "other", "q")
    found = find_by_name(content, tmp_path)
    assert found.patients == {"p": tmp_path}
    (problem,) = found.problems
    assert problem.path == tmp_path / "other"
    assert str(problem).startswith(f"{tmp_path / 'other'} is inside {tmp_path}")


FORMATS = ["p_1_mask.tif", "p_tumour.tif", "p_TUMOUR.TIFF", "p_tumour.nii.gz", "p_tumour.nii"]


@pytest.mark.parametrize("first", range(len(FORMATS)))
def test_one_format_comes_first(tmp_path, first):
    touch(tmp_path / "f", *FORMATS[first:], "q_tumour.nii", "p_probability.tif", "p edited.tif")
    found = find_by_name("labels", tmp_path)
    file = tmp_path / "f" / FORMATS[first]
    assert found.patients == {"p": file if first else tmp_path / "f", "q": tmp_path / "f" / "q_tumour.nii"}
    assert found.problems == ()
    assert find_by_name("labels", file).patients.keys() == {"p" if first else file.name}


def test_label_files_may_be_in_one_folder_and_in_subfolders(tmp_path):
    touch(tmp_path, "p_tumour.tif", "q_tumour.nii.gz")
    touch(tmp_path / "r", "r_tumour.tif")
    found = find_by_name("labels", tmp_path)
    assert list(found.patients) == ["p", "q", "r"]
    assert found.problems == ()


def test_label_files_are_preferred_to_images_without_masks(tmp_path, write_slices):
    write_slices(tmp_path / "p", "p", 2, masks=False)
    (folder,) = find_by_name("labels", tmp_path).patients.values()
    with pytest.raises(PatientError, match="holds no masks"):
        read_labels(folder)
    for folder in ("p", "separate"):
        file = touch(tmp_path / folder, "p_tumour.nii") / "p_tumour.nii"
        found = find_by_name("labels", tmp_path)
        assert (found.patients, found.problems) == ({"p": file}, ())
        file.unlink()


@pytest.mark.parametrize("content", CONTENTS)
def test_a_second_folder_of_a_patient_is_named_with_the_first(tmp_path, content):
    for folder in ("a", "b", "c"):
        touch_patient(tmp_path / folder, "p")
    found = find_by_name(content, tmp_path / "c", tmp_path)
    assert found.patients == {"p": tmp_path / "c"}
    assert len(found.problems) == 2
    for folder, problem in zip("ab", found.problems, strict=True):
        assert problem.path == tmp_path / folder
        assert str(problem).startswith(f"{problem.path} holds p a second time, after {tmp_path / 'c'};")


@pytest.mark.parametrize("content", CONTENTS)
def test_folders_that_cannot_be_used_are_named(tmp_path, locked, content):
    touch_patient(tmp_path / "good")
    touch(tmp_path / "mixed", "one_1.tif", "two_1.tif")
    touch(tmp_path / "twice", "t_1.tif", "t_01.tif")
    locked(touch_patient(tmp_path / "locked", "l"))
    found = find_by_name(content, tmp_path)
    assert found.patients == {"p": tmp_path / "good"}
    assert [problem.path.name for problem in found.problems] == ["locked", "mixed", "twice"]
    for problem in found.problems:
        assert str(problem.path) in str(problem)
        assert str(problem).endswith(".")
    assert not has_slices(tmp_path / "locked")


def test_patients_to_train_on_have_images_and_masks(tmp_path):
    both = touch_patient(tmp_path / "both")
    touch(tmp_path / "images", "i_1.tif")
    touch(tmp_path / "masks", "m_1_mask.tif")
    found = find_by_name("images and masks", tmp_path)
    assert found.patients == {"p": both}
    assert [str(problem).partition(";")[0] for problem in found.problems] == [
        f"{tmp_path / 'images'} has no masks",
        f"{tmp_path / 'masks'} has no images",
    ]
    assert list(find_by_name("images", tmp_path).patients) == ["p", "i"]


def test_masks_alone_cannot_be_segmented(tmp_path):
    touch_patient(tmp_path / "both")
    touch(tmp_path / "images", "i_1.tif")
    masks = touch(tmp_path / "masks", "m_1_mask.tif")
    for paths in ([tmp_path], [tmp_path / "both", tmp_path / "images", masks]):
        found = find_by_name("images to segment", *paths)
        assert found.patients == {"p": tmp_path / "both", "i": tmp_path / "images"}
        assert found.empty == ()
        assert found.problems == (Problem(masks, f"{masks} holds masks only; there is nothing to segment."),)


@pytest.mark.parametrize("inside", [False, True])
def test_what_cannot_be_segmented_is_named_once(tmp_path, locked, inside):
    closed = locked(touch_patient(tmp_path / "cohort" / "locked"))
    found = find_by_name("images to segment", tmp_path / "cohort" if inside else closed)
    (problem,) = (*found.problems, *found.empty)
    assert problem.path == closed
    assert str(problem).startswith(f"{closed} cannot be opened (Permission denied)")


def test_given_folders_without_anything_to_segment_are_named(tmp_path):
    touch_patient(tmp_path / "p")
    empty, missing = touch(tmp_path / "empty", "notes.txt"), tmp_path / "missing"
    found = find_by_name("images to segment", tmp_path / "p", empty, missing)
    assert found.patients == {"p": tmp_path / "p"}
    assert found.empty == (Problem(empty, f"{empty} contains no patient's images; choose another folder."),)
    (problem,) = found.problems
    assert problem.path == missing
    assert str(problem).startswith(f"{missing} cannot be opened (No such file or directory)")


@pytest.mark.parametrize("name", ["lost+found", "System Volume Information", "$RECYCLE.BIN", "$Recycle.Bin"])
def test_folders_of_the_system_are_ignored(tmp_path, locked, name):
    touch_patient(tmp_path / "p")
    system = touch_patient(tmp_path / name, "q")
    for _ in ("open", "locked"):
        for content in CONTENTS:
            found = find_by_name(content, tmp_path)
            assert (found.patients, found.problems, found.empty) == ({"p": tmp_path / "p"}, (), ())
        assert patient_folders(tmp_path) == [tmp_path / "p"]
        locked(system)


def test_paths_without_patients_are_named(tmp_path):
    touch_patient(tmp_path / "full" / "p")
    touch(tmp_path / "nothing", "notes.txt")
    found = find_by_name("labels", tmp_path / "full", tmp_path / "nothing", tmp_path / "full" / "p")
    assert found.patients == {"p": tmp_path / "full" / "p"}
    assert found.problems == ()
    (problem,) = found.empty
    assert problem.path == tmp_path / "nothing"
    assert str(problem).startswith(f"{tmp_path / 'nothing'} contains no patient's labels;")


def test_a_thousand_patients_are_found_by_their_names_alone(tmp_path):
    for number in range(1000):
        touch_patient(tmp_path / f"{number:04}", f"p{number}")
    for content in CONTENTS:
        assert len(find_by_name(content, tmp_path).patients) == 1000


def test_a_search_pauses_before_each_folder(tmp_path):
    for name in "abc":
        touch_patient(tmp_path / name, name)
    assert len(list(search("images", [tmp_path]))) == 4


def test_patients_to_segment_are_found_among_and_inside_folders(tmp_path, write_slices):
    for name in "abc":
        write_slices(tmp_path / name, name, 1)
    missing = tmp_path / "missing"
    (tmp_path / "b" / "notes_1.tif").mkdir()
    (tmp_path / "slices_1.tif").mkdir()
    found = find_by_name("images to segment", tmp_path / "b", tmp_path, missing)
    assert list(found.patients.items()) == [(name, tmp_path / name) for name in "bac"]
    assert [problem.path for problem in found.problems] == [missing]


# --- names and layouts of other systems ----------------------------------------------------------


def test_composed_and_decomposed_names_are_one_patient(tmp_path, write_slices):
    composed, decomposed = (unicodedata.normalize(form, "Zoë") for form in ("NFC", "NFD"))
    write_slices(tmp_path / "a", composed)
    write_slices(tmp_path / "b", decomposed)
    found = find_by_name("images", tmp_path)
    assert dict(found.patients) == {composed: tmp_path / "a"}
    assert "a second time" in str(found.problems[0])
    (tmp_path / "c").mkdir()
    tifffile.imwrite(tmp_path / "c" / f"{decomposed}_tumour.tif", np.zeros((2, 4, 4), np.uint8))
    assert list(find_by_name("labels", tmp_path / "c").patients) == [composed]


@pytest.mark.parametrize("name", ["gt", "GT", "masks", "Labels", "ground_truth", "labelsTr", "manual masks"])
def test_a_folder_named_like_masks_holds_no_images(tmp_path, write_slices, name):
    write_slices(tmp_path / "images", "p", masks=False)
    write_slices(tmp_path / name, "p", masks=False)
    for content in ("images", "images to segment"):
        found = find_by_name(content, tmp_path)
        assert dict(found.patients) == {"p": tmp_path / "images"}
        assert f"{tmp_path / name} seems to hold masks" in str(found.problems[0])
    problems = [str(problem) for problem in find_by_name("images and masks", tmp_path).problems]
    assert any("_mask.tif" in problem for problem in problems)
    assert f"{tmp_path / name} seems to hold masks" in " ".join(list_patients(tmp_path).problems.values())


def test_a_patients_folder_may_have_any_name_if_its_masks_are_named(tmp_path, write_slices):
    write_slices(tmp_path / "masks", "p")
    assert find_by_name("images", tmp_path).patients == {"p": tmp_path / "masks"}


@pytest.mark.parametrize("content", ["images", "images to segment", "images and masks", "labels"])
def test_other_files_among_the_folders_are_skipped_with_a_notice(tmp_path, write_slices, content):
    write_slices(tmp_path / "a", "p")
    (tmp_path / "README.md").write_text("about the data")
    with pytest.warns(LggSegWarning, match=r"README\.md .* is skipped"):
        found = find_by_name(content, tmp_path / "README.md", tmp_path / "a")
    assert dict(found.patients) == {"p": tmp_path / "a"}
    assert found.problems == found.empty == ()
    alone = find_by_name(content, tmp_path / "README.md")
    assert "README.md is a file" in str(alone.empty[0])


def test_masks_may_end_in_tiff_beside_images_in_tif(tmp_path, write_slices):
    _, mask = write_slices(tmp_path, "p", 2)
    for number in (1, 2):
        (tmp_path / f"p_{number}_mask.tif").rename(tmp_path / f"p_{number}_mask.tiff")
    np.testing.assert_array_equal(read_patient(tmp_path).truth, mask // 255)
    np.testing.assert_array_equal(read_slices([tmp_path / "p_1.tif"]).truth, mask[:1] // 255)


def test_numbers_with_zeros_keep_them(tmp_path, write_slices):
    for number, old in enumerate((8, 9, 10), start=8):
        write_slices(tmp_path / "in", "p", [old])
        for kind in ("", "_mask"):
            file = tmp_path / "in" / f"p_{old}{kind}.tif"
            file.rename(file.with_name(f"p_{number:03}{kind}.tif"))
    patient = read_patient(tmp_path / "in")
    assert patient.number_width == 3
    names = {file.name for file in (tmp_path / "in").iterdir()}
    assert {file.name for file in write_patient(tmp_path / "copy", patient)} == names
    labels = LabelMap("p", patient.truth, patient.slice_numbers, number_width=patient.number_width)
    written = {file.name for file in put_labels(tmp_path / "copy", labels, "masks")}
    assert written == {name for name in names if "mask" in name}
    (tmp_path / "in" / "p_009.tif").unlink()
    (tmp_path / "in" / "p_009_mask.tif").unlink()
    with pytest.raises(PatientError, match=r"p_009\.tif is missing"):
        read_patient(tmp_path / "in")


def test_numbers_of_any_length_are_no_reason_to_fail(tmp_path, write_slices):
    write_slices(tmp_path, "p", 2)
    (tmp_path / f"p_{'9' * 200}.tif").write_bytes(b"")
    assert read_patient(tmp_path).slice_numbers == (1, 2)


def test_folders_with_images_of_other_names_are_named(tmp_path, write_slices):
    write_slices(tmp_path / "a", "p")
    for name in ("B-1.tif", "slice1.tif", "D_1.png"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_bytes(b"")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "about.txt").write_text("")
    with pytest.warns(LggSegWarning, match=r"B-1\.tif \(and 2 other folders\) holds images") as found:
        assert list(find_by_name("images", tmp_path).patients) == ["p"]
    assert len(found) == 1
