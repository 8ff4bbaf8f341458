"""napari starts every plugin's reader: importing ours must not cost what torch costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

MODULES = [
    "napari_lgg_seg",
    *(
        f"napari_lgg_seg.core.{name}"
        for name in (
            "errors",
            "devices",
            "prefetch",
            "data.patients",
            "data.masks",
            "data.provenance",
            "model.preprocess",
            "model.checkpoint",
            "inference.predict",
            "inference.engines",
            "inference.openvino",
            "inference.postprocess",
            "inference.segmentation",
            "training.slice_dataset",
            "evaluation.metrics",
            "evaluation.compare",
            "cohort.patient_job",
            "cohort.run",
            "cohort.cluster",
            "cohort.cluster_pool",
            "cohort.cluster_worker",
        )
    ),
]


def run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    ).stdout


def test_importing_the_core_leaves_torch_and_qt_alone():
    heavy = ["torch", "monai", "napari", "qtpy", "distributed", "dask"]
    code = f"import sys, {', '.join(MODULES)}; print([m for m in {heavy} if m in sys.modules])"
    assert run(code).strip() == "[]"


@pytest.mark.parametrize(
    "module", ["napari_lgg_seg.core.training.train", "napari_lgg_seg.core.training.augment"]
)
def test_training_modules_leave_monai_and_qt_alone(module):
    code = f"import sys, {module}; print([m for m in ['monai', 'napari', 'qtpy'] if m in sys.modules])"
    assert run(code).strip() == "[]"
