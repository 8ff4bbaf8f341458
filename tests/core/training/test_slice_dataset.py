from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_lgg_seg.core import memory
from napari_lgg_seg.core.errors import TrainingError
from napari_lgg_seg.core.model.preprocess import (
    PreprocessOptions,
    crop_and_resample,
    measure,
    normalise,
    normalise_each,
)
from napari_lgg_seg.core.training.slice_dataset import SliceDataset

OPTIONS = PreprocessOptions(working_size=32)
#: (patient, slice) as drawn with seed 0, half of them with tumour, by the first version of this program.
PLAN = [
    [0, 1], [1, 2], [0, 5], [0, 5], [0, 0], [1, 2],
    [0, 4], [0, 0], [1, 0], [0, 2], [0, 3], [1, 1],
]  # fmt: skip


def cohort_of(*patients, options=OPTIONS, **keywords):
    cohort = SliceDataset(options, **keywords)
    for patient in patients:
        cohort.add(patient)
    return cohort


@pytest.fixture(scope="module")
def patients(make_patient):
    return [make_patient("a", shape=(6, 40, 50)), make_patient("b", shape=(5, 64, 48), seed=1)]


@pytest.fixture(scope="module")
def cohort(patients):
    return cohort_of(*patients)


def drawn(cohort, slices=40, batch_size=8, tumour_share=0.5, seed=0):
    return list(cohort.batches(cohort.plan(slices, batch_size, tumour_share, seed)))


def images_of(batches):
    return torch.cat([batch.slices[:, :-1] for batch in batches])


def masks_of(batches):
    return torch.cat([batch.slices[:, -1:] for batch in batches])


def tumour_slices(batches):
    return int((masks_of(batches) > 127).flatten(1).any(1).sum())


def same(first, second):
    return all(
        torch.equal(a.slices, b.slices) and torch.equal(a.intensity_stats, b.intensity_stats)
        for a, b in zip(first, second, strict=True)
    )


# --- what is drawn -----------------------------------------------------------------------------


def test_shapes_of_batches(cohort):
    batches = drawn(cohort, slices=20, batch_size=8)
    assert [batch.slices.shape for batch in batches] == [(7, 4, 32, 32), (7, 4, 32, 32), (6, 4, 32, 32)]
    for batch in batches:
        assert batch.slices.dtype == torch.uint8
        assert batch.intensity_stats.shape == (len(batch.slices), 3, 3)
        assert batch.intensity_stats.dtype == torch.float32
    assert cohort.names == ["a", "b"]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 8, 16, 41, 1000])
