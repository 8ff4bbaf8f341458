"""Going from patient to patient in the cohort browser."""

from __future__ import annotations

import numpy as np
import pytest
from cohort_window import (
    BROKEN,
    FIRST,
    NAMES,
    SECOND,
    cell,
    open_patients,
    results_of,
    run_to_end,
    shown,
    states,
    status,
    table_of,
    tumour_of,
)
from npe2 import PluginManager
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QShortcut
from window import assert_message, layer_of

from napari_lgg_seg.core.data.label_files import LabelMap
from napari_lgg_seg.core.data.patients import SEQUENCES
from napari_lgg_seg.widgets.cohort.messages import NO_BROWSER

pytestmark = pytest.mark.filterwarnings("error:Private attribute access:FutureWarning")


def test_double_click_replaces_the_open_patient(viewer, browse, open_row):
    widget = browse()
    for name in (FIRST, SECOND):
        open_row(widget, name)
        assert [layer.name for layer in viewer.layers] == [*SEQUENCES, "ground truth"]
        assert [layer.visible for layer in viewer.layers] == [False, True, False, True]
        assert status(widget).startswith(f"{name}: new.")
        assert viewer.layers.selection.active == viewer.layers["FLAIR"], (
            "the ground truth must not be selected"
        )
        assert cell(widget, name, "Patient", Qt.ItemDataRole.FontRole).bold()
    truth = viewer.layers["ground truth"].data
    assert viewer.dims.current_step[0] == truth.sum(axis=(1, 2)).argmax()


def test_next_and_previous_follow_the_table_and_skip_broken_patients(viewer, browse, click, wait_until):
    widget = browse()
    table_of(widget).sortByColumn(0, Qt.SortOrder.DescendingOrder)
    order = [name for name in shown(widget) if name != BROKEN]
    for name in order:
        click(widget, "Next >")
        wait_until(lambda name=name: open_patients(viewer) == [name])
    click(widget, "Next >")
    assert "last patient" in status(widget)
    assert open_patients(viewer) == order[-1:]
    for name in order[-2::-1]:
        click(widget, "< Previous")
        wait_until(lambda name=name: open_patients(viewer) == [name])
    click(widget, "< Previous")
    assert "first patient" in status(widget)


def test_clicks_while_a_patient_is_read_are_not_lost(viewer, browse, click, wait_until):
    widget = browse()
    for _ in range(3):
        click(widget, "Next >")
    wait_until(lambda: open_patients(viewer) == [[n for n in shown(widget) if n != BROKEN][2]])


def test_keys_and_commands_open_next_and_previous(viewer, browse, wait_until, qtbot):
    widget = browse()
    first, second = sorted(NAMES)[:2]
    manifest = PluginManager.instance().get_manifest("napari-lgg-seg").contributions
    keys = {binding.command: binding.key for binding in manifest.keybindings}
    bound = {s.key().toString(): s for s in widget.native.window().findChildren(QShortcut)}
    for command, name in (("next", first), ("next", second), ("previous", first)):
        in_napari = keys[f"napari-lgg-seg.{command}_patient"]
        bound[in_napari.replace("Page", "Pg")].activated.emit()
        wait_until(lambda name=name: open_patients(viewer) == [name])
    for command, name in (("next", second), ("previous", first)):
        PluginManager.instance().commands.execute(f"napari-lgg-seg.{command}_patient")
        wait_until(lambda name=name: open_patients(viewer) == [name])


def test_commands_without_the_browser_say_how_to_open_it(viewer, notices):
    PluginManager.instance().commands.execute("napari-lgg-seg.next_patient")
    assert notices == [NO_BROWSER]


def test_opening_a_broken_patient_keeps_the_open_one(viewer, browse, open_row, wait_until):
    widget = browse()
    open_row(widget, FIRST)
    widget.open_patient(BROKEN)
    wait_until(lambda: f"{BROKEN}_3.tif" in status(widget))
    assert_message(status(widget))
    assert open_patients(viewer) == [FIRST]


def test_layers_of_other_patients_stay(viewer, browse, wait_until):
    mine = viewer.add_image(
        np.zeros((6, 64, 64)), metadata={"lgg": {"patient": "x", "role": "FLAIR", "slice_numbers": []}}
    )
    widget = browse()
    for name in (FIRST, SECOND):
        widget.open_patient(name)
        wait_until(lambda name=name: open_patients(viewer) == ["x", name])
    assert mine in viewer.layers


def test_visibility_is_carried_over_to_the_next_patient(viewer, browse, open_row):
    widget = browse()
    open_row(widget, FIRST)
    viewer.layers["post-contrast"].visible = True
    viewer.layers["ground truth"].visible = False
    open_row(widget, SECOND)
    assert viewer.layers["post-contrast"].visible
    assert not viewer.layers["ground truth"].visible


def test_accept_marks_the_open_patient_corrected(viewer, segmented, open_row, click, wait_until, cohort):
    widget = segmented()
    assert not widget.controls.accept.enabled
    open_row(widget, FIRST)
    click(widget, "Accept")
    wait_until(lambda: states(widget)[FIRST] == "corrected")
    assert FIRST in status(widget)
    assert "1 patient is corrected so far" in status(widget)
    assert results_of(cohort).patient(FIRST).status().by_hand
    run_to_end(widget, click, wait_until)
    assert states(widget)[FIRST] == "corrected"


def test_accept_in_the_correct_widget_does_the_same(viewer, segmented, open_row, click, wait_until, cohort):
    widget = segmented()
    results_of(cohort).patient(SECOND).write_edits(
        LabelMap(SECOND, np.ones((7, 64, 64), np.uint8), range(1, 8))
    )
    open_row(widget, FIRST)
    _, correct = viewer.window.add_plugin_dock_widget("napari-lgg-seg", "Correct")
    correct.menu.value = tumour_of(viewer, FIRST)
    click(correct, "Accept")
    wait_until(lambda: states(widget)[FIRST] == "corrected")
    assert correct.status.value.startswith(f"{FIRST}: ")
    assert "2 patients are corrected so far; Fine-tune can train on them." in correct.status.value
    assert results_of(cohort).patient(FIRST).status().by_hand
    # What the browser would not accept is not accepted here either.
    correct.menu.value = layer_of(viewer, "truth")
    click(correct, "Accept")
    assert f"'{FIRST} tumour'" in correct.status.value


def test_accept_without_labels_says_so(viewer, browse, open_row, click):
    widget = browse()
    open_row(widget, FIRST)
    click(widget, "Accept")
    assert "no labels" in status(widget)
    assert states(widget)[FIRST] == "new"
