"""napari imports every plugin's reader when it starts: importing the core must not import heavy packages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import napari_lgg_seg

FOLDER = Path(napari_lgg_seg.__file__).parent
#: Modules that consist of torch code; others import them inside functions.
TORCH_MODULES = {
    "napari_lgg_seg.core.inference.int8",
    "napari_lgg_seg.core.model.networks",
    "napari_lgg_seg.core.training.muon",
}


def core_modules() -> set[str]:
    """All modules of the core."""
    files = (FOLDER / "core").rglob("[a-z]*.py")
    return {".".join(["napari_lgg_seg", *file.relative_to(FOLDER).with_suffix("").parts]) for file in files}


def loaded(packages: list[str], modules: set[str]) -> list[str]:
    """Those of some packages that are loaded after importing modules in a fresh Python."""
    code = f"import sys, {', '.join(sorted(modules))}; print([m for m in {packages} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    return eval(done.stdout)


def test_the_core_does_not_import_torch():
    modules = core_modules()
    assert modules > TORCH_MODULES
    assert loaded(["torch"], modules - TORCH_MODULES) == []


def test_the_core_does_not_import_gui_and_optional_packages():
    packages = ["monai", "napari", "qtpy", "distributed", "dask", "openvino", "nibabel"]
    assert loaded(packages, core_modules()) == []


def test_reading_patients_does_not_import_scipy():
    """Unlike drawing the synthetic sample patient."""
    assert loaded(["scipy"], {"napari_lgg_seg.core.data.discover", "napari_lgg_seg.core.data.patients"}) == []
