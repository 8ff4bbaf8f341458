"""Methods around the network: a patient from folder to mask files, parts of that, training steps.

Also writes the synthetic patients that are measured where there is no dataset.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_lgg_seg.core import memory
from napari_lgg_seg.core.data.masks import write_patient
from napari_lgg_seg.core.data.patients import Patient, read_patient
from napari_lgg_seg.core.inference.engines import Engine
from napari_lgg_seg.core.inference.predict import Predictor, predictor_for, run_to_end
from napari_lgg_seg.core.model.checkpoint import load_model
from napari_lgg_seg.core.options import SegmentOptions

Method = Callable[[], dict[str, float]]


class TimedEngine:
    """An engine that adds up the seconds spent in another engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self.name, self.seconds = engine, engine.name, 0.0

    def logits(self, slices: torch.Tensor) -> torch.Tensor:
        """See :class:`napari_lgg_seg.core.inference.engines.Engine`."""
        began = time.perf_counter()
        logits = self._engine.logits(slices)
        self.seconds += time.perf_counter() - began
        return logits


def patient_methods(engine: str, folders: Sequence[str], output: str) -> list[Method]:
    """Seconds per patient from folder to mask files, the model loaded; the share outside the network."""
    import napari_lgg_seg as lgg

    memory.bound_caches()  # as the program does
    memory.keep_memory_mapped()
    predictor = predictor_for(load_model(), SegmentOptions(device="cpu", engine=engine))
    predictor.engine = timed = TimedEngine(predictor.engine)

    def all_patients() -> dict[str, float]:
        inside, began = timed.seconds, time.perf_counter()
        for folder in folders:
            result = lgg.segment(lgg.read_patient(folder), predictor=predictor)
            lgg.write_labels(output, result, overwrite=True)
        seconds = time.perf_counter() - began
        return {"seconds": seconds / len(folders), "outside": 1 - (timed.seconds - inside) / seconds}

    return [all_patients]


def part_methods(folder: str, slices: int) -> list[Method]:
    """The parts around the network: reading a patient with tifffile and ours, clean-up, a new threshold."""
    import tifffile

    from napari_lgg_seg.core.inference.postprocess import postprocess
    from speed.keras_baseline import slice_files

    model = load_model()
    volume = read_patient(folder).volume
    found = run_to_end(Predictor(model, "cpu").predict(volume))
    probability = np.resize(found, (slices, *found.shape[1:]))  # repeats the slices
    own, new = model.card.complete(SegmentOptions()), SegmentOptions(0.4, "off")
    tasks: list[Callable[[], Any]] = [
        lambda: [tifffile.imread(file) for file in slice_files(Path(folder))],
        lambda: read_patient(folder),
        lambda: postprocess(probability, own),
        lambda: postprocess(probability, new),
    ]
    return [_timed(task) for task in tasks]


def _timed(task: Callable[[], Any]) -> Method:
    def method() -> dict[str, float]:
        began = time.perf_counter()
        task()
        return {"seconds": time.perf_counter() - began}

    return method


# --- training ----------------------------------------------------------------------------------


def training_methods(size_and_batch: Sequence[tuple[int, int]], folders: Sequence[str]) -> list[Method]:
    """Seconds per slice of a step of training from scratch: data, augmentation, network, optimiser.

    The last patient takes the place of the validation patients, which a step does not use.
    """
    from napari_lgg_seg.core.model.preprocess import PreprocessOptions
    from napari_lgg_seg.core.training.initial_model import find_initial_model
    from napari_lgg_seg.core.training.options import TrainOptions
    from napari_lgg_seg.core.training.run import Run

    memory.keep_memory_mapped()
    *patients, last = [read_patient(folder) for folder in folders]
    output = Path(tempfile.gettempdir()) / "speed-training.safetensors"

    def method(size: int, batch: int) -> Method:
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

    return [method(size, batch) for size, batch in size_and_batch]


# --- synthetic patients ------------------------------------------------------------------------


def write_synthetic_patients(
    folder: str, count: int, slices: Sequence[int], size: int, first: int | None
) -> dict[str, list[str]]:
    """Write synthetic patients, and copies of the sample patient with other numbers of slices.

    Rows and columns are skipped for a smaller ``size``; with ``first``, only so many slices from the middle
    of the other patients are kept.

    Returns
    -------
    dict
        The patients' folders: ``patients``, and ``long`` for the copies.
    """
    from napari_lgg_seg.core.data.phantom import make_sample_patient
    from napari_lgg_seg.core.data.phantom_cohort import make_sample_patients

    root = Path(folder)
    sample = make_sample_patient()
    assert sample.volume is not None
    assert sample.truth is not None
    step = len(sample.truth[0]) // size

    def write(patient: Patient, name: str, indices: np.ndarray) -> str:
        assert patient.volume is not None
        assert patient.truth is not None
        kept = dataclasses.replace(
            patient,
            name=name,
            volume=patient.volume[indices][:, ::step, ::step],
            truth=patient.truth[indices][:, ::step, ::step],
            slice_numbers=tuple(range(1, len(indices) + 1)),
        )
        write_patient(root / name, kept)
        return str(root / name)

    every = np.arange(len(sample.volume))
    middle = every if first is None else every[len(every) // 2 :][:first]
    to_and_fro = np.concatenate([every, every[::-1]])
    return {
        "patients": [write(p, p.name, middle) for p in make_sample_patients(count)] if count else [],
        "long": [write(sample, f"LGG_sample_{n}_slices", np.resize(to_and_fro, n)) for n in slices],
    }
