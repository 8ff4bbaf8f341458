"""OpenVINO against PyTorch on small networks, what it keeps on disk, and what happens where it fails."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from narrow_network import narrow_network
from noted_network import finish

from napari_lgg_seg.core import devices
from napari_lgg_seg.core.data.patients import read_patient
from napari_lgg_seg.core.errors import DeviceError, EngineError
from napari_lgg_seg.core.evaluation.metrics import dice
from napari_lgg_seg.core.inference import int8 as eight_bits
from napari_lgg_seg.core.inference import openvino as openvino_engine
from napari_lgg_seg.core.inference.calibrate_coarse import EACH
from napari_lgg_seg.core.inference.engines import Engine, make_engine
from napari_lgg_seg.core.inference.fold import fold_batch_norm
from napari_lgg_seg.core.inference.int8 import example_slices, quantize
from napari_lgg_seg.core.inference.postprocess import to_labels
from napari_lgg_seg.core.inference.predict import Notice, Predictor, SlicesDone, run_to_end
from napari_lgg_seg.core.model.checkpoint import Model, ModelCard, load_model
from napari_lgg_seg.core.model.networks import NETWORKS, build_network
from napari_lgg_seg.core.model.preprocess import PreprocessOptions

CPU = torch.device("cpu")


@pytest.fixture
def exact(monkeypatch):
    """Both engines in fp32, so that they can be compared closely."""
    monkeypatch.setattr(devices, "_cpu_has_bf16", lambda: False)


def narrow(architecture="unet", channels=3, seed=0):
    """A narrow network with seeded weights, and batch normalisation that does something."""
    with narrow_network(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(architecture, channels)
        for norm in [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]:
            norm.running_mean.uniform_(-0.2, 0.2)
            norm.running_var.uniform_(0.8, 1.2)
    return network.eval()


def slices(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def model_of(network, **card):
    card = ModelCard("test", preprocess=PreprocessOptions(working_size=48), **card)
    return Model(network.eval(), card, Path("test.safetensors"))


def texts(events):
    return [event.text for event in events if isinstance(event, Notice)]


def close(first, second, atol=1e-4):
    np.testing.assert_allclose(first, second, atol=atol)


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


# --- the same as PyTorch -----------------------------------------------------------------------


@pytest.mark.usefixtures("openvino", "exact")
@pytest.mark.parametrize("architecture", NETWORKS)
@pytest.mark.parametrize("channels", [1, 3, 15])
def test_logits_are_those_of_pytorch_for_any_number_and_size_of_slices(architecture, channels):
    network = narrow(architecture, channels)
    engines: list[Engine] = [make_engine(name, network, channels, CPU) for name in ("openvino", "torch")]
    assert [engine.name for engine in engines] == ["openvino", "torch"]
    for shape in [(2, 48, 64), (1, 32, 32), (5, 16, 48), (1, 50, 41), (3, 7, 9)]:
        x = slices(shape[0], channels, *shape[1:])
        with torch.inference_mode():
            first, second = (engine.logits(x) for engine in engines)
        assert first.shape == second.shape == shape
        assert first.dtype == second.dtype == torch.float32
        close(first, second)
        assert second.std() > 0.01


@pytest.mark.usefixtures("openvino", "exact")
def test_an_answer_stays_as_it_is_when_the_next_is_computed():
    engine = make_engine("openvino", narrow(), 3, CPU)
    first = engine.logits(slices(2, 3, 32, 32))
    before = first.clone()
    engine.logits(slices(2, 3, 32, 32, seed=1))
    assert torch.equal(first, before)


@pytest.mark.usefixtures("openvino", "exact")
@pytest.mark.parametrize(
    "options",
    [{}, {"tta": True}, {"neighbouring_slices": 2}, {"sequences": ("FLAIR",)}, {"architecture": "buda"}],
    ids=str,
)
def test_probability_is_that_of_pytorch(make_head, options):
    volume, _ = make_head((7, 64, 60))
    card = dict(options)
    tta = card.pop("tta", False)
    channels = len(card.get("sequences", "abc")) * (2 * card.get("neighbouring_slices", 0) + 1)
    model = model_of(narrow(card.get("architecture", "unet"), channels), **card)
    first, second = (
        run_to_end(Predictor(model, "cpu", 3, tta=tta, engine=engine).predict(volume))
        for engine in ("openvino", "torch")
    )
    assert second.std() > 0.01
    close(first, second)


@pytest.mark.usefixtures("openvino")
def test_number_format_of_the_processor(make_head):
    """In bf16, where the processor has it, the engines agree as far as that goes."""
    volume, _ = make_head((4, 64, 64))
    model = model_of(narrow())
    first, second = (
        run_to_end(Predictor(model, "cpu", engine=engine).predict(volume)) for engine in ("openvino", "torch")
    )
    close(first, second, atol=0.03)


@pytest.mark.usefixtures("openvino")
def test_the_network_is_not_changed():
    network = narrow().train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    make_engine("openvino", network, 3, CPU)
    assert network.training
    after = network.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


# --- choice ------------------------------------------------------------------------------------


def test_pytorch_where_openvino_is_not_installed(make_head):
    predictor = Predictor(model_of(narrow()), "cpu")
    assert predictor.engine.name == "torch"
    assert predictor.runs_on == "CPU"
    with pytest.raises(DeviceError, match=r"'openvino' is not installed; install napari-lgg-seg\[openvino\]"):
        Predictor(model_of(narrow()), "cpu", engine="openvino")


@pytest.mark.usefixtures("openvino")
@pytest.mark.parametrize(
    ("wanted", "engine", "words"),
    [
        ("auto", "openvino", "CPU (OpenVINO)"),
        ("openvino", "openvino", "CPU (OpenVINO)"),
        ("torch", "torch", "CPU"),
    ],
)
def test_engine_of_a_predictor(wanted, engine, words):
    predictor = Predictor(model_of(narrow()), "cpu", engine=wanted)
    assert (predictor.engine.name, predictor.runs_on) == (engine, words)


@pytest.mark.usefixtures("openvino")
def test_openvino_takes_the_cpu_though_there_is_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert Predictor(model_of(narrow()), engine="openvino").device == CPU
    with pytest.raises(DeviceError, match=r"OpenVINO runs on the CPU, not on CUDA; choose one of the two\.$"):
        Predictor(model_of(narrow()), "cuda", engine="openvino")


# --- what is kept on disk ----------------------------------------------------------------------


@pytest.fixture
def conversions(openvino, monkeypatch):
    """Grows by one with each conversion from PyTorch."""
    done, convert = [], openvino.convert_model

    def noted(*arguments, **options):
        done.append(1)
        return convert(*arguments, **options)

    monkeypatch.setattr(openvino, "convert_model", noted)
    return done


def test_a_network_is_converted_once(conversions, tmp_path):
    x = slices(2, 3, 32, 32)
    first = make_engine("openvino", narrow(), 3, CPU).logits(x)
    kept = {path: path.stat().st_mtime_ns for path in files(tmp_path / "cache")}
    assert {path.suffix for path in kept} == {".bin", ".xml"}
    second = make_engine("openvino", narrow(), 3, CPU).logits(x)
    assert len(conversions) == 1
    assert torch.equal(first, second)
    assert {path: path.stat().st_mtime_ns for path in files(tmp_path / "cache")} == kept


def test_other_weights_are_another_network(conversions):
    x = slices(2, 3, 32, 32)
    first, second = (make_engine("openvino", narrow(seed=seed), 3, CPU).logits(x) for seed in (0, 1))
    assert len(conversions) == 2
    assert not torch.allclose(first, second)


@pytest.mark.parametrize("damage", ["emptied", "cut", "garbage", "removed"])
@pytest.mark.parametrize("suffix", [".xml", ".bin"])
def test_what_is_damaged_on_disk_is_made_anew(conversions, tmp_path, suffix, damage):
    x = slices(2, 3, 32, 32)
    expected = make_engine("openvino", narrow(), 3, CPU).logits(x)
    damaged = [path for path in files(tmp_path / "cache") if path.suffix == suffix]
    assert damaged
    for path in damaged:
        content = path.read_bytes()
        path.chmod(0o644)
        path.unlink()
        if damage != "removed":
            wrong = {"emptied": b"", "cut": content[: len(content) // 2], "garbage": 1000 * b"garbage"}
            path.write_bytes(wrong[damage])
    for _ in range(3):
        close(make_engine("openvino", narrow(), 3, CPU).logits(x), expected, atol=1e-6)
    assert len(conversions) == 2, "the cache is not used again"


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_without_a_place_to_write_nothing_is_kept(conversions, monkeypatch, tmp_path, place):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(openvino_engine, "cache_folder", lambda: tmp_path / place)
    engine = make_engine("openvino", narrow(), 3, CPU)
    assert engine.logits(slices(1, 3, 32, 32)).shape == (1, 32, 32)
    assert len(conversions) == 1
    assert (tmp_path / "file").read_text() == ""


def test_a_full_disk_is_no_obstacle(openvino, conversions, monkeypatch, tmp_path):
    def fail(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(openvino, "save_model", fail)
    assert make_engine("openvino", narrow(), 3, CPU).logits(slices(1, 3, 32, 32)).shape == (1, 32, 32)
    assert len(conversions) == 1
    assert files(tmp_path / "cache") == []


def test_a_cache_that_can_only_be_read_is_used(conversions, monkeypatch):
    x = slices(1, 3, 32, 32)
    expected = make_engine("openvino", narrow(), 3, CPU).logits(x)

    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    for name in ("utime", "mkdir", "rename", "unlink", "rmdir"):
        monkeypatch.setattr(os, name, refuse)
    assert torch.equal(make_engine("openvino", narrow(), 3, CPU).logits(x), expected)
    assert len(conversions) == 1


def test_another_version_of_openvino_begins_anew(openvino, conversions, monkeypatch, tmp_path):
    make_engine("openvino", narrow(), 3, CPU)
    before = files(tmp_path / "cache")
    monkeypatch.setattr(openvino, "__version__", "2031.1.0")
    make_engine("openvino", narrow(), 3, CPU)
    assert len(conversions) == 2
    assert set(before) < set(files(tmp_path / "cache"))


def test_what_a_killed_program_left_is_cleared_away_after_a_day(openvino, tmp_path):
    for name, age in ((".old", 2 * 86400), (".new", 60)):
        folder = tmp_path / "cache" / "openvino" / name
        folder.mkdir(parents=True)
        (folder / "network.bin").write_bytes(b"half")
        os.utime(folder, (time.time() - age,) * 2)
    make_engine("openvino", narrow(), 3, CPU)
    assert [f.name for f in folder.parent.iterdir() if f.name.startswith(".")] == [".new"]


SEVERAL_AT_ONCE = """
import sys, time, torch
from narrow_network import narrow_network
from napari_lgg_seg.core.inference.engines import make_engine
from napari_lgg_seg.core.model.networks import build_network

