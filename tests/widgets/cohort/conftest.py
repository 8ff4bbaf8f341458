"""A small cohort on disk, and the browser docked with it."""

from __future__ import annotations

import pytest
import tifffile
from cohort_window import BROKEN, NAMES, found, name_cells, open_patients, run_to_end, table_of


@pytest.fixture
def cohort(patient_on_disk):
    """A folder of three patients that differ, and one that is broken; returns the folder."""
    for seed, name in enumerate(NAMES):
        patient_on_disk(name, seed=seed, shape=(6 + seed, 64, 64))
    folder = patient_on_disk(BROKEN)
    (folder / f"{BROKEN}_3.tif").unlink()
    return folder.parent


@pytest.fixture
def all_read(wait_until):
    """Factory: wait until a browser has read all patients."""

    def wait(widget):
        wait_until(lambda: found(widget)[0].isdigit() and "Reading" not in found(widget))

    return wait


@pytest.fixture
def browse(viewer, small_model, all_read, cohort):
    """Factory: dock the browser and open the cohort in it."""

    def browse_(folder=cohort, results=None):
        _, widget = viewer.window.add_plugin_dock_widget("napari-lgg-seg", "Cohort")
        widget.controls.model.offer(small_model)
        widget.open_dataset(folder, results)
        all_read(widget)
        return widget

    return browse_


@pytest.fixture
def open_row(viewer, wait_until):
    """Factory: double-click a patient and wait until it is open."""

    def open_(widget, name):
        table = table_of(widget)
        index = next(i for i in name_cells(table) if i.data() == name)
        table.doubleClicked.emit(index)
        wait_until(lambda: open_patients(viewer) == [name])

    return open_


@pytest.fixture
def segmented(browse, click, wait_until):
    """Factory: a browser in which all patients are segmented."""

    def segmented_():
        widget = browse()
        run_to_end(widget, click, wait_until)
        return widget

    return segmented_


@pytest.fixture
def full_disk(monkeypatch):
    """Factory: make all further writes fail, or succeed again."""
    write = tifffile.imwrite

    def refuse(*_, **__):
        raise OSError(28, "No space left on device")

    return lambda full=True: monkeypatch.setattr(tifffile, "imwrite", refuse if full else write)
