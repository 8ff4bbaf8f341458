"""Windows around the head, tested through the predictor by the inputs that its network receives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from narrow_network import narrow_network
from noted_network import SIZE, Noted, finish, predictor

from napari_lgg_seg.core.data.discover import patient_folders
from napari_lgg_seg.core.data.patients import read_patient
from napari_lgg_seg.core.errors import DeviceError
from napari_lgg_seg.core.evaluation.metrics import dice
from napari_lgg_seg.core.inference.postprocess import to_labels
from napari_lgg_seg.core.inference.predict import Notice, SlicesDone, run_to_end
from napari_lgg_seg.core.model.neighbours import input_channels
from napari_lgg_seg.core.model.networks import NETWORKS, build_network
from napari_lgg_seg.core.model.preprocess import PreprocessOptions, measure


@pytest.fixture(scope="module")
def egg(make_head):
    """A head, wide in the middle and narrow at both ends, between two slices of air and one."""
    volume = np.zeros((12, 120, 100, 3), np.uint8)
    truth = np.zeros((12, 120, 100), np.uint8)
    for z, scale in zip(range(2, 11), (0.3, 0.5, 0.8, 1, 1, 0.9, 0.7, 0.5, 0.3), strict=True):
        shape = (1, int(116 * scale), int(96 * scale))
        inside, tumour = make_head(shape, seed=z)
        top, left = (120 - shape[1]) // 2, (100 - shape[2]) // 2
        volume[z, top : top + shape[1], left : left + shape[2]] = inside[0]
        truth[z, top : top + shape[1], left : left + shape[2]] = tumour[0]
    return volume, truth


#: The slices of ``egg`` without head.
EMPTY = (0, 1, 11)


# --- slices without head -----------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 2, 4, 100])
def test_slices_without_head_are_skipped_and_have_probability_0(egg, batch_size):
    volume, truth = egg
    network = Noted()
    events, probability = finish(predictor(network, batch_size).predict(volume))
    assert sum(shape[0] for shape in network.seen) == 9
    assert not probability[list(EMPTY)].any()
    assert dice(to_labels(probability, 0.5), truth) > 0.9
    assert events[0] == SlicesDone(0, 12)
    assert events[-1] == SlicesDone(12, 12)
    done = [event.done for event in events]
    assert done == sorted(set(done))


def test_whole_slices_are_computed_on_request(egg):
    network = Noted()
    _, probability = finish(predictor(network, 4, whole=True).predict(egg[0]))
    assert network.seen == 3 * [(4, 3, SIZE, SIZE)]
    assert probability[list(EMPTY)].max() < 1e-6


@pytest.mark.parametrize("chosen", [[0], [0, 1, 11], [1, 1, -1]])
def test_only_slices_without_head(egg, chosen):
    network = Noted()
    events, probability = finish(predictor(network).predict(egg[0], chosen))
    assert network.seen == []
    assert events == [SlicesDone(0, len(chosen)), SlicesDone(len(chosen), len(chosen))]
    assert probability.shape == (len(chosen), 120, 100)
    assert not probability.any()


def test_chosen_slices_equal_those_of_the_whole_volume(egg):
    _, whole = finish(predictor(Noted(), 2).predict(egg[0]))
    chosen = [5, 0, 5, 11, 2, -2]
    _, some = finish(predictor(Noted(), 2).predict(egg[0], chosen))
    np.testing.assert_allclose(some, whole[chosen], atol=1e-6)


@pytest.mark.parametrize("value", [0, 7])
def test_a_volume_without_contrast_is_computed_in_full(value):
    network = Noted()
    finish(predictor(network, 2).predict(np.full((4, 70, 70, 3), value, np.uint8)))
    assert network.seen == 2 * [(2, 3, SIZE, SIZE)]


# --- air ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", NETWORKS)
@pytest.mark.parametrize("size", [96, 100, 33])
def test_windows_are_aligned_with_the_coarsest_level(egg, architecture, size):
    network = Noted()
    finish(predictor(network, 1, size=size, architecture=architecture).predict(egg[0]))
    multiple = NETWORKS[architecture].multiple
    for _, _, *sides in network.seen:
        assert all(side % multiple in (0, size % multiple) for side in sides)
        assert all(multiple <= side <= size for side in sides)


def test_air_around_the_head_is_cropped(egg):
    network, whole = Noted(), Noted()
    _, windows = finish(predictor(network, 1).predict(egg[0]))
    _, expected = finish(predictor(whole, 1, whole=True).predict(egg[0]))
    assert network.pixels < 0.7 * whole.pixels
    np.testing.assert_allclose(windows, expected, atol=1e-6)


def test_window_sides_are_multiples_of_16(egg):
    """OpenVINO compiles the network anew for each size."""
    network = Noted()
    finish(predictor(network, 1).predict(egg[0]))
    assert all(side % 16 == 0 for shape in network.seen for side in shape[2:])


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5])
def test_slices_of_a_batch_have_windows_of_one_size(egg, batch_size):
    network = Noted()
    finish(predictor(network, batch_size).predict(egg[0]))
    assert [shape[0] for shape in network.seen][:-1] == (len(network.seen) - 1) * [batch_size]
    assert sum(shape[0] for shape in network.seen) == 9


def test_stray_voxels_do_not_widen_a_window(egg):
    volume = egg[0].copy()
    plain, stray = Noted(), Noted()
    finish(predictor(plain, 1).predict(volume))
    volume[4:6, 2, 2] = 80
    finish(predictor(stray, 1).predict(volume))
    assert stray.pixels == plain.pixels


def test_head_of_a_single_slice_outside_the_box_of_the_volume(make_head):
    """Head voxels outside the volume's box are ignored, as they are with whole slices."""
    volume = np.zeros((12, 120, 120, 3), np.uint8)
    volume[:, 50:110, 50:110] = make_head((12, 60, 60))[0]
    volume[3] = 0
    volume[3, :4, :4] = 90
    box = measure(volume, PreprocessOptions()).box
    assert min(box.top, box.left) > 4
    _, probability = finish(predictor(Noted()).predict(volume))
    assert not probability[3].any()
    assert probability.any()


