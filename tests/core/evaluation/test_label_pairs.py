from __future__ import annotations

import re
import shutil

import numpy as np
import pytest
from label_writing import write_labels, write_masks

from napari_lgg_seg.core.data.label_files import LabelMap
from napari_lgg_seg.core.data.masks import write_patient
from napari_lgg_seg.core.data.patients import read_patient
from napari_lgg_seg.core.errors import PatientError
from napari_lgg_seg.core.evaluation.label_pairs import LabelPair, find_pairs, read_pair

NAME, OTHER = "TCGA_DU_0001_19990101", "TCGA_HT_0002_20000202"


def test_patients_are_matched_by_name_in_any_format(tmp_path, make_patient):
    for name in (NAME, OTHER):
        write_patient(tmp_path / "truth" / f"folder of {name}", make_patient(name))
    truth = make_patient(NAME).truth
    write_masks(tmp_path / "out" / NAME, NAME, truth)
    write_labels(tmp_path / "out", LabelMap("third", truth), "tiff")
    found = find_pairs(tmp_path / "out", tmp_path / "truth")
    by_name = {pair.name: pair for pair in found.pairs}
    folder = tmp_path / "truth" / f"folder of {NAME}"
    assert by_name[NAME] == LabelPair(NAME, tmp_path / "out" / NAME, folder, folder)
    assert by_name["third"] == LabelPair("third", tmp_path / "out" / "third" / "third_tumour.tif", None, None)
    assert found.without_prediction == (OTHER,)
    assert found.problems == ()


def test_a_single_patient_is_matched_whatever_its_names(tmp_path, make_patient):
    patient = make_patient(NAME)
    write_patient(tmp_path / "truth", patient)
    write_masks(tmp_path / "out", "by hand", patient.truth)
    (pair,) = find_pairs(tmp_path / "out", tmp_path / "truth").pairs
    assert (pair.name, pair.images) == (NAME, tmp_path / "truth")
    (pair,) = find_pairs(tmp_path / "out", images=tmp_path / "truth").pairs
    assert (pair.name, pair.truth, pair.images) == ("by hand", None, tmp_path / "truth")


def test_images_may_be_in_a_folder_of_their_own(tmp_path, make_patient):
    patient = make_patient(NAME)
    write_patient(tmp_path / "images" / NAME, patient)
    for folder in ("truth", "out"):
        write_masks(tmp_path / folder / NAME, NAME, patient.truth)
    (pair,) = find_pairs(tmp_path / "out", tmp_path / "truth").pairs
    assert pair.images is None
    (pair,) = find_pairs(tmp_path / "out", tmp_path / "truth", tmp_path / "images").pairs
    np.testing.assert_array_equal(read_pair(pair).images, patient.volume)


def mix_patients(folder, first, second, labels):
    """Write the masks of two patients to one folder."""
    write_masks(folder, first, labels)
    for file in list(folder.iterdir()):
        shutil.copy(file, folder / file.name.replace(first, second))


def test_a_folder_with_two_patients_does_not_affect_others(tmp_path, make_patient):
    truth = make_patient(NAME).truth
    write_masks(tmp_path / "out" / NAME, NAME, truth)
    mix_patients(tmp_path / "out" / "mixed", OTHER, "third", truth)
    found = find_pairs(tmp_path / "out")
    assert [pair.name for pair in found.pairs] == [NAME]
    (problem,) = found.problems
    assert "two patients" in problem
    assert str(tmp_path / "out" / "mixed") in problem
    alone = find_pairs(tmp_path / "out" / "mixed")
    assert (alone.pairs, alone.problems) == ((), (problem,))


def test_a_patient_left_over_is_not_matched_with_another_name(tmp_path, make_patient):
    """The only usable prediction need not be that of the only patient with ground truth."""
    truth = make_patient(NAME).truth
    write_masks(tmp_path / "truth" / NAME, NAME, truth)
    write_masks(tmp_path / "out" / OTHER, OTHER, truth)
    mix_patients(tmp_path / "out" / NAME, NAME, "third", truth)
    found = find_pairs(tmp_path / "out", tmp_path / "truth")
    assert [(pair.name, pair.truth) for pair in found.pairs] == [(OTHER, None)]
    assert found.without_prediction == (NAME,)


@pytest.mark.parametrize("empty", ["predictions", "truth", "images"])
def test_an_empty_folder_is_refused(tmp_path, make_patient, empty):
    folders = {name: tmp_path / name for name in ("predictions", "truth", "images")}
    for name, folder in folders.items():
        folder.mkdir()
        if name != empty:
            write_patient(folder / NAME, make_patient(NAME))
    with pytest.raises(PatientError, match=re.escape(str(folders[empty]))):
        find_pairs(**folders)


