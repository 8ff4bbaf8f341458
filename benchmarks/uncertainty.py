"""Does the uncertainty find the failures? The area under the curve for "Dice below 0.7" on real patients.

    python benchmarks/uncertainty.py measure kaggle_3m RUNS/fold-fold*.safetensors
    python benchmarks/uncertainty.py measure kaggle_3m MODEL.safetensors --most 4 --file try.json
    python benchmarks/uncertainty.py show

Each model segments the patients that it has not seen in training or validation, as the cohort browser does,
without and with test-time augmentation; a model that has seen all of them, its validation patients.
``measure`` writes docs/experiments/uncertainty.json (or another file), ``show`` prints what it holds and
draws docs/figures/uncertainty.png. There are two figures of a patient: the mean entropy, and how much Dice
the prediction does not promise. Patients in whom nothing was found come first, as in the browser.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import plots
import typer
from results import DOCS, EXPERIMENTS, RESAMPLES, SEED, as_table

from napari_lgg_seg.core import memory
from napari_lgg_seg.core.data.discover import patient_folders
from napari_lgg_seg.core.data.patients import Patient, read_patient
from napari_lgg_seg.core.evaluation.associate import auc
from napari_lgg_seg.core.evaluation.metrics import dice
from napari_lgg_seg.core.inference.postprocess import postprocess
from napari_lgg_seg.core.inference.predict import Predictor, run_to_end
from napari_lgg_seg.core.inference.uncertainty import expected_dice, mean_entropy
from napari_lgg_seg.core.model.checkpoint import Model, load_model
from napari_lgg_seg.core.options import SegmentOptions

FILE, FIGURE = EXPERIMENTS / "uncertainty.json", DOCS / "figures" / "uncertainty.png"
#: A patient below this Dice is a failure.
BELOW = 0.7
#: The ways in which a figure is made.
WAYS = {"plain": False, "mirrored": True}
#: The figures, by their keys in the file.
FIGURES = {"uncertainty": "mean entropy", "not_promised": "1 - expected Dice"}
#: Above all figures: nothing was found.
NOTHING_FOUND = 2.0
#: Of the table: "first" are the patients that are reviewed first.
HEADER = (
    *("probability", "model", "ordered by", "patients", "nothing found", f"Dice below {BELOW}"),
    *("area under the curve (95 %)", "failures among as many first", "first that hold all failures"),
)

app = typer.Typer(add_completion=False, help=__doc__)


@app.command()
def measure(
    dataset: Path,
    models: list[Path],
    file: Annotated[Path, typer.Option(help="Where the figures go.")] = FILE,
    most: Annotated[int | None, typer.Option(help="No more patients of each model than this.")] = None,
) -> None:
    """Dice and uncertainty of each patient, by MODELS that have not seen them."""
    memory.keep_memory_mapped()
    rows = []
    for path in models:
        model = load_model(path)
        predictors = {way: Predictor(model, tta=tta) for way, tta in WAYS.items()}
        for folder in _unseen(model, dataset)[:most]:
            rows.append({"model": path.stem} | _row(read_patient(folder), predictors))
            print(json.dumps(rows[-1]), flush=True)
    text = "[\n " + ",\n ".join(json.dumps(row) for row in rows) + "\n]\n"
    file.write_text(text, encoding="utf-8")
    print(table(rows))


@app.command()
def show(
    file: Annotated[Path, typer.Option(help="From measure.")] = FILE,
    figure: Annotated[Path, typer.Option(help="Where the figure goes.")] = FIGURE,
) -> None:
    """Print the table, and draw uncertainty against Dice."""
    print(table(json.loads(file.read_text(encoding="utf-8"))))
    draw(file, figure)


def _unseen(model: Model, dataset: Path) -> list[Path]:
    """Folders of the patients that chose nothing about a model, or else of those that chose its epoch."""
    card, folders = model.card, patient_folders(dataset)
    seen = {*card.training_patients, *card.validation_patients, *card.earlier_patients}
    unseen = [folder for folder in folders if folder.name not in seen]
    return unseen or [folder for folder in folders if folder.name in card.validation_patients]


def _row(patient: Patient, predictors: dict[str, Predictor]) -> dict[str, Any]:
    assert patient.volume is not None
    assert patient.truth is not None
    row: dict[str, Any] = {"patient": patient.name}
    for way, predictor in predictors.items():
        probability = run_to_end(predictor.predict(patient.volume))
        labels = postprocess(probability, predictor.card.complete(SegmentOptions()))
        row[way] = {
            "dice": round(dice(labels, patient.truth), 4),
            "uncertainty": round(mean_entropy(probability, labels), 4),
            "not_promised": round(1 - (expected_dice(probability, labels) or 0.0), 4),
            "voxels": int(labels.sum()),
        }
    return row


# --- what it comes to --------------------------------------------------------------------------


def _figures(
    rows: list[dict[str, Any]], way: str, figure: str = "uncertainty"
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """By what patients are ordered, and which of them are failures."""
    scores = [row[way][figure] if row[way]["voxels"] else NOTHING_FOUND for row in rows]
    return np.array(scores), np.array([row[way]["dice"] < BELOW for row in rows])


def table(rows: list[dict[str, Any]]) -> str:
    """How well the failures are found: a row for each way, model and figure, for the page."""
    models = list(dict.fromkeys(row["model"] for row in rows))
    lines = [
        [way, model or "all", name, *_cells(*_figures(_of_model(rows, model), way, figure))]
        for way in WAYS
        for model in ([*models, None] if len(models) > 1 else models)
        for figure, name in FIGURES.items()
    ]
    return as_table(HEADER, lines)


def _of_model(rows: list[dict[str, Any]], model: str | None) -> list[dict[str, Any]]:
    return [row for row in rows if model in (None, row["model"])]


def _cells(scores: npt.NDArray[np.float64], failed: npt.NDArray[np.bool_]) -> list[str]:
    """Of the patients of one row: how many failed, and where they are in the order of review."""
    failures = int(failed.sum())
    counts = [str(len(failed)), str(int((scores >= NOTHING_FOUND).sum())), str(failures)]
    if failed.all() or not failed.any():  # there is no area under the curve
        return [*counts, "", "", ""]
    low, high = _interval(scores, failed)
    order = np.argsort(-scores, kind="stable")
    last = int(np.flatnonzero(failed[order])[-1]) + 1
    return [
        *counts,
        f"{auc(scores[failed], scores[~failed]):.3f} ({low:.3f} to {high:.3f})",
        f"{failed[order[:failures]].sum()} of {failures}",
        f"{last} of {len(failed)}",
    ]


def _interval(scores: npt.NDArray[np.float64], failed: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """95 % interval of the area, by bootstrap over patients within both groups."""
    rng = np.random.default_rng(SEED)
    groups = scores[failed], scores[~failed]
    drawn = [auc(*(rng.choice(group, len(group)) for group in groups)) for _ in range(RESAMPLES)]
    low, high = np.percentile(drawn, (2.5, 97.5))
    return float(low), float(high)


def draw(file: Path, figure: Path) -> None:
    """Uncertainty against Dice, and how many failures were seen after so many patients."""
    rows = json.loads(file.read_text(encoding="utf-8"))
    with plots.figure(figure, 7.5, 3.0, columns=2) as (dots, curve):
        for (way, tta), colour in zip(WAYS.items(), plots.COLOURS, strict=False):
            scores, failed = _figures(rows, way)
            label = "with test-time augmentation" if tta else "without"
            if tta:
                found = scores < NOTHING_FOUND
                values = np.array([row[way]["dice"] for row in rows])
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
