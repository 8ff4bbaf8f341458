"""PyTorch as people run it, ONNX Runtime, and this project's own ways, for :mod:`speed_turns` to serve."""

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
from napari_lgg_seg.core.inference.predict import Predictor, predictor_for, run_to_end
from napari_lgg_seg.core.model.checkpoint import DEFAULT_MODEL, load_model
from napari_lgg_seg.core.model.networks import build_network, count_parameters
from napari_lgg_seg.core.options import SegmentOptions

CPU = torch.device("cpu")
#: How far probabilities may be from those of the network in plain PyTorch.
TOLERANCE = 1e-3

Way = Callable[[], dict[str, float]]


# --- what the others need ----------------------------------------------------------------------


def prepare(reference: str, size: int) -> dict[str, Any]:
    """Write slices with the network's answer, for others to compare theirs with; say what computes."""
    network = load_model().network.eval()
    chance = torch.Generator().manual_seed(0)
    slices = torch.randn(1, 3, size, size, generator=chance)
    with torch.inference_mode():
        probability = torch.sigmoid(network(slices))[:, 0]
    np.savez(reference, slices=slices.numpy(), probability=probability.numpy())
    return {"parameters": count_parameters(network), "threads": torch.get_num_threads()}


def model_file() -> str:
    """Where the shipped model is."""
    return str(DEFAULT_MODEL)


def count_operations(sizes: Sequence[int]) -> dict[str, dict[str, float]]:
    """GFLOP of one slice, for each network and size; a multiplication and an addition are two."""
    found: dict[str, dict[str, float]] = {}
    for name in ("unet", "buda"):
        with torch.device("meta"):
            network = build_network(name, 3).eval()
        for size in sizes:
            with FlopCounterMode(display=False) as counter, torch.inference_mode():
                network(torch.empty(1, 3, size, size, device="meta"))
            found.setdefault(name, {})[str(size)] = counter.get_total_flops() / 1e9
    return found


def multiplication_ways(side: int) -> list[Way]:
    """Multiplication of square matrices in fp32 and bf16: seconds, and GFLOP/s."""

    def way(dtype: torch.dtype) -> Way:
        left, right = torch.randn(2, side, side).to(dtype)

        def multiply() -> dict[str, float]:
            began = time.perf_counter()
            left @ right
            seconds = time.perf_counter() - began
            return {"seconds": seconds, "gflops": 2 * side**3 / seconds / 1e9}

        return multiply

    return [way(dtype) for dtype in (torch.float32, torch.bfloat16)]


# --- the network alone -------------------------------------------------------------------------


def torch_ways(architecture: str, size: int, one: int, batch: int) -> list[Way]:
    """A network as it is, fp32: seconds a slice, one at a time and in a batch."""
    network = build_network(architecture, 3).eval()
    slices = torch.randn(max(one, batch), 3, size, size)

    def through(parts: Sequence[torch.Tensor]) -> dict[str, float]:
        began = time.perf_counter()
        with torch.inference_mode():
            for part in parts:
                torch.sigmoid(network(part))
        return {"seconds": (time.perf_counter() - began) / sum(len(part) for part in parts)}

    return [lambda: through(slices[:one].split(1)), lambda: through([slices[:batch]])]


