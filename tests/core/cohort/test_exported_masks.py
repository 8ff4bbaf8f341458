"""Labels exported as masks: what is written, and what is never replaced."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_lgg_seg.core.cohort.patient_results import PatientResults
from napari_lgg_seg.core.data.discover import is_patient_folder
from napari_lgg_seg.core.data.label_files import LabelMap
from napari_lgg_seg.core.data.masks import mask_name
from napari_lgg_seg.core.data.patients import read_patient
from napari_lgg_seg.core.errors import ExistingMasksError, ExportError

LABELS = np.random.default_rng(0).integers(0, 2, (4, 9, 7)).astype(np.uint8)


def content(folder):
    """Every file below a folder, hidden ones too, with its bytes."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def visible(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def write_masks(folder, patient, labels, numbers=None, *, overwrite=False) -> list[Path]:
    label_map = LabelMap(patient, labels, () if numbers is None else tuple(numbers))
    return PatientResults(folder, patient).write_copy(label_map, "masks", by_hand=True, overwrite=overwrite)


def refusal(kind, *arguments, **options) -> str:
    with pytest.raises(kind) as error:
        write_masks(*arguments, **options)
    text = str(error.value)
    assert text.endswith(".")
    assert "\n" not in text
    assert not re.search(r"\. [A-Z]", text), "more than one sentence"
    return text


@pytest.fixture
def full_disk(monkeypatch):
    """Let the n-th TIFF (from 1) end in "no space left", half written."""

    def fill_at(n):
        write, calls = tifffile.imwrite, []

        def imwrite(path, *arguments, **options):
            calls.append(path)
            if len(calls) == n:
                path.write_bytes(b"half")
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(path, *arguments, **options)

        monkeypatch.setattr(tifffile, "imwrite", imwrite)

    return fill_at


@pytest.mark.parametrize("numbers", [None, (1, 2, 3, 4), (9, 10, 11, 12), np.arange(5, 9)])
@pytest.mark.parametrize("folder", ["new", "several/new ones/ünïcode"])
def test_masks_are_read_back_as_a_patient(tmp_path, numbers, folder):
    paths = write_masks(tmp_path / folder, "TCGA_DU_0001_19990101", LABELS, numbers)
    assert is_patient_folder(tmp_path / folder)
    patient = read_patient(tmp_path / folder)
    assert patient.volume is None
    assert patient.name == "TCGA_DU_0001_19990101"
    assert patient.slice_numbers == tuple(range(1, 5) if numbers is None else numbers)
    np.testing.assert_array_equal(patient.truth, LABELS)
    assert [path.name for path in paths] == [mask_name(patient.name, n) for n in patient.slice_numbers]
    assert visible(tmp_path / folder) == sorted(path.name for path in paths)


def test_other_programs_open_the_masks(tmp_path):
    image = pytest.importorskip("PIL.Image")
    for path, labels in zip(write_masks(tmp_path, "p", LABELS), LABELS, strict=True):
        with image.open(path) as opened:
            assert opened.mode == "L"
            assert getattr(opened, "n_frames", 1) == 1
            np.testing.assert_array_equal(np.asarray(opened), labels * 255)
        pixels = tifffile.imread(path)
        assert pixels.dtype == np.uint8
        np.testing.assert_array_equal(pixels, labels * 255)


@pytest.mark.parametrize("dtype", [bool, np.int8, np.int32, np.uint16, np.int64])
def test_all_non_zero_labels_become_255(tmp_path, dtype):
    labels = (LABELS * 3).astype(dtype)
    for path, expected in zip(write_masks(tmp_path, "p", labels), LABELS * 255, strict=True):
        np.testing.assert_array_equal(tifffile.imread(path), expected)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 9), (3, 9, 1), (2, 4, 3)])
def test_small_masks_keep_their_shape(tmp_path, shape):
    write_masks(tmp_path, "p", np.ones(shape, np.uint8))
    assert read_patient(tmp_path).truth.shape == shape


def test_labels_need_not_be_contiguous(tmp_path):
    labels = LABELS[:, ::-1, ::2]
    write_masks(tmp_path, "p", labels)
    np.testing.assert_array_equal(read_patient(tmp_path).truth, labels)


