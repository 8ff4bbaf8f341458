"""Splits of a cohort into training and validation patients."""

from __future__ import annotations

from collections import Counter
from itertools import product

import pytest

from napari_lgg_seg.core.data.patients import institution
from napari_lgg_seg.core.errors import TrainingError
from napari_lgg_seg.core.training.split import check_split, draw_rehearsal, split_by_file, split_patients

SIZES = {"CS": 16, "DU": 45, "EZ": 1, "FG": 14, "HT": 34}
NAMES = [f"TCGA_{code}_{n:04}_2000{n:04}" for code, size in SIZES.items() for n in range(size)]


# --- at random ---------------------------------------------------------------------------------


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
def test_neither_set_is_empty(names, fraction):
    training, validation = split_patients(names, fraction, 0)
    assert training
    assert validation
    assert sorted(training + validation) == names


def test_a_single_patient_is_used_for_training():
    assert split_patients(["a"], 0.2, 0) == (["a"], [])
    assert split_patients([], 0.2, 0) == ([], [])


def test_names_that_are_not_from_tcga_form_one_group():
    training, validation = split_patients([f"patient {n}" for n in range(10)], 0.2, 0)
    assert (len(training), len(validation)) == (8, 2)


# --- patients that the initial model was trained on --------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_seen_patients_are_used_for_training(seed):
    seen = set(NAMES[::2])
    training, validation = split_patients(NAMES, 0.2, seed, seen)
    assert not seen & set(validation)
    assert len(validation) == round(0.2 * len(NAMES))
    assert sorted(training + validation) == sorted(NAMES)


def test_the_split_is_stratified_over_patients_that_were_not_seen():
    seen = [name for name in NAMES if institution(name) == "DU"]
    picked = Counter(institution(name) for name in split_patients(NAMES, 0.2, 1, seen)[1])
    assert set(picked) >= {"CS", "FG", "HT"}
    assert "DU" not in picked


def test_seen_patients_of_other_cohorts_do_not_matter():
    assert split_patients(NAMES, 0.2, 3, ["unknown patient"]) == split_patients(NAMES, 0.2, 3)


@pytest.mark.parametrize(("unseen", "validating"), [(1, 1), (2, 1), (5, 3), (10, 5)])
def test_at_most_half_of_the_unseen_patients_validate(unseen, validating):
    training, validation = split_patients(NAMES, 0.2, 0, NAMES[:-unseen])
    assert len(validation) == validating
    assert set(validation) <= set(NAMES[-unseen:])
    assert len(training) == len(NAMES) - validating


def test_if_all_patients_were_seen_some_validate_nevertheless():
    assert split_patients(NAMES, 0.2, 3, NAMES) == split_patients(NAMES, 0.2, 3)


# --- listed in a file --------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_listed_patients_are_held_out(tmp_path, encoding):
    listed = tmp_path / "validation.txt"
    listed.write_text(f"{NAMES[3]}\n\n  {NAMES[1]}  \n{NAMES[3]}\n", encoding=encoding)
    training, validation = split_by_file(NAMES, listed)
    assert validation == sorted([NAMES[1], NAMES[3]])
    assert sorted(training + validation) == sorted(NAMES)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "lists no patients"),
        (" \n\n", "lists no patients"),
        (f"{NAMES[0]}\nunknown patient\n", "lists unknown patient, who is not in the cohort"),
        ("\n".join(NAMES), "lists every patient of the cohort"),
    ],
)
def test_an_invalid_list_is_refused(tmp_path, text, words):
    listed = tmp_path / "validation.txt"
    listed.write_text(text)
    with pytest.raises(TrainingError, match=rf"validation\.txt {words}.*\.$"):
        split_by_file(NAMES, listed)


@pytest.mark.parametrize("kind", ["absent", "folder", "image"])
def test_a_list_that_cannot_be_read_is_refused(tmp_path, kind):
    listed = tmp_path / "validation.txt"
    if kind == "folder":
        listed.mkdir()
    elif kind == "image":
        listed.write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(TrainingError, match=r"validation\.txt cannot be read as a list of patients; .*\.$"):
        split_by_file(NAMES, listed)


# --- rehearsal ---------------------------------------------------------------------------------


EARLIER = [f"earlier {number}" for number in range(20)]


@pytest.mark.parametrize(("share", "count"), [(0, 0), (0.5, 4), (0.2, 1), (0.75, 12), (0.95, 20)])
def test_rehearsal_patients_make_up_their_share(share, count):
    drawn = draw_rehearsal(EARLIER, 4, share, seed=3)
    assert len(set(drawn)) == len(drawn) == count
    assert set(drawn) <= set(EARLIER)


def test_rehearsal_patients_depend_on_the_seed_only():
    first = draw_rehearsal(EARLIER, 5, 0.5, 0)
    assert draw_rehearsal(EARLIER[::-1], 5, 0.5, 0) == first
    assert draw_rehearsal(EARLIER, 5, 0.5, 1) != first


@pytest.mark.parametrize("share", [-0.1, 1])
def test_an_invalid_share_of_rehearsal_patients_is_refused(share):
    with pytest.raises(TrainingError, match=rf"^A share of rehearsal patients of {share} is not .*\.$"):
        draw_rehearsal(EARLIER, 5, share, 0)


# --- checks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_only_disjoint_sets_pass_the_check(seed):
    training, validation = split_patients(NAMES, 0.2, seed)
    check_split(training, validation)
    with pytest.raises(TrainingError, match=rf"^{validation[0]} is in both"):
        check_split([*training, validation[0]], validation)


@pytest.mark.parametrize(
    ("training", "validation", "words"),
    [
        (["a", "b"], ["b"], "b is in both training and validation"),
        (["a", "b", "a"], ["c"], "a occurs twice"),
        (["a"], ["c", "c"], "c occurs twice"),
        (["a"], [], "at least one patient for training and one for validation"),
        ([], ["a"], "at least one patient for training and one for validation"),
        ([], [], "at least one patient for training and one for validation"),
    ],
)
def test_an_invalid_split_is_refused(training, validation, words):
    with pytest.raises(TrainingError, match=rf"{words}.*\.$"):
        check_split(training, validation)
