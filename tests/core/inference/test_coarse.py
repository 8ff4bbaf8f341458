"""A quick look that says where to look closely: through the predictor, and by what a network was given."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from noted_network import Noted, finish, model_of, predictor
from torch import nn

from napari_lgg_seg.core.data.discover import patient_folders
from napari_lgg_seg.core.data.patients import Patient, read_patient
from napari_lgg_seg.core.evaluation.metrics import dice
from napari_lgg_seg.core.inference.calibrate_coarse import LIMITS, try_limits
from napari_lgg_seg.core.inference.postprocess import best_threshold, postprocess, to_labels
from napari_lgg_seg.core.inference.predict import Notice, SlicesDone, predictor_for
from napari_lgg_seg.core.model.checkpoint import load_model
from napari_lgg_seg.core.options import SegmentOptions

SIZE, HALF, LIMIT = 192, 96, 0.003


@pytest.fixture(scope="module")
def patient(make_head):
    """Twenty slices of 200 x 200, five of them with tumour (z 8 to 12), and one of air at either end."""
    volume, truth = make_head((20, 200, 200), tumour=False)
    lesion = np.zeros_like(truth)
    lesion[8:13, 100:130, 110:140] = 1
    volume[..., 1] += 110 * lesion
    volume[[0, -1]] = 0
    return volume, lesion


def clear(**options):
    """A network that is sure of what is no tumour."""
    return Noted(above=3, **options)


def quick(network, batch_size=4, limit=LIMIT, **options):
    return predictor(network, batch_size, size=SIZE, coarse_to_fine=True, coarse_threshold=limit, **options)


def by_size(network):
    """How many slices the network saw in a quick look, in batches of four times 4, and how many closely."""
    halves = [shape[0] for shape in network.seen if shape[0] > 4]
    assert all(max(shape[2:]) <= HALF for shape in network.seen[: len(halves)])
    return sum(halves), sum(shape[0] for shape in network.seen) - sum(halves)


def test_what_is_found_is_what_a_close_look_at_everything_finds(patient):
    volume, truth = patient
    close, network = clear(), clear()
    _, expected = finish(predictor(close, 2, size=SIZE).predict(volume))
    _, probability = finish(quick(network).predict(volume))
    np.testing.assert_array_equal(to_labels(probability, 0.5), to_labels(expected, 0.5))
    assert dice(to_labels(probability, 0.5), truth) > 0.95
    assert network.pixels < 0.4 * close.pixels


def test_every_second_slice_is_looked_at_in_half_the_size(patient):
    network = clear()
    finish(quick(network).predict(patient[0]))
    assert network.seen[0][0] == 10  # up to four times the batch of 4
    assert max(network.seen[0][2:]) <= HALF
    halves, closely = by_size(network)
    assert halves == 10  # of 18 with head: every second one, and the last
    assert 5 <= closely <= 9  # those with tumour, and up to two more on each side


def test_elsewhere_the_answer_of_the_quick_look_stays_and_never_stands_out(patient):
    volume, _ = patient
    _, probability = finish(quick(clear()).predict(volume))
    far = probability[1:5][volume[1:5].any(axis=-1)]
    assert 0 < far.mean() < LIMIT
    assert far.max() <= np.float32(LIMIT)
    assert not probability[[0, -1]].any()


@pytest.mark.parametrize(("half", "full"), [(0.0004, 0.001), (0.001, 0.0004), (0.0006, 0.0006)])
def test_next_to_nothing_has_the_level_of_a_close_look_everywhere(patient, half, full):
    volume, truth = patient
    _, probability = finish(quick(Levels(half, full)).predict(volume))
    _, expected = finish(predictor(Levels(half, full), 2, size=SIZE).predict(volume))
    head = volume.any(axis=-1) & (truth == 0)
    assert probability[1:5][head[1:5]].mean() == pytest.approx(full, rel=0.05)
    assert best_threshold(probability) == pytest.approx(best_threshold(expected), abs=0.01)
    np.testing.assert_array_equal(to_labels(probability, "auto"), to_labels(expected, "auto"))


def test_no_level_lifts_above_the_limit_what_was_not_worth_a_closer_look(patient):
    _, probability = finish(quick(Levels(0.0025, 0.2)).predict(patient[0]))
    assert probability[1:5].max() <= np.float32(LIMIT)
    assert (probability[1:5] == np.float32(LIMIT)).mean() > 0.2


def test_a_tumour_in_two_slices_is_found_wherever_it_lies(make_head):
    for first in range(1, 8):
        volume, _ = make_head((10, 200, 200), tumour=False)
        volume[first : first + 2, 90:130, 100:140, 1] += 110
        _, probability = finish(quick(clear()).predict(volume))
        found = to_labels(probability, 0.5).sum(axis=(1, 2))
        assert np.flatnonzero(found > 1400).tolist() == [first, first + 1]


def test_several_tumours_in_a_slice_are_all_found(patient):
    volume, truth = (array.copy() for array in patient)
    volume[9, 60:80, 70:90, 1] += 110
    truth[9, 60:80, 70:90] = 1
    _, probability = finish(quick(clear()).predict(volume))
    assert dice(to_labels(probability, 0.5), truth) > 0.95


def test_without_tumour_nothing_is_looked_at_closely(make_head):
    network = clear()
    events, probability = finish(quick(network).predict(make_head((12, 200, 200), tumour=False)[0]))
    assert by_size(network) == (7, 0)
    assert probability.max() <= np.float32(LIMIT)
    assert events == [SlicesDone(0, 12), SlicesDone(0, 12), SlicesDone(12, 12)]


def test_progress_goes_up_to_the_end(patient):
    events, _ = finish(quick(clear()).predict(patient[0]))
    done = [event.done for event in events]
    assert done == sorted(done)
    assert set(done[:2]) == {0}  # the quick look gives signs of life as well
    assert [e.total for e in events] == [20] * len(events)
    assert done[-1] == 20
    assert done.count(20) == 1


def test_closing_stops_the_quick_look(patient):
    network = clear()
    work = quick(network, 1).predict(patient[0])
    assert [next(work), next(work)] == [SlicesDone(0, 20), SlicesDone(0, 20)]
    work.close()
    assert len(network.seen) == 1


@pytest.mark.parametrize("at_most", [1, 3])
def test_out_of_memory_in_a_quick_look(patient, at_most):
    _, expected = finish(quick(clear()).predict(patient[0]))
    events, probability = finish(quick(clear(at_most=at_most)).predict(patient[0]))
    assert [event for event in events if isinstance(event, Notice)]
    np.testing.assert_array_equal(to_labels(probability, 0.5), to_labels(expected, 0.5))


def test_neighbours_are_seen_in_a_quick_look_too(patient):
    network = clear(channel=3 + 1)
    _, probability = finish(quick(network, neighbouring_slices=1).predict(patient[0]))
    assert {shape[1] for shape in network.seen} == {9}
    assert dice(to_labels(probability, 0.5), patient[1]) > 0.95


def test_mirror_images_are_seen_in_a_quick_look_too(patient):
    once, network = clear(), clear()
    finish(quick(once).predict(patient[0]))
    _, probability = finish(quick(network, tta=True).predict(patient[0]))
    assert network.pixels == 2 * once.pixels
    assert dice(to_labels(probability, 0.5), patient[1]) > 0.95


# --- where there is none -------------------------------------------------------------------------


def assert_closely(network, size):
    """The network saw no slices of half the size first: at least one side is longer in each of them."""
    assert all(max(shape[2:]) > size / 2 for shape in network.seen)


def test_a_model_without_a_limit_looks_closely(patient):
    network = clear()
    made = quick(network, limit=None)
    assert not made.coarse_to_fine
    finish(made.predict(patient[0]))
    assert_closely(network, SIZE)


def test_a_few_slices_are_looked_at_closely(patient):
    network = clear()
    finish(quick(network).predict(patient[0][6:13]))
    assert sum(shape[0] for shape in network.seen) == 7
    assert_closely(network, SIZE)


def test_chosen_slices_are_looked_at_closely(patient):
    network = clear()
    finish(quick(network).predict(patient[0], range(3, 15)))
    assert sum(shape[0] for shape in network.seen) == 12
    assert_closely(network, SIZE)


def test_whole_slices_are_looked_at_whole(patient):
    network = clear()
    made = quick(network, whole=True)
    assert not made.coarse_to_fine
    finish(made.predict(patient[0]))
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
def test_only_where_clean_up_drops_what_it_can_miss(card, options, expected):
    model = model_of(clear(), SIZE, **{"coarse_threshold": LIMIT, **card})
    assert predictor_for(model, SegmentOptions(device="cpu", **options)).coarse_to_fine is expected


# --- which limit a model has -----------------------------------------------------------------------


def in_memory(patient, name="TCGA_DU_0001_19990101"):
    volume, truth = patient
    return Patient(name, Path(name), volume, truth, tuple(range(1, len(volume) + 1)))


def test_the_first_limit_that_keeps_labels_is_the_models(patient):
    """All of them do here."""
    found = list(try_limits(model_of(clear(), SIZE), [in_memory(patient)], "cpu"))
    assert [tried.limit for tried in found] == list(LIMITS[:1])
    assert found[0].keeps
    assert found[0].overall == found[0].worst == 1
    assert found[0].work < 0.5


def test_a_limit_that_loses_tumour_is_not_taken(patient):
    """This one is seen only where both others are looked at closely."""
    blind = HalfBlind()
    found = list(try_limits(model_of(blind, SIZE), [in_memory(patient)], "cpu"))
    assert not any(tried.keeps for tried in found[:-1])
    assert found[0].worst < 0.9
    assert found[-1].keeps == (found[-1].limit <= blind.faint)
    assert found[-1].limit == max(limit for limit in LIMITS if limit <= blind.faint)


def test_nothing_lower_is_tried_where_no_work_is_saved(patient):
    found = list(try_limits(model_of(Doubtful(), SIZE), [in_memory(patient)], "cpu"))
    assert [tried.limit for tried in found] == list(LIMITS[:1])
    assert found[0].work > 1
    assert not found[0].keeps


class HalfBlind(nn.Module):
    """In slices of half the size it gives tumour a chance of ``faint`` only."""

    faint = 0.002

    def forward(self, slices):
        bright = slices[:, 1:2] > 3
        high = 4.0 if slices.shape[-1] > HALF or slices.shape[-2] > HALF else math.log(self.faint)
        return torch.where(bright, high, -12.0)


class Levels(nn.Module):
    """It is sure of tumour, less so at its edge, and gives the rest a chance that the size decides."""

    def __init__(self, half, full):
        super().__init__()
        self.half, self.full = half, full

    def forward(self, slices):
        flair = slices[:, 1:2]
        chance = self.full if max(slices.shape[2:]) > HALF else self.half
        return torch.where(flair > 3, 4.0, torch.where(flair > 2, -0.5, math.log(chance / (1 - chance))))


class Doubtful(nn.Module):
    """It gives everything a chance."""

    def forward(self, slices):
        return torch.where(slices[:, 1:2] > 3, 4.0, -2.0)


# --- real patients -------------------------------------------------------------------------------


@pytest.mark.real_data
def test_labels_of_real_patients_are_those_of_a_close_look(lgg_dataset):
    model = load_model()
    options = model.card.complete(SegmentOptions(device="cpu"))
    for folder in patient_folders(lgg_dataset)[5::40]:
        volume = read_patient(folder).volume
        labels = []
        for full_resolution in (True, False):
            made = predictor_for(model, SegmentOptions(device="cpu", full_resolution=full_resolution))
            assert made.coarse_to_fine is not full_resolution
            labels.append(postprocess(finish(made.predict(volume))[1], options))
        assert dice(*labels) > 0.99, folder.name
