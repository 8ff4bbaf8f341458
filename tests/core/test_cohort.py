from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from napari_lgg_seg.core.cohort import Cohort, split_patients, take_patients
from napari_lgg_seg.core.errors import TrainingError
from napari_lgg_seg.core.patients import institution
from napari_lgg_seg.core.preprocess import PreprocessOptions, crop_and_resample, measure, normalise

OPTIONS = PreprocessOptions(working_size=32)
SIZES = {"CS": 16, "DU": 45, "EZ": 1, "FG": 14, "HT": 34}
NAMES = [f"TCGA_{code}_{n:04}_2000{n:04}" for code, size in SIZES.items() for n in range(size)]

# --- split -------------------------------------------------------------------------------------


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


def test_other_names_form_one_group():
    training, validation = split_patients([f"patient {n}" for n in range(10)], 0.2, 0)
    assert (len(training), len(validation)) == (8, 2)


# --- batches -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cohort(make_patient):
    return Cohort(
        [make_patient("a", shape=(6, 40, 50)), make_patient("b", shape=(5, 64, 48), seed=1)], OPTIONS
    )


def drawn(cohort, slices=40, batch_size=8, tumour_share=0.5, seed=0):
    return list(cohort.batches(slices, batch_size, tumour_share, seed))


def tumour_slices(batches):
    return sum(int((masks > 0.5).flatten(1).any(1).sum()) for _, masks, _ in batches)


def test_shapes_of_batches(cohort):
    batches = drawn(cohort, slices=20, batch_size=8)
    assert [images.shape for images, _, _ in batches] == [(8, 3, 32, 32), (8, 3, 32, 32), (4, 3, 32, 32)]
    for images, masks, generator in batches:
        assert masks.shape == (len(images), 1, 32, 32)
        assert images.dtype == masks.dtype == torch.float32
        assert masks.min() >= 0
        assert masks.max() <= 1
        assert isinstance(generator, torch.Generator)


def test_same_seed_same_batches(cohort):
    first, again, other = drawn(cohort), drawn(cohort), drawn(cohort, seed=1)
    for (images, masks, _), (images_again, masks_again, _) in zip(first, again, strict=True):
        assert torch.equal(images, images_again)
        assert torch.equal(masks, masks_again)
    assert torch.equal(first[-1][2].get_state(), again[-1][2].get_state())
    assert not torch.equal(first[0][0], other[0][0])


@pytest.mark.parametrize(("share", "expected"), [(0, 0), (0.25, 10), (0.55, 22), (1, 40)])
def test_share_of_slices_with_tumour(cohort, share, expected):
    batches = drawn(cohort, tumour_share=share)
    assert sum(len(images) for images, _, _ in batches) == 40
    assert tumour_slices(batches) == expected


def test_slices_of_both_kinds_are_mixed(cohort):
    assert all(0 < tumour_slices([batch]) < 8 for batch in drawn(cohort, slices=80))


def test_slices_are_drawn_evenly(make_patient):
    patient = make_patient(shape=(5, 32, 32), tumour=False)
    images = torch.cat([images for images, _, _ in drawn(Cohort([patient], OPTIONS), slices=23)])
    counts = sorted(Counter(tuple(image.flatten().tolist()) for image in images).values())
    assert counts == [4, 4, 5, 5, 5]


@pytest.mark.parametrize("share", [0, 0.55, 1])
@pytest.mark.parametrize("tumour", [True, False])
def test_slices_of_one_kind_fill_the_epoch(make_patient, tumour, share):
    patient = make_patient(shape=(4, 32, 32), tumour=tumour)
    if tumour:
        patient = replace(patient, truth=np.ones_like(patient.truth))
    batches = drawn(Cohort([patient], OPTIONS), tumour_share=share)
    assert sum(len(images) for images, _, _ in batches) == 40
    assert tumour_slices(batches) == (40 if tumour else 0)


def test_batches_are_what_the_network_sees_in_use(make_patient):
    """Slices of several patients, each normalised with its own volume's figures."""
    patients = [make_patient("a", shape=(1, 40, 50)), make_patient("b", shape=(1, 64, 48), seed=1)]
    patients[1] = replace(patients[1], volume=patients[1].volume // 2)
    expected = []
    for patient in patients:
        preparation = measure(patient.volume, OPTIONS)
        raw = crop_and_resample(patient.volume, preparation.box, 32).round()
        expected.append(normalise(raw, preparation))
    [(images, _, _)] = drawn(Cohort(patients, OPTIONS), slices=2, tumour_share=1)
    if not torch.allclose(images[0], expected[0][0], atol=1e-5):
        images = images.flip(0)
    torch.testing.assert_close(images, torch.cat(expected))


def test_masks_lie_on_the_bright_tumour(cohort):
    for images, masks, _ in drawn(cohort, tumour_share=1):
        flair, inside = images[:, 1], masks[:, 0] > 0.5
        assert flair[inside].mean() > flair[~inside].mean() + 1
        assert (flair[inside] > 1).float().mean() > 0.8


def test_unmarked_slices_are_left_out(make_patient):
    patient = replace(make_patient(shape=(5, 32, 32), tumour=False), unmarked=(2, 3, 5))
    images = torch.cat([images for images, _, _ in drawn(Cohort([patient], OPTIONS))])
    assert len({tuple(image.flatten().tolist()) for image in images}) == 2


def test_named_patients_are_held_out(tmp_path):
    listed = tmp_path / "validation.txt"
    listed.write_text(f"{NAMES[3]}\n\n  {NAMES[1]}  \n")
    training, validation = take_patients(NAMES, listed)
    assert validation == sorted([NAMES[1], NAMES[3]])
    assert sorted(training + validation) == sorted(NAMES)


@pytest.mark.parametrize("text", ["", "nobody we know\n"])
def test_a_list_of_strangers_is_refused(tmp_path, text):
    listed = tmp_path / "validation.txt"
    listed.write_text(text)
    with pytest.raises(TrainingError, match=r"validation\.txt"):
        take_patients(NAMES, listed)
