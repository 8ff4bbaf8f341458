"""Whether the shortcuts of a segmentation change its labels, and what they save.

    OMP_NUM_THREADS=1 python benchmarks/agreement.py kaggle_3m

Each validation patient is segmented by PyTorch with whole slices, and in turn by every other way there is:
windows around the heads, OpenVINO where it is installed, and both. The labels must agree: Dice 0.999 over
all voxels, and 0.99 for each patient, with the model's own threshold, with 0.5 and with the automatic one.
CPU seconds are compared as ratios, since the ways take turns; the first patient is segmented once before, so
that loading and compiling are not counted.
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
from napari_lgg_seg.core.options import Threshold
from napari_lgg_seg.core.patients import Patient, read_patient
from napari_lgg_seg.core.postprocess import to_labels
from napari_lgg_seg.core.predict import Predictor, drain

OVERALL, EACH = 0.999, 0.99


@dataclass
class Way:
    """One way to segment, and what was found and spent with it."""

    name: str
    predictor: Predictor
    seconds: float = 0.0
    #: For each threshold, of each patient.
    labels: dict[Threshold, list[npt.NDArray[np.uint8]]] = field(default_factory=dict)
    truths: dict[Threshold, list[float]] = field(default_factory=dict)

    def probability(self, volume: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        """Of tumour, for each voxel of a volume."""
        return drain(self.predictor.predict(volume))

    def add(self, patient: Patient, thresholds: list[Threshold]) -> None:
        """Segment one patient."""
        started = time.process_time()
        probability = self.probability(patient.volume)
        self.seconds += time.process_time() - started
        for threshold in thresholds:
            labels = to_labels(probability, threshold)
            self.labels.setdefault(threshold, []).append(labels)
            self.truths.setdefault(threshold, []).append(dice(labels, patient.truth))


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
    thresholds: list[Threshold] = list(dict.fromkeys((loaded.card.threshold, 0.5, "auto")))
    names = patients.read_text().split()
    for way in ways:
        way.probability(read_patient(cohort / names[0]).volume)
    print(f"Dice with {ways[0].name}: {', '.join(way.name for way in ways[1:])}")
    for name in names:
        patient = read_patient(cohort / name)
        for way in ways:
            way.add(patient, thresholds)
        for threshold in thresholds:
            agreement = [dice(way.labels[threshold][-1], ways[0].labels[threshold][-1]) for way in ways[1:]]
            print(name, threshold, *(f"{value:.4f}" for value in agreement), flush=True)
    failed = [
        f"{way.name} ({threshold})"
        for threshold in thresholds
        for way in ways
        if not _report(way, ways[0], threshold)
    ]
    if failed:
        print(f"Labels differ too much: {'; '.join(failed)}")
        raise typer.Exit(1)


def _report(way: Way, reference: Way, threshold: Threshold) -> bool:
    """Print the figures of a way; returns whether its labels are those of the reference."""
    pairs = list(zip(way.labels[threshold], reference.labels[threshold], strict=True))
    overall = dice(
        *(np.concatenate([labels.ravel() for labels in side]) for side in zip(*pairs, strict=True))
    )
    worst = min(dice(*pair) for pair in pairs)
    print(
        f"{way.name}, threshold {threshold}: CPU time {way.seconds / reference.seconds:.2f}; agreement "
        f"{overall:.5f} over all voxels, {worst:.4f} in the worst patient; "
        f"mean Dice with truth {np.mean(way.truths[threshold]):.4f}"
    )
    return overall >= OVERALL and worst >= EACH


if __name__ == "__main__":
    typer.run(main)
