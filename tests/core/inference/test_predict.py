from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from noted_network import finish
from torch import nn

from napari_lgg_seg.core import devices
from napari_lgg_seg.core.errors import DeviceError, ImageError
from napari_lgg_seg.core.evaluation.metrics import dice
from napari_lgg_seg.core.inference import predict as module
from napari_lgg_seg.core.inference import transfer
from napari_lgg_seg.core.inference.fold import fold_batch_norm
from napari_lgg_seg.core.inference.postprocess import to_labels
from napari_lgg_seg.core.inference.predict import Notice, Predictor, SlicesDone
from napari_lgg_seg.core.model.checkpoint import Model, ModelCard
from napari_lgg_seg.core.model.networks import NETWORKS, build_network
from napari_lgg_seg.core.model.preprocess import (
    PreprocessOptions,
    back_to_grid,
    crop_and_resample,
    measure,
    normalise,
)


class BrightFlair(nn.Module):
    """A network that finds what is bright in FLAIR, and can be made to fail.

    Parameters
    ----------
    at_most : int
        Slices that fit into its memory.
    error : callable
        Makes the exception for more than that.
    only_on : str, optional
        Kind of device on which it fails; any by default.
    """

    def __init__(self, at_most=1000, error=None, only_on=None, channel=1):
        super().__init__()
        self.at_most, self.error, self.only_on, self.channel = at_most, error, only_on, channel
        self.scale = nn.Parameter(torch.tensor(6.0))

    def forward(self, slices):
        if len(slices) > self.at_most and self.only_on in (None, slices.device.type):
            raise self.error()
        return self.scale * (slices[:, self.channel : self.channel + 1] - 1.5)


def out_of_memory():
    return torch.OutOfMemoryError("Tried to allocate 1 GiB.")


def model_of(network, working_size=48, **card):
    card = ModelCard(name="test", preprocess=PreprocessOptions(working_size=working_size), **card)
    return Model(network.eval(), card, Path("test.safetensors"))


def predict(volume, network=None, batch_size=None, **options):
    predictor = Predictor(model_of(network or BrightFlair(), **options), "cpu", batch_size)
    return finish(predictor.predict(volume))


# --- batch normalisation -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def buda():
    """The original study's network with seeded weights and batch normalisation that does something."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        network = build_network("buda", 3)
        for norm in [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]:
            for values, lowest in (
                (norm.running_mean, -0.2),
                (norm.running_var, 0.8),
                (norm.weight.data, 0.8),
                (norm.bias.data, -0.2),
            ):
                values.uniform_(lowest, lowest + 0.4)
    return network.eval()


@pytest.mark.parametrize("architecture", ["unet", "buda"])
def test_folded_network_computes_the_same(request, architecture):
    network = request.getfixturevalue(architecture)
    images = torch.randn(2, 3, 40, 48, generator=torch.Generator().manual_seed(0))
    folded = fold_batch_norm(network)
    assert not [m for m in folded.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.inference_mode():
        expected = network(images)
        torch.testing.assert_close(folded(images), expected, atol=1e-4, rtol=1e-4)
    assert expected.std() > 0.01


def test_folding_leaves_the_network_alone(unet):
    before = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    training = fold_batch_norm(unet).training
    assert not training
    after = unet.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_folding_a_network_in_training_uses_its_running_figures():
    block = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)).train()
    block[1].running_mean.copy_(torch.tensor([1.0, -2.0]))
    folded = fold_batch_norm(block)
    assert block.training
    x = torch.ones(1, 1, 2, 2)
    torch.testing.assert_close(folded(x), block.eval()(x))


def test_only_normalisation_behind_a_convolution_is_folded():
    block = nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1), nn.ReLU(), nn.BatchNorm2d(2)).eval()
    block[0].running_mean.fill_(3)
    block[3].running_mean.fill_(1)
    x = torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(fold_batch_norm(block)(x), block(x))


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


def test_model_of_some_sequences_gets_those_in_its_order(make_head):
    volume, truth = make_head((3, 64, 64))
    network = BrightFlair(channel=0)
    _, probability = predict(volume, network, sequences=("FLAIR", "pre-contrast"))
    assert dice(to_labels(probability, 0.5), truth) > 0.85
    _, probability = predict(volume, network, sequences=("pre-contrast", "FLAIR"))
    assert dice(to_labels(probability, 0.5), truth) < 0.5


# --- neighbouring slices -----------------------------------------------------------------------


class Neighbour(BrightFlair):
    """Finds what is bright in FLAIR of the slice that lies ``offset`` away, of ``neighbours`` each way."""

    def __init__(self, offset, neighbours, **options):
        super().__init__(channel=3 * (neighbours + offset) + 1, **options)
        self.channels = 3 * (2 * neighbours + 1)

    def forward(self, slices):
        assert slices.shape[1] == self.channels
        return super().forward(slices)


def shifted(probability, offset):
    """Each slice's result is that of the slice ``offset`` away, the last one repeated."""
    return probability[(np.arange(len(probability)) + offset).clip(0, len(probability) - 1)]