def onnx_ways(reference: str, one: int, batch: int) -> list[Way]:
    """The shipped network exported from PyTorch, in ONNX Runtime: one at a time and in a batch.

    Raises
    ------
    ValueError
        If the answer is not that of the PyTorch network.
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
        raise ValueError("The network in ONNX Runtime gives other answers")
    size = known["slices"].shape[-1]
    slices = np.random.default_rng(0).standard_normal((max(one, batch), 3, size, size), np.float32)

    def through(parts: Sequence[np.ndarray]) -> dict[str, float]:
        began = time.perf_counter()
        for part in parts:
            logits(part)
        return {"seconds": (time.perf_counter() - began) / sum(len(part) for part in parts)}

    return [lambda: through(np.split(slices[:one], one)), lambda: through([slices[:batch]])]


def _exported(folder: Path) -> str:
    """The shipped network as a file for slices of any number."""
    path = folder / "network.onnx"
    example = torch.zeros(2, 3, 64, 64)
    sizes = ({0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC},)
    torch.onnx.export(
        load_model().network.eval(), (example,), path, dynamo=True, dynamic_shapes=sizes, external_data=False
    )
    return str(path)


def engine_ways(engine: str, sizes: Sequence[int], slices: int) -> list[Way]:
    """An engine of ours with as many slices at once as it takes by itself: seconds a slice by size."""
    memory.keep_memory_mapped()
    model = load_model()
    ready = make_engine(engine, model.network, 3, CPU, model.card)

    def way(size: int) -> Way:
        parts = torch.randn(slices, 3, size, size).split(devices.automatic_batch_size(CPU, size))

        def through() -> dict[str, float]:
            began = time.perf_counter()
            with torch.inference_mode():
                for part in parts:
                    ready.logits(part)
            return {"seconds": (time.perf_counter() - began) / slices}

        return through

    return [way(size) for size in sizes]


class Recorder:
    """An engine that keeps what another one is shown."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self.name = engine, engine.name
        self.seen: list[torch.Tensor] = []

    def logits(self, slices: torch.Tensor) -> torch.Tensor:
        """See :class:`napari_lgg_seg.core.inference.engines.Engine`."""
        self.seen.append(slices.clone())
        return self._engine.logits(slices)


def window_ways(engine: str, folders: Sequence[str], full_resolution: bool) -> list[Way]:
    """The network alone on what it sees of patients: seconds for each of their slices, seen or not."""
    memory.bound_caches()  # as the program does
    memory.keep_memory_mapped()
    volumes = [read_patient(folder).volume for folder in folders]
    predictor = predictor_for(
        load_model(), SegmentOptions(device="cpu", engine=engine, full_resolution=full_resolution)
    )
    ready = predictor.engine
    predictor.engine = recorder = Recorder(ready)
    for volume in volumes:
        run_to_end(predictor.predict(volume))
    slices = sum(len(volume) for volume in volumes)
    whole = slices * predictor.card.preprocess.working_size**2
    share = sum(part.numel() / part.shape[1] for part in recorder.seen) / whole

    def through() -> dict[str, float]:
        began = time.perf_counter()
        with torch.inference_mode():
            for part in recorder.seen:
                ready.logits(part)
        return {"seconds": (time.perf_counter() - began) / slices, "share_of_pixels": share}

    return [through]


# --- a patient ---------------------------------------------------------------------------------


class Timed:
    """An engine that counts the seconds within it."""

    def __init__(self, engine: Any) -> None:
        self._engine, self.name, self.seconds = engine, engine.name, 0.0

    def logits(self, slices: torch.Tensor) -> torch.Tensor:
        """See :class:`napari_lgg_seg.core.inference.engines.Engine`."""
        began = time.perf_counter()
        answer = self._engine.logits(slices)
        self.seconds += time.perf_counter() - began
        return answer


def patient_ways(engine: str, folders: Sequence[str], output: str) -> list[Way]:
    """Seconds a patient from folder to mask files, the model loaded; the share outside of the network."""
    import napari_lgg_seg as lgg

    memory.bound_caches()  # as the program does
    memory.keep_memory_mapped()
    predictor = predictor_for(load_model(), SegmentOptions(device="cpu", engine=engine))
    predictor.engine = timed = Timed(predictor.engine)

    def all_patients() -> dict[str, float]:
        inside, began = timed.seconds, time.perf_counter()
        for folder in folders:
            result = lgg.segment(lgg.read_patient(folder), predictor=predictor)
            lgg.write_masks(output, result, overwrite=True)
        seconds = time.perf_counter() - began
        return {"seconds": seconds / len(folders), "outside": 1 - (timed.seconds - inside) / seconds}

    return [all_patients]


