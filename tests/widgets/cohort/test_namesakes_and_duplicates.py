"""Which layers belong to the patient under review, and which of its labels are saved."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from cohort_window import FIRST, SECOND, name_cells, table_of, tumour_of
from window import layer_names

from napari_lgg_seg.layers import subject_of

pytestmark = pytest.mark.filterwarnings("error:Private attribute access:FutureWarning")


def open_row_of(widget, name):
    table = table_of(widget)
    table.doubleClicked.emit(next(cell for cell in name_cells(table) if cell.data() == name))


def test_the_labels_edited_last_are_saved_and_not_their_duplicate(viewer, segmented, open_row):
    from napari.layers import Layer

    widget = segmented()
    open_row(widget, FIRST)
    tumour_of(viewer, FIRST).paint((2, 5, 5), 1)
    open_row(widget, SECOND)
    open_row(widget, FIRST)  # now its labels count as corrected, as does any duplicate
    original = tumour_of(viewer, FIRST)
    data, state, kind = original.as_layer_data_tuple()
    viewer.add_layer(Layer.create(np.copy(data), {**state, "name": "copy"}, kind))
    original.paint((3, 50, 10), 1)
    painted = original.data.copy()
    open_row(widget, SECOND)
    open_row(widget, FIRST)
    np.testing.assert_array_equal(tumour_of(viewer, FIRST).data, painted)


def test_a_patient_of_the_same_name_is_left_alone(viewer, segmented, cohort, tmp_path, wait_until):
    widget = segmented()
    namesake = tmp_path / "elsewhere" / FIRST
    shutil.copytree(cohort / FIRST, namesake)
    viewer.open(str(namesake), plugin="napari-lgg-seg")
    others = list(viewer.layers)
    before = [layer.data.copy() for layer in others]
    open_row_of(widget, FIRST)
    wait_until(lambda: f"{FIRST} tumour" in layer_names(viewer))
    assert subject_of(tumour_of(viewer, FIRST)) != subject_of(others[0])
    open_row_of(widget, SECOND)
    wait_until(lambda: f"{SECOND} tumour" in layer_names(viewer))
    for layer, data in zip(others, before, strict=True):
        assert layer in viewer.layers
        np.testing.assert_array_equal(layer.data, data)
