"""What tests of the cohort browser share: a small cohort, and what the window shows."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QTableView

from napari_lgg_seg.core.cohort.store import ResultStore
from napari_lgg_seg.layers import described, patients_in

FIRST, SECOND, THIRD = NAMES = ("TCGA_DU_0001_19990101", "TCGA_HT_0002_20000202", "TCGA_CS_0003_20010303")
BROKEN = "TCGA_FG_0004_20020404"


def run_to_end(widget, click, wait_until, button="Segment all"):
    widget.controls.run_status.value = ""
    click(widget, button)  # which first saves edits
    wait_until(lambda: run_status(widget) != "" and not running(widget))


def running(widget):
    return widget.controls.cancel.native.isVisibleTo(widget.native)


def found(widget):
    return widget.controls.found.value


def status(widget):
    return widget.controls.status.value


def run_status(widget):
    return widget.controls.run_status.value


def table_of(widget):
    (table,) = widget.native.findChildren(QTableView)
    return table


def name_cells(table):
    return [table.model().index(row, 0) for row in range(table.model().rowCount())]


def shown(widget):
    """Names in the table, top to bottom."""
    return [index.data() for index in name_cells(table_of(widget))]


def cell(widget, name, title, role=Qt.ItemDataRole.DisplayRole):
    """What a cell shows, by the patient and the column's title."""
    model = table_of(widget).model()
    titles = [model.headerData(i, Qt.Orientation.Horizontal) for i in range(model.columnCount())]
    return model.index(shown(widget).index(name), titles.index(title)).data(role)


def states(widget):
    return {name: cell(widget, name, "State") for name in shown(widget)}


def select(widget, *names):
    widget.table.select(list(names))


def open_patients(viewer):
    return patients_in(viewer.layers)


def roles(viewer):
    return [info["role"] for layer in viewer.layers if (info := described(layer)) is not None]


def tumour_of(viewer, name):
    return viewer.layers[f"{name} tumour"]


def results_of(cohort):
    return ResultStore(cohort.parent / f"{cohort.name}-results")


def labels_file(cohort, name):
    """The file of a patient's saved labels."""
    return results_of(cohort).folder / name / f"{name}_tumour.tif"
