"""The commands in File > IO Utilities: open a patient, export masks."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from qtpy.QtWidgets import QApplication, QFileDialog
from window import assert_message, layer_names

from napari_lgg_seg import commands
from napari_lgg_seg.core.data.masks import write_patient
from napari_lgg_seg.core.data.patients import SEQUENCES, read_patient
from napari_lgg_seg.layers import describe

NAME = "TCGA_DU_0001_19990101"
OTHER = "TCGA_HT_0002_20000202"

pytestmark = pytest.mark.filterwarnings("error:Private attribute access:FutureWarning")


@pytest.fixture
def open_patient(menu_action):
    """Factory: click the entry of File > IO Utilities."""
    return menu_action("File", "IO Utilities", "Open LGG patient...").trigger


@pytest.fixture
def export_masks(menu_action):
    """Factory: click the entry of File > IO Utilities."""
    return menu_action("File", "IO Utilities", "Export masks...").trigger


# --- Open LGG patient... -----------------------------------------------------------------------


def test_patient_is_opened(viewer, open_patient, patient_on_disk, choose_folder, wait_until, notices):
    choose_folder(patient_on_disk())
    open_patient()
    wait_until(lambda: len(viewer.layers) == 4)
    assert layer_names(viewer) == [*SEQUENCES, "ground truth"]
    assert [layer.visible for layer in viewer.layers] == [False, True, False, True]
    assert viewer.dims.axis_labels == ("z", "y", "x")
    assert notices == []


def test_second_patient_carries_its_name(viewer, open_patient, patient_on_disk, choose_folder, wait_until):
    for count, name in ((4, NAME), (8, OTHER)):
        choose_folder(patient_on_disk(name))
        open_patient()
        wait_until(lambda count=count: len(viewer.layers) == count)
    assert layer_names(viewer)[4:] == [f"{OTHER} {role}" for role in (*SEQUENCES, "ground truth")]


def test_dataset_opens_its_first_patient_and_says_how_to_open_others(
    viewer, open_patient, patient_on_disk, choose_folder, wait_until, notices
):
    patient_on_disk(OTHER)
    choose_folder(patient_on_disk(NAME).parent)
    open_patient()
    wait_until(lambda: len(viewer.layers) == 4)
    assert {layer.metadata["lgg"]["patient"] for layer in viewer.layers} == {NAME}
    (text,) = notices
    assert "2 patients" in text


def remove_a_slice(folder):
    (folder / f"{NAME}_3.tif").unlink()
    (folder / f"{NAME}_3_mask.tif").unlink()


def remove_an_image(folder):
    (folder / f"{NAME}_3.tif").unlink()


def truncate(folder):
    file = folder / f"{NAME}_3.tif"
    file.write_bytes(file.read_bytes()[:-50])


def shrink(folder):
    tifffile.imwrite(folder / f"{NAME}_3.tif", np.zeros((9, 9, 3), np.uint8), photometric="rgb")


def remove_everything(folder):
    for file in folder.iterdir():
        file.unlink()


def test_broken_folder_is_reported_and_adds_no_layer(
    viewer, open_patient, make_patient, tmp_path, choose_folder, wait_until, notices
):
    for damage in (remove_a_slice, remove_an_image, truncate, shrink, remove_everything):
        folder = tmp_path / damage.__name__
        write_patient(folder, make_patient(NAME))
        damage(folder)
        choose_folder(folder)
        notices.clear()
        open_patient()
        wait_until(lambda: len(notices) > 0)
        QApplication.processEvents()
        (text,) = notices
        assert_message(text)
        assert str(folder if damage is remove_everything else folder / f"{NAME}_3") in text
        assert len(viewer.layers) == 0


def test_cancelled_dialog_opens_nothing(viewer, open_patient, choose_folder, monkeypatch, notices):
    opened = []
    monkeypatch.setattr(commands, "open_folder", lambda *args, **_: opened.append(args))
    choose_folder(None)
    open_patient()
    assert opened == []
    assert notices == []


# --- Export masks... ---------------------------------------------------------------------------


@pytest.fixture
def labels():
    """Labels with one pixel more in each slice, so that slices cannot be confused."""
    values = np.zeros((4, 8, 6), np.uint8)
    for index in range(4):
        values[index].flat[: index + 1] = 1
    return values


@pytest.fixture
def add_result(viewer, labels):
    """Factory: add a labels layer like a result of the Segment widget."""

    def add(data=labels, name=NAME, role="tumour"):
        metadata = describe(name, role, range(5, 5 + len(data)))
        return viewer.add_labels(data.copy(), name=f"{name} {role}", metadata=metadata)

    return add


def test_masks_are_written_and_their_folder_is_shown(
    viewer, export_masks, add_result, labels, choose_folder, tmp_path, notices
):
    add_result()
    choose_folder(tmp_path)
    export_masks()
    assert sorted(file.name for file in (tmp_path / NAME).glob("*.tif")) == [
        f"{NAME}_{n}_mask.tif" for n in range(5, 9)
    ]
    back = read_patient(tmp_path / NAME)
    np.testing.assert_array_equal(back.truth, labels)
    assert back.slice_numbers == (5, 6, 7, 8)
    (text,) = notices
    assert_message(text)
    assert str(tmp_path / NAME) in text
    assert "4 masks" in text


def test_labels_are_exported_as_painted(viewer, export_masks, patient_on_disk, choose_folder, tmp_path):
    viewer.open(str(patient_on_disk()), plugin="napari-lgg-seg")
    layer = viewer.layers["ground truth"]
    layer.paint((1, 5, 5), 1)
    layer.paint((2, 40, 30), 0)
    painted = layer.data.copy()
    viewer.layers.selection.active = layer
    choose_folder(tmp_path / "masks")
    export_masks()
    np.testing.assert_array_equal(read_patient(tmp_path / "masks" / NAME).truth, painted)


def test_export_without_labels_is_reported(viewer, export_masks, choose_folder, tmp_path, notices):
    viewer.add_image(np.zeros((4, 8, 6)))
    choose_folder(tmp_path)
    export_masks()
    (text,) = notices
    assert_message(text)
    assert "no labels" in text
    assert list(tmp_path.iterdir()) == []


def test_cancelled_dialog_writes_nothing(viewer, export_masks, add_result, choose_folder, tmp_path, notices):
    add_result()
    choose_folder(None)
    export_masks()
    assert notices == []
    assert list(tmp_path.iterdir()) == []


def test_export_asks_before_replacing_masks(
    viewer, export_masks, add_result, labels, choose_folder, tmp_path, notices, answer
):
    layer = add_result()
    choose_folder(tmp_path)
    asked = answer("No")
    export_masks()
    assert asked == []
    files = {file: file.read_bytes() for file in (tmp_path / NAME).iterdir()}
    notices.clear()
    layer.data = 1 - labels

    export_masks()
    assert len(asked) == 1
    assert str(tmp_path / NAME) in asked[0]
    assert {file: file.read_bytes() for file in (tmp_path / NAME).iterdir()} == files
    assert notices == [], "masks were not written"

    answer("Yes")
    export_masks()
    assert len(asked) == 2
    np.testing.assert_array_equal(read_patient(tmp_path / NAME).truth, 1 - labels)
    assert len(notices) == 1


def test_masks_are_never_written_among_images(
    viewer, export_masks, add_result, patient_on_disk, choose_folder, notices, answer
):
    folder = patient_on_disk()
    before = {file: file.read_bytes() for file in folder.iterdir()}
    add_result()
    choose_folder(folder.parent)  # the masks would go to <folder.parent>/<patient>, which is the folder
    asked = answer("Yes")
    export_masks()
    assert asked == []
    (text,) = notices
    assert_message(text)
    assert str(folder) in text
    assert {file: file.read_bytes() for file in folder.iterdir()} == before


def test_foreign_labels_are_named_after_their_layer(
    viewer, export_masks, labels, choose_folder, tmp_path, notices
):
    layer = viewer.add_labels(labels)
    for number, name in enumerate(["Labels", "one/two", "../up", 'a:b*c?"<d>|\\e', "..", " "]):
        layer.name = name
        parent = tmp_path / str(number)
        parent.mkdir()
        choose_folder(parent)
        notices.clear()
        export_masks()
        assert len(notices) == 1
        assert "4 masks" in notices[0]
        (folder,) = parent.iterdir()
        np.testing.assert_array_equal(read_patient(folder).truth, labels)
        assert not set(folder.name) & set('/\\:*?"<>|')
        assert name != "Labels" or folder.name == name
    assert len(list(tmp_path.iterdir())) == 6, "something was written outside the chosen folders"


def test_selected_labels_come_before_the_newest_result(
    viewer, export_masks, add_result, labels, choose_folder, tmp_path
):
    add_result(labels)
    add_result(labels[:, ::-1])
    add_result(labels[:, :, ::-1], role="truth")
    viewer.add_image(np.zeros(labels.shape))
    first, newest, truth, image = viewer.layers
    for number, (active, expected) in enumerate(
        [(first, first), (newest, newest), (truth, truth), (image, newest), (None, newest)]
    ):
        viewer.layers.selection.active = active
        choose_folder(tmp_path / str(number))
        export_masks()
        np.testing.assert_array_equal(read_patient(tmp_path / str(number) / NAME).truth, expected.data)


def test_labels_that_cannot_be_masks_are_reported(viewer, export_masks, choose_folder, tmp_path, notices):
    viewer.add_labels(np.zeros((2, 3, 8, 6), np.uint8))
    choose_folder(tmp_path)
    export_masks()
    (text,) = notices
    assert_message(text)
    assert "4 dimensions" in text


def test_folder_that_cannot_be_written_is_reported(
    viewer, export_masks, add_result, choose_folder, tmp_path, notices
):
    add_result()
    (tmp_path / NAME).write_text("a file is in the way")
    choose_folder(tmp_path)
    export_masks()
    (text,) = notices
    assert_message(text)
    assert str(tmp_path / NAME) in text


# --- without a viewer --------------------------------------------------------------------------


@pytest.mark.parametrize("command", [commands.open_patient, commands.export_masks])
def test_commands_without_a_viewer_open_no_dialog(command, monkeypatch):
    asked = []
    monkeypatch.setattr("napari.current_viewer", lambda: None)
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *args, **_: asked.append(args))
    command()
    assert asked == []