with narrow_network():
    torch.manual_seed(0)
    network = build_network("unet", 3).eval()
time.sleep(max(0, float(sys.argv[1]) - time.time()))
logits = make_engine("openvino", network, 3, torch.device("cpu")).logits(torch.ones(1, 3, 32, 32))
print(f"{float(logits.abs().sum()):.6f}")
"""


@pytest.mark.usefixtures("openvino")
def test_several_processes_may_begin_at_once(tmp_path):
    command = [sys.executable, "-c", SEVERAL_AT_ONCE, str(time.time() + 10)]
    environment = at_home(tmp_path)
    processes = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    said = [process.communicate(timeout=600) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, said
    assert len({out for out, _ in said}) == 1
    kept = [f.name for f in files(tmp_path / "home") if "openvino" in f.parts]
    assert sorted(kept) == ["network.bin", "network.xml"]


@pytest.mark.usefixtures("openvino")
def test_only_the_networks_used_last_are_kept(tmp_path):
    kept = []
    for seed in range(6):
        make_engine("openvino", narrow(seed=seed), 3, CPU)
        make_engine("openvino", narrow(seed=0), 3, CPU)  # in use all the time
        kept.append({path.parent for path in files(tmp_path / "cache")})
    assert [len(folders) for folders in kept] == [1, 2, 3, 4, 4, 4]
    assert kept[0] < kept[-1]


# --- failures ----------------------------------------------------------------------------------


class OddError(Exception):
    """Of a kind that nobody expects."""


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
def test_pytorch_goes_on_where_openvino_does_not_take_the_network(
    openvino, monkeypatch, make_head, error, reason
):
    volume, _ = make_head((5, 48, 48))

    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(openvino, "convert_model", fail)
    model = model_of(narrow())
    predictor = Predictor(model, "cpu")
    assert predictor.engine.name == "torch"
    events, probability = finish(predictor.predict(volume))
    assert texts(events) == [f"OpenVINO failed ({reason}): going on with PyTorch."]
    close(probability, run_to_end(Predictor(model, "cpu", engine="torch").predict(volume)), atol=0)
    assert texts(finish(predictor.predict(volume))[0]) == [], "said once"


def test_pytorch_goes_on_where_openvino_fails_while_computing(openvino, monkeypatch, make_head):
    volume, _ = make_head((9, 48, 48))
    infer, calls = openvino.InferRequest.infer, []

    def fail(self, *arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("Exception from src/infer.cpp:1:\nthe primitive is gone\n")
        return infer(self, *arguments, **options)

    monkeypatch.setattr(openvino.InferRequest, "infer", fail)
    model = model_of(narrow())
    predictor = Predictor(model, "cpu", 4)
    events, probability = finish(predictor.predict(volume))
    assert texts(events) == ["OpenVINO failed (the primitive is gone): going on with PyTorch."]
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

    model = model_of(narrow())
    expected = run_to_end(Predictor(model, "cpu").predict(volume))
    monkeypatch.setattr(openvino.InferRequest, "infer", fail)
    predictor = Predictor(model, "cpu", 4)
    events, probability = finish(predictor.predict(volume))
    assert [text.split(":")[0] for text in texts(events)] == 2 * ["Out of memory"]
    assert predictor.engine.name == "openvino"
    close(probability, expected, atol=0.03)


@pytest.mark.usefixtures("openvino")
def test_what_cannot_be_traced_is_an_error_of_the_engine():
    class Untraceable(torch.nn.Module):
        def forward(self, slices):
            raise NotImplementedError("no way")

    with pytest.raises(EngineError, match=r"^OpenVINO failed \(.*\)$") as error:
        make_engine("openvino", Untraceable(), 3, CPU)
    assert "\n" not in str(error.value)


# --- 8 bits ------------------------------------------------------------------------------------


@pytest.fixture
def quick_example(monkeypatch, make_patient):
    """A small patient in the place of the sample patient, which takes seconds to draw."""
    monkeypatch.setattr(eight_bits, "make_sample_patient", lambda: make_patient(shape=(20, 64, 64)))


def operations(request) -> dict[str, list[bool]]:
    """Kind of operation -> for each of them in a compiled network, whether it runs in whole numbers."""
    found: dict[str, list[bool]] = {}
    for operation in request.get_compiled_model().get_runtime_model().get_ops():
        info = operation.get_rt_info()
        kind, precision = (str(info[key].astype(str)) for key in ("layerType", "runtimePrecision"))
        found.setdefault(kind, []).append(precision in ("u8", "i8"))
    return found


@pytest.mark.usefixtures("openvino", "exact", "quick_example")
@pytest.mark.parametrize("architecture", NETWORKS)
@pytest.mark.parametrize("card", [{}, {"neighbouring_slices": 1}, {"sequences": ("FLAIR",)}], ids=str)
def test_logits_in_8_bits_are_nearly_those_of_pytorch(architecture, card):
    channels = len(card.get("sequences", "abc")) * (2 * card.get("neighbouring_slices", 0) + 1)
    network = narrow(architecture, channels)
    described = model_of(network, architecture=architecture, **card).card
    engine = make_engine("openvino-int8", network, channels, CPU, described)
    assert engine.name == "openvino-int8"
    for shape in [(2, 48, 64), (1, 32, 32), (1, 50, 41)]:
        x = slices(shape[0], channels, *shape[1:])
        with torch.inference_mode():
            first, second = engine.logits(x), make_engine("torch", network, channels, CPU).logits(x)
        assert first.shape == second.shape == shape
        difference = float((first - second).abs().mean() / second.std())
        assert 0 < difference < 0.2


def test_8_bits_are_not_had_without_the_card_of_the_model():
    with pytest.raises(ValueError, match="takes the card of its model"):
        make_engine("openvino-int8", narrow(), 3, CPU)


@pytest.mark.usefixtures("openvino", "quick_example")
def test_8_bits_are_computed_with_whole_numbers():
    network = narrow()
    engine = make_engine("openvino-int8", network, 3, CPU, model_of(network).card)
    whole = operations(engine._request)
    # Of the convolutions on the way down 6 of 10, on the way up 4 of 6, and not the head.
    assert (sum(whole["Convolution"]), len(whole["Convolution"])) == (10, 17)
    assert (sum(whole["Deconvolution"]), len(whole["Deconvolution"])) == (2, 3)
    assert (sum(whole["Pooling"]), len(whole["Pooling"])) == (2, 3)


def test_rounding_changes_neither_the_network_nor_what_it_finds():
    network = fold_batch_norm(narrow())
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    rounded = quantize(network, slices(3, 3, 48, 48))
    after = network.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    x = slices(2, 3, 48, 48, seed=5)
    with torch.inference_mode():
        exact, coarse = network(x), rounded(x)
    assert 0 < float((exact - coarse).abs().mean() / exact.std()) < 0.2


def test_the_upper_floors_stay_exact():
    network = fold_batch_norm(narrow())
    rounded = quantize(network, slices(3, 3, 44, 44))  # as large as 48 x 48 to the network
    channels = {"down.0": 3, "down.1.0": 8, "down.1.3": 16, "down.2": 16, "down.3": 32, "up.1.enlarge": 32}

    def same(place: str, *given: torch.Tensor) -> bool:
        with torch.inference_mode():
            first, second = (n.get_submodule(place)(*(x.clone() for x in given)) for n in (network, rounded))
        return torch.equal(first, second)

    found = {place: same(place, slices(1, count, 24, 24).abs()) for place, count in channels.items()}
    assert [place for place, exact in found.items() if exact] == ["down.0", "down.1.0", "down.1.3"]
    x, skip = slices(1, 16, 24, 24).abs(), slices(1, 8, 48, 48).abs()
    assert same("up.2", x, skip)
    assert same("head", skip)


def test_rounded_values_are_steps_of_whole_numbers():
    first, second = torch.nn.Conv2d(1, 4, 3), torch.nn.Conv2d(4, 2, 1)
    network = torch.nn.Sequential(first, torch.nn.ReLU(), torch.nn.AvgPool2d(4), second).eval()
    rounded = quantize(network, slices(2, 1, 18, 18))
    x = slices(1, 1, 18, 18, seed=1)
    with torch.inference_mode():
        between, expected = rounded[:2](x), network[:2](x)
        after, whole = rounded[2:](expected), network[2:](expected)
    step = float(between[between > 0].min())
    steps = between / step
    close(steps, steps.round(), atol=1e-3)
    assert 0 <= steps.min() <= 100 < steps.max() < 255.5
    close(between, expected.clamp(max=float(between.max())), atol=step)
    assert 0 < float((after - whole).abs().max()) < float(second.weight.abs().max()) / 50


@pytest.mark.parametrize("card", [{"neighbouring_slices": 2}, {"sequences": ("FLAIR",)}], ids=str)
def test_8_bits_are_fitted_to_slices_as_the_model_sees_them(card):
    described = model_of(narrow(), **card).card
    examples = example_slices(described)
    channels = len(card.get("sequences", "abc")) * (2 * card.get("neighbouring_slices", 0) + 1)
    assert examples.shape[1:] == (channels, 48, 48)
    assert len(examples) > 8
    assert torch.equal(examples, example_slices(described))
    assert abs(float(examples.mean())) < 2
    assert 0.3 < float(examples.std()) < 3


@pytest.mark.usefixtures("quick_example")
def test_8_bits_are_kept_beside_the_rest_and_used_again(conversions, tmp_path):
    network, x = narrow(), slices(1, 3, 32, 32)
    card = model_of(network).card
    make_engine("openvino", network, 3, CPU)
    first = make_engine("openvino-int8", network, 3, CPU, card).logits(x)
    assert len(conversions) == 2
    assert torch.equal(make_engine("openvino-int8", network, 3, CPU, card).logits(x), first)
    make_engine("openvino", network, 3, CPU)
    assert len(conversions) == 2
    other = model_of(network, neighbouring_slices=1).card
    with suppress(EngineError):  # such a network does not take those slices; it is not the one that is kept
        make_engine("openvino-int8", network, 3, CPU, other)
        pytest.fail("it took what was kept for another model")


@pytest.mark.usefixtures("openvino", "quick_example")
def test_8_bits_are_taken_only_if_somebody_wants_them(monkeypatch, make_head):
    model = model_of(narrow())
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


def test_8_bits_without_openvino_are_refused():
    with pytest.raises(DeviceError, match=r"'openvino-int8' is not installed; .*napari-lgg-seg\[openvino\]"):
        Predictor(model_of(narrow()), "cpu", engine="openvino-int8")


@pytest.mark.real_data
@pytest.mark.usefixtures("openvino")
def test_8_bits_give_the_labels_of_a_real_patient_that_others_give(lgg_dataset):
    model = load_model()
    patient = read_patient(lgg_dataset / model.card.validation_patients[0])  # the most sensitive one
    exact, coarse = (
        to_labels(run_to_end(Predictor(model, "cpu", engine=engine).predict(patient.volume)), 0.5)
        for engine in ("openvino", "openvino-int8")
    )
    assert dice(exact, coarse) > EACH
    assert abs(dice(exact, patient.truth) - dice(coarse, patient.truth)) < 0.02


# --- beside other programs ---------------------------------------------------------------------


@pytest.mark.usefixtures("openvino")
@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="needs Linux and two cores",
)
def test_no_thread_is_bound_to_a_core():
    """Else all workers of a machine would compute on its first cores."""
    engine = make_engine("openvino", narrow(), 3, CPU)
    everywhere, seen, done = os.sched_getaffinity(0), set(), threading.Event()

    def watch():
        while not done.is_set():
            for thread in Path("/proc/self/task").iterdir():
                with suppress(ProcessLookupError):
                    seen.add(frozenset(os.sched_getaffinity(int(thread.name))))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for _ in range(30):
            engine.logits(slices(2, 3, 192, 192))
    finally:
        done.set()
        watcher.join()
    assert seen == {frozenset(everywhere)}


# --- telemetry ---------------------------------------------------------------------------------

WATCHED = """
import os, sys

