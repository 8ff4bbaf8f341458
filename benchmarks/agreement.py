"""Whether the shortcuts of a segmentation change its labels, and what they save.

    OMP_NUM_THREADS=1 python benchmarks/agreement.py kaggle_3m

Each validation patient is segmented by PyTorch with whole slices, and in turn by every other way there is:
windows around the heads, a quick look before, OpenVINO where it is installed, as it is and in 8 bits. The
labels must agree: Dice 0.999 over all voxels, and 0.99 for each patient, with the model's own threshold, with
0.5 and "auto", with clean-up and without; with a quick look only with it, since without clean-up there is
none. CPU seconds are compared as ratios, since the ways take turns; the first patient is segmented once
before, so that loading and compiling are not counted. ``--everybody`` takes all patients, also those that the
model was trained on.
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
from napari_lgg_seg.core.choices import DROPS_MINOR
from napari_lgg_seg.core.data.discover import patient_folders
from napari_lgg_seg.core.data.patients import Patient, read_patient
from napari_lgg_seg.core.evaluation.metrics import dice
from napari_lgg_seg.core.inference.calibrate_coarse import MIN_OVERALL_DICE, MIN_PATIENT_DICE
from napari_lgg_seg.core.inference.postprocess import postprocess
from napari_lgg_seg.core.inference.predict import Predictor, run_to_end
from napari_lgg_seg.core.model.checkpoint import DEFAULT_MODEL, load_model
from napari_lgg_seg.core.options import SegmentOptions

#: How slices are looked at: the predictor's arguments.
LOOKS = {
    "whole slices": {"whole_slices": True},
    "windows": {},
    "a quick look before": {"coarse_to_fine": True},
}

#: The engines, the one to compare with first.
ORDER = ("torch", *(name for name in devices.offered_engines() if name != "torch"))


@dataclass
class Way:
    """One way to segment, and what was found and spent with it."""

    name: str
    predictor: Predictor
    seconds: float = 0.0
    #: For each setting, of each patient.
    labels: dict[str, list[npt.NDArray[np.uint8]]] = field(default_factory=dict)
    truths: dict[str, list[float]] = field(default_factory=dict)

    def probability(self, volume: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        """Of tumour, for each voxel of a volume."""
        return run_to_end(self.predictor.predict(volume))

    def add(self, patient: Patient, settings: dict[str, SegmentOptions]) -> None:
        """Segment one patient."""
        started = time.process_time()
        probability = self.probability(patient.volume)
        self.seconds += time.process_time() - started
        for name, options in settings.items():
            if self.predictor.coarse_to_fine and options.clean_up not in DROPS_MINOR:
                continue
            labels = postprocess(probability, options)
            self.labels.setdefault(name, []).append(labels)
            self.truths.setdefault(name, []).append(dice(labels, patient.truth))


def main(
    cohort: Path,
    model: Annotated[Path, typer.Option()] = DEFAULT_MODEL,
    patients: Annotated[Path, typer.Option(help="Their names, one a line.")] = Path(
        "docs/validation-patients.txt"
    ),
    everybody: Annotated[bool, typer.Option("--everybody", help="All patients of COHORT.")] = False,
) -> None:
    """Compare all ways to segment the patients of COHORT on the CPU."""
    loaded = load_model(model)
    ways = [
        Way(f"{devices.ENGINE_NAMES[engine]}, {look}", Predictor(loaded, "cpu", engine=engine, **how))
        for engine in ORDER
        for look, how in LOOKS.items()
    ]
    settings = {
        f"threshold {threshold}, clean-up {clean_up}": SegmentOptions(threshold, clean_up)
        for threshold in dict.fromkeys((loaded.card.threshold, 0.5, "auto"))
        for clean_up in ("minor", "off")
    }
    names = [f.name for f in patient_folders(cohort)] if everybody else patients.read_text().split()
    for way in ways:
        way.probability(read_patient(cohort / names[0]).volume)
    print(f"Dice with {ways[0].name}: {', '.join(way.name for way in ways[1:])}")
    for name in names:
        patient = read_patient(cohort / name)
        for way in ways:
            way.add(patient, settings)
        for setting in settings:
            agreement = [
                dice(way.labels[setting][-1], ways[0].labels[setting][-1])
                if setting in way.labels
                else np.nan
                for way in ways[1:]
            ]
            print(f"{name}, {setting}:", *(f"{value:.4f}" for value in agreement), flush=True)
    failed = [
        f"{way.name} ({setting})"
        for setting in settings
        for way in ways
        if setting in way.labels and not _report(way, ways[0], setting)
    ]
    if failed:
        print(f"Labels differ too much: {'; '.join(failed)}")
        raise typer.Exit(1)


def _report(way: Way, reference: Way, setting: str) -> bool:
    """Print the figures of a way; returns whether its labels are those of the reference."""
    pairs = list(zip(way.labels[setting], reference.labels[setting], strict=True))
    overall = dice(
        *(np.concatenate([labels.ravel() for labels in side]) for side in zip(*pairs, strict=True))
    )
    worst = min(dice(*pair) for pair in pairs)
    print(
        f"{way.name}, {setting}: CPU time {way.seconds / reference.seconds:.2f}; agreement "
        f"{overall:.5f} over all voxels, {worst:.4f} in the worst patient; "
        f"mean Dice with truth {np.mean(way.truths[setting]):.4f}"
    )
    return overall >= MIN_OVERALL_DICE and worst >= MIN_PATIENT_DICE


if __name__ == "__main__":
    typer.run(main)
