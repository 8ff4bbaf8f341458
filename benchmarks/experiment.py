"""The experiments of docs/protocol.md: folds, plan, and single runs with their results.

Commands::

    python benchmarks/experiment.py folds kaggle_3m                    # writes docs/folds.json
    python benchmarks/experiment.py plan                               # writes a file for each run
    python benchmarks/experiment.py run docs/experiments/NAME.json kaggle_3m
    python benchmarks/experiment.py run docs/experiments/NAME.json kaggle_3m --repeat again.json
    python benchmarks/experiment.py score docs/experiments/NAME.json kaggle_3m
"""

from __future__ import annotations

import copy
import csv
import dataclasses
import json
import random
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import scoring
import typer

from napari_lgg_seg.core import memory
from napari_lgg_seg.core.atomic import replacing
from napari_lgg_seg.core.data.discover import patient_folders
from napari_lgg_seg.core.data.patients import Patient, institution, read_patient
from napari_lgg_seg.core.inference.predict import Notice
from napari_lgg_seg.core.model.checkpoint import Model, load_model
from napari_lgg_seg.core.model.preprocess import PreprocessOptions
from napari_lgg_seg.core.training.events import Ended, EpochDone
from napari_lgg_seg.core.training.options import TrainOptions
from napari_lgg_seg.core.training.paths import state_file, state_folder
from napari_lgg_seg.core.training.split import split_patients
from napari_lgg_seg.core.training.train import train

DOCS = Path(__file__).parent.parent / "docs"
FOLDS, FOLD_COUNT = DOCS / "folds.json", 5
#: Share of the training patients with which the epoch is chosen.
VALIDATION = 0.1

_BUDGET = {
    "epochs": 10,
    "slices_per_epoch": 1280,
    "loss": "bce+dice",
    "threshold": 0.5,
    "clean_up": "off",
}
#: Few patients and many epochs, so that a network can overfit.
_FEW = {"working_size": 128, "training_patients": 12, "validation_share": 0.25, "test_last": True}
_MANY_EPOCHS = {"epochs": 40, "slices_per_epoch": 160, "validate_every": 1}
#: The options of the folds.
_RECIPE = {"loss": "bce", "threshold": "auto", "clean_up": "minor"}
#: The same with less than half of the budget, for runs that are only compared with each other.
_SHORT = {**_RECIPE, "epochs": 4}
_ADAMW = {"optimiser": "adamw"}
#: Name of a run -> how it differs from the baseline; each runs on folds 0 and 1.
QUESTIONS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "loss-bce": {"options": {"loss": "bce"}},
    "loss-dice": {"options": {"loss": "dice"}},
    "sequences-flair": {"options": {"sequences": "flair"}},
    "sequences-all-without-filled": {"without_filled": True, "options": _SHORT},
    "sequences-flair-without-filled": {"without_filled": True, "options": {**_SHORT, "sequences": "flair"}},
    "network-buda": {"options": {"network": "buda"}},
    "split-slice": {"split": "slice"},
    "callbacks-none": {**_FEW, "options": {**_MANY_EPOCHS, "average_decay": 0.0}},
    "callbacks-all": {**_FEW, "options": {**_MANY_EPOCHS, "patience": 10}},
}
#: Runs with which the recipe was chosen, on fold 0: variants of AdamW, of the baseline, of the recipe.
RECIPE: dict[str, dict[str, Any]] = {
    "recipe-adamw": {"options": _ADAMW},
    "recipe-adamw-dice": {"options": {**_ADAMW, "loss": "dice"}},
    "recipe-adamw-batch-4": {"options": {**_ADAMW, "batch_size": 4}},
    "recipe-adamw-size-128": {"working_size": 128, "options": _ADAMW},
    "recipe-augmentation-2": {"options": {"augmentation": 2.0}},
    "recipe-long": {"options": {**_RECIPE, "epochs": 30}},
}
#: The recipe on all folds.
FOLD: dict[str, dict[str, Any]] = {"fold": {"options": _RECIPE}}

#: The keys of a file that configure its run; all others are results.
CONFIGURATION = (
    "fold",
    "options",
    "working_size",
    "split",
    "without_filled",
    "training_patients",
    "validation_share",
    "test_last",
)

#: Options of version 0.1.0 that no longer exist, with the value that changes nothing.
REMOVED_OPTIONS = {"freeze_encoder": False, "crop_share": 0.0, "draw": "slices"}

app = typer.Typer(add_completion=False, help=__doc__)


def make_folds(names: list[str], seed: int = 0) -> list[list[str]]:
    """Split patients into folds, each with its share of every institution, shuffled within institutions."""
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
    """Write the file of each run that has none."""
    for runs, tested_folds in ((QUESTIONS, (0, 1)), (RECIPE, (0,)), (FOLD, range(FOLD_COUNT))):
        for name, differs in runs.items():
            for fold in tested_folds:
                path = DOCS / "experiments" / f"{name}-fold{fold}.json"
                if not path.exists():
                    options = {**_BUDGET, "seed": fold, **differs.get("options", {})}
                    _write(path, {**differs, "fold": fold, "options": options})


