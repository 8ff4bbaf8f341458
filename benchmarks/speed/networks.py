"""Methods for the network alone: PyTorch as users run it, ONNX Runtime, and this project's engines."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from napari_lgg_seg.core import devices, memory
from napari_lgg_seg.core.data.patients import read_patient
from napari_lgg_seg.core.inference.engines import Engine, make_engine
from napari_lgg_seg.core.inference.predict import predictor_for, run_to_end
from napari_lgg_seg.core.model.checkpoint import DEFAULT_MODEL, load_model
from napari_lgg_seg.core.model.networks import build_network, count_parameters
from napari_lgg_seg.core.options import SegmentOptions

CPU = torch.device("cpu")
#: Largest difference from the probabilities of the network in plain PyTorch.
TOLERANCE = 1e-3

Method = Callable[[], dict[str, float]]


def write_reference(reference: str, size: int) -> dict[str, Any]:
    """Write slices with the network's probabilities, with which the baselines compare their own.

    Returns the number of parameters and threads.
    """
    network = load_model().network.eval()
    generator = torch.Generator().manual_seed(0)
    slices = torch.randn(1, 3, size, size, generator=generator)
    with torch.inference_mode():
        probability = torch.sigmoid(network(slices))[:, 0]
    np.savez(reference, slices=slices.numpy(), probability=probability.numpy())
    return {"parameters": count_parameters(network), "threads": torch.get_num_threads()}


def model_file() -> str:
    """Path of the shipped model."""
    return str(DEFAULT_MODEL)


def count_operations(sizes: Sequence[int]) -> dict[str, dict[str, float]]:
    """GFLOP per slice for each network and size; a multiplication and an addition are two operations."""
    found: dict[str, dict[str, float]] = {}
    for name in ("unet", "buda"):
        with torch.device("meta"):
            network = build_network(name, 3).eval()
        for size in sizes:
            with FlopCounterMode(display=False) as counter, torch.inference_mode():
                network(torch.empty(1, 3, size, size, device="meta"))
            found.setdefault(name, {})[str(size)] = counter.get_total_flops() / 1e9
    return found


def matrix_product_methods(side: int) -> list[Method]:
    """Products of two square matrices in fp32 and bf16: seconds, and GFLOP/s."""

    def method(dtype: torch.dtype) -> Method:
        left, right = torch.randn(2, side, side).to(dtype)

        def multiply() -> dict[str, float]:
            began = time.perf_counter()
            left @ right
            seconds = time.perf_counter() - began
            return {"seconds": seconds, "gflops": 2 * side**3 / seconds / 1e9}

        return multiply

    return [method(dtype) for dtype in (torch.float32, torch.bfloat16)]


# --- baselines ---------------------------------------------------------------------------------


def torch_methods(architecture: str, size: int, one: int, batch: int) -> list[Method]:
    """A network in plain PyTorch, fp32: seconds per slice, one at a time and in a batch."""
    network = build_network(architecture, 3).eval()
    slices = torch.randn(max(one, batch), 3, size, size)

    def infer(parts: Sequence[torch.Tensor]) -> dict[str, float]:
        began = time.perf_counter()
        with torch.inference_mode():
            for part in parts:
                torch.sigmoid(network(part))
        return {"seconds": (time.perf_counter() - began) / sum(len(part) for part in parts)}

    return [lambda: infer(slices[:one].split(1)), lambda: infer([slices[:batch]])]


def onnx_methods(reference: str, one: int, batch: int) -> list[Method]:
    """The shipped network exported from PyTorch to ONNX Runtime: one slice at a time and in a batch.

    Raises
    ------
    ValueError
        If the output differs from that of the PyTorch network.
    """
    import onnxruntime

    known = np.load(reference)
    with tempfile.TemporaryDirectory() as folder:
        session = onnxruntime.InferenceSession(_exported(Path(folder)), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def logits(slices: np.ndarray) -> np.ndarray:
        return session.run(None, {name: slices})[0]

    probability = 1 / (1 + np.exp(-logits(known["slices"])[:, 0]))
    if np.abs(probability - known["probability"]).max() > TOLERANCE:
        raise ValueError("The network in ONNX Runtime gives other probabilities than in PyTorch")
    size = known["slices"].shape[-1]
    slices = np.random.default_rng(0).standard_normal((max(one, batch), 3, size, size), np.float32)

    def infer(parts: Sequence[np.ndarray]) -> dict[str, float]:
        began = time.perf_counter()
        for part in parts:
            logits(part)
        return {"seconds": (time.perf_counter() - began) / sum(len(part) for part in parts)}

    return [lambda: infer(np.split(slices[:one], one)), lambda: infer([slices[:batch]])]


def _exported(folder: Path) -> str:
    """Export the shipped network for any number and size of slices."""
    path = folder / "network.onnx"
    example = torch.zeros(2, 3, 64, 64)
    sizes = ({0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC},)
    torch.onnx.export(
        load_model().network.eval(), (example,), path, dynamo=True, dynamic_shapes=sizes, external_data=False
    )
    return str(path)


# --- engines -----------------------------------------------------------------------------------


def engine_methods(engine: str, sizes: Sequence[int], slices: int) -> list[Method]:
    """One of our engines with its automatic batch size: seconds per slice, for each size."""
    memory.keep_memory_mapped()
    model = load_model()
    ready = make_engine(engine, model.network, 3, CPU, model.card)

    def method(size: int) -> Method:
        parts = torch.randn(slices, 3, size, size).split(devices.automatic_batch_size(CPU, size))

        def infer() -> dict[str, float]:
            began = time.perf_counter()
            with torch.inference_mode():
                for part in parts:
                    ready.logits(part)
            return {"seconds": (time.perf_counter() - began) / slices}

        return infer

    return [method(size) for size in sizes]


class InputRecorder:
    """An engine that keeps the input of another engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self.name = engine, engine.name
        self.inputs: list[torch.Tensor] = []

    def logits(self, slices: torch.Tensor) -> torch.Tensor:
        """See :class:`napari_lgg_seg.core.inference.engines.Engine`."""
        self.inputs.append(slices.clone())
        return self._engine.logits(slices)


def patient_input_methods(engine: str, folders: Sequence[str], full_resolution: bool) -> list[Method]:
    """The network alone on the input that it gets for patients: seconds per slice, skipped ones included."""
    memory.bound_caches()  # as the program does
    memory.keep_memory_mapped()
    volumes = [read_patient(folder).volume for folder in folders]
    predictor = predictor_for(
        load_model(), SegmentOptions(device="cpu", engine=engine, full_resolution=full_resolution)
    )
    ready = predictor.engine
    predictor.engine = recorder = InputRecorder(ready)
    for volume in volumes:
        run_to_end(predictor.predict(volume))
    slices = sum(len(volume) for volume in volumes)
    all_pixels = slices * predictor.card.preprocess.working_size**2
    share = sum(part.numel() / part.shape[1] for part in recorder.inputs) / all_pixels

    def infer() -> dict[str, float]:
        began = time.perf_counter()
        with torch.inference_mode():
            for part in recorder.inputs:
                ready.logits(part)
        return {"seconds": (time.perf_counter() - began) / slices, "share_of_pixels": share}

    return [infer]