def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto",
                 "urllib.Request", "http.client.connect", "subprocess.Popen", "os.fork", "os.posix_spawn"):
        sys.__stderr__.write(f"SEEN {event} {arguments}\\n")
        sys.__stderr__.flush()
        os._exit(7)

sys.addaudithook(watch)
"""
SEGMENT = """
import numpy as np, torch, threading
from pathlib import Path
from narrow_network import narrow_network
from napari_lgg_seg.core.model.checkpoint import Model, ModelCard
from napari_lgg_seg.core.model.networks import build_network
from napari_lgg_seg.core.inference.predict import Predictor, run_to_end
from napari_lgg_seg.core.model.preprocess import PreprocessOptions

with narrow_network():
    network = build_network("unet", 3)
model = Model(network.eval(), ModelCard("test", preprocess=PreprocessOptions(working_size=48)), Path("m"))
predictor = Predictor(model, "cpu")
volume = np.random.default_rng(0).integers(0, 99, (3, 64, 64, 3))
assert run_to_end(predictor.predict(volume)).any()
assert predictor.engine.name == "openvino", predictor.engine.name
for thread in threading.enumerate():
    if thread is not threading.current_thread():
        thread.join(5)
"""


def at_home(tmp_path, *path):
    """The environment of a user who has just come, with a home in the test's folder."""
    asked = ("CI", "TF_BUILD", "JENKINS_URL")
    environment = {name: value for name, value in os.environ.items() if name not in asked}
    home = str(tmp_path / "home")
    Path(home).mkdir()
    environment |= dict.fromkeys(("HOME", "USERPROFILE", "XDG_CACHE_HOME", "LOCALAPPDATA"), home)
    places = [*map(str, path), str(Path(__file__).parents[2]), *sys.path]
    return environment | {"PYTHONPATH": os.pathsep.join(places)}


