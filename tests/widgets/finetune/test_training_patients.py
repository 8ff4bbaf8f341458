"""The patients that a training uses: open ones, or those of a folder."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from window import assert_message, layer_of

pytest.importorskip("pyqtgraph")
pytest.importorskip("pyqtgraph")


FIRST, SECOND, THIRD = (f"TCGA_DU_000{n}_19990101" for n in (1, 2, 3))

pytestmark = pytest.mark.filterwarnings("error:Private attribute access:FutureWarning")


def test_the_ground_truth_is_used_for_training(viewer, open_patients, dock_finetune, train, asked, tuned):
    open_patients(2)
    truths = [layer.data.copy() for layer in viewer.layers if layer.metadata["lgg"]["role"] == "truth"]
    train(dock_finetune())
    assert asked.output == tuned
    assert asked.options.epochs == 2
    assert asked.options.slices_per_epoch == 4
    for name, truth in zip((FIRST, SECOND), truths, strict=True):
        patient = asked.patients[name]
        np.testing.assert_array_equal(patient.truth, truth)
        assert patient.volume.dtype == np.uint8
        assert patient.slice_numbers == tuple(range(1, len(truth) + 1))


def test_volumes_are_those_of_the_layers(viewer, open_patients, dock_finetune, train, asked):
    open_patients(2)
    flair, before = (layer_of(viewer, role, FIRST).data for role in ("FLAIR", "pre-contrast"))
    train(dock_finetune())
    np.testing.assert_array_equal(asked.patients[FIRST].volume[..., 1], flair)
    np.testing.assert_array_equal(asked.patients[FIRST].volume[..., 0], before)


def add_tumour(viewer, name, data):
    """An unedited result of the Segment widget."""
    from napari_lgg_seg.layers import subject_of
    from napari_lgg_seg.widgets.shared.result_layers import Subject, show_labels

    flair = layer_of(viewer, "FLAIR", name)
    return show_labels(viewer, flair, Subject(subject_of(flair), name), data, {})


def test_corrected_labels_are_proposed_and_predictions_are_not(
    viewer, open_patients, dock_finetune, train, asked
):
    open_patients(2)
    shape = viewer.layers[0].data.shape
    corrected = add_tumour(viewer, FIRST, np.zeros(shape, np.uint8))
    corrected.data[2, 10:20, 10:20] = 1
    untouched = add_tumour(viewer, SECOND, np.ones(shape, np.uint8))
    widget = dock_finetune()
    chosen = {str(subject): layer for subject, layer in widget.sources.table.chosen()}
    assert chosen[FIRST] == corrected
    assert chosen[SECOND] != untouched
    train(widget)
    np.testing.assert_array_equal(asked.patients[FIRST].truth, corrected.data)


def test_the_user_chooses_patients_and_labels(viewer, open_patients, dock_finetune, train, asked):
    open_patients(3)
    mine = viewer.add_labels(np.zeros((6, 64, 64), np.uint8), name="mine")
    mine.data[3, 5:9, 5:9] = 4
    viewer.add_labels(np.zeros((6, 32, 64), np.uint8), name="of another grid")
    widget = dock_finetune()
    table = widget.sources.table
    table.pick(SECOND, mine)
    table.tick(THIRD, False)
    assert [str(subject) for subject, _ in table.chosen()] == [FIRST, SECOND]
    assert "Ready to train on 1 patient, with 1 for validation" in widget.status.value
    train(widget)
    assert set(asked.patients) == {FIRST, SECOND}
    np.testing.assert_array_equal(asked.patients[SECOND].truth, mine.data != 0)
    # The choice stays when another layer is added.
    viewer.add_image(np.zeros((6, 64, 64)))
    assert {str(s): layer for s, layer in table.chosen()}[SECOND] == mine
    assert THIRD not in [str(subject) for subject, _ in table.chosen()]


def test_painting_after_start_does_not_affect_the_training(
    viewer, open_patients, dock_finetune, click, wait_until, asked
):
    open_patients(2)
    truth = layer_of(viewer, "truth", FIRST)
    before = truth.data.copy()
    widget = dock_finetune()
    click(widget, "Start")
    truth.data[:] = 1
    wait_until(lambda: widget.button.text == "Start")
    np.testing.assert_array_equal(asked.patients[FIRST].truth, before)


def test_any_3d_image_with_labels_can_be_used(viewer, dock_finetune, make_head, train, asked):
    for number in (1, 2):
        volume, truth = make_head(seed=number)
        viewer.add_image(volume[..., 1] * 3.7 - 10.0, name=f"scan {number}")
        viewer.add_labels(truth, name=f"labels {number}")
    viewer.add_image(np.zeros((64, 64)), name="flat")
    widget = dock_finetune()
    assert "No patient is ticked" in widget.status.value
    assert not widget.button.enabled
    for number in (1, 2):
        widget.sources.table.pick(f"scan {number}", viewer.layers[f"labels {number}"])
    train(widget)
    patient = asked.patients["scan 1"]
    assert patient.volume.shape == (6, 64, 64, 3)
    assert patient.volume.dtype == np.uint8
    assert patient.volume[..., 1].max() > 200
    np.testing.assert_array_equal(patient.volume[..., 0], patient.volume[..., 1])


def test_slices_without_a_mask_file_are_not_treated_as_empty(
    viewer, patient_on_disk, open_patient, dock_finetune, train, asked
):
    folder = patient_on_disk(FIRST)
    for number in (1, 2):
        (folder / f"{FIRST}_{number}_mask.tif").unlink()
    viewer.open(str(folder), plugin="napari-lgg-seg")
    viewer.layers["ground truth"].data[1] = 1  # slice 2 was edited after reading
    open_patient(SECOND)
    train(dock_finetune())
    assert asked.patients[FIRST].slices_without_mask == (1,)


def test_patients_of_a_folder_are_used_for_training(
    viewer, patient_on_disk, dock_finetune, train, asked, choose_patients_folder
):
    folders = {name: patient_on_disk(name) for name in (FIRST, SECOND, THIRD)}
    for mask in folders[THIRD].glob("*_mask.tif"):
        mask.unlink()
    widget = dock_finetune()
    widget.controls.source.value = "Folder of patients..."
    assert widget.sources.table.isHidden()
    assert "Choose the folder" in widget.status.value
    choose_patients_folder(widget, folders[FIRST].parent)
    found = widget.controls.found.value
    assert found.startswith("2 patients with images and masks. Left out: ")
    assert f"{folders[THIRD]} has no masks" in found
    train(widget)
    assert {*asked.training, *asked.validation} == {folders[FIRST], folders[SECOND]}


def test_a_second_folder_of_a_patient_is_named(patient_on_disk, dock_finetune, choose_patients_folder):
    first = patient_on_disk(FIRST)
    for name in ("second", "third"):
        shutil.copytree(first, first.parent / f"{first.name} {name}")
    widget = dock_finetune()
    choose_patients_folder(widget, first.parent)
    found = widget.controls.found.value
    assert found.startswith("1 patient with images and masks. Left out: ")
    assert f"{first} second holds {FIRST} a second time, after {first};" in found
    assert found.endswith("(and 1 more).")


@pytest.mark.parametrize("kind", ["missing", "empty", "patient"])
def test_a_folder_without_patients_is_reported(
    viewer, tmp_path, patient_on_disk, dock_finetune, choose_patients_folder, kind
):
    folder = {"missing": tmp_path / "nowhere", "empty": tmp_path, "patient": patient_on_disk()}[kind]
    if kind == "empty":
        folder = tmp_path / "empty"
        folder.mkdir()
    widget = dock_finetune()
    choose_patients_folder(widget, folder)
    assert str(folder) in widget.status.value
    assert_message(widget.status.value)
    assert not widget.button.enabled


def test_one_patient_is_too_few(viewer, open_patients, open_patient, dock_finetune):
    widget = dock_finetune()
    assert "open at least two patients" in widget.status.value
    assert not widget.button.enabled
    open_patients(1)
    assert "Only one patient is ticked" in widget.status.value
    assert not widget.button.enabled
    open_patient(SECOND)
    assert widget.button.enabled
    assert "Ready to train on 1 patient, with 1 for validation" in widget.status.value


@pytest.fixture
def open_namesake(viewer, tmp_path, make_patient):
    """Open another patient of the same name, from another folder."""
    from napari_lgg_seg.core.data.masks import write_patient

    def open_(name):
        folder = tmp_path / "another site" / name
        write_patient(folder, make_patient(name, seed=9))
        viewer.open(str(folder), plugin="napari-lgg-seg")

    return open_


@pytest.mark.parametrize("others", [0, 2])
def test_patients_of_one_name_are_refused(
    viewer, open_patients, open_namesake, dock_finetune, train, asked, others
):
    open_patients(1 + others)
    open_namesake(FIRST)
    widget = dock_finetune()
    for seed in range(4):
        widget.controls.seed.value = seed
        assert f"More than one ticked patient is named {FIRST};" in widget.status.value
        assert_message(widget.status.value)
        assert not widget.button.enabled
    if others:
        (_, again) = [s for s, _ in widget.sources.table.chosen() if s.name == FIRST]
        widget.sources.table.tick(again, False)
        train(widget)
        np.testing.assert_array_equal(asked.patients[FIRST].truth, viewer.layers["ground truth"].data)


def test_choosing_labels_for_a_namesake_changes_its_own_row(
    viewer, open_patients, open_namesake, dock_finetune
):
    open_patients(2)
    open_namesake(FIRST)
    table = dock_finetune().sources.table
    (_, again) = [s for s, _ in table.chosen() if s.name == FIRST]
    before = table.chosen()
    table.pick(again, None)
    assert table.chosen() == [(s, labels) for s, labels in before if s != again]
