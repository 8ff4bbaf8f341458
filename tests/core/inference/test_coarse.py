"""Coarse-to-fine inference: what the network is given, and that the labels stay the same."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from noted_network import Noted, finish, model_of, predictor
from torch import nn

from napari_lgg_seg.core.data.discover import patient_folders
from napari_lgg_seg.core.data.patients import read_patient
from napari_lgg_seg.core.evaluation.metrics import dice
from napari_lgg_seg.core.inference.postprocess import best_threshold, postprocess, to_labels
from napari_lgg_seg.core.inference.predict import Notice, SlicesDone, predictor_for
from napari_lgg_seg.core.model.checkpoint import load_model
from napari_lgg_seg.core.options import SegmentOptions

SIZE, HALF, THRESHOLD = 192, 96, 0.003


class Levels(nn.Module):
    """Certain about tumour, less so at its border; the probability of the rest depends on the resolution."""

    def __init__(self, half, full):
        super().__init__()
        self.half, self.full = half, full

    def forward(self, slices):
        flair = slices[:, 1:2]
        background = self.full if max(slices.shape[2:]) > HALF else self.half
        return torch.where(
            flair > 3, 4.0, torch.where(flair > 2, -0.5, math.log(background / (1 - background)))
        )


def clear(**options):
    """A network that is certain about healthy tissue."""
    return Noted(above=3, **options)


def coarse_to_fine(network, batch_size=4, threshold=THRESHOLD, **options):
    return predictor(
        network, batch_size, size=SIZE, coarse_to_fine=True, coarse_threshold=threshold, **options
    )


def by_size(network):
    """Number of slices at half resolution, in batches of four times 4, and at full resolution."""
    halves = [shape[0] for shape in network.seen if shape[0] > 4]
    assert all(max(shape[2:]) <= HALF for shape in network.seen[: len(halves)])
    return sum(halves), sum(shape[0] for shape in network.seen) - sum(halves)


def test_labels_equal_those_of_full_resolution_everywhere(large_volume):
    volume, truth = large_volume
    full, network = clear(), clear()
    _, expected = finish(predictor(full, 2, size=SIZE).predict(volume))
    _, probability = finish(coarse_to_fine(network).predict(volume))
    np.testing.assert_array_equal(to_labels(probability, 0.5), to_labels(expected, 0.5))
    assert dice(to_labels(probability, 0.5), truth) > 0.95
    assert network.pixels < 0.4 * full.pixels


def test_every_second_slice_is_computed_at_half_resolution(large_volume):
    network = clear()
    finish(coarse_to_fine(network).predict(large_volume[0]))
    assert network.seen[0][0] == 10  # up to four times the batch of 4
    assert max(network.seen[0][2:]) <= HALF
    coarse, full = by_size(network)
    assert coarse == 10  # of 18 with head: every second one, and the last
    assert 5 <= full <= 9  # those with tumour, and up to two more on each side


def test_the_coarse_result_stays_below_the_threshold_elsewhere(large_volume):
    volume, _ = large_volume
    _, probability = finish(coarse_to_fine(clear()).predict(volume))
    far = probability[1:5][volume[1:5].any(axis=-1)]
    assert 0 < far.mean() < THRESHOLD
    assert far.max() <= np.float32(THRESHOLD)
    assert not probability[[0, -1]].any()


@pytest.mark.parametrize(("half", "full"), [(0.0004, 0.001), (0.001, 0.0004), (0.0006, 0.0006)])
def test_the_coarse_result_is_rescaled_to_the_level_of_full_resolution(large_volume, half, full):
    volume, truth = large_volume
    _, probability = finish(coarse_to_fine(Levels(half, full)).predict(volume))
    _, expected = finish(predictor(Levels(half, full), 2, size=SIZE).predict(volume))
    head = volume.any(axis=-1) & (truth == 0)
    assert probability[1:5][head[1:5]].mean() == pytest.approx(full, rel=0.05)
    assert best_threshold(probability) == pytest.approx(best_threshold(expected), abs=0.01)
    np.testing.assert_array_equal(to_labels(probability, "auto"), to_labels(expected, "auto"))


def test_rescaling_never_exceeds_the_threshold(large_volume):
    _, probability = finish(coarse_to_fine(Levels(0.0025, 0.2)).predict(large_volume[0]))
    assert probability[1:5].max() <= np.float32(THRESHOLD)
    assert (probability[1:5] == np.float32(THRESHOLD)).mean() > 0.2


def test_a_tumour_in_any_two_slices_is_found(make_head):
    for first in range(1, 8):
        volume, _ = make_head((10, 200, 200), tumour=False)
        volume[first : first + 2, 90:130, 100:140, 1] += 110
        _, probability = finish(coarse_to_fine(clear()).predict(volume))
        found = to_labels(probability, 0.5).sum(axis=(1, 2))
        assert np.flatnonzero(found > 1400).tolist() == [first, first + 1]


def test_all_tumours_of_a_slice_are_found(large_volume):
    volume, truth = (array.copy() for array in large_volume)
    volume[9, 60:80, 70:90, 1] += 110
    truth[9, 60:80, 70:90] = 1
    _, probability = finish(coarse_to_fine(clear()).predict(volume))
    assert dice(to_labels(probability, 0.5), truth) > 0.95


def test_nothing_is_computed_at_full_resolution_without_candidates(make_head):
    network = clear()
    events, probability = finish(coarse_to_fine(network).predict(make_head((12, 200, 200), tumour=False)[0]))
    assert by_size(network) == (7, 0)
    assert probability.max() <= np.float32(THRESHOLD)
    assert events == [SlicesDone(0, 12), SlicesDone(0, 12), SlicesDone(12, 12)]


def test_progress_increases_to_the_end(large_volume):
    events, _ = finish(coarse_to_fine(clear()).predict(large_volume[0]))
    done = [event.done for event in events]
    assert done == sorted(done)
    assert set(done[:2]) == {0}  # the coarse pass reports progress, too
    assert [e.total for e in events] == [20] * len(events)
    assert done[-1] == 20
    assert done.count(20) == 1


def test_closing_stops_the_coarse_pass(large_volume):
    network = clear()
    steps = coarse_to_fine(network, 1).predict(large_volume[0])
    assert [next(steps), next(steps)] == [SlicesDone(0, 20), SlicesDone(0, 20)]
    steps.close()
    assert len(network.seen) == 1


@pytest.mark.parametrize("at_most", [1, 3])
def test_out_of_memory_in_the_coarse_pass(large_volume, at_most):
    _, expected = finish(coarse_to_fine(clear()).predict(large_volume[0]))
    events, probability = finish(coarse_to_fine(clear(at_most=at_most)).predict(large_volume[0]))
    assert [event for event in events if isinstance(event, Notice)]
    np.testing.assert_array_equal(to_labels(probability, 0.5), to_labels(expected, 0.5))


def test_neighbouring_slices_in_the_coarse_pass(large_volume):
    network = clear(channel=3 + 1)
    _, probability = finish(coarse_to_fine(network, neighbouring_slices=1).predict(large_volume[0]))
    assert {shape[1] for shape in network.seen} == {9}
    assert dice(to_labels(probability, 0.5), large_volume[1]) > 0.95


def test_test_time_augmentation_in_the_coarse_pass(large_volume):
    once, network = clear(), clear()
    finish(coarse_to_fine(once).predict(large_volume[0]))
    _, probability = finish(coarse_to_fine(network, tta=True).predict(large_volume[0]))
    assert network.pixels == 2 * once.pixels
    assert dice(to_labels(probability, 0.5), large_volume[1]) > 0.95


# --- where it is not used ----------------------------------------------------------------------


def assert_full_resolution(network, size):
    """No slice was at half resolution: at least one side of each is longer than that."""
    assert all(max(shape[2:]) > size / 2 for shape in network.seen)


def test_full_resolution_for_a_model_without_threshold(large_volume):
    network = clear()
    made = coarse_to_fine(network, threshold=None)
    assert not made.coarse_to_fine
    finish(made.predict(large_volume[0]))
    assert_full_resolution(network, SIZE)


def test_full_resolution_for_a_few_slices(large_volume):
    network = clear()
    finish(coarse_to_fine(network).predict(large_volume[0][6:13]))
    assert sum(shape[0] for shape in network.seen) == 7
    assert_full_resolution(network, SIZE)


def test_full_resolution_for_chosen_slices(large_volume):
    network = clear()
    finish(coarse_to_fine(network).predict(large_volume[0], range(3, 15)))
    assert sum(shape[0] for shape in network.seen) == 12
    assert_full_resolution(network, SIZE)


def test_whole_slices_at_full_resolution(large_volume):
    network = clear()
    made = coarse_to_fine(network, whole=True)
    assert not made.coarse_to_fine
    finish(made.predict(large_volume[0]))
    assert {shape[2:] for shape in network.seen} == {(SIZE, SIZE)}


@pytest.mark.parametrize(
    ("card", "options", "expected"),
    [
        ({"clean_up": "minor"}, {}, True),
        ({"clean_up": "largest"}, {}, True),
        ({"clean_up": "off"}, {}, False),
        ({"clean_up": "small"}, {}, False),
        ({"clean_up": "minor"}, {"clean_up": "off"}, False),
        ({"clean_up": "off"}, {"clean_up": "minor"}, True),
        ({"clean_up": "minor"}, {"full_resolution": True}, False),
        ({"clean_up": "minor", "coarse_threshold": None}, {}, False),
    ],
)
def test_only_if_clean_up_drops_minor_components(card, options, expected):
    model = model_of(clear(), SIZE, **{"coarse_threshold": THRESHOLD, **card})
    assert predictor_for(model, SegmentOptions(device="cpu", **options)).coarse_to_fine is expected


# --- real patients -------------------------------------------------------------------------------


@pytest.mark.real_data
def test_labels_of_real_patients_equal_those_of_full_resolution(lgg_dataset):
    model = load_model()
    options = model.card.complete(SegmentOptions(device="cpu"))
    for folder in patient_folders(lgg_dataset)[5::60]:
        volume = read_patient(folder).volume
        labels = []
        for full_resolution in (True, False):
            made = predictor_for(model, SegmentOptions(device="cpu", full_resolution=full_resolution))
            assert made.coarse_to_fine is not full_resolution
            labels.append(postprocess(finish(made.predict(volume))[1], options))
        assert dice(*labels) > 0.99, folder.name
