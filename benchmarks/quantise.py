"""Whether 8-bit weights and activations pay: CPU time and Dice of the engine openvino-int8 against openvino.

    OMP_NUM_THREADS=1 python benchmarks/quantise.py kaggle_3m
    pip install nncf==3.4.0
    OMP_NUM_THREADS=1 python benchmarks/quantise.py kaggle_3m --nncf quantised.xml --patients 20

With ``--nncf`` also against post-training quantisation by NNCF, which is calibrated on slices of the model's
training patients: of each, one with tumour and one without. Scored on its validation patients. CPU seconds
are compared as ratios, since all take turns patient by patient. A choice only as long as the mean Dice moves
by less than 0.003.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from napari_lgg_seg.core import devices
from napari_lgg_seg.core.data.patients import Patient, read_patient
from napari_lgg_seg.core.evaluation.metrics import dice, summarise
from napari_lgg_seg.core.inference.fold import fold_batch_norm
from napari_lgg_seg.core.inference.openvino import load_openvino
from napari_lgg_seg.core.inference.postprocess import to_labels
from napari_lgg_seg.core.inference.predict import Predictor, run_to_end
from napari_lgg_seg.core.model.checkpoint import DEFAULT_MODEL, Model, load_model
from napari_lgg_seg.core.model.preprocess import crop_and_resample, measure, normalise

openvino = load_openvino()  # before NNCF, which has a telemetry of its own by the same package


class Quantised:
    """An engine from a model file of OpenVINO."""

    name = "openvino"

    def __init__(self, path: Path) -> None:
        compiled = openvino.Core().compile_model(path, "CPU", devices.openvino_settings())
        self._request = compiled.create_infer_request()

    def logits(self, slices: torch.Tensor) -> torch.Tensor:
        """See :class:`napari_lgg_seg.core.inference.engines.Engine`."""
        result = self._request.infer([slices.contiguous().numpy()], share_inputs=True)
        return torch.from_numpy(result[0])[:, 0]


def main(
    cohort: Path,
    model: Annotated[Path, typer.Option()] = DEFAULT_MODEL,
    nncf: Annotated[Path | None, typer.Option(help="NNCF's model; used as it is if it is there.")] = None,
    patients: Annotated[int, typer.Option(help="How many NNCF is calibrated on.")] = 60,
) -> None:
    """Compare MODEL in 8 bits with itself on its validation patients in COHORT."""
    loaded = load_model(model)
    ways = {name: Predictor(loaded, "cpu", engine=name) for name in ("openvino", "openvino-int8")}
    if nncf is not None:
        if not nncf.is_file():
            quantise(loaded, cohort, patients, nncf)
        ways["NNCF"] = Predictor(loaded, "cpu", engine="openvino")
        ways["NNCF"].engine = Quantised(nncf)
    scores: dict[str, dict[str, float]] = {way: {} for way in ways}
    seconds = dict.fromkeys(ways, 0.0)
    same: dict[str, list[float]] = {way: [] for way in ways}
    for number, name in enumerate(("", *loaded.card.validation_patients)):
        patient = read_patient(cohort / (name or loaded.card.validation_patients[0]))
        reference = None
        for way, predictor in ways.items():
            started = time.process_time()
            probability = run_to_end(predictor.predict(patient.volume))
            if number:  # the first one warms up
                seconds[way] += time.process_time() - started
                labels = to_labels(probability, loaded.card.threshold)
                reference = labels if reference is None else reference
                scores[way][name] = dice(labels, patient.truth)
                same[way].append(dice(labels, reference))
        if number:
            print(name, *(f"{scores[way][name]:.4f}" for way in ways), flush=True)
    for way, metrics in scores.items():
        ratio = seconds[way] / seconds["openvino"]
        print(
            f"{way}: CPU time {ratio:.2f}; agreement {min(same[way]):.4f} in the worst patient; "
            f"{summarise(metrics)}"
        )


def quantise(model: Model, cohort: Path, patients: int, output: Path) -> None:
    """Write the quantised network, its batch normalisation folded before."""
    import nncf

    channels = len(model.card.sequences)
    network = openvino.convert_model(
        fold_batch_norm(model.network), example_input=torch.zeros(1, channels, 32, 32)
    )
    network.reshape([-1, channels, -1, -1])
    names = model.card.training_patients[:: max(1, len(model.card.training_patients) // patients)]
    slices = [x for name in names for x in _slices(read_patient(cohort / name), model)]
    quantised: Any = nncf.quantize(
        network, nncf.Dataset(slices), preset=nncf.QuantizationPreset.MIXED, subset_size=len(slices)
    )
    openvino.save_model(quantised, output, compress_to_fp16=False)


def _slices(patient: Patient, model: Model) -> Iterator[np.ndarray]:
    """As the network sees them: the slice with most tumour, and the middle one of those without."""
    preparation = measure(patient.volume, model.card.preprocess)
    area = patient.truth.sum(axis=(1, 2))
    empty = np.flatnonzero(area == 0)
    chosen = [int(area.argmax()), *empty[len(empty) // 2 :][:1]]
    raw = crop_and_resample(patient.volume[chosen], preparation.box, model.card.preprocess.working_size)
    for one in normalise(raw, preparation):
        yield one[None].numpy()


if __name__ == "__main__":
    typer.run(main)
