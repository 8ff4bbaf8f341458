"""The experiments of docs/protocol.md: folds, single runs, and tables from what they measured.

python benchmarks/experiment.py folds kaggle_3m                    # writes docs/folds.json
python benchmarks/experiment.py run docs/experiments/NAME.json kaggle_3m
python benchmarks/experiment.py table
"""

from __future__ import annotations

import dataclasses
import json
import random
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from napari_lgg_seg.core import devices
from napari_lgg_seg.core.cases import Volumes
from napari_lgg_seg.core.checkpoint import load_model
from napari_lgg_seg.core.events import Ended, EpochDone, Notice
from napari_lgg_seg.core.export import replacing
from napari_lgg_seg.core.options import TrainOptions
from napari_lgg_seg.core.patients import Patient, institution, patient_folders, read_patient
from napari_lgg_seg.core.postprocess import to_labels
from napari_lgg_seg.core.predict import Predictor, drain
from napari_lgg_seg.core.report import PatientFigures, measure_cohort, measure_patient
from napari_lgg_seg.core.split import split_patients
from napari_lgg_seg.core.train import train

DOCS = Path(__file__).parent.parent / "docs"
FOLDS, FOLD_COUNT = DOCS / "folds.json", 5
#: Share of the training patients that choose the epoch.
VALIDATION = 0.1

_BUDGET = {"epochs": 10, "slices_per_epoch": 1280}
_FEW = {"epochs": 80, "slices_per_epoch": 160, "validate_every": 1}
#: Question and run -> what differs from the baseline.
RUNS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "loss-bce": {"options": {"loss": "bce"}},
    "loss-dice": {"options": {"loss": "dice"}},
    "sequences-flair": {"options": {"sequences": "flair"}},
    "sequences-all-without-filled": {"without_filled": True},
    "sequences-flair-without-filled": {"without_filled": True, "options": {"sequences": "flair"}},
    "network-buda": {"options": {"network": "buda"}},
    "split-slice": {"split": "slice"},
    "callbacks-none": {"training_patients": 10, "options": {**_FEW, "average_decay": 0.0}},
    "callbacks-all": {"training_patients": 10, "options": {**_FEW, "patience": 10}},
}

app = typer.Typer(add_completion=False, help=__doc__)


def make_folds(names: list[str], seed: int = 0) -> list[list[str]]:
    """Folds by patient: institution after institution, shuffled, dealt out in turn."""
    shuffler = random.Random(seed)
    groups: dict[str, list[str]] = {}
    for name in sorted(names):
        groups.setdefault(institution(name), []).append(name)
    order = [name for _, group in sorted(groups.items()) for name in shuffler.sample(group, len(group))]
    return [sorted(order[k::FOLD_COUNT]) for k in range(FOLD_COUNT)]


@app.command()
def folds(dataset: Path) -> None:
    """Write docs/folds.json."""
    found = make_folds([folder.name for folder in patient_folders(dataset)])
    _write(FOLDS, found)
    print([len(fold) for fold in found])


@app.command()
def plan() -> None:
    """Write a file for each run of the questions, on folds 0 and 1, if it is not there."""
    for name, differs in RUNS.items():
        for fold in (0, 1):
            path = DOCS / "experiments" / f"{name}-fold{fold}.json"
            if not path.exists():
                options = {**_BUDGET, "seed": fold, **differs.get("options", {})}
                _write(path, {**differs, "fold": fold, "options": options})


