"""Where the network fails: outlines of ground truth and prediction, without and with the images.

    python benchmarks/failures.py outline RUNS kaggle_3m       # docs/experiments/failures.json and its figure
    python benchmarks/failures.py draw kaggle_3m --output DIR  # the same over your own copy of the images

RUNS is the folder with the models of the folds (`experiment.py run --work RUNS`). The licence of the images
does not allow showing them here, so only the outlines of the masks are stored.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import plots
import typer
from results import EXPERIMENTS, FIGURES, load
from skimage.measure import find_contours

from napari_lgg_seg.core.data.patients import FLAIR, Patient, read_patient
from napari_lgg_seg.core.inference.postprocess import postprocess
from napari_lgg_seg.core.inference.predict import Predictor, run_to_end
from napari_lgg_seg.core.model.checkpoint import load_model
from napari_lgg_seg.core.options import SegmentOptions

FILE = EXPERIMENTS / "failures.json"
#: Dice below which a patient is a failure, and how many slices of each are shown.
BELOW, SLICES = 0.7, 3

app = typer.Typer(add_completion=False, help=__doc__)
Mask = npt.NDArray[np.bool_]


@app.command()
def outline(runs: Path, dataset: Path) -> None:
    """Store outlines of the worst slices of each patient below a Dice of 0.7 in its test fold."""
    found = []
    for run in load("fold").runs:
        worst = [row for row in run["patients"] if row["dice"] < BELOW]
        if worst:
            predictor = Predictor(load_model(runs / f"fold-fold{run['fold']}.safetensors"))
            found += [_outlined(row, read_patient(dataset / row["patient"]), predictor) for row in worst]
    found.sort(key=lambda patient: patient["dice"])
    FILE.write_text("[\n " + ",\n ".join(json.dumps(p) for p in found) + "\n]\n", encoding="utf-8")
    _draw(found, FIGURES / "failures.png")


@app.command()
def draw(
    dataset: Path, output: Annotated[Path, typer.Option(help="Folder for the figures, one per patient.")]
) -> None:
    """Draw the outlines over FLAIR, a figure for each patient."""
    for patient in json.loads(FILE.read_text(encoding="utf-8")):
        images = read_patient(dataset / patient["patient"])
        _draw([patient], output / f"{patient['patient']}.png", images)
    print(f"Figures are in {output.resolve()}")


def _outlined(row: dict[str, Any], patient: Patient, predictor: Predictor) -> dict[str, Any]:
    assert patient.volume is not None
    assert patient.truth is not None
    own = predictor.card.complete(SegmentOptions())
    predicted = postprocess(run_to_end(predictor.predict(patient.volume)), own) > 0
    true = patient.truth > 0
    wrong = (predicted != true).sum(axis=(1, 2))
    slices = [
        {
            "slice": patient.slice_numbers[z],
            "truth": _contours(true[z]),
            "prediction": _contours(predicted[z]),
        }
        for z in sorted(np.argsort(-wrong, kind="stable")[:SLICES].tolist())
    ]
    return {"patient": patient.name, "dice": row["dice"], "size": true.shape[1:], "slices": slices}


def _contours(mask: Mask) -> list[list[list[float]]]:
    """Outlines as lists of [y, x], with a precision of half a pixel."""
    lines = find_contours(np.pad(mask, 1).astype(float), 0.5)
    return [(line - 1).round(1).tolist() for line in lines]


def _draw(patients: list[dict[str, Any]], path: Path, images: Patient | None = None) -> None:
    with plots.figure(path, 2.3 * SLICES, 2.45 * len(patients), columns=SLICES, rows=len(patients)) as axes:
        for number, patient in enumerate(patients):
            row = axes[number * SLICES : (number + 1) * SLICES]
            for axis, one in zip(row, patient["slices"], strict=False):
                _draw_slice(axis, one, patient["size"], images)
            for axis in row:
                axis.spines[["top", "right"]].set_visible(True)
            row[0].set_ylabel(f"{patient['patient']}\nDice {patient['dice']:.2f}", fontsize=7)


def _draw_slice(axis: Any, one: dict[str, Any], size: tuple[int, int], images: Patient | None) -> None:
    height, width = size
    if images is not None and images.volume is not None:
        index = images.slice_numbers.index(one["slice"])
        axis.imshow(images.volume[index, ..., FLAIR], cmap="gray")
    for name, colour in (("truth", plots.COLOURS[5]), ("prediction", plots.COLOURS[1])):
        for line in one[name]:
            axis.plot([p[1] for p in line], [p[0] for p in line], color=colour, lw=1.2)
    axis.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[], aspect="equal")
    axis.set_title(f"slice {one['slice']}", fontsize=8, pad=2)


if __name__ == "__main__":
    app()