@pytest.fixture(scope="module")
def uneven(make_head):
    """A volume whose slices are all different in FLAIR, tumour in some."""
    volume, _ = make_head((9, 48, 48))
    volume[..., 1] += (np.arange(9, dtype=np.uint8) * 3)[:, None, None] * (volume[..., 1] > 0)
    return volume


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
def test_a_volume_of_fewer_slices_than_are_seen(uneven, slices):
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


def test_neighbours_of_a_model_of_flair_alone(uneven):
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
def test_slices_are_not_prepared_for_each_that_sees_them(uneven, monkeypatch, batch_size, most):
    """A batch of neighbouring slices takes no more than the ends of it in addition."""
    prepared, prepare = [], module.crop_and_resample

    def noted(slices, *rest):
        prepared.append(len(slices))
        return prepare(slices, *rest)

    monkeypatch.setattr(module, "crop_and_resample", noted)
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


# --- strange images ----------------------------------------------------------------------------


GARBAGE = {
    "NaN": np.nan,
    "huge": 1e38,
    "negative": -1e6,
    "nothing": 0,
    "noise": np.random.default_rng(5).normal(0, 1e4, (3, 64, 64, 2)),
}


@pytest.mark.parametrize("kind", GARBAGE)
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_model_of_flair_alone_sees_flair_alone(make_head, kind):
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


def test_strange_volumes_for_a_model_of_flair_alone():
    for kind, volume in STRANGE.items():
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
STRANGE = {
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


@pytest.mark.parametrize("kind", STRANGE)
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_strange_volumes_give_probabilities(unet, kind):
    volume = STRANGE[kind]
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
def test_other_images_are_refused(volume):
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

    work = Predictor(model_of(Counting()), "cpu", batch_size=2).predict(make_head((6, 32, 32))[0])
    assert next(work) == SlicesDone(0, 6)
    assert seen == []
    assert next(work) == SlicesDone(2, 6)
    work.close()
    assert seen == [2]
    with pytest.raises(StopIteration) as stop:
        next(work)
    assert stop.value.value is None


# --- failures ----------------------------------------------------------------------------------


@pytest.mark.parametrize("at_most", [1, 2, 3, 7])
@pytest.mark.parametrize("error", [out_of_memory, MemoryError, lambda: RuntimeError("CUDA out of memory.")])
def test_out_of_memory_halves_the_batch(make_head, at_most, error):
    volume, _ = make_head((9, 48, 48))
    _, expected = predict(volume)
    events, probability = predict(volume, BrightFlair(at_most, error), batch_size=8)
    notices = [event for event in events if isinstance(event, Notice)]
    assert len(notices) == {1: 3, 2: 2, 3: 2, 7: 1}[at_most]
    assert notices[0].text == "Out of memory: going on with 4 instead of 8 slices at once."
    done = [event.done for event in events if isinstance(event, SlicesDone)]
    assert max(np.diff(done)) <= at_most
    assert done[-1] == 9
    np.testing.assert_allclose(probability, expected, atol=1e-6)


@pytest.mark.parametrize("error", [out_of_memory, MemoryError])
def test_no_memory_for_one_slice_on_the_cpu(make_head, error):
    with pytest.raises(DeviceError, match=r"not enough memory for a single slice; .*\.$"):
        predict(make_head((4, 32, 32))[0], BrightFlair(0, error))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            lambda: RuntimeError("CUDA error: device lost\nCompile with TORCH_USE_CUDA_DSA"),
            "CUDA error: device lost",
        ),
        (RuntimeError, "RuntimeError"),
        (lambda: NotImplementedError("no such operator"), "no such operator"),
    ],
)
def test_failure_of_the_device(make_head, error, reason):
    with pytest.raises(DeviceError) as caught:
        predict(make_head((4, 32, 32))[0], BrightFlair(1, error))
    assert str(caught.value) == f"CPU failed ({reason}); choose another device or a smaller batch."


