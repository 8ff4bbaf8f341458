"""Does the uncertainty find the failures? Area under the ROC curve for a Dice below 0.7, on real patients.

    python benchmarks/uncertainty.py measure kaggle_3m RUNS/fold-fold*.safetensors
    python benchmarks/uncertainty.py measure kaggle_3m MODEL.safetensors --most 4 --file try.json
    python benchmarks/uncertainty.py show

Each model segments the patients that it has not seen in training or validation, as the Cohort widget does,
with and without test-time augmentation; a model that has seen all of them, its validation patients.
``measure`` writes docs/experiments/uncertainty.json (or another file), ``show`` prints its table and draws
docs/figures/uncertainty.png. There are two measures of uncertainty: the mean entropy, and 1 - expected
Dice. Patients in whom nothing was found come first, as in the widget.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import plots
import typer
from results import EXPERIMENTS, FIGURES, RESAMPLES, SEED, as_table

from napari_lgg_seg.core import memory
from napari_lgg_seg.core.data.discover import patient_folders
from napari_lgg_seg.core.data.patients import Patient, read_patient
from napari_lgg_seg.core.evaluation.metrics import dice
from napari_lgg_seg.core.evaluation.study.associate import auc, auc_interval
from napari_lgg_seg.core.inference.postprocess import postprocess
from napari_lgg_seg.core.inference.predict import Predictor, run_to_end
from napari_lgg_seg.core.inference.uncertainty import expected_dice, mean_entropy
from napari_lgg_seg.core.model.checkpoint import Model, load_model
from napari_lgg_seg.core.options import SegmentOptions

FILE, FIGURE = EXPERIMENTS / "uncertainty.json", FIGURES / "uncertainty.png"
#: Dice below which a patient is a failure.
BELOW = 0.7
#: Keys of the predictions in the file, with whether they use test-time augmentation and their labels.
PREDICTIONS = {"plain": False, "mirrored": True}
LABELS = {"plain": "plain", "mirrored": "test-time augmentation"}
#: Keys of the uncertainty measures in the file, and their labels.
MEASURES = {"uncertainty": "mean entropy", "not_promised": "1 - expected Dice"}
#: Uncertainty of patients in whom nothing was found, above all others.
NOTHING_FOUND = 2.0
HEADER = (
    *("prediction", "model", "sorted by", "patients", "nothing found", f"Dice < {BELOW}"),
    *("AUC (95 % CI)", "failures among the first n (n = failures)", "reviewed until all failures are seen"),
)

app = typer.Typer(add_completion=False, help=__doc__)


@app.command()
def measure(
    dataset: Path,
    models: list[Path],
    file: Annotated[Path, typer.Option(help="File for the results.")] = FILE,
    most: Annotated[int | None, typer.Option(help="Largest number of patients per model.")] = None,
) -> None:
    """Measure Dice and uncertainty of each patient with MODELS that have not seen it."""
    memory.keep_memory_mapped()
    rows = []
    for path in models:
        model = load_model(path)
        predictors = {name: Predictor(model, tta=tta) for name, tta in PREDICTIONS.items()}
        for folder in _unseen(model, dataset)[:most]:
            rows.append({"model": path.stem} | _row(read_patient(folder), predictors))
            print(json.dumps(rows[-1]), flush=True)
    text = "[\n " + ",\n ".join(json.dumps(row) for row in rows) + "\n]\n"
    file.write_text(text, encoding="utf-8")
    print(table(rows))


@app.command()
def show(
    file: Annotated[Path, typer.Option(help="File that measure wrote.")] = FILE,
    figure: Annotated[Path, typer.Option(help="File for the figure.")] = FIGURE,
) -> None:
    """Print the table, and draw uncertainty against Dice."""
    print(table(json.loads(file.read_text(encoding="utf-8"))))
    draw(file, figure)


def _unseen(model: Model, dataset: Path) -> list[Path]:
    """Folders of the patients that a model has not seen; without any, of its validation patients."""
    card, folders = model.card, patient_folders(dataset)
    seen = {*card.training_patients, *card.validation_patients, *card.earlier_patients}
    unseen = [folder for folder in folders if folder.name not in seen]
    return unseen or [folder for folder in folders if folder.name in card.validation_patients]


def _row(patient: Patient, predictors: dict[str, Predictor]) -> dict[str, Any]:
    assert patient.volume is not None
    assert patient.truth is not None
    row: dict[str, Any] = {"patient": patient.name}
    for name, predictor in predictors.items():
        probability = run_to_end(predictor.predict(patient.volume))
        labels = postprocess(probability, predictor.card.complete(SegmentOptions()))
        row[name] = {
            "dice": round(dice(labels, patient.truth), 4),
            "uncertainty": round(mean_entropy(probability, labels), 4),
            "not_promised": round(1 - (expected_dice(probability, labels) or 0.0), 4),
            "voxels": int(labels.sum()),
        }
    return row


# --- results -----------------------------------------------------------------------------------


def _scores_and_failures(
    rows: list[dict[str, Any]], prediction: str, measure: str = "uncertainty"
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """The uncertainty by which patients are sorted, and which of them are failures."""
    predictions = [row[prediction] for row in rows]
    scores = [one[measure] if one["voxels"] else NOTHING_FOUND for one in predictions]
    return np.array(scores), np.array([one["dice"] < BELOW for one in predictions])


def table(rows: list[dict[str, Any]]) -> str:
    """How well the failures are found, for the page: a row for each prediction, model and measure."""
    models = list(dict.fromkeys(row["model"] for row in rows))
    lines = [
        [
            LABELS[prediction],
            model or "all",
            label,
            *_cells(*_scores_and_failures(_of_model(rows, model), prediction, measure)),
        ]
        for prediction in PREDICTIONS
        for model in ([*models, None] if len(models) > 1 else models)
        for measure, label in MEASURES.items()
    ]
    return as_table(HEADER, lines)


def _of_model(rows: list[dict[str, Any]], model: str | None) -> list[dict[str, Any]]:
    return [row for row in rows if model in (None, row["model"])]


def _cells(scores: npt.NDArray[np.float64], failed: npt.NDArray[np.bool_]) -> list[str]:
    """The cells of a row: how many patients failed, and how early in the review they come."""
    failures = int(failed.sum())
    counts = [str(len(failed)), str(int((scores >= NOTHING_FOUND).sum())), str(failures)]
    if failed.all() or not failed.any():  # the AUC is undefined
        return [*counts, "", "", ""]
    low, high = auc_interval(scores[failed], scores[~failed], RESAMPLES, SEED)
    order = np.argsort(-scores, kind="stable")
    last = int(np.flatnonzero(failed[order])[-1]) + 1
    return [
        *counts,
        f"{auc(scores[failed], scores[~failed]):.3f} ({low:.3f} to {high:.3f})",
        f"{failed[order[:failures]].sum()} of {failures}",
        f"{last} of {len(failed)}",
    ]


def draw(file: Path, figure: Path) -> None:
    """Draw Dice against uncertainty, and the failures seen against the patients reviewed."""
    rows = json.loads(file.read_text(encoding="utf-8"))
    with plots.figure(figure, 7.5, 3.0, columns=2) as (dots, curve):
        for (prediction, tta), colour in zip(PREDICTIONS.items(), plots.COLOURS, strict=False):
            scores, failed = _scores_and_failures(rows, prediction)
            label = "with test-time augmentation" if tta else "without"
            if tta:
                found = scores < NOTHING_FOUND
                values = np.array([row[prediction]["dice"] for row in rows])
                dots.plot(scores[found], values[found], "o", ms=4, alpha=0.6, mew=0, color=colour)
            seen = np.cumsum(failed[np.argsort(-scores, kind="stable")])
            curve.step(np.arange(len(rows) + 1), [0, *seen], where="post", color=colour, label=label)
        dots.axhline(BELOW, color="black", lw=0.8, ls=":")
        dots.set(xlabel="Uncertainty (mean entropy, bits)", ylabel="Dice", ylim=(-0.02, 1.02))
        curve.set(
            xlabel="Patients reviewed, most uncertain first", ylabel=f"Failures seen (Dice below {BELOW})"
        )
        curve.legend(frameon=False)


if __name__ == "__main__":
    app()
