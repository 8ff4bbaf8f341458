"""Masks and whole patients written in the dataset's layout: what is written, and what is never replaced."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import tifffile

from napari_lgg_seg.core.data.discover import is_patient_folder
from napari_lgg_seg.core.data.masks import mask_name, write_masks, write_patient
from napari_lgg_seg.core.data.patients import read_patient
from napari_lgg_seg.core.errors import ExistingMasksError, ExportError

LABELS = np.random.default_rng(0).integers(0, 2, (4, 9, 7)).astype(np.uint8)


def content(folder):
    """Every file below a folder, hidden ones too, with its bytes."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def entries(folder):
    return sorted(path.name for path in folder.iterdir())


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


# --- masks -------------------------------------------------------------------------------------


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
    assert entries(tmp_path / folder) == sorted(path.name for path in paths)


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


@pytest.mark.parametrize("numbers", [(), (1, 2, 3), (1, 2, 3, 4, 5), (1, 2, 2, 3)])
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
    assert entries(tmp_path) == ["notes.txt", "p_4_mask.tif", "p_5_mask.tif"]
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
    write_masks(tmp_path, "p", LABELS)
    before = content(tmp_path)
    full_disk(n)
    text = refusal(ExportError, tmp_path, "p", 1 - LABELS, overwrite=True)
    assert "No space left on device" in text
    assert str(tmp_path) in text
    assert content(tmp_path) == before
    assert len(entries(tmp_path)) == 4


def test_full_disk_leaves_nothing_in_a_new_folder(tmp_path, full_disk):
    full_disk(2)
    refusal(ExportError, tmp_path / "new", "p", LABELS)
    assert not (tmp_path / "new").exists() or entries(tmp_path / "new") == []


def test_a_new_folder_has_the_usual_permissions(tmp_path):
    (tmp_path / "usual").mkdir()
    write_masks(tmp_path / "new", "p", LABELS)
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot kill a program that way")
@pytest.mark.parametrize(
    ("call", "n"), [("tifffile.imwrite", 1), ("tifffile.imwrite", 4), ("os.fsync", 3), ("os.rename", 1)]
)
def test_a_killed_program_leaves_no_half_written_folder(tmp_path, call, n):
    code = f"""
import os, signal, sys, tifffile
import numpy as np
from napari_lgg_seg.core.data.masks import write_masks

done, calls = {call}, []

def kill(*arguments, **options):
    calls.append(arguments)
    if len(calls) == {n}:
        os.kill(os.getpid(), signal.SIGKILL)
    return done(*arguments, **options)

{call} = kill
write_masks(sys.argv[1], "p", np.ones((4, 9, 7), np.uint8))
"""
    command = [sys.executable, "-c", code, str(tmp_path / "new")]
    process = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert process.returncode == -signal.SIGKILL, process.stderr
    assert not (tmp_path / "new").exists()
    write_masks(tmp_path / "new", "p", LABELS)


def test_the_provenance_of_replaced_masks_is_removed(tmp_path):
    write_masks(tmp_path / "new", "p", LABELS, provenance="first")
    assert entries(tmp_path / "new")[0] == ".lgg-masks.json"
    assert (tmp_path / "new" / ".lgg-masks.json").read_text() == "first"
    write_masks(tmp_path / "new", "p", LABELS, overwrite=True, provenance="second")
    assert (tmp_path / "new" / ".lgg-masks.json").read_text() == "second"
    write_masks(tmp_path / "new", "p", LABELS, overwrite=True)
    assert len(entries(tmp_path / "new")) == 4


# --- whole patients ----------------------------------------------------------------------------


@pytest.mark.parametrize(("images", "masks"), [(True, True), (True, False), (False, True), (True, (6,))])
def test_a_patient_is_written_and_read_back(tmp_path, write_slices, images, masks):
    write_slices(tmp_path / "first", "TCGA_HT_1_2", range(5, 8), images=images, masks=masks)
    first = read_patient(tmp_path / "first")
    paths = write_patient(tmp_path / "second", first)
    second = read_patient(tmp_path / "second")
    assert entries(tmp_path / "second") == entries(tmp_path / "first") == sorted(p.name for p in paths)
    for attribute in ("name", "slice_numbers", "filled_sequences", "slices_without_mask"):
        assert getattr(second, attribute) == getattr(first, attribute)
    np.testing.assert_array_equal(second.volume, first.volume)
    np.testing.assert_array_equal(second.truth, first.truth)


def test_a_patient_in_memory_is_written_and_read_back(tmp_path, make_patient):
    patient = make_patient(shape=(3, 20, 24))
    write_patient(tmp_path, patient)
    again = read_patient(tmp_path)
    np.testing.assert_array_equal(again.volume, patient.volume)
    np.testing.assert_array_equal(again.truth, patient.truth)


def test_patient_is_not_written_over_another(tmp_path, make_patient):
    write_masks(tmp_path, "p", LABELS)
    before = content(tmp_path)
    with pytest.raises(ExportError, match="holds masks of another patient"):
        write_patient(tmp_path, make_patient())
    assert content(tmp_path) == before


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
