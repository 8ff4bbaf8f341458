"""Measure a trained model on its own validation patients and write it as the shipped model.

    python benchmarks/ship_model.py MODEL.safetensors COHORT --command "napari-lgg-seg train ..."
    python benchmarks/ship_model.py src/napari_lgg_seg/models/default.safetensors COHORT --dry-run

Each validation patient in the model's header is segmented and evaluated over its volume. The header of the
new file gets these results, those of the five folds (docs/experiments/fold-fold*.json), data and licence.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import scoring
import typer
from results import calibration_error, failures, interval, load, summed_counts

from napari_lgg_seg.core import memory
from napari_lgg_seg.core.data.patients import read_patient
from napari_lgg_seg.core.evaluation.metrics import summarise
from napari_lgg_seg.core.model.checkpoint import DEFAULT_MODEL, load_model, save_model

DATA = (
    "LGG MRI segmentation dataset (Buda et al. 2019; Kaggle mateuszbuda/lgg-mri-segmentation, from "
    "TCGA-LGG), 90 of its 110 patients"
)
LICENCE = "CC-BY-NC-SA-4.0"
INTENDED_USE = (
    "Outlining untreated lower-grade glioma (WHO grade II and III) in axial brain MRI, for research, with a "
    "person checking every result. Not a medical device: not for diagnosis or treatment. It has not seen "
    "other tumours, operated patients, children, healthy brains, other orientations or raw intensities of "
    "other scanners' protocols."
)
#: What the card says of each patient for whom the recipe failed.
FAILURE = ("patient", "dice", "true_voxels", "voxels", "true_slices", "missed_lesions")
METRIC = "Dice per patient over the volume, on the original grid, with the model's own threshold and clean-up"


def main(
    model: Path,
    cohort: Path,
    output: Annotated[Path, typer.Option()] = DEFAULT_MODEL,
    command: Annotated[str, typer.Option(help="The command that trained the model.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only measure.")] = False,
) -> None:
    """Measure MODEL on its validation patients in COHORT and write it with the results."""
    memory.keep_memory_mapped()
    loaded = load_model(model)
    found = scoring.score(loaded, [read_patient(cohort / name) for name in loaded.card.validation_patients])
    for row in sorted(found["patients"], key=lambda row: float(row["dice"])):
        print(f"{row['patient']} {row['dice']:.4f}")
    for choice, values in found["choices"].items():
        print(f"{choice}: mean {np.mean(values):.4f}, median {np.median(values):.4f}")
    metrics = {
        "metric": METRIC,
        "split": "validation_patients, by patient; the epoch was chosen on them too",
        "command": "python benchmarks/ship_model.py MODEL COHORT --dry-run",
        "training_command": command,
        **found["cohort"],
        "calibration": _calibration(found["reliability"]),
        "dice": {row["patient"]: row["dice"] for row in found["patients"]},
        "cross_validation": _cross_validation(),
    }
    print(metrics)
    if dry_run:
        return
    card = dataclasses.replace(
        loaded.card,
        name="Default U-Net",
        data=DATA,
        licence=LICENCE,
        intended_use=INTENDED_USE,
        results=metrics,
    )
    save_model(output, loaded.network, card)
    print(f"{output}: {output.stat().st_size / 2**20:.1f} MiB")


def _calibration(counts: dict[str, list[float]]) -> dict[str, Any]:
    return {
        "region": "the bounding box of the ground truth, one slice and 16 pixels larger on each side",
        "expected_error": round(calibration_error(counts), 4),
        **counts,
    }


def _cross_validation() -> dict[str, Any]:
    """The results of the folds, on patients that were used for neither training nor choosing the epoch."""
    folds = load("fold")
    if not folds.runs:
        return {}
    dice = {name: row["dice"] for (_, name), row in folds.rows.items()}
    return {
        "what": f"{len(folds.runs)} folds by patient, each trained anew; the recipe was chosen on 0 and 1",
        "command": "python benchmarks/experiment.py run docs/experiments/fold-foldK.json COHORT",
        "options": folds.runs[0]["options"],
        "summary": dataclasses.asdict(summarise(dice)),
        "mean_interval": interval(dice.values()),
        "median_interval": interval(dice.values(), np.median),
        "calibration_error": round(calibration_error(summed_counts(folds.runs)), 4),
        "failures": [{name: row[name] for name in FAILURE} for row in failures(folds.rows)],
    }


if __name__ == "__main__":
    typer.run(main)
