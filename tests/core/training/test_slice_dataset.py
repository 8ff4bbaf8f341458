"""Slices of the training patients: which are drawn, what a batch holds, and where they are stored."""

from __future__ import annotations

import json
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
#: (patient, slice) as version 0.1.0 drew them with seed 0, half of them with tumour.
PLAN = [
    [0, 1], [1, 2], [0, 5], [0, 5], [0, 0], [1, 2],
    [0, 4], [0, 0], [1, 0], [0, 2], [0, 3], [1, 1],
]  # fmt: skip


def dataset_of(*patients, options=OPTIONS, **keywords):
    dataset = SliceDataset(options, **keywords)
    for patient in patients:
        dataset.add(patient)
    return dataset


@pytest.fixture(scope="module")
def patients(make_patient):
    return [make_patient("a", shape=(6, 40, 50)), make_patient("b", shape=(5, 64, 48), seed=1)]


@pytest.fixture(scope="module")
def dataset(patients):
    return dataset_of(*patients)


def drawn(dataset, slices=40, batch_size=8, tumour_share=0.5, seed=0):
    return list(dataset.batches(dataset.plan(slices, batch_size, tumour_share, seed)))


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


def test_shapes_of_batches(dataset):
    batches = drawn(dataset, slices=20, batch_size=8)
    assert [batch.slices.shape for batch in batches] == [(7, 4, 32, 32), (7, 4, 32, 32), (6, 4, 32, 32)]
    for batch in batches:
        assert batch.slices.dtype == torch.uint8
        assert batch.intensity_stats.shape == (len(batch.slices), 3, 3)
        assert batch.intensity_stats.dtype == torch.float32
    assert dataset.names == ["a", "b"]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 8, 16, 41, 1000])