@pytest.fixture
def other_device(monkeypatch):
    """Make "auto" choose a device other than the CPU: torch's one without memory stands in for a GPU."""
    monkeypatch.setattr(
        devices,
        "choose_device",
        lambda name="auto", engine="auto": torch.device("meta" if name == "auto" else "cpu"),
    )


@pytest.mark.usefixtures("other_device")
def test_gpu_without_memory_for_one_slice_hands_over_to_the_cpu(make_head):
    volume, _ = make_head((5, 48, 48))
    network = BrightFlair(0, out_of_memory, only_on="meta")
    predictor = Predictor(model_of(network), batch_size=4)
    events, probability = finish(predictor.predict(volume))
    assert [event.text for event in events if isinstance(event, Notice)] == [
        "Out of memory: going on with 2 instead of 4 slices at once.",
        "Out of memory: going on with 1 instead of 2 slices at once.",
        "META is out of memory: going on with the CPU.",
    ]
    assert predictor.device.type == "cpu"
    np.testing.assert_allclose(probability, predict(volume)[1], atol=1e-6)


# --- one batch ahead ---------------------------------------------------------------------------


class Ahead(transfer.DeviceTransfer):
    """A way to a device that computes beside: results are there when they are waited for.

    Parameters
    ----------
    fail_at : sequence of int
        Results, counted from 0, that are lost.
    error : callable
        Makes the exception.
    """

    ahead = 1

    def __init__(self, device, fail_at=(), error=out_of_memory):
        super().__init__(device)
        self.fail_at, self.error = fail_at, error
        self.asked = 0
        self.raw, self.order = [], []

    def send_raw(self, tensor):
        self.raw.append(tensor.dtype)
        return tensor

    def fetch(self, tensor):
        number, self.asked = self.asked, self.asked + 1
        self.order.append(f"begun {number}")

        def wait():
            self.order.append(f"waited {number}")
            if number in self.fail_at:
                raise self.error()
            return tensor.cpu()

        return wait


@pytest.fixture
def ahead(monkeypatch):
    """Factory: a predictor on such a device, and its lane."""

    def make(network=None, batch_size=2, device="cpu", card=None, **transfer):
        made = []

        def transfer_to(there):
            made.append(Ahead(there, **transfer) if not made else transfer.DeviceTransfer(there))
            return made[-1]

        monkeypatch.setattr(transfer, "transfer_to", transfer_to)
        predictor = Predictor(model_of(network or BrightFlair(), **(card or {})), device, batch_size)
        return predictor, made[0]

    return make


