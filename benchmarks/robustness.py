"""Whether offsets, padding, outliers and missing values change a segmentation's labels.

    OMP_NUM_THREADS=1 python benchmarks/robustness.py kaggle_3m

Each patient is segmented as published and with each perturbation of :data:`PERTURBATIONS`, with the default
options. The labels should agree: Dice >= 0.999.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer

from napari_lgg_seg.core.data.patients import FLAIR, read_patient
from napari_lgg_seg.core.evaluation.metrics import dice
from napari_lgg_seg.core.inference.postprocess import postprocess
from napari_lgg_seg.core.inference.predict import predictor_for, run_to_end
from napari_lgg_seg.core.model.checkpoint import DEFAULT_MODEL, load_model
from napari_lgg_seg.core.options import SegmentOptions

Volume = npt.NDArray[np.generic]

#: Slices that are added at either end.
ADDED = 2


def air(volume: Volume) -> npt.NDArray[np.bool_]:
    """Voxels outside of the head, shape (z, y, x): dark in all sequences together."""
    return np.mean(volume / np.percentile(volume, 99.5, axis=(0, 1, 2)), axis=-1) < 0.1


def outside_circle(volume: Volume) -> npt.NDArray[np.bool_]:
    """Voxels outside of the circle around the centre of each slice that holds the head."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in volume.shape[1:3]), indexing="ij")
    radius = np.broadcast_to(np.hypot(y, x), volume.shape[:3])
    return radius > np.quantile(radius[~air(volume)], 0.9999)


def single_voxels(volume: Volume) -> npt.NDArray[np.bool_]:
    """Five random voxels."""
    chosen = np.zeros(volume.shape[:3], bool)
    chosen.flat[np.random.default_rng(0).choice(chosen.size, 5, replace=False)] = True
    return chosen


def fill(
    where: Callable[[Volume], npt.NDArray[np.bool_]], value: float, *channels: int
) -> Callable[[Volume], Volume]:
    """Set voxels to a value, in some sequences or all."""

    def perturb(volume: Volume) -> Volume:
        filled = volume.astype(np.float64)
        for channel in channels or range(volume.shape[-1]):
            filled[..., channel][where(volume)] = value
        return filled

    return perturb


def add_slices(value: float) -> Callable[[Volume], Volume]:
    """Add slices of one value at both ends."""
    width = ((ADDED, ADDED), (0, 0), (0, 0), (0, 0))
    return lambda volume: np.pad(volume.astype(np.int32), width, constant_values=int(value))


def _shift_then(
    perturb: Callable[[Volume], Volume], offset: float, factor: float = 1
) -> Callable[[Volume], Volume]:
    return lambda volume: perturb(volume * float(factor) + offset)


PERTURBATIONS: dict[str, Callable[[Volume], Volume]] = {
    "0 to 1": lambda v: (v / 255).astype(np.float32),
    "times 1e6": lambda v: v * 1e6,
    "plus 10": lambda v: v.astype(np.int16) + np.int16(10),
    "plus 100": lambda v: v.astype(np.uint16) + np.uint16(100),
    "plus 1000": lambda v: v.astype(np.uint16) + np.uint16(1000),
    "plus 1e9": lambda v: v + 1e9,
    "minus 500": lambda v: v.astype(np.int16) - np.int16(500),
    "another offset for each sequence": lambda v: v + np.array([-300.0, 100.0, 2000.0]),
    "five voxels of -32768, FLAIR": fill(single_voxels, -32768, FLAIR),
    "five voxels of -32768": fill(single_voxels, -32768),
    "five voxels of -50": fill(single_voxels, -50),
    "five voxels of 1e30": fill(single_voxels, 1e30),
    "five voxels of 32767": fill(single_voxels, 32767),
    "five voxels NaN": fill(single_voxels, np.nan),
    "air 0": fill(air, 0),
    "air -1024": fill(air, -1024),
    "air -1024, FLAIR": fill(air, -1024, FLAIR),
    "air NaN": fill(air, np.nan),
    "air infinite": fill(air, np.inf),
    "air 32767": fill(air, 32767),
    "-1024 outside a circle": fill(outside_circle, -1024),
    "-2000 outside a circle, times 16": _shift_then(fill(outside_circle, -2000), 0, 16),
    "NaN outside a circle": fill(outside_circle, np.nan),
    "65535 outside a circle": fill(outside_circle, 65535),
    "plus 100, 0 outside a circle": _shift_then(fill(outside_circle, 0), 100),
    "plus 1000, -1024 outside a circle": _shift_then(fill(outside_circle, -1024), 1000),
    "added slices of -1024": add_slices(-1024),
    "added slices of -32768": add_slices(-32768),
    "plus 1000, added slices of 0": _shift_then(add_slices(0), 1000),
}


def main(
    cohort: Path,
    model: Annotated[Path, typer.Option()] = DEFAULT_MODEL,
    patients: Annotated[Path, typer.Option(help="File with one patient name per line.")] = Path(
        "docs/validation-patients.txt"
    ),
    number: Annotated[int, typer.Option(help="Number of patients, evenly spaced in the file.")] = 5,
) -> None:
    """Print how well labels of perturbed images agree with those of the images as published."""
    loaded, options = load_model(model), SegmentOptions()
    predictor, options = predictor_for(loaded, options), loaded.card.complete(options)
    names = patients.read_text().split()
    names = names[:: max(1, len(names) // number)][:number]
    print("| patient | perturbation | Dice with the unperturbed labels |\n|---|---|---|")
    for patient in names:
        volume = read_patient(cohort / patient).volume
        assert volume is not None
        reference = postprocess(run_to_end(predictor.predict(volume)), options)
        for name, perturb in PERTURBATIONS.items():
            labels = postprocess(run_to_end(predictor.predict(perturb(volume))), options)
            added = (len(labels) - len(volume)) // 2
            agreement = dice(labels[added : added + len(volume)], reference)
            print(f"| {patient} | {name} | {agreement:.4f} |", flush=True)


if __name__ == "__main__":
    typer.run(main)
