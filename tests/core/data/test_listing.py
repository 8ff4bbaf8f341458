"""The rows of a table of patients: each subfolder of a dataset folder under a name of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_lgg_seg.core.data.listing import list_patients
from napari_lgg_seg.core.errors import PatientError


def touch(folder: Path, *names: str) -> Path:
    """Write empty files: a listing goes by the names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def test_patients_are_named_as_in_their_files(tmp_path):
    folders = {"z": tmp_path / "1", "a": tmp_path / "2", "m": tmp_path / "B"}
    for name, folder in folders.items():
        touch(folder, f"{name}_1.tif")
    listed = list_patients(tmp_path)
    assert list(listed.folders.items()) == list(folders.items())
    assert listed.problems == {}


def test_all_folders_are_listed_except_the_results(tmp_path):
    dataset = tmp_path / "cohort"
    touch(dataset / "patient", "p_1.tif")
    for name in ("A", "empty", ".hidden", "lost+found", "results"):
        touch(dataset / name)
    touch(dataset, "data.csv")
    listed = list_patients(dataset, dataset / "results")
    assert listed.folders == {"A": dataset / "A", "empty": dataset / "empty", "p": dataset / "patient"}
    assert listed.problems.keys() == {"A", "empty"}
    assert f"{dataset / 'empty'} holds no slices" in listed.problems["empty"]


def test_a_second_folder_of_a_patient_is_listed_under_its_own_name(tmp_path):
    for folder in ("a", "b", "c"):
        touch(tmp_path / folder, "p_1.tif")
    listed = list_patients(tmp_path)
    assert listed.folders == {"p": tmp_path / "a", "b": tmp_path / "b", "c": tmp_path / "c"}
    assert listed.problems.keys() == {"b", "c"}
    for name, problem in listed.problems.items():
        assert problem.startswith(
            f"{tmp_path / name} holds p a second time, after {tmp_path / 'a'}; rename one of them"
        )


def test_a_folder_with_a_problem_never_takes_a_patients_name(tmp_path):
    touch(tmp_path / "c")  # holds nothing, and is called like a patient
    touch(tmp_path / "d", "c_1.tif")
    touch(tmp_path / "e", "c (2)_1.tif")
    touch(tmp_path / "f", "d_1.tif")
    touch(tmp_path / "g", "d_1.tif")
    listed = list_patients(tmp_path)
    assert {name: folder.name for name, folder in listed.folders.items()} == {
        "c (3)": "c",
        "c": "d",
        "c (2)": "e",
        "d": "f",
        "g": "g",
    }
    assert listed.problems.keys() == {"c (3)", "g"}


def test_folders_that_cannot_be_used_are_listed_with_the_reason(tmp_path):
    touch(tmp_path / "mixed", "one_1.tif", "two_1.tif")
    touch(tmp_path / "twice", "t_1.tif", "t_01.tif")
    listed = list_patients(tmp_path)
    assert listed.folders == {"mixed": tmp_path / "mixed", "twice": tmp_path / "twice"}
    assert "slices of two patients" in listed.problems["mixed"]
    assert "slice 1 twice" in listed.problems["twice"]


def test_a_link_to_a_listed_folder_is_a_second_one(tmp_path):
    elsewhere = touch(tmp_path / "elsewhere", "p_1.tif")
    dataset = tmp_path / "dataset"
    dataset.mkdir()
    try:
        for name in ("a", "b"):
            (dataset / name).symlink_to(elsewhere, target_is_directory=True)
    except OSError:
        pytest.skip("no links here")
    listed = list_patients(dataset)
    assert listed.folders == {"p": dataset / "a", "b": dataset / "b"}
    assert listed.problems.keys() == {"b"}


def test_a_thousand_patients_are_listed_by_their_names_alone(tmp_path):
    for number in range(1000):
        touch(tmp_path / f"{number:04}", f"p{number}_1.tif")
    assert len(list_patients(tmp_path).folders) == 1000


def test_folders_without_patients_are_refused(tmp_path):
    touch(tmp_path / "patient", "p_1.tif")
    touch(tmp_path / "nothing")
    for wrong, what in (
        (tmp_path / "patient", "patient's own"),
        (tmp_path / "nothing", "no folders"),
        (tmp_path / "x", "x"),
    ):
        with pytest.raises(PatientError, match=what):
            list_patients(wrong)
