"""Whether the shortcuts of a segmentation change its labels, and what they save.

    OMP_NUM_THREADS=1 python benchmarks/agreement.py kaggle_3m

Each validation patient is segmented by PyTorch with whole slices, and in turn by every other way there is:
windows around the heads, OpenVINO where it is installed, and both. The labels must agree: Dice 0.999 over
all voxels, and 0.99 for each patient. CPU seconds are compared as ratios, since the ways take turns; the
first patient is segmented once before, so that loading and compiling are not counted.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer

from napari_lgg_seg.core import devices
from napari_lgg_seg.core.checkpoint import DEFAULT_MODEL, load_model
from napari_lgg_seg.core.metrics import dice
from napari_lgg_seg.core.patients import read_patient
from napari_lgg_seg.core.postprocess import to_labels
from napari_lgg_seg.core.predict import Predictor, drain

OVERALL, EACH = 0.999, 0.99


@dataclass
class Way:
    """One way to segment, and what was found and spent with it."""

    name: str
    predictor: Predictor
    seconds: float = 0.0
    labels: list[npt.NDArray[np.uint8]] = field(default_factory=list)
    truths: list[float] = field(default_factory=list)

    def segment(self, volume: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
        """Labels of a volume."""
        return to_labels(drain(self.predictor.predict(volume)), self.predictor.card.threshold)


def main(
    cohort: Path,
    model: Annotated[Path, typer.Option()] = DEFAULT_MODEL,
    patients: Annotated[Path, typer.Option(help="Their names, one a line.")] = Path(
        "docs/validation-patients.txt"
    ),
) -> None:
    """Compare all ways to segment the patients of COHORT on the CPU."""
    loaded = load_model(model)
    ways = [
        Way(
            f"{devices.ENGINE_NAMES[engine]}, {'whole slices' if whole else 'windows'}",
            Predictor(loaded, "cpu", engine=engine, whole_slices=whole),
        )
        for engine in reversed(devices.available_engines())
        for whole in (True, False)
    ]
    names = patients.read_text().split()
    for way in ways:
        way.segment(read_patient(cohort / names[0]).volume)
    print(f"Dice with {ways[0].name}: {', '.join(way.name for way in ways[1:])}")
    for name in names:
        _add(ways, cohort / name)
        agreement = [dice(way.labels[-1], ways[0].labels[-1]) for way in ways[1:]]
        print(name, *(f"{value:.4f}" for value in agreement), flush=True)
    failed = [way.name for way in ways if not _report(way, ways[0])]
    if failed:
        print(f"Labels differ too much: {'; '.join(failed)}")
        raise typer.Exit(1)


def _add(ways: list[Way], folder: Path) -> None:
    """Segment one patient in every way."""
    patient = read_patient(folder)
    for way in ways:
        started = time.process_time()
        labels = way.segment(patient.volume)
        way.seconds += time.process_time() - started
        way.labels.append(labels)
        way.truths.append(dice(labels, patient.truth))


def _report(way: Way, reference: Way) -> bool:
    """Print the figures of a way; returns whether its labels are those of the reference."""
    pairs = list(zip(way.labels, reference.labels, strict=True))
    overall = dice(
        *(np.concatenate([labels.ravel() for labels in side]) for side in zip(*pairs, strict=True))
    )
    worst = min(dice(*pair) for pair in pairs)
    print(
        f"{way.name}: CPU time {way.seconds / reference.seconds:.2f}; agreement {overall:.5f} over all "
        f"voxels, {worst:.4f} in the worst patient; mean Dice with truth {np.mean(way.truths):.4f}"
    )
    return overall >= OVERALL and worst >= EACH


if __name__ == "__main__":
    typer.run(main)
