"""Take the README's screenshots of the real window with the sample patient.

    python benchmarks/screenshot.py segment docs/segment.png
    python benchmarks/screenshot.py fine-tune docs/fine-tune.png

Needs a display (for instance ``xvfb-run``). For fine-tuning, two mirrored and shifted copies of the sample
patient take the place of other patients.
"""

from __future__ import annotations

import copy
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from tutorial import rest, wait_until


def main(which: str, path: str) -> None:
    """Open the sample patient, do what the screenshot shows, and save it."""
    import napari

    viewer = napari.Viewer(title="napari-lgg-seg")
    viewer.window.resize(1280, 800)
    viewer.open_sample("napari-lgg-seg", "sample_patient")
    {"segment": _segment, "fine-tune": _fine_tune}[which](viewer, path)
    viewer.close()


def _segment(viewer: Any, path: str) -> None:
    _, widget = viewer.window.add_plugin_dock_widget("napari-lgg-seg", "Segment")
    rest(3)
    widget.button.native.click()
    wait_until(lambda: widget.button.text == "Segment")
    rest(1)
    viewer.screenshot(path, canvas_only=False)
    print(widget.status.value)


def _fine_tune(viewer: Any, path: str) -> None:
    from napari_lgg_seg.core.training.split import split_patients
    from napari_lgg_seg.layers import outline

    _add_copies(viewer)
    _, widget = viewer.window.add_plugin_dock_widget("napari-lgg-seg", "Fine-tune")
    rest(3)
    with tempfile.TemporaryDirectory() as folder:
        widget.controls.output.value = Path(folder) / "my patients.safetensors"
        # With the sample patient for validation, the preview is drawn over the visible patient.
        names = ["LGG_sample", "second", "third"]
        widget.controls.seed.value = next(
            seed for seed in range(99) if split_patients(names, 0.2, seed)[1] == ["LGG_sample"]
        )
        widget.controls.epochs.value = 6
        widget.controls.slices_per_epoch.value = 48
        widget.button.native.click()
        wait_until(lambda: widget.status.value.startswith("Epoch 5"), seconds=600)
        viewer.dims.set_point(0, 17)
        outline(viewer.layers["ground truth"])
        rest(2)
        print(widget.status.value)
        viewer.screenshot(path, canvas_only=False)
        widget.button.native.click()
        wait_until(lambda: widget.button.text == "Start")
        print(widget.status.value)


def _add_copies(viewer: Any) -> None:
    """Add two hidden patients: the sample patient mirrored and shifted."""
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


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
