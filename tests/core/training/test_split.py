from __future__ import annotations

from collections import Counter
from itertools import product

import pytest

from napari_lgg_seg.core.data.patients import institution
from napari_lgg_seg.core.errors import TrainingError
from napari_lgg_seg.core.training.split import check_split, split_patients, take_patients

SIZES = {"CS": 16, "DU": 45, "EZ": 1, "FG": 14, "HT": 34}
NAMES = [f"TCGA_{code}_{n:04}_2000{n:04}" for code, size in SIZES.items() for n in range(size)]


# --- by chance ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("fraction", [0.1, 0.18, 0.2, 0.5])
def test_split_is_complete(fraction, seed):
    training, validation = split_patients(NAMES, fraction, seed)
    assert sorted(training + validation) == sorted(NAMES)
    assert not set(training) & set(validation)
    assert training == sorted(training)
    assert validation == sorted(validation)
    assert len(validation) == round(fraction * len(NAMES))


def test_split_is_stratified():
    worst = {}
    for seed, fraction in product(range(20), (0.1, 0.18, 0.2, 0.5)):
        picked = Counter(institution(name) for name in split_patients(NAMES, fraction, seed)[1])
        worst[seed, fraction] = max(abs(picked[code] - fraction * size) for code, size in SIZES.items())
    assert max(worst.values()) <= 1.5


def test_split_depends_on_the_seed_only():
    first = split_patients(NAMES, 0.2, 3)
    assert split_patients(NAMES[::-1], 0.2, 3) == first
    assert split_patients(NAMES, 0.2, 4) != first


def test_every_patient_can_be_in_validation():
    seen = {name for seed in range(60) for name in split_patients(NAMES, 0.2, seed)[1]}
    assert len(seen) > 0.9 * len(NAMES)


@pytest.mark.parametrize("fraction", [0.001, 0.2, 0.5, 0.999])
@pytest.mark.parametrize("names", [["a", "b"], ["TCGA_DU_1_1", "TCGA_HT_1_1"], ["a", "b", "c"]])
def test_few_names_leave_no_side_empty(names, fraction):
    training, validation = split_patients(names, fraction, 0)
    assert training
    assert validation
    assert sorted(training + validation) == names


def test_one_name_is_for_training():
    assert split_patients(["a"], 0.2, 0) == (["a"], [])
    assert split_patients([], 0.2, 0) == ([], [])


def test_other_names_form_one_group():
    training, validation = split_patients([f"patient {n}" for n in range(10)], 0.2, 0)
    assert (len(training), len(validation)) == (8, 2)


# --- patients that the initial model knows -----------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_seen_patients_are_for_training(seed):
    seen = set(NAMES[::2])
    training, validation = split_patients(NAMES, 0.2, seed, seen)
    assert not seen & set(validation)
    assert len(validation) == round(0.2 * len(NAMES))
    assert sorted(training + validation) == sorted(NAMES)


def test_split_without_seen_patients_is_stratified_over_the_others():
    seen = [name for name in NAMES if institution(name) == "DU"]
    picked = Counter(institution(name) for name in split_patients(NAMES, 0.2, 1, seen)[1])
    assert set(picked) >= {"CS", "FG", "HT"}
    assert "DU" not in picked


def test_strangers_among_the_seen_change_nothing():
    assert split_patients(NAMES, 0.2, 3, ["nobody we know"]) == split_patients(NAMES, 0.2, 3)


@pytest.mark.parametrize(("unseen", "validating"), [(1, 1), (2, 1), (5, 3), (10, 5)])
def test_half_of_few_unseen_patients_trains(unseen, validating):
    training, validation = split_patients(NAMES, 0.2, 0, NAMES[:-unseen])
    assert len(validation) == validating
    assert set(validation) <= set(NAMES[-unseen:])
    assert len(training) == len(NAMES) - validating


def test_where_all_are_seen_some_validate_all_the_same():
    assert split_patients(NAMES, 0.2, 3, NAMES) == split_patients(NAMES, 0.2, 3)


# --- by name -----------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_named_patients_are_held_out(tmp_path, encoding):
    listed = tmp_path / "validation.txt"
    listed.write_text(f"{NAMES[3]}\n\n  {NAMES[1]}  \n{NAMES[3]}\n", encoding=encoding)
    training, validation = take_patients(NAMES, listed)
    assert validation == sorted([NAMES[1], NAMES[3]])
    assert sorted(training + validation) == sorted(NAMES)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "names nobody, who"),
        (" \n\n", "names nobody, who"),
        (f"{NAMES[0]}\nnobody we know\n", "names nobody we know, who is not in the cohort"),
        ("\n".join(NAMES), "names every patient of the cohort"),
    ],
)
def test_a_list_that_cannot_be_is_refused(tmp_path, text, words):
    listed = tmp_path / "validation.txt"
    listed.write_text(text)
    with pytest.raises(TrainingError, match=rf"validation\.txt {words}.*\.$"):
        take_patients(NAMES, listed)


@pytest.mark.parametrize("kind", ["absent", "folder", "picture"])
def test_a_list_that_cannot_be_read_is_refused(tmp_path, kind):
    listed = tmp_path / "validation.txt"
    if kind == "folder":
        listed.mkdir()
    elif kind == "picture":
        listed.write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(TrainingError, match=r"validation\.txt cannot be read as a list of patients; .*\.$"):
        take_patients(NAMES, listed)


# --- whether it can be -------------------------------------------------------------------------


def test_a_split_that_can_be_passes():
    check_split(["a", "b"], ["c"])


@pytest.mark.parametrize(
    ("training", "validation", "words"),
    [
        (["a", "b"], ["b"], "b is in both training and validation"),
        (["a", "b", "a"], ["c"], "a is there twice"),
        (["a"], ["c", "c"], "c is there twice"),
        (["a"], [], "at least one patient for training and one for validation"),
        ([], ["a"], "at least one patient for training and one for validation"),
        ([], [], "at least one patient for training and one for validation"),
    ],
)
def test_a_split_that_cannot_be_is_refused(training, validation, words):
    with pytest.raises(TrainingError, match=rf"{words}.*\.$"):
        check_split(training, validation)
