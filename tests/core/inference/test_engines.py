"""OpenVINO gives the results of PyTorch, and PyTorch takes over if it fails."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from narrow_network import make_narrow, narrow_model, random_slices
from noted_network import finish
from user_home import python

from napari_lgg_seg.core import devices
from napari_lgg_seg.core.errors import DeviceError, EngineError
from napari_lgg_seg.core.inference.engines import Engine, make_engine
from napari_lgg_seg.core.inference.predict import Notice, Predictor, SlicesDone, run_to_end
from napari_lgg_seg.core.model.networks import NETWORKS

CPU = torch.device("cpu")


def texts(events):
    return [event.text for event in events if isinstance(event, Notice)]


def close(first, second, atol=1e-4):
    np.testing.assert_allclose(first, second, atol=atol)


# --- agreement with PyTorch --------------------------------------------------------------------


@pytest.mark.usefixtures("openvino", "exact")
@pytest.mark.parametrize("architecture", NETWORKS)
@pytest.mark.parametrize("channels", [1, 3, 15])
def test_openvino_logits_equal_pytorchs_for_any_number_and_size_of_slices(architecture, channels):
    network = make_narrow(architecture, channels)
    engines: list[Engine] = [make_engine(name, network, channels, CPU) for name in ("openvino", "torch")]
    assert [engine.name for engine in engines] == ["openvino", "torch"]
    for shape in [(2, 48, 64), (1, 32, 32), (5, 16, 48), (1, 50, 41), (3, 7, 9)]:
        x = random_slices(shape[0], channels, *shape[1:])
        with torch.inference_mode():
            first, second = (engine.logits(x) for engine in engines)
        assert first.shape == second.shape == shape
        assert first.dtype == second.dtype == torch.float32
        close(first, second)
        assert second.std() > 0.01


@pytest.mark.usefixtures("openvino", "exact")
def test_a_result_is_not_overwritten_by_the_next_one():
    engine = make_engine("openvino", make_narrow(), 3, CPU)
    first = engine.logits(random_slices(2, 3, 32, 32))
    before = first.clone()
    engine.logits(random_slices(2, 3, 32, 32, seed=1))
    assert torch.equal(first, before)


@pytest.mark.usefixtures("openvino", "exact")
@pytest.mark.parametrize(
    "options",
    [{}, {"tta": True}, {"neighbouring_slices": 2}, {"sequences": ("FLAIR",)}, {"architecture": "buda"}],
    ids=str,
)
def test_openvino_probability_equals_pytorchs(make_head, options):
    volume, _ = make_head((7, 64, 60))
    card = dict(options)
    tta = card.pop("tta", False)
    channels = len(card.get("sequences", "abc")) * (2 * card.get("neighbouring_slices", 0) + 1)
    model = narrow_model(make_narrow(card.get("architecture", "unet"), channels), **card)
    first, second = (
        run_to_end(Predictor(model, "cpu", 3, tta=tta, engine=engine).predict(volume))
        for engine in ("openvino", "torch")
    )
    assert second.std() > 0.01
    close(first, second)


@pytest.mark.usefixtures("openvino")
def test_engines_agree_in_the_processors_number_format(make_head):
    """In bf16, if the processor supports it, within its precision."""
    volume, _ = make_head((4, 64, 64))
    model = narrow_model(make_narrow())
    first, second = (
        run_to_end(Predictor(model, "cpu", engine=engine).predict(volume)) for engine in ("openvino", "torch")
    )
    close(first, second, atol=0.03)


@pytest.mark.usefixtures("openvino")
def test_converting_does_not_change_the_network():
    network = make_narrow().train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    make_engine("openvino", network, 3, CPU)
    assert network.training
    after = network.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


# --- choice of engine --------------------------------------------------------------------------


def test_pytorch_is_used_if_openvino_is_not_installed(make_head):
    predictor = Predictor(narrow_model(make_narrow()), "cpu")
    assert predictor.engine.name == "torch"
    assert predictor.runs_on == "CPU"
    with pytest.raises(DeviceError, match=r"'openvino' is not installed; install napari-lgg-seg\[openvino\]"):
        Predictor(narrow_model(make_narrow()), "cpu", engine="openvino")


@pytest.mark.usefixtures("openvino")
@pytest.mark.parametrize(
    ("choice", "engine", "runs_on"),
    [
        ("auto", "openvino", "CPU (OpenVINO)"),
        ("openvino", "openvino", "CPU (OpenVINO)"),
        ("torch", "torch", "CPU"),
    ],
)
def test_engine_of_a_predictor(choice, engine, runs_on):
    predictor = Predictor(narrow_model(make_narrow()), "cpu", engine=choice)
    assert (predictor.engine.name, predictor.runs_on) == (engine, runs_on)


@pytest.mark.usefixtures("openvino")
def test_openvino_uses_the_cpu_even_with_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert Predictor(narrow_model(make_narrow()), engine="openvino").device == CPU
    with pytest.raises(DeviceError, match=r"not on CUDA; choose device cpu or engine torch\.$"):
        Predictor(narrow_model(make_narrow()), "cuda", engine="openvino")


def test_listing_engines_imports_none(tmp_path):
    code = (
        "import sys\nfrom napari_lgg_seg.core import devices\nprint(devices.available_engines())\n"
        "assert not {'openvino', 'torch'} & set(sys.modules)\n"
    )
    done = python(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "torch" in done.stdout


# --- failures ----------------------------------------------------------------------------------


class OddError(Exception):
    """Of an unexpected kind."""


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            RuntimeError("Exception from src/core.cpp:1:\nCheck failed at x.cpp\nNo such operation.\n\n"),
            "No such operation",
        ),
        (OddError("cannot convert"), "cannot convert"),
        (AssertionError(), "AssertionError"),
        (ImportError("libtbb.so.12 is missing"), "libtbb.so.12 is missing"),
    ],
)
def test_pytorch_takes_over_if_openvino_cannot_convert_the_network(
    openvino, monkeypatch, make_head, error, reason
):
    volume, _ = make_head((5, 48, 48))

    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(openvino, "convert_model", fail)
    model = narrow_model(make_narrow())
    predictor = Predictor(model, "cpu")
    assert predictor.engine.name == "torch"
    events, probability = finish(predictor.predict(volume))
    assert texts(events) == [f"OpenVINO failed ({reason}): continuing with PyTorch."]
    close(probability, run_to_end(Predictor(model, "cpu", engine="torch").predict(volume)), atol=0)
    assert texts(finish(predictor.predict(volume))[0]) == [], "reported only once"


def test_pytorch_takes_over_if_openvino_fails_while_computing(openvino, monkeypatch, make_head):
    volume, _ = make_head((9, 48, 48))
    infer, calls = openvino.InferRequest.infer, []

    def fail(self, *arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("Exception from src/infer.cpp:1:\nthe primitive is gone\n")
        return infer(self, *arguments, **options)

    monkeypatch.setattr(openvino.InferRequest, "infer", fail)
    model = narrow_model(make_narrow())
    predictor = Predictor(model, "cpu", 4)
    events, probability = finish(predictor.predict(volume))
    assert texts(events) == ["OpenVINO failed (the primitive is gone): continuing with PyTorch."]
    assert [event.done for event in events if isinstance(event, SlicesDone)] == [0, 4, 8, 9]
    assert len(calls) == 2
    assert predictor.engine.name == "torch"
    close(probability, run_to_end(Predictor(model, "cpu", engine="torch").predict(volume)), atol=0.03)


@pytest.mark.parametrize("error", [RuntimeError("std::bad_alloc"), MemoryError()])
def test_openvino_out_of_memory_halves_the_batch(openvino, monkeypatch, make_head, error):
    volume, _ = make_head((5, 48, 48))
    infer = openvino.InferRequest.infer

    def fail(self, inputs, **options):
        if len(inputs[0]) > 1:
            raise error
        return infer(self, inputs, **options)

    model = narrow_model(make_narrow())
    expected = run_to_end(Predictor(model, "cpu").predict(volume))
    monkeypatch.setattr(openvino.InferRequest, "infer", fail)
    predictor = Predictor(model, "cpu", 4)
    events, probability = finish(predictor.predict(volume))
    assert [text.split(":")[0] for text in texts(events)] == 2 * ["Out of memory"]
    assert predictor.engine.name == "openvino"
    close(probability, expected, atol=0.03)


@pytest.mark.usefixtures("openvino")
def test_a_network_that_cannot_be_traced_is_an_engine_error():
    class Untraceable(torch.nn.Module):
        def forward(self, slices):
            raise NotImplementedError("no way")

    with pytest.raises(EngineError, match=r"^OpenVINO failed \(.*\)$") as error:
        make_engine("openvino", Untraceable(), 3, CPU)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("engine", ["openvino", "openvino-int8"])
@pytest.mark.parametrize("options", [{}, {"tta": True}])
def test_pytorch_takes_over_if_another_engine_computes_values_that_are_not_finite(
    openvino, monkeypatch, make_head, engine, options
):
    volume, _ = make_head((5, 48, 48))
    infer, calls = openvino.InferRequest.infer, []

    def spoiled(self, *arguments, **more):
        calls.append(1)
        [found] = infer(self, *arguments, **more).values()
        found = np.array(found)
        found[0, 0, 20, 20] = np.inf if len(calls) == 2 else found[0, 0, 20, 20]
        return {0: found}

    monkeypatch.setattr(openvino.InferRequest, "infer", spoiled)
    model = narrow_model(make_narrow())
    predictor = Predictor(model, "cpu", 2, engine=engine, **options)
    events, probability = finish(predictor.predict(volume))
    name = devices.ENGINE_NAMES[engine]
    assert texts(events) == [
        f"{name} computed values that are not finite or too large: continuing with PyTorch."
    ]
    assert predictor.engine.name == "torch"
    expected = run_to_end(Predictor(model, "cpu", engine="torch", **options).predict(volume))
    close(probability, expected, atol=0.03 if engine == "openvino" else 0.3)  # int8 rounds a narrow network


@pytest.mark.parametrize("error", [ValueError("odd"), KeyError(0), OddError("odd")])
def test_pytorch_takes_over_whatever_openvino_raises(openvino, monkeypatch, make_head, error):
    def fail(self, *arguments, **options):
        raise error

    monkeypatch.setattr(openvino.InferRequest, "infer", fail)
    predictor = Predictor(narrow_model(make_narrow()), "cpu")
    [text] = texts(finish(predictor.predict(make_head((3, 48, 48))[0]))[0])
    assert text.startswith("OpenVINO failed (")
    assert text.endswith("): continuing with PyTorch.")


class OddEngine:
    """An engine that does not turn its library's errors into those of the protocol."""

    name = "openvino"

    def logits(self, slices):
        raise ValueError("odd\nsecond line")


def test_pytorch_takes_over_whatever_another_engine_raises(make_head):
    predictor = Predictor(narrow_model(make_narrow()), "cpu")
    predictor.engine = OddEngine()
    events, _ = finish(predictor.predict(make_head((3, 48, 48))[0]))
    assert texts(events) == ["OpenVINO failed (odd): continuing with PyTorch."]