@app.command()
def run(
    file: Path,
    dataset: Path,
    work: Annotated[Path, typer.Option(help="Folder for the model and its training state.")] = Path("runs"),
    minutes: Annotated[
        float | None, typer.Option(help="Stop after this time; the same command resumes.")
    ] = None,
    repeat: Annotated[
        Path | None, typer.Option(help="Repeat a run that has results, and write to FILE.")
    ] = None,
) -> None:
    """Start or resume the run that FILE configures, and add its results to FILE."""
    config = json.loads(file.read_text(encoding="utf-8"))
    file = repeat or file
    if repeat is not None and repeat.exists():
        config = json.loads(repeat.read_text(encoding="utf-8"))
    elif repeat is not None:
        config = {key: config[key] for key in CONFIGURATION if key in config}
    if "patients" in config:
        print(f"{file} already has results.")
        return
    memory.keep_memory_mapped()
    options = training_options(config["options"])
    training, test = _sets(config, dataset)
    share = config.get("validation_share", VALIDATION)
    names, held_out = split_patients([p.name for p in training], share, options.seed)
    by_name = {p.name: p for p in training}
    output = work / f"{file.stem}.safetensors"
    ended = _train(
        [by_name[n] for n in names],
        [by_name[n] for n in held_out],
        output,
        dataclasses.replace(options, max_minutes=minutes),
        PreprocessOptions(**{key: config[key] for key in ("working_size",) if key in config}),
    )
    if not ended:
        return
    model, history = load_model(output), _history(output)
    config |= {
        # All options, so that the run can be repeated after defaults have changed.
        "options": {k: v for k, v in dataclasses.asdict(options).items() if v is not None},
        "training": sorted(names),
        "validation": sorted(held_out),
        "minutes": round(history[-1]["minutes"], 1),
        "history": history,
        "epoch": model.card.training["epoch"],
        "versions": model.card.training["versions"],
        **scoring.score(model, test),
    }
    if config.get("test_last"):
        config["last"] = scoring.dice_by_patient(_last(model, output), test)
    _write(file, config)
    print(json.dumps(config["cohort"]))


def training_options(stored: dict[str, Any]) -> TrainOptions:
    """The options of a stored run, completed; options that no longer exist are left out.

    Raises
    ------
    typer.BadParameter
        If the run cannot be repeated without one of them.
    """
    known = {field.name for field in dataclasses.fields(TrainOptions)}
    for name in stored.keys() - known:
        if name not in REMOVED_OPTIONS or stored[name] != REMOVED_OPTIONS[name]:
            raise typer.BadParameter(f"The option {name} was removed; repeat this run with version 0.1.0.")
    kept = {name: value for name, value in stored.items() if name in known}
    return TrainOptions(**{"init": "scratch", "patience": 0, **kept}).complete(fine_tuning=False)


@app.command()
def score(
    file: Path,
    dataset: Path,
    work: Annotated[Path, typer.Option(help="Folder with the model of the run.")] = Path("runs"),
) -> None:
    """Evaluate the model of a finished run again, for metrics that were added after the run."""
    memory.keep_memory_mapped()
    config = json.loads(file.read_text(encoding="utf-8"))
    _, test = _sets(config, dataset)
    _write(file, config | scoring.score(load_model(work / f"{file.stem}.safetensors"), test))


def _train(
    training: list[Patient],
    validation: list[Patient],
    output: Path,
    options: TrainOptions,
    preprocess: PreprocessOptions,
) -> bool:
    """Start or resume the training; returns whether it finished."""
    ending = ""
    for event in train(training, validation, output, options, preprocess, resume=True):
        if isinstance(event, EpochDone):
            print(event, flush=True)
        elif isinstance(event, Notice):
            print(event.text, flush=True)
        elif isinstance(event, Ended):
            ending = event.reason
    print(ending, flush=True)
    return "time limit" not in ending


def _last(model: Model, output: Path) -> Model:
    """The model after the last epoch instead of the best one."""
    import torch

    average = torch.load(state_file(output), map_location="cpu", weights_only=True)["average"]
    weights = {key.removeprefix("module."): t for key, t in average.items() if key.startswith("module.")}
    network = copy.deepcopy(model.network)
    network.load_state_dict(weights)
    return dataclasses.replace(model, network=network)


def _sets(config: dict[str, Any], dataset: Path) -> tuple[list[Patient], list[Patient]]:
    """Training and test patients, according to the protocol."""
    fold = set(json.loads(FOLDS.read_text(encoding="utf-8"))[config["fold"]])
    patients = [read_patient(folder) for folder in patient_folders(dataset)]
    if config.get("without_filled"):
        patients = [p for p in patients if not p.filled_sequences or p.name in fold]
    if config.get("split") == "slice":
        return _by_slice(patients, config["fold"])
    training = [p for p in patients if p.name not in fold]
    if "training_patients" in config:
        training = random.Random(config["fold"]).sample(training, config["training_patients"])
    return training, [p for p in patients if p.name in fold]


def _by_slice(patients: list[Patient], fold: int) -> tuple[list[Patient], list[Patient]]:
    """The leaky split: a fifth of each patient's slices for testing, the rest for training."""
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


def _history(output: Path) -> list[dict[str, float]]:
    """The whole history, including epochs after the best one; numbers with five digits."""
    with (state_folder(output) / "history.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: float(f"{float(value):.5g}") for name, value in row.items() if value} for row in rows]


def _write(path: Path, values: Any) -> None:
    with replacing(path) as temporary:
        temporary.write_text(_as_text(values) + "\n", encoding="utf-8")


def _as_text(values: Any) -> str:
    """JSON with one line per entry, and one per member of a list of dictionaries."""
    if not isinstance(values, dict):
        return json.dumps(values, indent=1)
    lines = [f" {json.dumps(key)}: {_value_text(value)}" for key, value in values.items()]
    return "{\n" + ",\n".join(lines) + "\n}"


def _value_text(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "[\n  " + ",\n  ".join(json.dumps(item) for item in value) + "\n ]"
    return json.dumps(value)


if __name__ == "__main__":
    app()
