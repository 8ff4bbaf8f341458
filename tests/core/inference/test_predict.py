"""Probabilities of volumes: grid, batches, sequences, neighbouring slices, and unusual images."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from bright_flair import BrightFlair, Neighbour, model_of, out_of_memory, predict
from noted_network import finish

from napari_lgg_seg.core.errors import ImageError
from napari_lgg_seg.core.evaluation.metrics import dice
from napari_lgg_seg.core.inference import predict as module
from napari_lgg_seg.core.inference.postprocess import to_labels
from napari_lgg_seg.core.inference.predict import Notice, Predictor, SlicesDone
from napari_lgg_seg.core.model.networks import NETWORKS, build_network
from napari_lgg_seg.core.model.preprocess import (
    PreprocessOptions,
    back_to_grid,
    crop_and_resample,
    measure,
    normalise,
)

# --- result ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 64, 64), (3, 61, 90), (2, 100, 57), (4, 30, 33)])
def test_result_is_on_the_original_grid(make_head, shape):
    volume, truth = make_head(shape)
    _, probability = predict(volume)
    assert probability.shape == shape
    assert probability.dtype == np.float32
    assert dice(to_labels(probability, 0.5), truth) > 0.85


def test_the_unet_runs(unet, make_head):
    volume, _ = make_head((3, 50, 41))
    events, probability = predict(volume, unet, batch_size=2)
    assert events == [SlicesDone(0, 3), SlicesDone(2, 3), SlicesDone(3, 3)]
    assert probability.shape == (3, 50, 41)
    assert np.isfinite(probability).all()
    assert probability.std() > 0.01
    options = PreprocessOptions(working_size=48)
    preparation = measure(volume, options)
    with torch.inference_mode():
        logits = unet(normalise(crop_and_resample(volume, preparation.box, 48), preparation))[:, 0]
    expected = back_to_grid(torch.sigmoid(logits), preparation.box, (50, 41))
    np.testing.assert_allclose(probability, expected, atol=0.03)  # the device may compute in bf16


def test_the_volume_and_the_model_are_not_changed(unet, make_head):
    volume = make_head((2, 40, 40))[0].astype(np.float32) - 50
    volume[0, 0, 0, 0] = np.nan
    before = volume.copy()
    dtypes = {tensor.dtype for tensor in unet.state_dict().values()}
    predict(volume, unet)
    np.testing.assert_array_equal(volume, before)
    assert {tensor.dtype for tensor in unet.state_dict().values()} == dtypes


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 100, None])
def test_batch_size_does_not_change_the_labels(make_head, batch_size):
    volume, _ = make_head((7, 64, 64))
    _, expected = predict(volume, batch_size=7)
    events, probability = predict(volume, batch_size=batch_size)
    np.testing.assert_array_equal(to_labels(probability, 0.5), to_labels(expected, 0.5))
    assert to_labels(expected, 0.5).any()
    batch = min(batch_size or 2, 7)
    assert events == [SlicesDone(min(done, 7), 7) for done in range(0, 7 + batch, batch)]


def test_one_predictor_serves_several_volumes(make_head):
    predictor = Predictor(model_of(BrightFlair()), "cpu")
    for seed, shape in enumerate([(3, 64, 64), (2, 80, 50), (3, 64, 64)]):
        volume, truth = make_head(shape, seed=seed)
        assert dice(to_labels(finish(predictor.predict(volume))[1], 0.5), truth) > 0.85


def test_a_model_gets_its_sequences_in_its_own_order(make_head):
    volume, truth = make_head((3, 64, 64))
    network = BrightFlair(channel=0)
    _, probability = predict(volume, network, sequences=("FLAIR", "pre-contrast"))
    assert dice(to_labels(probability, 0.5), truth) > 0.85
    _, probability = predict(volume, network, sequences=("pre-contrast", "FLAIR"))
    assert dice(to_labels(probability, 0.5), truth) < 0.5


# --- neighbouring slices -----------------------------------------------------------------------


def shifted(probability, offset):
    """The result of the slice ``offset`` away for each slice, repeated at the ends."""
    return probability[(np.arange(len(probability)) + offset).clip(0, len(probability) - 1)]


def close(first, second):
    np.testing.assert_allclose(first, second, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 2, 4, 100])
@pytest.mark.parametrize(
    ("offset", "neighbours"), [(-1, 1), (0, 1), (1, 1), (2, 2), (-3, 3), (3, 3), (-1, 3)]
)
def test_a_slices_result_depends_on_its_neighbours(uneven, offset, neighbours, batch_size):
    _, alone = predict(uneven)
    assert all(not np.allclose(a, b) for a, b in pairwise(alone))
    network = Neighbour(offset, neighbours)
    _, probability = predict(uneven, network, batch_size, neighbouring_slices=neighbours)
    close(probability, shifted(alone, offset))


@pytest.mark.parametrize("chosen", [[4], [0], [8], [2, 3, 4], [7, 1, 1, -1], range(3, 9, 2), []])
@pytest.mark.parametrize("batch_size", [2, 100])
def test_chosen_slices_get_their_true_neighbours(uneven, chosen, batch_size):
    network = Neighbour(-1, 2)
    model = model_of(network, neighbouring_slices=2)
    _, whole = finish(Predictor(model, "cpu").predict(uneven))
    events, some = finish(Predictor(model, "cpu", batch_size).predict(uneven, chosen))
    assert events[-1] == SlicesDone(len(chosen), len(chosen))
    close(some, whole[list(chosen)])
    close(whole, shifted(predict(uneven)[1], -1))


@pytest.mark.parametrize("slices", [1, 2])
def test_a_volume_with_fewer_slices_than_neighbours(uneven, slices):
    volume = uneven[3 : 3 + slices]
    _, alone = predict(volume)
    for offset in (-3, 3):
        _, probability = predict(volume, Neighbour(offset, 3), neighbouring_slices=3)
        close(probability, shifted(alone, offset))


def test_test_time_augmentation_with_neighbours(uneven):
    alone, neighbour = (
        Predictor(model, "cpu", 4, tta=True)
        for model in (model_of(BrightFlair()), model_of(Neighbour(1, 1), neighbouring_slices=1))
    )
    close(finish(neighbour.predict(uneven))[1], shifted(finish(alone.predict(uneven))[1], 1))


def test_neighbours_for_a_flair_only_model(uneven):
    network = BrightFlair(channel=2)
    _, alone = predict(uneven, BrightFlair(channel=0), sequences=("FLAIR",))
    _, probability = predict(uneven, network, sequences=("FLAIR",), neighbouring_slices=1)
    close(probability, shifted(alone, 1))


@pytest.mark.parametrize("at_most", [1, 3])
def test_out_of_memory_with_neighbours(uneven, at_most):
    network = Neighbour(1, 1, at_most=at_most, error=out_of_memory)
    events, probability = predict(uneven, network, batch_size=8, neighbouring_slices=1)
    assert [event for event in events if isinstance(event, Notice)]
    close(probability, shifted(predict(uneven)[1], 1))


@pytest.mark.parametrize(("batch_size", "most"), [(4, 9 + 3 * 2), (100, 9)])
def test_each_slice_is_prepared_once_per_batch(uneven, monkeypatch, batch_size, most):
    """In addition to the slices of a batch, only their outer neighbours are prepared."""
    prepared, prepare = [], module.crop_and_resample

    def recorded(slices, *rest):
        prepared.append(len(slices))
        return prepare(slices, *rest)

    monkeypatch.setattr(module, "crop_and_resample", recorded)
    predict(uneven, Neighbour(1, 1), batch_size, neighbouring_slices=1)
    assert sum(prepared) <= most


@pytest.mark.parametrize("architecture", NETWORKS)
def test_networks_with_neighbours_run(make_head, architecture):
    volume, _ = make_head((3, 50, 41))
    network = build_network(architecture, 15)
    _, probability = predict(volume, network, neighbouring_slices=2)
    assert probability.shape == (3, 50, 41)
    assert np.isfinite(probability).all()
    assert probability.std() > 0


# --- unusual images ----------------------------------------------------------------------------


GARBAGE = {
    "NaN": np.nan,
    "huge": 1e38,
    "negative": -1e6,
    "nothing": 0,
    "noise": np.random.default_rng(5).normal(0, 1e4, (3, 64, 64, 2)),
}


@pytest.mark.parametrize("kind", GARBAGE)
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_flair_only_model_ignores_other_sequences(make_head, kind):
    volume, truth = make_head((3, 64, 64))
    volume = volume.astype(np.float32)
    network = BrightFlair(channel=0)
    _, expected = predict(volume, network, sequences=("FLAIR",))
    assert dice(to_labels(expected, 0.5), truth) > 0.85
    volume[..., [0, 2]] = GARBAGE[kind]
    _, probability = predict(volume, network, sequences=("FLAIR",))
    np.testing.assert_array_equal(probability, expected)


@pytest.mark.parametrize("architecture", NETWORKS)
def test_networks_of_one_channel_run(make_head, architecture):
    volume, _ = make_head((3, 50, 41))
    network = build_network(architecture, 1)
    _, probability = predict(volume, network, sequences=("FLAIR",))
    assert probability.shape == (3, 50, 41)
    assert np.isfinite(probability).all()
    assert probability.std() > 0


def test_unusual_volumes_for_a_flair_only_model():
    for kind, volume in UNUSUAL.items():
        network = BrightFlair(channel=0)
        _, probability = predict(volume, network, working_size=16, sequences=("FLAIR",))
        assert probability.shape == volume.shape[:3], kind
        assert np.isfinite(probability).all(), kind


@pytest.mark.parametrize("factor", [0.001, 20])
@pytest.mark.parametrize("offset", [0, -100])
def test_scale_of_the_intensities_does_not_matter(make_head, factor, offset):
    volume, truth = make_head((3, 64, 64))
    _, probability = predict(volume * float(factor) + min(offset * factor, 0))
    assert dice(to_labels(probability, 0.5), truth) > 0.85


RNG = np.random.default_rng(0)
UNUSUAL = {
    "uint16": RNG.integers(0, 2**16, (2, 20, 24, 3)).astype(np.uint16),
    "int64": RNG.integers(-(2**62), 2**62, (2, 20, 24, 3)),
    "uint64": RNG.integers(0, 2**63, (2, 20, 24, 3)).astype(np.uint64),
    "bool": RNG.random((2, 20, 24, 3)) > 0.5,
    "float16": (RNG.random((2, 20, 24, 3)) * 6e4).astype(np.float16),
    "float64": RNG.random((2, 20, 24, 3)),
    "big endian": RNG.integers(0, 999, (2, 20, 24, 3)).astype(">i2"),
    "negative": RNG.random((2, 20, 24, 3)) - 5,
    "some NaN": np.where(RNG.random((2, 20, 24, 3)) > 0.9, np.nan, 1.0),
    "all NaN": np.full((2, 20, 24, 3), np.nan),
    "infinite": np.where(RNG.random((2, 20, 24, 3)) > 0.5, np.inf, -np.inf),
    "largest": np.where(RNG.random((2, 20, 24, 3)) > 0.5, 3e38, -3e38).astype(np.float32),
    "beyond float32": RNG.random((2, 20, 24, 3)) * 1e300,
    "denormal": RNG.random((2, 20, 24, 3)).astype(np.float32) * 1e-40,
    "zero": np.zeros((2, 20, 24, 3), np.uint8),
    "constant": np.full((2, 20, 24, 3), 0.1),
    "one voxel": np.ones((1, 1, 1, 3), np.uint8),
    "tiny": RNG.integers(0, 255, (1, 5, 7, 3)),
    "flat": RNG.integers(0, 255, (1, 1, 40, 3)),
    "long": RNG.integers(0, 255, (1, 300, 4, 3)),
    "one hot": np.eye(20 * 24 * 3)[7].reshape(1, 20, 24, 3),
    "not contiguous": RNG.integers(0, 255, (3, 24, 20, 4))[..., ::2, ::-1]
    .swapaxes(0, 2)[..., :1]
    .repeat(3, -1),
}


@pytest.mark.parametrize("kind", UNUSUAL)
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_unusual_volumes_give_probabilities(unet, kind):
    volume = UNUSUAL[kind]
    events, probability = predict(volume, unet, working_size=16)
    assert probability.shape == volume.shape[:3]
    assert np.isfinite(probability).all()
    assert probability.min() >= 0
    assert probability.max() <= 1
    assert events[-1] == SlicesDone(len(volume), len(volume))


@pytest.mark.parametrize(
    "volume",
    [
        np.zeros((20, 20, 3), np.uint8),
        np.zeros((2, 20, 20), np.uint8),
        np.zeros((2, 20, 20, 1), np.uint8),
        np.zeros((2, 20, 20, 4), np.uint8),
        np.zeros((1, 2, 20, 20, 3), np.uint8),
        np.zeros((0, 20, 20, 3), np.uint8),
        np.zeros((2, 0, 20, 3), np.uint8),
        np.zeros((2, 20, 20, 3), np.complex64),
        np.zeros((2, 20, 20, 3), object),
        np.zeros((2, 20, 20, 3), "U3"),
        np.zeros((2, 20, 20, 3), "M8[s]"),
    ],
    ids=lambda volume: f"{volume.shape} {volume.dtype}",
)
def test_unsuitable_images_are_refused(volume):
    with pytest.raises(ImageError, match=r"cannot be segmented; .*\.$") as error:
        predict(volume)
    assert "\n" not in str(error.value)


# --- cancelling --------------------------------------------------------------------------------


def test_closing_stops(make_head):
    seen = []

    class Counting(BrightFlair):
        def forward(self, slices):
            seen.append(len(slices))
            return super().forward(slices)

    steps = Predictor(model_of(Counting()), "cpu", batch_size=2).predict(make_head((6, 32, 32))[0])
    assert next(steps) == SlicesDone(0, 6)
    assert seen == []
    assert next(steps) == SlicesDone(2, 6)
    steps.close()
    assert seen == [2]
    with pytest.raises(StopIteration) as stop:
        next(steps)
    assert stop.value.value is None