@pytest.mark.parametrize(
    "labels",
    [
        LABELS.astype(np.float32),
        LABELS[0],
        LABELS[None],
        LABELS.astype(complex),
        np.array(1),
        np.zeros((0, 4, 4), np.uint8),
    ],
    ids=["float", "2D", "4D", "complex", "0D", "empty"],
)
def test_unsuitable_labels_are_refused(tmp_path, labels):
    refusal(ExportError, tmp_path / "new", "p", labels)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("numbers", [(1, 2, 3), (1, 2, 3, 4, 5), (1, 2, 2, 3)])
def test_wrong_slice_numbers_are_refused(tmp_path, numbers):
    assert "4 different slice numbers" in refusal(ExportError, tmp_path / "new", "p", LABELS, numbers)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("masks", [False, True])
def test_masks_are_never_written_next_to_images(tmp_path, write_slices, overwrite, masks):
    write_slices(tmp_path, "p", 4, masks=masks)
    before = content(tmp_path)
    assert "p_1.tif" in refusal(ExportError, tmp_path, "p", LABELS, overwrite=overwrite)
    assert "p_1.tif" in refusal(ExportError, tmp_path, "other", LABELS, overwrite=overwrite)
    assert content(tmp_path) == before


def test_masks_are_not_replaced_without_permission(tmp_path):
    write_masks(tmp_path, "p", LABELS)
    before = content(tmp_path)
    assert "p_1_mask.tif" in refusal(ExistingMasksError, tmp_path, "p", 1 - LABELS)
    assert content(tmp_path) == before


def test_overwriting_replaces_all_masks_and_removes_stale_ones(tmp_path):
    write_masks(tmp_path, "p", LABELS, (3, 4, 5, 6))
    (tmp_path / "notes.txt").write_text("mine")
    write_masks(tmp_path, "p", 1 - LABELS[:2], (4, 5), overwrite=True)
    assert visible(tmp_path) == ["notes.txt", "p_4_mask.tif", "p_5_mask.tif"]
    np.testing.assert_array_equal(read_patient(tmp_path).truth, 1 - LABELS[:2])


def test_other_files_are_left_alone(tmp_path):
    (tmp_path / "picture.tif").write_bytes(b"mine")
    write_masks(tmp_path, "p", LABELS)
    assert (tmp_path / "picture.tif").read_bytes() == b"mine"


def test_file_instead_of_a_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    assert "file" in refusal(ExportError, tmp_path / "file", "p", LABELS)
    assert (tmp_path / "file").read_text() == "mine"
    assert "file" in refusal(ExportError, tmp_path / "file" / "below", "p", LABELS)


@pytest.mark.parametrize("n", [1, 3, 4])
def test_full_disk_leaves_old_masks_whole(tmp_path, full_disk, n):
    write_masks(tmp_path / "p", "p", LABELS)
    before = content(tmp_path)
    full_disk(n)
    text = refusal(ExportError, tmp_path / "p", "p", 1 - LABELS, overwrite=True)
    assert "No space left on device" in text
    assert str(tmp_path) in text
    assert content(tmp_path) == before


def test_full_disk_leaves_nothing_in_a_new_folder(tmp_path, full_disk):
    full_disk(2)
    refusal(ExportError, tmp_path / "new", "p", LABELS)
    assert not (tmp_path / "new").exists() or visible(tmp_path / "new") == []


def test_a_new_folder_has_the_usual_permissions(tmp_path):
    (tmp_path / "usual").mkdir()
    write_masks(tmp_path / "new", "p", LABELS)
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_another_patients_masks_survive_even_overwriting(tmp_path):
    write_masks(tmp_path, "p", LABELS)
    before = content(tmp_path)
    with pytest.raises(ExportError, match="another patient"):
        write_masks(tmp_path, "q", LABELS, overwrite=True)
    assert content(tmp_path) == before


@pytest.mark.parametrize(("name", "numbers"), [("", None), ("a/b", None), ("p", (-1, 0, 1))])
def test_names_that_could_not_be_read_back_are_refused(tmp_path, name, numbers):
    with pytest.raises(ExportError):
        write_masks(tmp_path / "new", name, LABELS, numbers)
    assert not (tmp_path / "new").exists()