@pytest.mark.parametrize("batch_size", [1, 2, 5, 6, 11, 100])
@pytest.mark.parametrize("neighbours", [0, 1])
def test_the_next_batch_is_begun_before_a_result_is_waited_for(uneven, ahead, batch_size, neighbours):
    network, card = Neighbour(0, neighbours), {"neighbouring_slices": neighbours}
    expected_events, expected = predict(uneven, network, batch_size, **card)
    predictor, transfer = ahead(network, batch_size, card=card)
    events, probability = finish(predictor.predict(uneven))
    np.testing.assert_array_equal(probability, expected)
    assert events == expected_events
    batches = -(-9 // batch_size)
    order = [f"begun {n}" for n in range(min(2, batches))]
    for n in range(batches):
        order += [f"waited {n}"] + ([f"begun {n + 2}"] if n + 2 < batches else [])
    assert transfer.order == order
    assert set(transfer.raw) == {torch.uint8}, "slices are sent as they were read"


def test_closing_with_a_batch_under_way(uneven, ahead):
    predictor, transfer = ahead()
    work = predictor.predict(uneven)
    while next(work) != SlicesDone(2, 9):
        pass
    assert transfer.order == ["begun 0", "begun 1", "waited 0"]
    work.close()
    assert transfer.order == ["begun 0", "begun 1", "waited 0"]
    np.testing.assert_array_equal(finish(predictor.predict(uneven))[1], predict(uneven)[1])


@pytest.mark.parametrize("fail_at", [(0,), (1,), (0, 2)])
def test_a_result_that_is_lost_for_lack_of_memory_is_computed_again(uneven, ahead, fail_at):
    predictor, _ = ahead(batch_size=5, fail_at=fail_at)
    events, probability = finish(predictor.predict(uneven))
    notices = [event.text for event in events if isinstance(event, Notice)]
    assert len(notices) == len(fail_at)
    assert all(text.startswith("Out of memory: going on with") for text in notices)
    done = [event.done for event in events if isinstance(event, SlicesDone)]
    assert done == sorted(done)
    assert done[-1] == 9
    np.testing.assert_allclose(probability, predict(uneven)[1], atol=1e-6)


def test_memory_that_ends_while_a_batch_is_under_way(uneven, ahead):
    """The second batch does not fit beside the first: both are computed again, smaller."""

    class Second(BrightFlair):
        calls = 0

        def forward(self, slices):
            self.__class__.calls += 1
            if self.calls == 2:
                raise out_of_memory()
            return super().forward(slices)

    predictor, _ = ahead(Second(), batch_size=4)
    events, probability = finish(predictor.predict(uneven))
    assert [e.text for e in events if isinstance(e, Notice)] == [
        "Out of memory: going on with 2 instead of 4 slices at once."
    ]
    assert [e.done for e in events if isinstance(e, SlicesDone)] == [0, 2, 4, 6, 8, 9]
    np.testing.assert_allclose(probability, predict(uneven)[1], atol=1e-6)


@pytest.mark.usefixtures("other_device")
def test_one_slice_too_many_hands_over_to_the_cpu_with_a_batch_under_way(uneven, ahead):
    network = BrightFlair(0, out_of_memory, only_on="meta")
    predictor, _ = ahead(network, 4, "auto")
    events, probability = finish(predictor.predict(uneven))
    assert [e.text for e in events if isinstance(e, Notice)][-1].startswith("META is out of memory")
    np.testing.assert_allclose(probability, predict(uneven)[1], atol=1e-6)


def test_a_device_that_is_lost_while_a_result_is_waited_for(uneven, ahead):
    predictor, _ = ahead(fail_at=(1,), error=lambda: RuntimeError("CUDA error: device lost"))
    with pytest.raises(DeviceError, match=r"failed \(CUDA error: device lost\)"):
        finish(predictor.predict(uneven))


@pytest.mark.usefixtures("other_device")
def test_device_that_does_not_answer(monkeypatch, make_head):
    def fail(*arguments):
        raise RuntimeError("CUDA error: unknown error")

    work = Predictor(model_of(BrightFlair())).predict(make_head((2, 32, 32))[0])
    monkeypatch.setattr(devices, "automatic_batch_size", fail)
    with pytest.raises(DeviceError, match="META failed"):
        finish(work)


def test_device_that_cannot_take_the_network(monkeypatch):
    def fail(*arguments, **options):
        raise out_of_memory()

    monkeypatch.setattr(nn.Module, "to", fail)
    with pytest.raises(DeviceError, match=r"CPU failed \(Tried to allocate 1 GiB\.\)"):
        Predictor(model_of(BrightFlair()), "cpu")


@pytest.mark.parametrize("device", ["cuda", "tpu"])
def test_absent_device_is_refused(monkeypatch, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match=device):
        Predictor(model_of(BrightFlair()), device)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_gives_the_labels_of_the_cpu(unet, make_head):
    volume, _ = make_head((9, 64, 64))
    expected = predict(volume, unet)[1]
    _, probability = finish(Predictor(model_of(unet), "cuda").predict(volume))
    np.testing.assert_allclose(probability, expected, atol=0.05)