@app.command()
def run(
    file: Path,
    dataset: Path,
    work: Annotated[Path, typer.Option(help="Where the model and its training state go.")] = Path("runs"),
    minutes: Annotated[float | None, typer.Option(help="Stop after this time; call again to go on.")] = None,
) -> None:
    """Do the run that FILE describes, or go on with it, and add what it measured."""
    config = json.loads(file.read_text(encoding="utf-8"))
    if "patients" in config:
        print(f"{file} has its results already.")
        return
    devices.keep_memory_mapped()
    options = TrainOptions(**{"init": "scratch", "patience": 0, **config["options"], "max_minutes": minutes})
    training, test = _sets(config, dataset)
    names, held_out = split_patients([p.name for p in training], VALIDATION, options.seed)
    by_name = {p.name: p for p in training}
    output = work / f"{file.stem}.safetensors"
    began, ending = time.monotonic(), ""
    for event in train(
        [by_name[n] for n in names], [by_name[n] for n in held_out], output, options, resume=True
    ):
        if isinstance(event, EpochDone):
            print(event, flush=True)
        elif isinstance(event, Notice):
            print(event.text, flush=True)
        elif isinstance(event, Ended):
            ending = event.reason
    print(ending)
    if "minutes are over" in ending:
        return
    model = load_model(output)
    figures = [_score(Predictor(model), patient) for patient in test]
    cohort = measure_cohort(figures)
    assert cohort is not None
    config |= {
        "training": sorted(names),
        "validation": sorted(held_out),
        "minutes": round((time.monotonic() - began) / 60, 1),
        "versions": model.card.training["versions"],
        "history": model.card.training["history"],
        "cohort": dataclasses.asdict(cohort),
        "patients": [_row(p) for p in figures],
    }
    _write(file, config)
    print(cohort)


def _sets(config: dict[str, Any], dataset: Path) -> tuple[list[Patient], list[Patient]]:
    """Patients to train on and to test on, as the protocol says."""
    fold = set(json.loads(FOLDS.read_text(encoding="utf-8"))[config["fold"]])
    patients = [read_patient(folder) for folder in patient_folders(dataset)]
    if config.get("without_filled"):
        patients = [p for p in patients if not p.copies or p.name in fold]
    if config.get("split") == "slice":
        return _by_slice(patients, config["fold"])
    training = [p for p in patients if p.name not in fold]
    if "training_patients" in config:
        training = random.Random(config["fold"]).sample(training, config["training_patients"])
    return training, [p for p in patients if p.name in fold]


def _by_slice(patients: list[Patient], fold: int) -> tuple[list[Patient], list[Patient]]:
    """The leaky split: of each patient's slices a fifth is tested, and the rest of them trains."""
    sides: tuple[list[Patient], list[Patient]] = [], []
    for patient in patients:
        order = np.random.default_rng(fold).permutation(len(patient.slice_numbers))
        tested = np.zeros(len(order), bool)
        tested[order[: len(order) // FOLD_COUNT]] = True
        for side, chosen in zip(sides, (~tested, tested), strict=True):
            numbers = tuple(n for n, c in zip(patient.slice_numbers, chosen, strict=True) if c)
            part = dataclasses.replace(
                patient,
                volume=patient.volume[chosen],
                truth=patient.truth[chosen],
                slice_numbers=numbers,
            )
            side.append(part)
    return sides


def _score(predictor: Predictor, patient: Patient) -> PatientFigures:
    labels = to_labels(drain(predictor.predict(patient.volume)), predictor.card.threshold)
    return measure_patient(Volumes(patient.name, patient.slice_numbers, labels, patient.truth))


def _row(figures: PatientFigures) -> dict[str, Any]:
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in figures.as_row().items()}


@app.command()
def table() -> None:
    """Print a row for each run that has results."""
    print("| run | patients | mean (95 %) | median (95 %) | < 0.5 | missed |\n|---|---|---|---|---|---|")
    for file in sorted((DOCS / "experiments").glob("*.json")):
        config = json.loads(file.read_text(encoding="utf-8"))
        if "cohort" not in config:
            continue
        cohort, summary = config["cohort"], config["cohort"]["summary"]
        intervals = [
            f"{low:.3f} to {high:.3f}" for low, high in (cohort["mean_interval"], cohort["median_interval"])
        ]
        print(
            f"| {file.stem} | {summary['patients']} | {summary['mean']:.3f} ({intervals[0]}) | "
            f"{summary['median']:.3f} ({intervals[1]}) | {len(summary['below_half'])} | "
            f"{len(summary['missed'])} |"
        )


def _write(path: Path, values: Any) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    app()
