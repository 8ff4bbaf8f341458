"""The docked Compare widget, and labels layers to compare."""

from __future__ import annotations

import numpy as np
import pytest
from window import threads_done

from napari_lgg_seg.layers import TUMOUR, describe
from napari_lgg_seg.widgets.compare import pair as comparison


@pytest.fixture
def dock_compare(viewer):
    """Factory: dock the Compare widget."""
    return lambda: viewer.window.add_plugin_dock_widget("napari-lgg-seg", "Compare")[1]


@pytest.fixture
def add_labels(viewer):
    """Factory: add labels of a patient in a role, or of no patient."""

    def add(data, name, patient=None, role=TUMOUR, numbers=None, **more):
        numbers = numbers or range(1, len(data) + 1)
        metadata = describe(patient, role, numbers) if patient else {}
        return viewer.add_labels(np.asarray(data), name=name, metadata=metadata, **more)

    return add


@pytest.fixture
def predicted(viewer, open_patient, add_labels):
    """Factory: open a small patient and a prediction shifted by a pixel; returns both layers."""

    def predicted_(name="TCGA_DU_0001_19990101", truth="ground truth", shift=1, **head):
        open_patient(name, **head)
        true = viewer.layers[truth]
        return add_labels(np.roll(true.data, shift, 2), f"{name} tumour", name), true

    return predicted_


@pytest.fixture
def compare(click, wait_until):
    """Factory: click Compare and wait until the comparison is over."""

    def compare_(widget):
        click(widget, "Compare")
        assert widget.button.text == "Cancel"
        wait_until(lambda: widget.button.text == "Compare")

    return compare_


@pytest.fixture
def during_comparison(monkeypatch, gate, wait_until):
    """Factory: start a comparison and do something in the middle of it."""
    compute = comparison.compare

    def wait_and_compute(*args, **kwargs):
        gate.pass_through()
        return compute(*args, **kwargs)

    monkeypatch.setattr(comparison, "compare", wait_and_compute)

    def during(widget, act):
        widget.run()
        wait_until(gate.reached.is_set)
        act()
        gate.open()
        wait_until(threads_done)

    return during
