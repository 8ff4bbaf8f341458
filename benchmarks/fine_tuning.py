"""Does fine-tuning help? A model that never saw an institution, fine-tuned on a few of its patients.

    napari-lgg-seg train OTHERS --output others.safetensors --init scratch --epochs 18 --validation 0.15
    python benchmarks/fine_tuning.py others.safetensors kaggle_3m --institution HT --sizes 3 5 8

OTHERS is the dataset without the institution, whose patients are put into an order drawn from the seed. The
first ``--largest`` of them are available for fine-tuning, and each size takes the first so many; all others
are the test patients, the same ones for every size. A fifth of the patients of a size, at least one, are
validation patients and determine the epoch. Dice per patient over the volume on the original grid, with the
model's own threshold and clean-up.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any

from scoring import dice_by_patient

from napari_lgg_seg.core import memory
from napari_lgg_seg.core.data.discover import patient_folders
from napari_lgg_seg.core.data.patients import institution, read_patient
from napari_lgg_seg.core.evaluation.metrics import Summary, summarise
from napari_lgg_seg.core.model.checkpoint import load_model
from napari_lgg_seg.core.training.events import EpochDone
from napari_lgg_seg.core.training.options import TrainOptions
from napari_lgg_seg.core.training.split import split_patients
from napari_lgg_seg.core.training.train import train

#: The options that are stored for each size.
STORED = ("learning_rate", "epochs", "average_decay", "slices_per_epoch")


def main() -> None:
    """Fine-tune on all sizes, print a table, and store the results as JSON."""
    arguments = _parse()
    memory.keep_memory_mapped()
    folders = [f for f in patient_folders(arguments.dataset) if institution(f.name) == arguments.institution]
    order = random.Random(arguments.seed).sample(folders, len(folders))
    available, test = order[: arguments.largest], sorted(order[arguments.largest :])
    seen = load_model(arguments.model).card.seen_patients()
    assert not seen & {f.name for f in folders}, "the model has seen patients of this institution"
    options = TrainOptions(
        init=str(arguments.model),
        loss="bce+dice",
        learning_rate=arguments.learning_rate,
        epochs=arguments.epochs,
        average_decay=arguments.average_decay,
        seed=arguments.seed,
    )
    title = f"{len(test)} test patients of {arguments.institution}"
    print(f"{title:<34} mean   median <0.5 missed min", flush=True)
    before = _score(arguments.model, test)
    print(_line("before", summarise(before), 0), flush=True)
    results = {"test": [f.name for f in test], "runs": [], "before": before}
    for size in arguments.sizes:
        results["runs"].append(_fine_tune(available[:size], test, options))
        if arguments.json:
            arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--institution", default="HT")
    parser.add_argument("--sizes", type=int, nargs="+", default=[3, 5, 8])
    parser.add_argument("--largest", type=int, default=8, help="patients reserved for fine-tuning")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--average-decay", type=float)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def _fine_tune(folders: list[Path], test: list[Path], options: TrainOptions) -> dict[str, Any]:
    """Fine-tune on some patients, print and return the results on the test patients."""
    chosen = {f.name: f for f in folders}
    names, held_out = split_patients(list(chosen), 0.2, options.seed)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "tuned.safetensors"
        began, epochs = time.monotonic(), []
        for event in train([chosen[n] for n in names], [chosen[n] for n in held_out], output, options):
            if isinstance(event, EpochDone):
                epochs.append(event.validation.mean)
        minutes = (time.monotonic() - began) / 60
        card, after = load_model(output).card, _score(output, test)
    used, summary = {name: card.training[name] for name in STORED}, summarise(after)
    print(_line(f"{len(names)} training, {len(held_out)} validation", summary, minutes), flush=True)
    print(
        f"    {used}, epoch {card.training['epoch']} kept; validation {card.results['before']} -> "
        f"{[round(e, 3) for e in epochs]}",
        flush=True,
    )
    return {
        "training": names,
        "validation": held_out,
        "options": used,
        "epoch": card.training["epoch"],
        "minutes": minutes,
        "summary": dataclasses.asdict(summary),
        "dice": after,
    }


def _score(model: Path, folders: list[Path]) -> dict[str, float]:
    return dice_by_patient(load_model(model), (read_patient(folder) for folder in folders))


def _line(name: str, summary: Summary, minutes: float) -> str:
    """A row of the table."""
    return (
        f"{name:<34} {summary.mean:.3f}  {summary.median:.3f}  {len(summary.below_half):>2}  "
        f"{len(summary.missed):>2}  {minutes:>5.1f}"
    )


if __name__ == "__main__":
    main()
