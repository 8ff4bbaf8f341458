"""Does fine-tuning pay? A model that never saw an institution, fine-tuned on a few of its patients.

    napari-lgg-seg train OTHERS --output others.safetensors --init scratch --epochs 18 --validation 0.15
    python benchmarks/fine_tuning.py others.safetensors kaggle_3m --institution HT --sizes 3 5 8

OTHERS is the dataset without the institution. The test patients are the same for every size: all of the
institution but the ``max(sizes)`` that the training patients are the first of, in an order drawn from
the seed. Dice per patient over the volume on the original grid, the model's own threshold and clean-up.
A fifth of the training patients, one at least, validate and so choose the epoch.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import tempfile
import time
from pathlib import Path

from napari_lgg_seg.core import memory
from napari_lgg_seg.core.data.discover import patient_folders
from napari_lgg_seg.core.data.patients import institution, read_patient
from napari_lgg_seg.core.evaluation.metrics import Summary, dice, summarise
from napari_lgg_seg.core.inference.postprocess import postprocess
from napari_lgg_seg.core.inference.predict import Predictor, run_to_end
from napari_lgg_seg.core.model.checkpoint import load_model
from napari_lgg_seg.core.options import SegmentOptions
from napari_lgg_seg.core.training.events import EpochDone
from napari_lgg_seg.core.training.options import TrainOptions
from napari_lgg_seg.core.training.split import split_patients
from napari_lgg_seg.core.training.train import train


def score(model: Path, folders: list[Path]) -> dict[str, float]:
    """Dice of each patient."""
    predictor = Predictor(load_model(model))
    scores = {}
    for folder in folders:
        patient = read_patient(folder)
        probability = run_to_end(predictor.predict(patient.volume))
        labels = postprocess(probability, predictor.card.complete(SegmentOptions()))
        scores[patient.name] = dice(labels, patient.truth)
    return scores


def line(name: str, summary: Summary, minutes: float) -> str:
    """A row of the table."""
    return (
        f"{name:<34} {summary.mean:.3f}  {summary.median:.3f}  {len(summary.below_half):>2}  "
        f"{len(summary.missed):>2}  {minutes:>5.1f}"
    )


def main() -> None:
    """Run all sizes and print a table; figures go to a JSON file as well."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--institution", default="HT")
    parser.add_argument("--sizes", type=int, nargs="+", default=[3, 5, 8])
    parser.add_argument("--largest", type=int, default=8, help="patients kept for training, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--average-decay", type=float)
    parser.add_argument("--freeze-encoder", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    memory.keep_memory_mapped()

    folders = [f for f in patient_folders(arguments.dataset) if institution(f.name) == arguments.institution]
    order = random.Random(arguments.seed).sample(folders, len(folders))
    mine, test = order[: arguments.largest], sorted(order[arguments.largest :])
    seen = load_model(arguments.model).card.seen_patients()
    assert not seen & {f.name for f in folders}, "the model has seen patients of this institution"
    options = TrainOptions(
        init=str(arguments.model),
        loss="bce+dice",
        learning_rate=arguments.learning_rate,
        epochs=arguments.epochs,
        average_decay=arguments.average_decay,
        freeze_encoder=arguments.freeze_encoder,
        seed=arguments.seed,
    )
    results = {"test": [f.name for f in test], "runs": []}
    print(
        f"{len(test)} test patients of {arguments.institution}{'':<14} mean  median <0.5 missed min",
        flush=True,
    )
    before = score(arguments.model, test)
    print(line("before", summarise(before), 0), flush=True)
    results["before"] = before
    for size in arguments.sizes:
        chosen = {f.name: f for f in mine[:size]}
        names, held_out = split_patients(list(chosen), 0.2, arguments.seed)
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / "tuned.safetensors"
            began, epochs = time.monotonic(), []
            for event in train([chosen[n] for n in names], [chosen[n] for n in held_out], output, options):
                if isinstance(event, EpochDone):
                    epochs.append(event.validation.mean)
            minutes = (time.monotonic() - began) / 60
            card, after = load_model(output).card, score(output, test)
        used = {
            k: card.training[k]
            for k in ("learning_rate", "epochs", "average_decay", "freeze_encoder", "slices_per_epoch")
        }
        print(
            line(f"{len(names)} to train, {len(held_out)} to validate", summarise(after), minutes), flush=True
        )
        print(
            f"    {used}, epoch {card.training['epoch']} kept; validation {card.results['before']} -> "
            f"{[round(e, 3) for e in epochs]}",
            flush=True,
        )
        results["runs"].append(
            {
                "training": names,
                "validation": held_out,
                "options": used,
                "epoch": card.training["epoch"],
                "minutes": minutes,
                "summary": dataclasses.asdict(summarise(after)),
                "dice": after,
            }
        )
        if arguments.json:
            arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
