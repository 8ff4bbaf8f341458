"""Whether engines and shortcuts change a segmentation's labels, and how much time they save.

    OMP_NUM_THREADS=1 python benchmarks/agreement.py kaggle_3m

Each validation patient is segmented by PyTorch with whole slices, and alternately by every other method: head
windows at full resolution, coarse to fine, OpenVINO where it is installed, in bf16 or fp32 and in 8 bits. The
labels must agree: Dice >= 0.999 overall and >= 0.99 per patient, with the model's own threshold, with 0.5 and
with "auto", with and without clean-up. Coarse to fine is only tested with clean-up, because it is only used
with it. CPU times are compared as ratios, since the methods run alternately; the first patient is segmented
once before, so that loading and compiling are not counted. ``--all-patients`` includes those that the model
was trained on.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
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

#: The predictor's arguments for what is computed of each slice.
EXTENTS = {
    "whole slices": {"whole_slices": True},
    "full resolution everywhere": {},
    "coarse to fine": {"coarse_to_fine": True},
}

#: The engines, the reference first.
ENGINES = ("torch", *(name for name in devices.offered_engines() if name != "torch"))


@dataclass
class Method:
    """A way to segment, its labels, and the CPU time that it took."""

    name: str
    predictor: Predictor
    seconds: float = 0.0
    #: Labels of each patient, and their Dice with the ground truth, for each setting.
    labels: dict[str, list[npt.NDArray[np.uint8]]] = field(default_factory=dict)
    scores: dict[str, list[float]] = field(default_factory=dict)

    def segment(self, patient: Patient, settings: Mapping[str, SegmentOptions]) -> None:
        """Segment one patient with all settings."""
        started = time.process_time()
        probability = run_to_end(self.predictor.predict(patient.volume))
        self.seconds += time.process_time() - started
        for name, options in settings.items():
            if self.predictor.coarse_to_fine and options.clean_up not in DROPS_MINOR:
                continue
            labels = postprocess(probability, options)
            self.labels.setdefault(name, []).append(labels)
            self.scores.setdefault(name, []).append(dice(labels, patient.truth))


def main(
    cohort: Path,
    model: Annotated[Path, typer.Option()] = DEFAULT_MODEL,
    patients: Annotated[Path, typer.Option(help="File with one patient name per line.")] = Path(
        "docs/validation-patients.txt"
    ),
    all_patients: Annotated[bool, typer.Option("--all-patients", help="All patients of COHORT.")] = False,
) -> None:
    """Compare all methods on the patients of COHORT, on the CPU."""
    loaded = load_model(model)
    methods = [
        Method(f"{devices.ENGINE_NAMES[engine]}, {extent}", Predictor(loaded, "cpu", engine=engine, **how))
        for engine in ENGINES
        for extent, how in EXTENTS.items()
    ]
    settings = {
        f"threshold {threshold}, clean-up {clean_up}": SegmentOptions(threshold, clean_up)
        for threshold in dict.fromkeys((loaded.card.threshold, 0.5, "auto"))
        for clean_up in ("minor", "off")
    }
    names = [f.name for f in patient_folders(cohort)] if all_patients else patients.read_text().split()
    _segment_all(methods, settings, cohort, names)
    failed = [
        f"{method.name} ({setting})"
        for setting in settings
        for method in methods
        if setting in method.labels and not _report(method, methods[0], setting)
    ]
    if failed:
        print(f"Labels differ too much: {'; '.join(failed)}")
        raise typer.Exit(1)


def _segment_all(
    methods: list[Method], settings: Mapping[str, SegmentOptions], cohort: Path, names: list[str]
) -> None:
    """Segment every patient with all methods alternately, and print how well their labels agree."""
    warm_up = read_patient(cohort / names[0]).volume
    for method in methods:
        run_to_end(method.predictor.predict(warm_up))
    reference, *others = methods
    print(f"Dice with the labels of {reference.name}: {', '.join(method.name for method in others)}")
    for name in names:
        patient = read_patient(cohort / name)
        for method in methods:
            method.segment(patient, settings)
        for setting in settings:
            agreement = [
                dice(method.labels[setting][-1], reference.labels[setting][-1])
                if setting in method.labels
                else np.nan
                for method in others
            ]
            print(f"{name}, {setting}:", *(f"{value:.4f}" for value in agreement), flush=True)


def _report(method: Method, reference: Method, setting: str) -> bool:
    """Print the results of a method; returns whether its labels agree with those of the reference."""
    pairs = list(zip(method.labels[setting], reference.labels[setting], strict=True))
    overall = dice(
        *(np.concatenate([labels.ravel() for labels in side]) for side in zip(*pairs, strict=True))
    )
    worst = min(dice(*pair) for pair in pairs)
    print(
        f"{method.name}, {setting}: CPU time {method.seconds / reference.seconds:.2f}; agreement "
        f"{overall:.5f} overall, {worst:.4f} in the worst patient; "
        f"mean Dice with the ground truth {np.mean(method.scores[setting]):.4f}"
    )
    return overall >= MIN_OVERALL_DICE and worst >= MIN_PATIENT_DICE


if __name__ == "__main__":
    typer.run(main)
