"""Quantized networks: close to the exact ones, computed in int8, cached separately, and only on request."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
import torch
from narrow_network import make_narrow, narrow_model, random_slices

from napari_lgg_seg.core.data.patients import read_patient
from napari_lgg_seg.core.errors import DeviceError, EngineError
from napari_lgg_seg.core.evaluation.metrics import dice
from napari_lgg_seg.core.inference import int8
from napari_lgg_seg.core.inference.calibrate_coarse import MIN_PATIENT_DICE
from napari_lgg_seg.core.inference.engines import make_engine
from napari_lgg_seg.core.inference.fold import fold_batch_norm
from napari_lgg_seg.core.inference.int8 import example_slices, quantize
from napari_lgg_seg.core.inference.postprocess import to_labels
from napari_lgg_seg.core.inference.predict import Predictor, run_to_end
from napari_lgg_seg.core.model.checkpoint import load_model
from napari_lgg_seg.core.model.networks import NETWORKS

CPU = torch.device("cpu")


def close(first, second, atol=1e-4):
    np.testing.assert_allclose(first, second, atol=atol)


@pytest.fixture
def quick_example(monkeypatch, make_patient):
    """A small patient instead of the sample patient, which takes seconds to draw."""
    monkeypatch.setattr(int8, "make_sample_patient", lambda: make_patient(shape=(20, 64, 64)))


def operations(request) -> dict[str, list[bool]]:
    """Kind of operation -> for each one in a compiled network, whether it runs in int8."""
    found: dict[str, list[bool]] = {}
    for operation in request.get_compiled_model().get_runtime_model().get_ops():
        info = operation.get_rt_info()
        kind, precision = (str(info[key].astype(str)) for key in ("layerType", "runtimePrecision"))
        found.setdefault(kind, []).append(precision in ("u8", "i8"))
    return found


@pytest.mark.usefixtures("openvino", "exact", "quick_example")
@pytest.mark.parametrize("architecture", NETWORKS)
@pytest.mark.parametrize("card", [{}, {"neighbouring_slices": 1}, {"sequences": ("FLAIR",)}], ids=str)
def test_int8_logits_are_close_to_pytorchs(architecture, card):
    channels = len(card.get("sequences", "abc")) * (2 * card.get("neighbouring_slices", 0) + 1)
    network = make_narrow(architecture, channels)
    described = narrow_model(network, architecture=architecture, **card).card
    engine = make_engine("openvino-int8", network, channels, CPU, described)
    assert engine.name == "openvino-int8"
    for shape in [(2, 48, 64), (1, 32, 32), (1, 50, 41)]:
        x = random_slices(shape[0], channels, *shape[1:])
        with torch.inference_mode():
            first, second = engine.logits(x), make_engine("torch", network, channels, CPU).logits(x)
        assert first.shape == second.shape == shape
        difference = float((first - second).abs().mean() / second.std())
        assert 0 < difference < 0.2


def test_int8_requires_the_card_of_the_model():
    with pytest.raises(ValueError, match="requires the model's card"):
        make_engine("openvino-int8", make_narrow(), 3, CPU)


@pytest.mark.usefixtures("openvino", "quick_example")
def test_inner_levels_are_computed_in_int8():
    network = make_narrow()
    engine = make_engine("openvino-int8", network, 3, CPU, narrow_model(network).card)
    whole = operations(engine._request)
    # 6 of 10 convolutions of the encoder, 4 of 6 of the decoder, and not the head.
    assert (sum(whole["Convolution"]), len(whole["Convolution"])) == (10, 17)
    assert (sum(whole["Deconvolution"]), len(whole["Deconvolution"])) == (2, 3)
    assert (sum(whole["Pooling"]), len(whole["Pooling"])) == (2, 3)


def test_quantizing_does_not_change_the_network():
    network = fold_batch_norm(make_narrow())
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    quantized = quantize(network, random_slices(3, 3, 48, 48))
    after = network.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    x = random_slices(2, 3, 48, 48, seed=5)
    with torch.inference_mode():
        exact, coarse = network(x), quantized(x)
    assert 0 < float((exact - coarse).abs().mean() / exact.std()) < 0.2


def test_the_outer_levels_stay_exact():
    network = fold_batch_norm(make_narrow())
    quantized = quantize(network, random_slices(3, 3, 44, 44))  # padded to 48 x 48 by the network
    channels = {"down.0": 3, "down.1.0": 8, "down.1.3": 16, "down.2": 16, "down.3": 32, "up.1.enlarge": 32}

    def same(place: str, *given: torch.Tensor) -> bool:
        with torch.inference_mode():
            first, second = (
                n.get_submodule(place)(*(x.clone() for x in given)) for n in (network, quantized)
            )
        return torch.equal(first, second)

    found = {place: same(place, random_slices(1, count, 24, 24).abs()) for place, count in channels.items()}
    assert [place for place, exact in found.items() if exact] == ["down.0", "down.1.0", "down.1.3"]
    x, skip = random_slices(1, 16, 24, 24).abs(), random_slices(1, 8, 48, 48).abs()
    assert same("up.2", x, skip)
    assert same("head", skip)


def test_quantized_values_are_steps_of_whole_numbers():
    first, second = torch.nn.Conv2d(1, 4, 3), torch.nn.Conv2d(4, 2, 1)
    network = torch.nn.Sequential(first, torch.nn.ReLU(), torch.nn.AvgPool2d(4), second).eval()
    quantized = quantize(network, random_slices(2, 1, 18, 18))
    x = random_slices(1, 1, 18, 18, seed=1)
    with torch.inference_mode():
        between, expected = quantized[:2](x), network[:2](x)
        after, whole = quantized[2:](expected), network[2:](expected)
    step = float(between[between > 0].min())
    steps = between / step
    close(steps, steps.round(), atol=1e-3)
    assert 0 <= steps.min() <= 100 < steps.max() < 255.5
    close(between, expected.clamp(max=float(between.max())), atol=step)
    assert 0 < float((after - whole).abs().max()) < float(second.weight.abs().max()) / 50


@pytest.mark.parametrize("card", [{"neighbouring_slices": 2}, {"sequences": ("FLAIR",)}], ids=str)
def test_example_slices_match_the_models_input(card):
    described = narrow_model(make_narrow(), **card).card
    examples = example_slices(described)
    channels = len(card.get("sequences", "abc")) * (2 * card.get("neighbouring_slices", 0) + 1)
    assert examples.shape[1:] == (channels, 48, 48)
    assert len(examples) > 8
    assert torch.equal(examples, example_slices(described))
    assert abs(float(examples.mean())) < 2
    assert 0.3 < float(examples.std()) < 3


@pytest.mark.usefixtures("quick_example")
def test_quantized_networks_are_cached_separately(conversions, tmp_path):
    network, x = make_narrow(), random_slices(1, 3, 32, 32)
    card = narrow_model(network).card
    make_engine("openvino", network, 3, CPU)
    first = make_engine("openvino-int8", network, 3, CPU, card).logits(x)
    assert len(conversions) == 2
    assert torch.equal(make_engine("openvino-int8", network, 3, CPU, card).logits(x), first)
    make_engine("openvino", network, 3, CPU)
    assert len(conversions) == 2
    other = narrow_model(network, neighbouring_slices=1).card
    with suppress(EngineError):  # the network does not fit this input; it must not come from the cache
        make_engine("openvino-int8", network, 3, CPU, other)
        pytest.fail("the network cached for another model was used")


@pytest.mark.usefixtures("openvino", "quick_example")
def test_int8_is_used_only_on_request(monkeypatch, make_head):
    model = narrow_model(make_narrow())
    assert Predictor(model, "cpu").engine.name == "openvino"
    predictor = Predictor(model, engine="openvino-int8")
    assert (predictor.engine.name, predictor.runs_on) == ("openvino-int8", "CPU (OpenVINO, 8 bits)")
    probability = run_to_end(predictor.predict(make_head((4, 64, 64))[0]))
    exact = run_to_end(Predictor(model, "cpu").predict(make_head((4, 64, 64))[0]))
    assert 0 < np.abs(probability - exact).mean() < 0.05
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert Predictor(model, engine="openvino-int8").device == CPU
    with pytest.raises(DeviceError, match="OpenVINO runs on the CPU"):
        Predictor(model, "cuda", engine="openvino-int8")


def test_int8_without_openvino_is_refused():
    with pytest.raises(DeviceError, match=r"'openvino-int8' is not installed; .*napari-lgg-seg\[openvino\]"):
        Predictor(narrow_model(make_narrow()), "cpu", engine="openvino-int8")


@pytest.mark.real_data
@pytest.mark.usefixtures("openvino")
def test_int8_labels_of_a_real_patient_agree(lgg_dataset):
    model = load_model()
    patient = read_patient(lgg_dataset / model.card.validation_patients[0])  # the most sensitive one
    exact, coarse = (
        to_labels(run_to_end(Predictor(model, "cpu", engine=engine).predict(patient.volume)), 0.5)
        for engine in ("openvino", "openvino-int8")
    )
    assert dice(exact, coarse) > MIN_PATIENT_DICE
    assert abs(dice(exact, patient.truth) - dice(coarse, patient.truth)) < 0.02
