"""Exporting the masks of a cohort's patients."""

from __future__ import annotations

import numpy as np
import pytest
from cohort_window import (
    BROKEN,
    FIRST,
    SECOND,
    THIRD,
    results_of,
    run_status,
    running,
    select,
    states,
    tumour_of,
)
from window import threads_done

from napari_lgg_seg.core.data.patients import read_patient

pytestmark = pytest.mark.filterwarnings("error:Private attribute access:FutureWarning")


def test_export_writes_masks_of_selected_patients_and_marks_them(
    viewer, segmented, open_row, click, wait_until, choose_folder, tmp_path, cohort
):
    widget = segmented()
    open_row(widget, FIRST)
    tumour_of(viewer, FIRST).paint((2, 5, 5), 1)  # open, and not saved yet
    painted = tumour_of(viewer, FIRST).data.copy()
    choose_folder(tmp_path / "masks")
    select(widget, FIRST, SECOND, BROKEN)
    click(widget, "Export masks...")
    wait_until(lambda: "exported" in run_status(widget) and not running(widget))
    assert str(tmp_path / "masks") in run_status(widget)
    assert "1 patient failed" in run_status(widget)
    assert states(widget) == {
        FIRST: "exported",
        SECOND: "exported",
        THIRD: "segmented",
        BROKEN: "cannot be read",
    }
    np.testing.assert_array_equal(read_patient(tmp_path / "masks" / FIRST).truth, painted)
    np.testing.assert_array_equal(
        read_patient(tmp_path / "masks" / SECOND).truth, results_of(cohort).patient(SECOND).read_labels()
    )
    assert not (tmp_path / "masks" / BROKEN).exists()
    assert results_of(cohort).patient(FIRST).status().by_hand


def test_exporting_over_masks_asks_first(segmented, click, wait_until, choose_folder, tmp_path, answer):
    widget = segmented()
    choose_folder(tmp_path / "masks")
    select(widget, FIRST)
    click(widget, "Export masks...")
    wait_until(lambda: run_status(widget).startswith("1 patient exported"))
    file = tmp_path / "masks" / FIRST / f"{FIRST}_1_mask.tif"
    file.write_bytes(b"mine")
    asked = answer("No")
    click(widget, "Export masks...")
    wait_until(lambda: len(asked) == 1)
    assert file.read_bytes() == b"mine"
    wait_until(threads_done)
    answer("Yes")
    click(widget, "Export masks...")
    wait_until(lambda: len(asked) == 2 and run_status(widget).startswith("1 patient exported"))
    assert file.read_bytes() != b"mine"


def test_exporting_among_the_images_is_refused(segmented, click, wait_until, choose_folder, cohort):
    widget = segmented()
    before = {f: f.read_bytes() for f in cohort.rglob("*") if f.is_file()}
    choose_folder(cohort)
    select(widget, FIRST)
    click(widget, "Export masks...")
    wait_until(lambda: "failed" in run_status(widget))
    assert {f: f.read_bytes() for f in cohort.rglob("*") if f.is_file()} == before
    assert states(widget)[FIRST] == "segmented"


def test_exporting_without_selection_dialog_or_labels(browse, click, choose_folder, wait_until, tmp_path):
    widget = browse()
    select(widget)
    click(widget, "Export masks...")
    assert "Select patients" in run_status(widget)
    select(widget, FIRST)
    choose_folder(None)
    click(widget, "Export masks...")
    assert not running(widget)
    choose_folder(tmp_path / "masks")
    click(widget, "Export masks...")
    wait_until(lambda: "no labels yet" in run_status(widget))
    assert not (tmp_path / "masks").exists()
