"""The preview of a training."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("pyqtgraph")
pytest.importorskip("pyqtgraph")

from napari_lgg_seg.core.data.masks import write_patient
from napari_lgg_seg.core.model.checkpoint import read_card
from napari_lgg_seg.widgets.finetune.preview import Preview

FIRST, SECOND, THIRD = (f"TCGA_DU_000{n}_19990101" for n in (1, 2, 3))

pytestmark = pytest.mark.filterwarnings("error:Private attribute access:FutureWarning")


def test_preview_lies_over_the_validation_patient(
    viewer, open_patients, dock_finetune, click, wait_until, tuned
):
    open_patients(2)
    for layer in viewer.layers:
        layer.scale = (5, 1, 1)
    painting = viewer.layers[0]
    viewer.layers.selection.active = painting
    widget = dock_finetune(epochs=50)
    click(widget, "Start")

    def previews():
        return [layer for layer in viewer.layers if layer.name.endswith("preview")]

    wait_until(lambda: len(previews()) == 1)
    (preview,) = previews()
    (name,) = {FIRST, SECOND} & {preview.metadata["lgg"]["patient"]}
    assert preview.metadata["lgg"]["role"] == "preview"
    assert tuple(preview.scale) == (5, 1, 1)
    assert preview.data.shape == painting.data.shape
    assert viewer.layers.selection.active == painting
    # Switching it off removes it, and removing it switches it off.
    widget.controls.preview.value = False
    assert not previews()
    widget.controls.preview.value = True
    assert previews()
    viewer.layers.remove(previews()[0])
    assert not widget.controls.preview.value
    epoch = widget.status.value
    wait_until(lambda: widget.status.value != epoch)
    click(widget, "Stop")
    wait_until(lambda: widget.button.text == "Start")
    assert not previews()
    assert name in read_card(tuned).validation_patients
    # It is never proposed as ground truth.
    widget.controls.preview.value = True
    assert all("preview" not in layer.name for _, layer in widget.sources.table.chosen())


def test_preview_of_a_folder_opens_a_validation_patient(
    viewer, patient_on_disk, dock_finetune, train, choose_patients_folder
):
    for seed, name in enumerate((FIRST, SECOND)):
        folder = patient_on_disk(name, seed=seed)
    widget = dock_finetune(epochs=1)
    choose_patients_folder(widget, folder.parent)
    train(widget)
    (preview,) = [layer for layer in viewer.layers if layer.name.endswith("preview")]
    patient = preview.metadata["lgg"]["patient"]
    assert f"{patient} FLAIR" in viewer.layers
    assert {layer.metadata["lgg"]["patient"] for layer in viewer.layers} == {patient}


def test_the_preview_opens_a_patient_at_the_slice_with_most_tumour(viewer, make_patient):
    patient = make_patient(FIRST, shape=(6, 64, 64))
    labels = np.zeros((6, 64, 64), np.uint8)
    labels[1, 10:12, 10] = labels[4, 10:20, 10:20] = 1
    preview = Preview(viewer, shown=True)
    preview.offer_patient(patient)
    preview.update(FIRST, labels)
    assert viewer.dims.current_step[0] == 4
    viewer.dims.set_current_step(0, 2)
    preview.update(FIRST, labels)  # the next epoch does not change the view
    assert viewer.dims.current_step[0] == 2


def test_the_preview_opens_no_patient_while_the_user_paints(viewer, make_patient):
    mine = viewer.add_labels(np.zeros((6, 64, 64), np.uint8))
    mine.mode = "paint"
    preview = Preview(viewer, shown=True)
    preview.offer_patient(make_patient(FIRST, shape=(6, 64, 64)))
    preview.update(FIRST, np.ones((6, 64, 64), np.uint8))
    assert list(viewer.layers) == [mine]
    mine.mode = "pan_zoom"
    preview.update(FIRST, np.ones((6, 64, 64), np.uint8))
    assert f"{FIRST} FLAIR" in viewer.layers


@pytest.mark.parametrize("source", ["open patients", "a folder"])
def test_the_preview_does_not_lie_over_a_namesake(
    viewer, tmp_path, patient_on_disk, make_patient, dock_finetune, train, choose_patients_folder, source
):
    folders = [patient_on_disk(name, seed=seed) for seed, name in enumerate((FIRST, SECOND))]
    namesakes = [tmp_path / "another site" / folder.name for folder in folders]
    for folder in namesakes:
        write_patient(folder, make_patient(folder.name, seed=9))
    for folder in [*namesakes, *(folders if source == "open patients" else [])]:
        viewer.open(str(folder), plugin="napari-lgg-seg")
    widget = dock_finetune(epochs=1)
    if source == "open patients":
        for subject, _ in widget.sources.table.chosen()[:2]:
            widget.sources.table.tick(subject, False)
    else:
        choose_patients_folder(widget, folders[0].parent)
    train(widget)
    (preview,) = [layer for layer in viewer.layers if layer.name.endswith("preview")]
    info = preview.metadata["lgg"]
    assert info["folder"] == str(folders[0].parent / info["patient"])
