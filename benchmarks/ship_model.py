"""Measure a trained model on its own validation patients and write it as the shipped model.

    python benchmarks/ship_model.py MODEL.safetensors COHORT [--output FILE]
    python benchmarks/ship_model.py src/napari_lgg_seg/models/default.safetensors COHORT --dry-run

Each validation patient in the model's header is segmented with the default options and scored over its
volume; the figures, the data and the licence go into the header of the new file.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from napari_lgg_seg.core import devices
from napari_lgg_seg.core.checkpoint import DEFAULT_MODEL, load_model, save_model
from napari_lgg_seg.core.metrics import dice, summarise
from napari_lgg_seg.core.options import SegmentOptions
from napari_lgg_seg.core.patients import Patient, read_patient
from napari_lgg_seg.core.postprocess import postprocess, to_labels
from napari_lgg_seg.core.predict import Predictor, drain

DATA = (
    "LGG MRI segmentation dataset (Buda et al. 2019; Kaggle mateuszbuda/lgg-mri-segmentation, from "
    "TCGA-LGG), 90 of its 110 patients"
)
LICENCE = "CC-BY-NC-SA-4.0"


def main(
    model: Path,
    cohort: Path,
    output: Annotated[Path, typer.Option()] = DEFAULT_MODEL,
    command: Annotated[str, typer.Option(help="The command that trained the model.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Measure only.")] = False,
) -> None:
    """Measure MODEL on its validation patients in COHORT and write it with its figures."""
    devices.keep_memory_mapped()
    loaded = load_model(model)
    patients = {name: read_patient(cohort / name) for name in loaded.card.validation_patients}
    truths = {name: patient.truth for name, patient in patients.items()}
    probabilities = _predict(Predictor(loaded), patients)
    _compare(probabilities, truths, "")
    if dry_run:
        _compare(_predict(Predictor(loaded, tta=True), patients), truths, "test-time augmentation, ")
    threshold = loaded.card.threshold
    scores = {n: dice(to_labels(p, threshold), truths[n]) for n, p in probabilities.items()}
    summary = summarise(scores)
    for name, score in sorted(scores.items(), key=lambda item: item[1]):
        print(f"{name} {score:.4f}")
    print(summary)
    if dry_run:
        return
    card = dataclasses.replace(
        loaded.card,
        name="Default U-Net",
        data=DATA,
        licence=LICENCE,
        figures={
            "metric": "Dice per patient over the volume, on the original grid, without post-processing",
            "split": "validation_patients, by patient; the epoch was chosen on them too",
            "command": "python benchmarks/ship_model.py MODEL COHORT --dry-run",
            "training_command": command,
            "summary": dataclasses.asdict(summary),
            "dice": scores,
        },
    )
    save_model(output, loaded.network, card)
    print(f"{output}: {output.stat().st_size / 2**20:.1f} MiB")


def _predict(predictor: Predictor, patients: dict[str, Patient]) -> dict[str, np.ndarray]:
    return {name: drain(predictor.predict(patient.volume)) for name, patient in patients.items()}


def _compare(probabilities: dict[str, np.ndarray], truths: dict[str, np.ndarray], what: str) -> None:
    """Print the figures of other thresholds and clean-ups, so that the defaults can be judged."""
    choices = [SegmentOptions(threshold=t) for t in (0.3, 0.4, 0.5, 0.6, 0.7)]
    choices += [
        SegmentOptions(threshold=0.5, clean_up="largest"),
        SegmentOptions(threshold=0.5, clean_up="small", smallest_volume=200),
        SegmentOptions(threshold=0.5, fill_holes=True),
    ]
    for options in choices:
        scores = {n: dice(postprocess(p, options, 0.5), truths[n]) for n, p in probabilities.items()}
        summary = summarise(scores)
        print(
            f"{what}threshold {options.threshold}, clean-up {options.clean_up}, holes filled "
            f"{options.fill_holes}: mean {summary.mean:.4f}, median {summary.median:.4f}, "
            f"{len(summary.missed)} missed"
        )


if __name__ == "__main__":
    typer.run(main)