def python(code, tmp_path, *path):
    """Run code in a fresh Python, as at a user's: not known as CI, and without a consent on file."""
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env=at_home(tmp_path, *path),
    )


@pytest.fixture
def eager_telemetry(tmp_path):
    """An ``openvino_telemetry`` that tells what it is told, in the place of the installed one."""
    package = tmp_path / "packages" / "openvino_telemetry"
    (package / "backend").mkdir(parents=True)
    (package / "__init__.py").write_text(
        "import sys\n"
        "class Telemetry:\n"
        "    def __init__(self, *arguments, **options): pass\n"
        "    def __getattr__(self, name):\n"
        "        if name.startswith('send') or name.endswith('session') or name == 'force_shutdown':\n"
        "            return lambda *what, **options: print('told', name, *what, flush=True)\n"
        "        raise AttributeError(name)\n"
    )
    (package / "backend" / "__init__.py").write_text("")
    (package / "backend" / "backend_ga4.py").write_text("")
    return package.parent


@pytest.mark.usefixtures("openvino")
def test_openvino_opens_no_connection_and_loads_no_telemetry(tmp_path):
    check = "print([name for name in sys.modules if 'telemetry' in name])"
    done = python(f"{WATCHED}{SEGMENT}assert sys.modules['openvino_telemetry'] is None\n{check}", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "SEEN" not in done.stderr, "in a process that was forked"
    loaded = eval(done.stdout.splitlines()[-1])
    assert "openvino_telemetry" in loaded
    assert not [name for name in loaded if name.startswith("openvino_telemetry.")]
    assert not (tmp_path / "home" / "intel").exists(), "an identity was made"


@pytest.mark.usefixtures("openvino")
def test_the_watch_sees_a_connection(tmp_path):
    done = python(WATCHED + "import socket; socket.create_connection(('127.0.0.1', 9))", tmp_path)
    assert done.returncode == 7, done.stderr
    assert "SEEN socket" in done.stderr


@pytest.mark.usefixtures("openvino")
def test_other_telemetry_is_kept_out_as_well(tmp_path, eager_telemetry):
    done = python(SEGMENT, tmp_path, eager_telemetry)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


@pytest.mark.usefixtures("openvino")
def test_where_another_plugin_has_imported_openvino_before_nothing_more_is_told(tmp_path, eager_telemetry):
    done = python("import openvino\nprint('ours', flush=True)\n" + SEGMENT, tmp_path, eager_telemetry)
    assert done.returncode == 0, done.stderr
    theirs, _, ours = done.stdout.partition("ours\n")
    assert "told send_event" in theirs, "the test's telemetry is not what OpenVINO loads"
    assert ours == ""


def test_asking_which_engines_there_are_imports_none(tmp_path):
    code = (
        "import sys\nfrom napari_lgg_seg.core import devices\nprint(devices.available_engines())\n"
        "assert not {'openvino', 'torch'} & set(sys.modules)\n"
    )
    done = python(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "torch" in done.stdout