def test_slice_numbers_are_taken_from_the_files(tmp_path, write_slices, make_patient):
    write_slices(tmp_path / "truth", NAME, range(9, 12))
    mask = read_patient(tmp_path / "truth").truth
    write_labels(tmp_path / "out", LabelMap(NAME, mask), "tiff")
    (pair,) = find_pairs(tmp_path / "out", tmp_path / "truth").pairs
    assert read_pair(pair).slice_numbers == (9, 10, 11)
    (pair,) = find_pairs(tmp_path / "out").pairs
    assert read_pair(pair).slice_numbers == (1, 2, 3)


def test_different_grids_are_refused(tmp_path, make_patient):
    patient = make_patient(NAME)
    write_patient(tmp_path / "truth", patient)
    write_masks(tmp_path / "out", NAME, patient.truth[:-1])
    (pair,) = find_pairs(tmp_path / "out", tmp_path / "truth").pairs
    with pytest.raises(PatientError, match=r"5 x 64 x 64 voxels but .*6 x 64 x 64"):
        read_pair(pair)


# --- the same slices at the same place -----------------------------------------------------------


def pair_of(tmp_path, write_first, write_second):
    """A pair of labels: each is written by a function of a folder, which returns the path to read."""
    return LabelPair(NAME, write_first(tmp_path / "out"), write_second(tmp_path / "truth"), None)


def masks_of(labels, numbers):
    def write(folder):
        write_masks(folder, "P", labels, numbers)
        return folder

    return write


@pytest.mark.parametrize("numbers", [(2, 3), (11, 12)])
def test_slices_are_compared_by_number(tmp_path, numbers):
    labels = np.zeros((2, 6, 6), np.uint8)
    labels[:, 2:4, 2:4] = 1
    pair = pair_of(tmp_path, masks_of(labels, numbers), masks_of(labels, (1, 2)))
    with pytest.raises(PatientError, match=rf"holds slices 1 and 2 but .* {numbers[0]} and {numbers[1]}"):
        read_pair(pair)


@pytest.mark.parametrize("file_format", ["tiff", "nifti"])
def test_label_files_know_their_slice_numbers(tmp_path, file_format):
    labels = np.zeros((2, 6, 6), np.uint8)
    labels[:, 2:4, 2:4] = 1

    def write(numbers):
        label_map = LabelMap("P", labels, numbers)
        return lambda folder: write_labels(folder, label_map, file_format)[0]

    assert read_pair(pair_of(tmp_path, write((4, 5)), masks_of(labels, (4, 5)))).slice_numbers == (4, 5)
    with pytest.raises(PatientError, match="they must be the same slices"):
        read_pair(pair_of(tmp_path, write((4, 5)), masks_of(labels, (5, 6))))


def write_image(path, labels, affine):
    nibabel = pytest.importorskip("nibabel")
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(labels.T, affine), path)
    return path


def test_labels_are_compared_where_they_lie(tmp_path, make_patient):
    nibabel = pytest.importorskip("nibabel")
    labels = np.zeros((3, 6, 8), np.uint8)
    labels[1, 1:3, 5:8] = 1
    ours = write_labels(tmp_path, LabelMap(NAME, labels, spacing=(3.0, 0.5, 0.5)), "nifti")[0]
    reordered = tmp_path / "ras.nii.gz"
    nibabel.save(nibabel.as_closest_canonical(nibabel.load(ours)), reordered)
    write_masks(tmp_path / "masks", NAME, labels)
    for truth in (ours, tmp_path / "masks"):
        volumes = read_pair(LabelPair(NAME, reordered, truth, None))
        np.testing.assert_array_equal(volumes.prediction, volumes.truth)


@pytest.mark.parametrize("change", ["origin", "spacing", "tilt"])
def test_labels_that_lie_elsewhere_are_refused(tmp_path, change):
    labels = np.zeros((3, 6, 8), np.uint8)
    labels[1, 1:3, 5:8] = 1
    affine = np.diag([-0.5, -0.5, 3.0, 1.0])
    other = affine.copy()
    if change == "origin":
        other[:3, 3] = 0, 4, 0
    elif change == "spacing":
        other[2, 2] = 3.5
    else:
        other[1, 2] = 0.2
    first = write_image(tmp_path / "first.nii.gz", labels, affine)
    second = write_image(tmp_path / "second.nii.gz", labels, other)
    with pytest.raises(PatientError, match=r"lie up to [\d.]+ mm apart"):
        read_pair(LabelPair(NAME, first, second, None))
    almost = affine + 1e-6
    read_pair(LabelPair(NAME, first, write_image(tmp_path / "third.nii.gz", labels, almost), None))
