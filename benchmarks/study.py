"""The original study's shape features and associations, from manual and from cross-validated masks.

    python benchmarks/study.py kaggle_3m

The predicted masks are those of docs/experiments/fold-fold*.json: each patient's by the network that was not
trained on it, and only the largest component, as in the study. Writes docs/experiments/study.json.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import typer
from paired_values import shape_agreement
from results import EXPERIMENTS, load

from napari_lgg_seg.core.data.discover import patient_folders
from napari_lgg_seg.core.data.patients import read_patient
from napari_lgg_seg.core.evaluation.study.associate import Study, associate, read_clusters
from napari_lgg_seg.core.evaluation.study.shape import FEATURES, Shape, measure_shape


def main(dataset: Path) -> None:
    """Measure the shapes of both kinds of masks, and test them against the clusters in DATASET/data.csv."""
    manual = {
        folder.name: measure_shape(patient.truth)
        for folder, patient in ((f, read_patient(f)) for f in patient_folders(dataset))
        if patient.truth is not None
    }
    predicted = {
        row["patient"]: Shape(
            **{name: row[f"{name}_largest"] for name in FEATURES}, slice=None, voxels=row["voxels"]
        )
        for row in load("fold").rows.values()
    }
    clusters = read_clusters(dataset / "data.csv")
    manual = {name: shape for name, shape in manual.items() if name in predicted}
    both = [n for n, shape in manual.items() if shape.voxels and predicted[n].voxels]
    result = {
        "manual": _study(associate(manual, clusters)),
        "predicted": _study(associate(predicted, clusters)),
        "agreement": {k: dataclasses.asdict(v) for k, v in shape_agreement(predicted, manual).items()},
        "features": {
            name: {
                "predicted": [round(getattr(predicted[n], name), 5) for n in both],
                "manual": [round(getattr(manual[n], name), 5) for n in both],
            }
            for name in FEATURES
        },
        "without_tumour": [name for name, shape in predicted.items() if not shape.voxels],
    }
    lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in result.items()]
    (EXPERIMENTS / "study.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def _study(study: Study) -> dict[str, Any]:
    assert study.r2 is not None
    return {
        "tests": [dataclasses.asdict(test) for test in study.associations],
        "r2": dataclasses.asdict(study.r2),
    }


if __name__ == "__main__":
    typer.run(main)