@pytest.mark.parametrize("slices", [1, 2, 15, 40, 41])
def test_batches_differ_by_at_most_one_slice(dataset, slices, batch_size):
    sizes = [len(batch) for batch in dataset.plan(slices, batch_size, 0.5, 0)]
    assert sum(sizes) == slices
    assert len(sizes) == -(-slices // batch_size)
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1


def test_same_seed_same_batches(dataset):
    first, again, other = drawn(dataset), drawn(dataset), drawn(dataset, seed=1)
    assert same(first, again)
    assert not same(first, other)


@pytest.mark.parametrize(("share", "expected"), [(0, 0), (0.25, 10), (0.55, 22), (1, 40)])
def test_the_share_of_slices_with_tumour(dataset, share, expected):
    batches = drawn(dataset, tumour_share=share)
    assert len(images_of(batches)) == 40
    assert tumour_slices(batches) == expected


def test_batches_mix_slices_with_and_without_tumour(dataset):
    assert all(0 < tumour_slices([batch]) < 8 for batch in drawn(dataset, slices=80))


@pytest.mark.parametrize("tumour_share", [0, 1])
def test_slices_are_drawn_evenly(dataset, tumour_share):
    """All slices with tumour equally often, to within one, and all slices without."""
    plan = torch.cat(dataset.plan(53, 8, tumour_share, 0))
    counts = Counter(map(tuple, plan.tolist())).values()
    assert sum(counts) == 53
    assert max(counts) - min(counts) == 1


@pytest.mark.parametrize("share", [0, 0.55, 1])
@pytest.mark.parametrize("tumour", [True, False])
def test_slices_of_a_single_kind_fill_the_epoch(make_patient, tumour, share):
    patient = make_patient(shape=(4, 32, 32), tumour=tumour)
    if tumour:
        patient = replace(patient, truth=np.ones_like(patient.truth))
    batches = drawn(dataset_of(patient), tumour_share=share)
    assert len(images_of(batches)) == 40
    assert tumour_slices(batches) == (40 if tumour else 0)


def test_an_empty_plan_has_no_batches(dataset):
    assert list(dataset.batches([])) == []


# --- what a batch holds ------------------------------------------------------------------------


def test_batches_are_what_the_network_sees_in_a_segmentation(make_patient):
    """Slices of several patients, each normalised with its own volume's statistics."""
    patients = [make_patient("a", shape=(1, 40, 50)), make_patient("b", shape=(1, 64, 48), seed=1)]
    patients[1] = replace(patients[1], volume=patients[1].volume // 2)
    batch = dataset_of(*patients).take(torch.tensor([[1, 0], [0, 0]]))
    expected = []
    for patient in reversed(patients):
        preparation = measure(patient.volume, OPTIONS)
        raw = crop_and_resample(patient.volume, preparation.box, 32).round()
        expected.append(normalise(raw, preparation))
    images = normalise_each(batch.slices[:, :-1].float(), batch.intensity_stats)
    torch.testing.assert_close(images, torch.cat(expected))


def test_flair_alone(patients):
    """As if the volume had no other channel: the bounding box of the head is found in FLAIR as well."""
    patient = patients[0]
    batch = dataset_of(patient, sequences=("FLAIR",)).take(torch.tensor([[0, 2]]))
    assert batch.slices.shape == (1, 2, 32, 32)
    assert batch.intensity_stats.shape == (1, 3, 1)
    volume = patient.volume[..., 1:2]
    preparation = measure(volume, OPTIONS)
    expected = normalise(crop_and_resample(volume[2:3], preparation.box, 32).round(), preparation)
    torch.testing.assert_close(normalise_each(batch.slices[:, :-1].float(), batch.intensity_stats), expected)


def test_masks_lie_on_the_bright_tumour(dataset):
    for batch in drawn(dataset, tumour_share=1):
        flair = normalise_each(batch.slices[:, :-1].float(), batch.intensity_stats)[:, 1]
        inside = batch.slices[:, -1] > 127
        assert flair[inside].mean() > flair[~inside].mean() + 1
        assert (flair[inside] > 1).float().mean() > 0.8


def test_masks_have_soft_edges_from_0_to_255(dataset):
    masks = masks_of(drawn(dataset, tumour_share=1))
    assert (masks.min(), masks.max()) == (0, 255)
    assert len(masks.unique()) > 2


def test_slices_without_a_mask_are_not_drawn(make_patient):
    patient = replace(make_patient(shape=(5, 32, 32), tumour=False), slices_without_mask=(2, 3, 5))
    images = images_of(drawn(dataset_of(patient)))
    assert len({tuple(image.flatten().tolist()) for image in images}) == 2


def test_the_same_slices_are_drawn_as_in_version_0_1_0(patients):
    """So that trainings of that version can be resumed and reproduced."""
    patient = replace(patients[1], slices_without_mask=(1, 4))
    plan = torch.cat(dataset_of(patients[0], patient).plan(12, 8, 0.5, 0))
    assert plan.tolist() == PLAN


# --- neighbouring slices -----------------------------------------------------------------------


def numbered(patient):
    """The patient with slices that can be told apart: slice i has a FLAIR intensity of 100 + 10 i."""
    volume = np.where(patient.volume > 0, 50, 0).astype(np.uint8)
    volume[..., 1] *= 2
    volume[..., 1] += np.where(volume[..., 1] > 0, 10 * np.arange(len(volume))[:, None, None], 0).astype(
        np.uint8
    )
    return replace(patient, volume=volume)


def flair_of_slices(batch, neighbours):
    """Indices of each slice and its neighbours, by their FLAIR intensity: (n, 2 * neighbours + 1)."""
    middle = batch.slices[:, 1:-1:3, 16, 16].int()
    assert middle.shape[1] == 2 * neighbours + 1
    return ((middle - 100) // 10).tolist()


@pytest.mark.parametrize("neighbours", [1, 2, 3])
def test_neighbours_are_those_of_the_volume_with_its_ends_repeated(patients, neighbours):
    patient = numbered(patients[0])
    dataset = dataset_of(patient, neighbours=neighbours)
    batch = dataset.take(torch.tensor([[0, index] for index in range(6)]))
    assert batch.slices.shape == (6, 3 * (2 * neighbours + 1) + 1, 32, 32)
    assert batch.slices.dtype == torch.uint8
    assert flair_of_slices(batch, neighbours) == [
        [min(max(index + offset, 0), 5) for offset in range(-neighbours, neighbours + 1)]
        for index in range(6)
    ]


def test_slice_mask_and_statistics_are_the_same_without_neighbours(patients, dataset):
    chosen = torch.tensor([[1, 2], [0, 5], [0, 0]])
    alone, batch = dataset.take(chosen), dataset_of(*patients, neighbours=1).take(chosen)
    assert torch.equal(batch.slices[:, 3:6], alone.slices[:, :-1])
    assert torch.equal(batch.slices[:, -1], alone.slices[:, -1])
    for part in batch.intensity_stats.chunk(3, dim=2):
        assert torch.equal(part, alone.intensity_stats)


@pytest.mark.parametrize("slices_without_mask", [(), (2, 3, 5)])
@pytest.mark.parametrize("neighbours", [1, 2, 3])
def test_the_same_slices_are_drawn_with_neighbours(patients, slices_without_mask, neighbours):
    patient = replace(patients[0], slices_without_mask=slices_without_mask)
    alone = drawn(dataset_of(patient, patients[1]))
    both = drawn(dataset_of(patient, patients[1], neighbours=neighbours))
    assert torch.equal(masks_of(both), masks_of(alone))
    middle = slice(3 * neighbours, 3 * neighbours + 3)
    assert torch.equal(images_of(both)[:, middle], images_of(alone))


def test_slices_without_a_mask_serve_as_neighbours(patients):
    """Of slices 0 to 5 only 1 and 5 are drawn, with their neighbours in the volume."""
    patient = replace(numbered(patients[0]), slices_without_mask=(1, 3, 4, 5))
    batches = drawn(dataset_of(patient, neighbours=1))
    seen = {tuple(slices) for batch in batches for slices in flair_of_slices(batch, 1)}
    assert seen == {(0, 1, 2), (4, 5, 5)}


def test_only_slices_that_are_needed_are_stored(patients, tmp_path):
    for neighbours, stored in ((0, 2), (1, 5), (2, 6)):
        folder = tmp_path / str(neighbours)
        patient = replace(patients[0], slices_without_mask=(1, 2, 4, 5))
        dataset_of(patient, folder=folder, memory=0, neighbours=neighbours)
        assert np.load(folder / "0.npy").shape == (stored, 4, 32, 32)


def test_neighbours_of_flair_alone(patients):
    dataset = dataset_of(patients[0], sequences=("FLAIR",), neighbours=2)
    batch = dataset.take(torch.tensor([[0, 2]]))
    assert batch.slices.shape == (1, 6, 32, 32)
    assert batch.intensity_stats.shape == (1, 3, 5)


@pytest.mark.parametrize("missing", ["truth", "volume"])
def test_a_patient_without_masks_or_images_is_refused(patients, missing):
    with pytest.raises(TrainingError, match=r"^a has no images or no masks; .*\.$"):
        dataset_of(replace(patients[0], **{missing: None}))


# --- where slices are stored -------------------------------------------------------------------


def test_slices_that_do_not_fit_into_memory_are_stored_in_files(patients, dataset, tmp_path):
    folder = tmp_path / "slices"
    filed = dataset_of(*patients, folder=folder, memory=0)
    assert sorted(path.name for path in folder.iterdir()) == ["0.npy", "1.npy"]
    assert same(drawn(filed), drawn(dataset))
    filed.close()
    assert not folder.exists()


def test_memory_is_filled_first(patients, dataset, tmp_path):
    """Room for the first patient's slices, not for the second's."""
    filed = dataset_of(*patients, folder=tmp_path / "slices", memory=6 * 4 * 32 * 32)
    assert [path.name for path in (tmp_path / "slices").iterdir()] == ["1.npy"]
    assert same(drawn(filed), drawn(dataset))


def test_half_of_the_free_memory_is_used(patients, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "free_main_memory", lambda: 2 * 6 * 4 * 32 * 32)
    dataset_of(*patients, folder=tmp_path / "slices")
    assert [path.name for path in (tmp_path / "slices").iterdir()] == ["1.npy"]


def test_all_slices_stay_in_memory_without_a_folder(patients, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "free_main_memory", lambda: None)
    dataset_of(*patients, folder=tmp_path / "slices").close()
    dataset_of(*patients, memory=0).close()
    assert list(tmp_path.iterdir()) == []


def test_another_process_opens_the_files(patients, dataset, tmp_path):
    first = dataset_of(*patients, folder=tmp_path / "slices", memory=0)
    first.save_index()
    second = SliceDataset(OPTIONS, folder=tmp_path / "slices", memory=0)
    second.open()
    assert second.names == ["a", "b"]
    assert same(drawn(second), drawn(dataset))


def test_another_process_sees_the_same_neighbours(patients, tmp_path):
    patients = [replace(patients[0], slices_without_mask=(2, 3)), patients[1]]
    first = dataset_of(*patients, folder=tmp_path / "slices", memory=0, neighbours=1)
    first.save_index()
    second = SliceDataset(OPTIONS, folder=tmp_path / "slices", memory=0, neighbours=1)
    second.open()
    assert same(drawn(second), drawn(dataset_of(*patients, neighbours=1)))


# --- prefetching -------------------------------------------------------------------------------


def test_the_next_batch_is_prepared_while_one_is_in_use(dataset, monkeypatch):
    taken = []
    take = dataset.take
    monkeypatch.setattr(dataset, "take", lambda chosen: taken.append(len(chosen)) or take(chosen))
    batches = dataset.batches(dataset.plan(40, 8, 0.5, 0))
    next(batches)
    deadline = time.monotonic() + 30
    while len(taken) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    assert len(taken) == 2, "more than one batch ahead"
    batches.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("slices")]


def test_an_error_while_preparing_a_batch_is_raised(dataset, monkeypatch):
    def fail(chosen):
        raise OSError("the disk is gone")

    monkeypatch.setattr(dataset, "take", fail)
    with pytest.raises(OSError, match="the disk is gone"):
        drawn(dataset)


@pytest.fixture
def shared(tmp_path, patients):
    """A dataset whose slices another process has stored, and a new one to open them with."""
    dataset_of(*patients, folder=tmp_path, memory=0).save_index()
    return SliceDataset(OPTIONS, folder=tmp_path)


WRONG = {
    "names": [None, [], ["a"], ["a", "b", "c"], [1, 2], ["a", ""]],
    "intensity_stats": [None, [], [[1.0]] * 2, [[["1"] * 3] * 3] * 2, [[[float("nan")] * 3] * 3] * 2],
    "tumour": [None, [], [[True], [True]], [[1] * 6, [1] * 5], "text"],
    "has_mask": [None, [], [[True], [True]], [["yes"] * 6, ["yes"] * 5]],
}


@pytest.mark.parametrize("name", WRONG)
def test_an_index_with_a_wrong_or_missing_value_is_refused(shared, tmp_path, name):
    values = json.loads((tmp_path / "index.json").read_text())
    contents = [json.dumps({**values, name: value}) for value in WRONG[name]]
    for content in (*contents, json.dumps({key: values[key] for key in values if key != name})):
        (tmp_path / "index.json").write_text(content)
        with pytest.raises(TrainingError, match=r"index\.json or a file next to it is damaged \(.*\); .*\.$"):
            shared.open()


@pytest.mark.parametrize("content", [b"", b"no array", "cut", "another shape"])
def test_damaged_slices_are_refused(shared, tmp_path, content):
    path = tmp_path / "1.npy"
    if content == "another shape":
        np.save(path, np.zeros((5, 4, 16, 16), np.uint8))
    else:
        path.write_bytes(path.read_bytes()[:1000] if content == "cut" else content)
    with pytest.raises(TrainingError, match=r"is damaged"):
        shared.open()


@pytest.mark.parametrize("change", [lambda v: v / 255, lambda v: v * 20.0 + 1000])
def test_images_of_any_range_are_stored_without_loss(make_patient, change):
    patient = make_patient("first", shape=(4, 64, 64))
    other = replace(patient, volume=change(patient.volume))
    found = []
    for each in (patient, other):
        dataset = SliceDataset(OPTIONS)
        dataset.add(each)
        batch = dataset.take(torch.tensor([[0, z] for z in range(4)]))
        found.append(normalise_each(batch.slices[:, :-1].float(), batch.intensity_stats))
    torch.testing.assert_close(*found, atol=0.1, rtol=0)
