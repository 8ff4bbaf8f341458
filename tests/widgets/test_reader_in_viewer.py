"""The reader in a viewer."""

from __future__ import annotations

import numpy as np
import pytest
from window import layer_names

from napari_lgg_seg.core.data.patients import SEQUENCES
from napari_lgg_seg.core.errors import PatientError

NAME = "TCGA_DU_0001_19990101"
OTHER = "TCGA_HT_0002_20000202"
PLUGIN = "napari-lgg-seg"


def test_patient_opens_on_one_grid_with_flair_in_view(viewer, patient_on_disk, make_patient):
    viewer.open(str(patient_on_disk()), plugin=PLUGIN)
    assert layer_names(viewer) == [*SEQUENCES, "ground truth"]
    assert [layer.visible for layer in viewer.layers] == [False, True, False, True]
    assert viewer.dims.ndim == 3
    assert viewer.dims.axis_labels == ("z", "y", "x")
    assert len({tuple(layer.extent.world.ravel()) for layer in viewer.layers}) == 1
    assert len({layer.units for layer in viewer.layers}) == 1
    patient = make_patient(NAME)
    for channel in range(3):
        np.testing.assert_array_equal(viewer.layers[channel].data, patient.volume[..., channel])
    np.testing.assert_array_equal(viewer.layers["ground truth"].data, patient.truth)


def test_second_patient_carries_its_name_and_leaves_the_first_alone(viewer, patient_on_disk):
    viewer.open(str(patient_on_disk(NAME)), plugin=PLUGIN)
    viewer.open(str(patient_on_disk(OTHER)), plugin=PLUGIN)
    assert layer_names(viewer) == [
        *SEQUENCES,
        "ground truth",
        *(f"{OTHER} {role}" for role in (*SEQUENCES, "ground truth")),
    ]


def test_patient_opened_after_all_others_were_closed_has_no_prefix(viewer, patient_on_disk):
    viewer.open(str(patient_on_disk(NAME)), plugin=PLUGIN)
    viewer.layers.clear()
    viewer.open(str(patient_on_disk(OTHER)), plugin=PLUGIN)
    assert layer_names(viewer) == [*SEQUENCES, "ground truth"]


def test_several_folders_at_once(viewer, patient_on_disk):
    viewer.open([str(patient_on_disk(NAME)), str(patient_on_disk(OTHER))], plugin=PLUGIN)
    assert layer_names(viewer) == [
        *SEQUENCES,
        "ground truth",
        *(f"{OTHER} {role}" for role in (*SEQUENCES, "ground truth")),
    ]


def test_dataset_folder_reports_the_number_of_patients(viewer, patient_on_disk, notices):
    patient_on_disk(OTHER)
    viewer.open(str(patient_on_disk(NAME).parent), plugin=PLUGIN)
    assert {layer.metadata["lgg"]["patient"] for layer in viewer.layers} == {NAME}
    (text,) = notices
    assert "2 patients" in text


def test_broken_patient_adds_nothing(viewer, patient_on_disk):
    folder = patient_on_disk()
    (folder / f"{NAME}_3.tif").unlink()
    with pytest.raises(PatientError, match=f"{NAME}_3_mask.tif"):
        viewer.open(str(folder), plugin=PLUGIN)
    assert len(viewer.layers) == 0


def test_napari_finds_the_reader_of_a_slice_file(viewer, patient_on_disk):
    """Capitals in the dataset's names must not keep the manifest's patterns from matching."""
    from npe2 import PluginManager

    file = patient_on_disk() / f"{NAME}_3.tif"
    readers = [r.command for r in PluginManager.instance().iter_compatible_readers([str(file)])]
    assert "napari-lgg-seg.get_reader" in readers
    viewer.open(str(file), plugin=PLUGIN)
    assert viewer.layers["FLAIR"].data.shape == (1, 64, 64)


@pytest.mark.real_data
def test_real_patients_open(viewer, lgg_dataset):
    folders = sorted(folder for folder in lgg_dataset.iterdir() if folder.is_dir())[:3]
    for folder in folders:
        viewer.open(str(folder), plugin=PLUGIN)
    assert len(viewer.layers) == 12
    assert len(set(layer_names(viewer))) == 12
    for folder, flair in zip(folders, viewer.layers[1::4], strict=True):
        assert len(list(folder.glob("*_mask.tif"))) == len(flair.data)
        assert flair.data.dtype == np.uint8