@pytest.mark.parametrize("architecture", NETWORKS)
@pytest.mark.parametrize("tta", [False, True])
@pytest.mark.parametrize("neighbours", [0, 2])
def test_windows_change_the_probabilities_only_slightly(egg, architecture, tta, neighbours):
    """With random weights, which unlike trained ones do not favour the head."""
    with narrow_network():
        torch.manual_seed(3)
        network = build_network(architecture, 3 * (2 * neighbours + 1))
    card = {"architecture": architecture, "neighbouring_slices": neighbours, "tta": tta}
    whole = run_to_end(predictor(network, 3, whole=True, **card).predict(egg[0]))
    windows = run_to_end(predictor(network, 3, **card).predict(egg[0]))
    head = egg[0].any(axis=-1)
    assert whole[head].std() > 0.01
    difference = np.abs(windows - whole)[head]
    assert difference.mean() < 0.2 * whole[head].std()


def test_a_window_contains_the_heads_of_the_neighbours_as_well(egg):
    """The narrow last slice, together with the wider ones before it."""
    alone, together = Noted(), Noted(channel=3 * 2 + 1)
    finish(predictor(alone, 1).predict(egg[0], [10]))
    _, probability = finish(predictor(together, 1, neighbouring_slices=2).predict(egg[0], [10]))
    assert together.pixels > alone.pixels
    assert together.seen[0][1] == input_channels(("a", "b", "c"), 2)
    upper = Noted(channel=1)
    _, probability = finish(predictor(upper, 1, neighbouring_slices=2).predict(egg[0], [10]))
    _, expected = finish(predictor(Noted(), 1).predict(egg[0], [8]))
    np.testing.assert_allclose(probability, expected, atol=1e-6)


def test_a_slice_without_head_stays_empty_next_to_one_with_head(egg):
    network = Noted(channel=3 * 2 + 1)
    _, probability = finish(predictor(network, neighbouring_slices=1).predict(egg[0]))
    assert not probability[list(EMPTY)].any()
    assert sum(shape[0] for shape in network.seen) == 9


@pytest.mark.parametrize("at_most", [1, 2, 3])
def test_out_of_memory_halves_the_batch_without_losing_slices(egg, at_most):
    _, expected = finish(predictor(Noted(), 8).predict(egg[0]))
    network = Noted(at_most=at_most)
    events, probability = finish(predictor(network, 8).predict(egg[0]))
    assert [event for event in events if isinstance(event, Notice)]
    assert events[-1] == SlicesDone(12, 12)
    assert sum(shape[0] for shape in network.seen) == 9
    np.testing.assert_allclose(probability, expected, atol=1e-6)


def test_too_little_memory_for_one_slice(egg):
    with pytest.raises(DeviceError, match="not enough memory for a single slice"):
        finish(predictor(Noted(at_most=0)).predict(egg[0]))


def test_closing_the_generator_stops_the_work(egg):
    network = Noted()
    work = predictor(network, 2).predict(egg[0])
    assert [next(work), next(work)] == [SlicesDone(0, 12), SlicesDone(2, 12)]
    work.close()
    assert len(network.seen) == 1


# --- real patients -----------------------------------------------------------------------------


@pytest.mark.real_data
def test_windows_of_real_patients_contain_the_tumour_and_are_smaller(lgg_dataset):
    seen, whole = 0, 0
    for folder in patient_folders(lgg_dataset)[::9]:
        patient = read_patient(folder)
        network = Noted()
        finish(predictor(network, 4, size=192).predict(patient.volume))
        seen, whole = seen + network.pixels, whole + len(patient.volume) * 192**2
        for extent, truth in zip(
            measure(patient.volume, PreprocessOptions()).extents, patient.truth, strict=True
        ):
            if truth.any():
                assert extent is not None, patient.name
                rows, columns = (np.flatnonzero(truth.any(axis=axis)) for axis in (1, 0))
                assert extent.top - 8 <= rows[0] and rows[-1] < extent.bottom + 8, patient.name  # noqa: PT018
                assert extent.left - 8 <= columns[0], patient.name
                assert columns[-1] < extent.right + 8, patient.name
    assert seen < 0.9 * whole
