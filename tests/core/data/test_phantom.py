"""The synthetic sample patient: reproducible, a valid patient, with a visible lesion."""

from itertools import combinations

import numpy as np
import pytest
from scipy import ndimage

from napari_lgg_seg.core.data.patients import FLAIR, SEQUENCES, Patient, institution
from napari_lgg_seg.core.data.phantom import make_sample_patient
from napari_lgg_seg.core.data.phantom_cohort import make_sample_patients
from napari_lgg_seg.core.model.preprocess import PreprocessOptions, measure

PRE, POST = SEQUENCES.index("pre-contrast"), SEQUENCES.index("post-contrast")


@pytest.fixture(scope="module")
def patient() -> Patient:
    return make_sample_patient()


def around_lesion(patient: Patient) -> np.ndarray:
    """The brain about 5 to 10 pixels away from the lesion, in its slices."""
    in_plane = ndimage.generate_binary_structure(3, 1)
    in_plane[[0, 2]] = False
    near = ndimage.binary_dilation(patient.truth, in_plane, iterations=5)
    return ndimage.binary_dilation(near, in_plane, iterations=5) & ~near


def test_the_sample_patient_is_the_same_at_every_call(patient):
    np.random.seed(1)  # the global random state must not matter
    again = make_sample_patient()
    np.testing.assert_array_equal(again.volume, patient.volume)
    np.testing.assert_array_equal(again.truth, patient.truth)


def test_the_sample_is_a_complete_patient(patient):
    assert patient.name == "LGG_sample"
    assert patient.volume.shape == (*patient.shape, 3) == (30, 256, 256, 3)
    assert patient.truth.shape == patient.shape
    assert patient.volume.dtype == patient.truth.dtype == np.uint8
    assert patient.slice_numbers == tuple(range(1, 31))
    assert patient.filled_sequences == ()
    assert patient.slices_without_mask == ()
    assert np.unique(patient.truth).tolist() == [0, 1]


def test_sequences_are_three_different_pictures(patient):
    for a, b in ((PRE, FLAIR), (PRE, POST), (FLAIR, POST)):
        head = patient.volume.max(axis=-1) > 30
        difference = np.abs(patient.volume[..., a].astype(int) - patient.volume[..., b])
        assert difference[head].mean() > 5


def test_contrast_agent_brightens_vessels_only(patient):
    gain = patient.volume[..., POST].astype(int) - patient.volume[..., PRE]
    assert (gain > 40).sum() > 500
    assert np.median(gain[patient.truth == 1]) < 5


def test_lesion_is_one_component_over_several_slices_in_one_hemisphere(patient):
    assert ndimage.label(patient.truth)[1] == 1
    slices = np.flatnonzero(patient.truth.any(axis=(1, 2)))
    assert 8 <= len(slices) <= 14
    rows, columns = np.nonzero(patient.truth[(slices[0] + slices[-1]) // 2])
    assert 35 <= np.ptp(rows) <= 60
    assert 35 <= np.ptp(columns) <= 60
    assert columns.max() < 128


def test_lesion_is_bright_in_flair_and_dark_in_t1(patient):
    inside, around = patient.truth == 1, around_lesion(patient)
    flair, t1 = patient.volume[..., FLAIR], patient.volume[..., PRE]
    assert np.median(flair[inside]) > 1.3 * np.median(flair[around])
    assert np.median(t1[inside]) < 0.9 * np.median(t1[around])
    assert np.median(flair[inside]) < np.percentile(flair[flair > 30], 99), "brighter than scalp fat"


def test_head_lies_inside_the_picture_and_gets_smaller_to_the_top(patient):
    box = measure(patient.volume, PreprocessOptions()).box
    assert box.top >= 0
    assert box.top + box.side <= 256
    assert 180 < box.side < 250
    area = (patient.volume.mean(axis=-1) > 15).sum(axis=(1, 2))
    assert (np.diff(area[15:]) < 0).all()
    assert area[-1] < area[10] / 3


def test_background_is_noise_near_zero(patient):
    corner = patient.volume[:, :20, :20]
    assert 0 < corner.mean() < 4
    assert corner.max() < 15


def test_slices_differ_from_their_neighbours(patient):
    change = np.abs(np.diff(patient.volume[..., FLAIR].astype(int), axis=0)).mean(axis=(1, 2))
    assert change.min() > 2


# --- a cohort ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cohort() -> list[Patient]:
    return list(make_sample_patients(3))


def test_patients_of_a_cohort_are_complete_and_named_as_in_the_dataset(cohort):
    assert [institution(patient.name) for patient in cohort] == ["XB", "XA", "XB"]
    assert len({patient.name for patient in cohort}) == 3
    for patient in cohort:
        assert patient.volume.shape == (30, 256, 256, 3)
        assert np.unique(patient.truth).tolist() == [0, 1]
        assert ndimage.label(patient.truth)[1] == 1


def test_patients_of_a_cohort_differ_in_head_and_lesion(cohort, patient):
    for a, b in combinations([*cohort, patient], 2):
        assert np.abs(a.volume.astype(int) - b.volume).mean() > 3
        assert not np.array_equal(a.truth, b.truth)
    centres = [ndimage.center_of_mass(p.truth) for p in cohort]
    assert all(np.linalg.norm(np.subtract(a, b)) > 5 for a, b in combinations(centres, 2))


def test_lesions_of_a_cohort_lie_in_the_head_and_are_bright(cohort):
    for patient in cohort:
        head = ndimage.binary_fill_holes((patient.volume.mean(axis=-1) > 20).any(axis=0))
        assert head[patient.truth.any(axis=0)].all()
        assert 1000 < patient.truth.sum() < 40_000
        flair = patient.volume[..., FLAIR]
        assert np.median(flair[patient.truth == 1]) > 1.2 * np.median(flair[around_lesion(patient)])


def test_a_smaller_cohort_is_the_beginning_of_a_larger_one(cohort):
    np.testing.assert_array_equal(next(make_sample_patients(1)).volume, cohort[0].volume)
