"""What is trained on: labels in the images' place, as they are at Start, and with tumour."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from window import assert_message, layer_of

pytest.importorskip("pyqtgraph")

from napari_lgg_seg.layers import TUMOUR, describe, subject_of
from napari_lgg_seg.widgets.finetune import messages
from napari_lgg_seg.widgets.finetune.folder_scan import FolderScan

FIRST, SECOND, THIRD = (f"TCGA_DU_000{n}_19990101" for n in (1, 2, 3))

pytestmark = [
    pytest.mark.filterwarnings("error:Private attribute access:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Non-orthogonal slicing"),
    pytest.mark.filterwarnings("ignore:Inconsistent units"),
]


def offered(widget, name):
    (row,) = [row for row in widget.sources.table._rows if str(row.subject) == name]
    return row


@pytest.mark.parametrize(
    ("place", "part"),
    [
        ({"translate": (0, 5, 0)}, "is shifted by"),
        ({"scale": (2, 1, 1)}, "voxels of 2"),
        ({"rotate": (0, 0, 30)}, "is rotated"),
    ],
)
def test_labels_elsewhere_are_not_trained_on(viewer, open_patients, dock_finetune, place, part):
    open_patients(2)
    truth = layer_of(viewer, "truth", FIRST)
    mine = viewer.add_labels(truth.data.copy(), name="mine", **place)
    widget = dock_finetune()
    row = offered(widget, FIRST)
    assert mine not in row.labels
    assert truth in row.labels
    assert any(part in sentence for sentence in row.elsewhere)
    for name, value in place.items():
        setattr(truth, name, value)
    widget.sources.update()
    widget._changed()
    assert "Only one patient is ticked" in widget.status.value
    assert part in widget.status.value
    assert_message(widget.status.value)
    assert not widget.button.enabled


def test_labels_of_other_slices_are_not_trained_on(viewer, open_patients, dock_finetune):
    open_patients(2)
    truth = layer_of(viewer, "truth", FIRST)
    metadata = describe(FIRST, TUMOUR, range(2, 8), subject=subject_of(truth))
    mine = viewer.add_labels(truth.data.copy(), name="mine", metadata=metadata)
    row = offered(dock_finetune(), FIRST)
    assert mine not in row.labels
    assert any("other slices" in sentence for sentence in row.elsewhere)


def test_labels_edited_during_the_training_are_named(
    viewer, open_patients, dock_finetune, click, wait_until, asked
):
    open_patients(3)
    widget = dock_finetune()
    click(widget, "Start")
    layer_of(viewer, "truth", SECOND).data[:] = 1
    wait_until(lambda: widget.button.text == "Start")
    assert f"as they were at Start: those of {SECOND} have changed since." in widget.status.value
    assert_message(widget.status.value)


def test_options_changed_while_edits_are_saved_do_not_count(
    viewer, open_patients, dock_finetune, click, wait_until, asked, monkeypatch, tmp_path
):
    """Corrections of the open patient are saved first, which takes a moment."""
    open_patients(3)
    widget = dock_finetune()
    waiting = []
    monkeypatch.setattr(widget.sources, "save_first", lambda status, then: waiting.append(then))
    click(widget, "Start")
    output, seed = widget.controls.output.value, widget.controls.seed.value
    widget.controls.output.value, widget.controls.seed.value = tmp_path / "other.safetensors", seed + 1
    widget.sources.table.tick(FIRST, False)
    waiting[0]()
    wait_until(lambda: widget.button.text == "Start")
    assert (asked.output, asked.options.seed) == (output, seed)
    assert set(asked.patients) == {FIRST, SECOND, THIRD}
    assert widget.controls.output.value == tmp_path / "other.safetensors"


def test_training_without_any_tumour_does_not_start(viewer, open_patients, dock_finetune, click, asked):
    open_patients(2)
    for name in (FIRST, SECOND):
        layer = layer_of(viewer, "truth", name)
        layer.data = np.zeros_like(layer.data)
    widget = dock_finetune()
    click(widget, "Start")
    assert widget.status.value == messages.NO_TUMOUR
    assert widget.button.text == "Start"
    assert not hasattr(asked, "training")


def test_slices_without_masks_are_counted(patient_on_disk, dock_finetune, choose_patients_folder):
    folders = [patient_on_disk(name) for name in (FIRST, SECOND)]
    for number in (2, 3):
        (folders[1] / f"{SECOND}_{number}_mask.tif").unlink()
    widget = dock_finetune()
    choose_patients_folder(widget, folders[0].parent)
    assert f"1 patient has slices without a mask, which are not used ({SECOND}: 2 of 6 slices)." in (
        widget.controls.found.value
    )


def test_names_that_the_system_refuses_are_one_sentence(
    dock_finetune, choose_patients_folder, tmp_path, open_patients, notices
):
    open_patients(2)
    widget = dock_finetune()
    widget.controls.output.value = tmp_path / f"{'a' * 5000}.safetensors"
    assert "cannot be read" in widget.status.value
    assert len(widget.status.value) < 500
    assert_message(widget.status.value)
    choose_patients_folder(widget, tmp_path / ("b" * 5000))
    assert "cannot be read" in widget.status.value
    assert_message(widget.status.value)
    assert notices == []


def test_a_scan_that_fails_unexpectedly_ends(wait_until, viewer):
    def fail(_):
        yield
        raise ValueError("a bug")

    ended = []
    scan = FolderScan(lambda: ended.append(1), fail)
    scan.start(Path("somewhere"))
    wait_until(lambda: bool(ended))
    assert "a bug" in scan.summary()