def part_ways(folder: str, slices: int) -> list[Way]:
    """The parts around the network: reading a patient as people do and ours, clean-up, a new threshold."""
    import tifffile
    from speed_keras import slice_files

    from napari_lgg_seg.core.inference.postprocess import postprocess

    model = load_model()
    volume = read_patient(folder).volume
    found = run_to_end(Predictor(model, "cpu").predict(volume))
    probability = np.resize(found, (slices, *found.shape[1:]))  # its slices again and again
    own, new = model.card.complete(SegmentOptions()), SegmentOptions(0.4, "off")
    tasks: list[Callable[[], Any]] = [
        lambda: [tifffile.imread(file) for file in slice_files(Path(folder))],
        lambda: read_patient(folder),
        lambda: postprocess(probability, own),
        lambda: postprocess(probability, new),
    ]
    return [_timed(task) for task in tasks]


def _timed(task: Callable[[], Any]) -> Way:
    def way() -> dict[str, float]:
        began = time.perf_counter()
        task()
        return {"seconds": time.perf_counter() - began}

    return way


# --- training ----------------------------------------------------------------------------------


def training_ways(size_and_batch: Sequence[tuple[int, int]], folders: Sequence[str]) -> list[Way]:
    """Seconds a slice of a step of a training from scratch: data, augmentation, network, optimiser.

    The last patient is the one that would validate.
    """
    from napari_lgg_seg.core.model.preprocess import PreprocessOptions
    from napari_lgg_seg.core.training.initial_model import find_initial_model
    from napari_lgg_seg.core.training.options import TrainOptions
    from napari_lgg_seg.core.training.run import Run

    memory.keep_memory_mapped()
    *patients, last = [read_patient(folder) for folder in folders]
    output = Path(tempfile.gettempdir()) / "speed-training.safetensors"

    def way(size: int, batch: int) -> Way:
        options = TrainOptions(
            init="scratch",
            batch_size=batch,
            slices_per_epoch=1000 * batch,
            epochs=1,
            small_share=0.0,
            learning_rate=1e-4,
            device="cpu",
        ).complete(fine_tuning=False)
        run = Run(find_initial_model(options, PreprocessOptions(working_size=size)), [last], output, options)
        for _ in run.read(patients):
            pass
        batches = run.batches()

        def step() -> dict[str, float]:
            began = time.perf_counter()
            run.step(next(batches))
            return {"seconds": (time.perf_counter() - began) / batch}

        return step

    return [way(size, batch) for size, batch in size_and_batch]


# --- patients to work on -----------------------------------------------------------------------


def make_patients(
    folder: str, count: int, slices: Sequence[int], size: int, first: int | None
) -> dict[str, list[str]]:
    """Write made patients, and the sample patient with other numbers of slices; says where they are.

    Pixels are left out for a smaller ``size``; of the others ``first`` slices from the middle are kept.
    """
    import dataclasses

    from napari_lgg_seg.core.data.masks import write_patient
    from napari_lgg_seg.core.data.patients import Patient
    from napari_lgg_seg.core.data.phantom import make_sample_patient
    from napari_lgg_seg.core.data.phantom_cohort import make_sample_patients

    root = Path(folder)
    sample = make_sample_patient()

    assert sample.volume is not None
    assert sample.truth is not None
    step = len(sample.truth[0]) // size

    def written(patient: Patient, name: str, places: np.ndarray) -> str:
        assert patient.volume is not None
        assert patient.truth is not None
        kept = dataclasses.replace(
            patient,
            name=name,
            volume=patient.volume[places][:, ::step, ::step],
            truth=patient.truth[places][:, ::step, ::step],
            slice_numbers=tuple(range(1, len(places) + 1)),
        )
        write_patient(root / name, kept)
        return str(root / name)

    there = np.arange(len(sample.volume))
    middle = there if first is None else there[len(there) // 2 :][:first]
    to_and_fro = np.concatenate([there, there[::-1]])
    return {
        "patients": [written(p, p.name, middle) for p in make_sample_patients(count)] if count else [],
        "long": [written(sample, f"LGG_sample_{n}_slices", np.resize(to_and_fro, n)) for n in slices],
    }