@pytest.mark.parametrize("slices", [1, 2, 15, 40, 41])
def test_batches_differ_by_at_most_one_slice(cohort, slices, batch_size):
    sizes = [len(batch) for batch in cohort.plan(slices, batch_size, 0.5, 0)]
    assert sum(sizes) == slices
    assert len(sizes) == -(-slices // batch_size)
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1


def test_same_seed_same_batches(cohort):
    first, again, other = drawn(cohort), drawn(cohort), drawn(cohort, seed=1)
    assert same(first, again)
    assert not same(first, other)


@pytest.mark.parametrize(("share", "expected"), [(0, 0), (0.25, 10), (0.55, 22), (1, 40)])
def test_share_of_slices_with_tumour(cohort, share, expected):
    batches = drawn(cohort, tumour_share=share)
    assert len(images_of(batches)) == 40
    assert tumour_slices(batches) == expected


def test_slices_of_both_kinds_are_mixed(cohort):
    assert all(0 < tumour_slices([batch]) < 8 for batch in drawn(cohort, slices=80))


@pytest.mark.parametrize("tumour_share", [0, 1])
def test_slices_are_drawn_evenly(cohort, tumour_share):
    """Each as often as any other of its kind, to within one."""
    plan = torch.cat(cohort.plan(53, 8, tumour_share, 0))
    counts = Counter(map(tuple, plan.tolist())).values()
    assert sum(counts) == 53
    assert max(counts) - min(counts) == 1


def test_patients_are_drawn_evenly_if_asked(make_patient):
    """However many tumour slices they have, and each patient's slices as often as one another."""
    many, few = make_patient("a", shape=(12, 40, 40)), make_patient("b", shape=(12, 40, 40), seed=1)
    only = np.arange(12)[:, None, None] == 6
    few = replace(few, truth=np.where(only, np.maximum(few.truth, only), 0).astype(np.uint8))
    cohort = cohort_of(many, few)
    plan = torch.cat(cohort.plan(41, 8, 1, 0, "patients"))
    by_patient = Counter(plan[:, 0].tolist())
    assert sorted(by_patient.values()) == [20, 21]
    of_many = Counter(plan[plan[:, 0] == 0, 1].tolist())
    assert set(of_many) == set(np.flatnonzero(many.truth.any(axis=(1, 2))).tolist())
    assert max(of_many.values()) - min(of_many.values()) <= 1
    assert set(plan[plan[:, 0] == 1, 1].tolist()) == {6}
    empty = torch.cat(cohort.plan(40, 8, 0, 0, "patients"))
    assert len(empty) == 40


@pytest.mark.parametrize("share", [0, 0.55, 1])
@pytest.mark.parametrize("tumour", [True, False])
def test_slices_of_one_kind_fill_the_epoch(make_patient, tumour, share):
    patient = make_patient(shape=(4, 32, 32), tumour=tumour)
    if tumour:
        patient = replace(patient, truth=np.ones_like(patient.truth))
    batches = drawn(cohort_of(patient), tumour_share=share)
    assert len(images_of(batches)) == 40
    assert tumour_slices(batches) == (40 if tumour else 0)


def test_nothing_planned_is_nothing_drawn(cohort):
    assert list(cohort.batches([])) == []


# --- what a batch holds ------------------------------------------------------------------------


def test_batches_are_what_the_network_sees_in_use(make_patient):
    """Slices of several patients, each normalised with its own volume's figures."""
    patients = [make_patient("a", shape=(1, 40, 50)), make_patient("b", shape=(1, 64, 48), seed=1)]
    patients[1] = replace(patients[1], volume=patients[1].volume // 2)
    batch = cohort_of(*patients).take(torch.tensor([[1, 0], [0, 0]]))
    expected = []
    for patient in reversed(patients):
        preparation = measure(patient.volume, OPTIONS)
        raw = crop_and_resample(patient.volume, preparation.box, 32).round()
        expected.append(normalise(raw, preparation))
    images = normalise_each(batch.slices[:, :-1].float(), batch.intensity_stats)
    torch.testing.assert_close(images, torch.cat(expected))


def test_flair_alone(make_patient, patients):
    """As if the volume had no other channel: its box is found in FLAIR, too."""
    patient = patients[0]
    batch = cohort_of(patient, sequences=("FLAIR",)).take(torch.tensor([[0, 2]]))
    assert batch.slices.shape == (1, 2, 32, 32)
    assert batch.intensity_stats.shape == (1, 3, 1)
    volume = patient.volume[..., 1:2]
    preparation = measure(volume, OPTIONS)
    expected = normalise(crop_and_resample(volume[2:3], preparation.box, 32).round(), preparation)
    torch.testing.assert_close(normalise_each(batch.slices[:, :-1].float(), batch.intensity_stats), expected)


def test_masks_lie_on_the_bright_tumour(cohort):
    for batch in drawn(cohort, tumour_share=1):
        flair = normalise_each(batch.slices[:, :-1].float(), batch.intensity_stats)[:, 1]
        inside = batch.slices[:, -1] > 127
        assert flair[inside].mean() > flair[~inside].mean() + 1
        assert (flair[inside] > 1).float().mean() > 0.8


def test_masks_have_soft_edges_from_0_to_255(cohort):
    masks = masks_of(drawn(cohort, tumour_share=1))
    assert (masks.min(), masks.max()) == (0, 255)
    assert len(masks.unique()) > 2


def test_unmarked_slices_are_left_out(make_patient):
    patient = replace(make_patient(shape=(5, 32, 32), tumour=False), slices_without_mask=(2, 3, 5))
    images = images_of(drawn(cohort_of(patient)))
    assert len({tuple(image.flatten().tolist()) for image in images}) == 2


def test_what_is_drawn_does_not_depend_on_the_version(patients):
    """So that an older training can go on, and be repeated."""
    patient = replace(patients[1], slices_without_mask=(1, 4))
    plan = torch.cat(cohort_of(patients[0], patient).plan(12, 8, 0.5, 0))
    assert plan.tolist() == PLAN


# --- neighbouring slices -----------------------------------------------------------------------


def numbered(patient):
    """The patient with slices that can be told apart: FLAIR of slice i is bright by 100 + 10 i."""
    volume = np.where(patient.volume > 0, 50, 0).astype(np.uint8)
    volume[..., 1] *= 2
    volume[..., 1] += np.where(volume[..., 1] > 0, 10 * np.arange(len(volume))[:, None, None], 0).astype(
        np.uint8
    )
    return replace(patient, volume=volume)


def flair_of_slices(batch, neighbours):
    """Which slice each that is seen is, by the middle of its FLAIR: (n, 2 * neighbours + 1)."""
    middle = batch.slices[:, 1:-1:3, 16, 16].int()
    assert middle.shape[1] == 2 * neighbours + 1
    return ((middle - 100) // 10).tolist()


@pytest.mark.parametrize("neighbours", [1, 2, 3])
def test_neighbours_are_those_of_the_volume_and_ends_repeat(patients, neighbours):
    patient = numbered(patients[0])
    cohort = cohort_of(patient, neighbours=neighbours)
    batch = cohort.take(torch.tensor([[0, index] for index in range(6)]))
    assert batch.slices.shape == (6, 3 * (2 * neighbours + 1) + 1, 32, 32)
    assert batch.slices.dtype == torch.uint8
    assert flair_of_slices(batch, neighbours) == [
        [min(max(index + offset, 0), 5) for offset in range(-neighbours, neighbours + 1)]
        for index in range(6)
    ]


def test_the_slice_itself_its_mask_and_its_figures_are_what_they_are_alone(patients, cohort):
    chosen = torch.tensor([[1, 2], [0, 5], [0, 0]])
    alone, batch = cohort.take(chosen), cohort_of(*patients, neighbours=1).take(chosen)
    assert torch.equal(batch.slices[:, 3:6], alone.slices[:, :-1])
    assert torch.equal(batch.slices[:, -1], alone.slices[:, -1])
    for part in batch.intensity_stats.chunk(3, dim=2):
        assert torch.equal(part, alone.intensity_stats)


@pytest.mark.parametrize("slices_without_mask", [(), (2, 3, 5)])
@pytest.mark.parametrize("neighbours", [1, 2, 3])
def test_with_neighbours_the_same_slices_are_drawn(patients, slices_without_mask, neighbours):
    patient = replace(patients[0], slices_without_mask=slices_without_mask)
    alone = drawn(cohort_of(patient, patients[1]))
    both = drawn(cohort_of(patient, patients[1], neighbours=neighbours))
    assert torch.equal(masks_of(both), masks_of(alone))
    middle = slice(3 * neighbours, 3 * neighbours + 3)
    assert torch.equal(images_of(both)[:, middle], images_of(alone))


def test_unmarked_slices_are_neighbours(patients):
    """Of slices 0 to 5 only 1 and 5 are drawn; what they see is what lies beside them in the volume."""
    patient = replace(numbered(patients[0]), slices_without_mask=(1, 3, 4, 5))
    batches = drawn(cohort_of(patient, neighbours=1))
    seen = {tuple(slices) for batch in batches for slices in flair_of_slices(batch, 1)}
    assert seen == {(0, 1, 2), (4, 5, 5)}


def test_only_slices_that_are_seen_are_kept_and_each_once(patients, tmp_path):
    for neighbours, kept in ((0, 2), (1, 5), (2, 6)):
        folder = tmp_path / str(neighbours)
        marked = replace(patients[0], slices_without_mask=(1, 2, 4, 5))
        cohort_of(marked, folder=folder, memory=0, neighbours=neighbours)
        assert np.load(folder / "0.npy").shape == (kept, 4, 32, 32)


def test_neighbours_of_flair_alone(patients):
    cohort = cohort_of(patients[0], sequences=("FLAIR",), neighbours=2)
    batch = cohort.take(torch.tensor([[0, 2]]))
    assert batch.slices.shape == (1, 6, 32, 32)
    assert batch.intensity_stats.shape == (1, 3, 5)


@pytest.mark.parametrize("missing", ["truth", "volume"])
def test_patient_without_masks_or_images_is_refused(patients, missing):
    with pytest.raises(TrainingError, match=r"^a has no images or no masks; .*\.$"):
        cohort_of(replace(patients[0], **{missing: None}))


# --- where slices are kept ---------------------------------------------------------------------


def test_what_does_not_fit_into_memory_goes_to_files(patients, cohort, tmp_path):
    folder = tmp_path / "slices"
    filed = cohort_of(*patients, folder=folder, memory=0)
    assert sorted(path.name for path in folder.iterdir()) == ["0.npy", "1.npy"]
    assert same(drawn(filed), drawn(cohort))
    filed.close()
    assert not folder.exists()


def test_memory_is_filled_first(patients, cohort, tmp_path):
    """Room for the first patient's slices, not for the second's."""
    filed = cohort_of(*patients, folder=tmp_path / "slices", memory=6 * 4 * 32 * 32)
    assert [path.name for path in (tmp_path / "slices").iterdir()] == ["1.npy"]
    assert same(drawn(filed), drawn(cohort))


def test_half_of_the_free_memory_may_be_used(patients, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "free_main_memory", lambda: 2 * 6 * 4 * 32 * 32)
    cohort_of(*patients, folder=tmp_path / "slices")
    assert [path.name for path in (tmp_path / "slices").iterdir()] == ["1.npy"]


def test_without_files_all_stays_in_memory(patients, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "free_main_memory", lambda: None)
    cohort_of(*patients, folder=tmp_path / "slices").close()
    cohort_of(*patients, memory=0).close()
    assert list(tmp_path.iterdir()) == []


def test_another_process_opens_the_files(patients, cohort, tmp_path):
    first = cohort_of(*patients, folder=tmp_path / "slices", memory=0)
    first.save_index()
    second = SliceDataset(OPTIONS, folder=tmp_path / "slices", memory=0)
    second.open()
    assert second.names == ["a", "b"]
    assert same(drawn(second), drawn(cohort))


def test_another_process_sees_the_same_neighbours(patients, tmp_path):
    patients = [replace(patients[0], slices_without_mask=(2, 3)), patients[1]]
    first = cohort_of(*patients, folder=tmp_path / "slices", memory=0, neighbours=1)
    first.save_index()
    second = SliceDataset(OPTIONS, folder=tmp_path / "slices", memory=0, neighbours=1)
    second.open()
    assert same(drawn(second), drawn(cohort_of(*patients, neighbours=1)))


# --- ahead of use ------------------------------------------------------------------------------


def test_the_next_batch_is_fetched_while_one_is_in_use(cohort, monkeypatch):
    taken = []
    take = cohort.take
    monkeypatch.setattr(cohort, "take", lambda chosen: taken.append(len(chosen)) or take(chosen))
    batches = cohort.batches(cohort.plan(40, 8, 0.5, 0))
    next(batches)
    deadline = time.monotonic() + 30
    while len(taken) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    assert len(taken) == 2, "one ahead, not more"
    batches.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("slices")]


def test_an_error_of_the_reader_comes_to_the_user_of_the_batches(cohort, monkeypatch):
    def fail(chosen):
        raise OSError("the disk is gone")

    monkeypatch.setattr(cohort, "take", fail)
    with pytest.raises(OSError, match="the disk is gone"):
        drawn(cohort)
