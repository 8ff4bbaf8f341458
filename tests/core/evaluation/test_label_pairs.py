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
