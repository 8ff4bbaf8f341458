"""Make the README's screenshots from the real window with the sample patient.

    python benchmarks/screenshot.py segment docs/segment.png
    python benchmarks/screenshot.py fine-tune docs/fine-tune.png

Needs a display (for instance under ``xvfb-run``). For fine-tuning, two mirrored and shifted copies of the
sample patient stand in for other patients.
"""

from __future__ import annotations

import copy
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def main(which: str, path: str) -> None:
    """Open the sample patient, do what the picture shows, save it."""
    import napari

    viewer = napari.Viewer(title="napari-lgg-seg")
    viewer.window.resize(1280, 800)
    viewer.open_sample("napari-lgg-seg", "sample_patient")
    {"segment": _segment, "fine-tune": _fine_tune}[which](viewer, path)
    viewer.close()


def _segment(viewer: Any, path: str) -> None:
    _, widget = viewer.window.add_plugin_dock_widget("napari-lgg-seg", "Segment")
    _wait(lambda: False, seconds=3)
    widget.button.native.click()
    _wait(lambda: widget.button.text == "Segment")
    _wait(lambda: False, seconds=1)
    viewer.screenshot(path, canvas_only=False)
    print(widget.status.value)


def _fine_tune(viewer: Any, path: str) -> None:
    from napari_lgg_seg.core.training.split import split_patients
    from napari_lgg_seg.layers import outline

    _add_copies(viewer)
    _, widget = viewer.window.add_plugin_dock_widget("napari-lgg-seg", "Fine-tune")
    _wait(lambda: False, seconds=3)
    with tempfile.TemporaryDirectory() as folder:
        widget.controls.output.value = Path(folder) / "my patients.safetensors"
        # The sample patient validates, so that the preview lies over what is seen.
        names = ["LGG_sample", "second", "third"]
        widget.controls.seed.value = next(
            seed for seed in range(99) if split_patients(names, 0.2, seed)[1] == ["LGG_sample"]
        )
        widget.controls.epochs.value = 6
        widget.controls.slices_per_epoch.value = 48
        widget.button.native.click()
        _wait(lambda: widget.status.value.startswith("Epoch 5"), seconds=600)
        viewer.dims.set_point(0, 17)
        outline(viewer.layers["ground truth"])
        _wait(lambda: False, seconds=2)
        print(widget.status.value)
        viewer.screenshot(path, canvas_only=False)
        widget.button.native.click()
        _wait(lambda: widget.button.text == "Start")
        print(widget.status.value)


def _add_copies(viewer: Any) -> None:
    """Two more patients: the sample mirrored and shifted; hidden, but for the tuning."""
    for name, change in {
        "second": lambda a: a[:, :, ::-1].copy(),
        "third": lambda a: np.roll(a, 5, 1),
    }.items():
        for layer in [layer for layer in viewer.layers if layer.metadata["lgg"]["patient"] == "LGG_sample"]:
            data, properties, kind = layer.as_layer_data_tuple()
            metadata = copy.deepcopy(properties["metadata"])
            metadata["lgg"] |= {"patient": name, "folder": None}
            add = viewer.add_image if kind == "image" else viewer.add_labels
            add(change(data), name=f"{name} {layer.name}", metadata=metadata, visible=False)
    for layer in list(viewer.layers):  # the sample patient on top
        if layer.metadata["lgg"]["patient"] == "LGG_sample":
            viewer.layers.move(viewer.layers.index(layer), len(viewer.layers))


def _wait(done: Callable[[], bool], seconds: float = 120) -> None:
    """Let the window work until something holds."""
    from qtpy.QtWidgets import QApplication

    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.01)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
