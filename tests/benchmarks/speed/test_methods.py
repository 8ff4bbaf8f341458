"""The measured methods at tiny sizes, without the packages that are compared with."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from speed import keras_baseline, networks, pipeline, startup, study_baseline
from speed.window import FreezeMeter

from napari_lgg_seg.core.data.patients import read_patient
from napari_lgg_seg.core.model.networks import build_network, count_parameters


def _measured(methods):
    found = [method() for method in methods]
    assert all(values["seconds"] > 0 for values in found)
    return found


def test_operations_are_those_of_the_networks():
    found = networks.count_operations([64, 256])
    assert found["unet"]["256"] == pytest.approx(83, abs=1)
    assert found["buda"]["256"] == pytest.approx(24, abs=1)
    assert found["unet"]["64"] == pytest.approx(found["unet"]["256"] / 16)


def test_networks_alone(folders):
    assert len(_measured(networks.torch_methods("unet", 16, 1, 2))) == 2
    assert len(_measured(networks.engine_methods("torch", [16, 32], 2))) == 2
    (full,) = _measured(networks.patient_input_methods("torch", folders, full_resolution=True))
    (coarse,) = _measured(networks.patient_input_methods("torch", folders, full_resolution=False))
    assert 0 < full["share_of_pixels"] <= 1
    assert 0 < coarse["share_of_pixels"] <= 1.25
    fp32, bf16 = _measured(networks.matrix_product_methods(64))
    assert min(fp32["gflops"], bf16["gflops"]) > 0


def test_patients_from_folder_to_masks(folders, tmp_path):
    for name, methods in {
        "ours": pipeline.patient_methods("torch", folders, str(tmp_path / "ours")),
        "study": study_baseline.patient_methods(folders, str(tmp_path / "study")),
    }.items():
        (found,) = _measured(methods)
        assert 0 < found["outside"] < 1
        masks = list((tmp_path / name).glob("*/*_mask.tif"))
        assert len(masks) == 2 * (4 if name == "ours" else 2)  # the study drops the first and last slice


def test_the_original_study_s_preprocessing(folders):
    slices = study_baseline.prepare(read_patient(folders[0]).volume, size=32)
    assert slices.shape == (2, 3, 32, 32)
    np.testing.assert_allclose(slices.mean(axis=(0, 2, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(slices.std(axis=(0, 2, 3)), 1, atol=1e-3)
    assert np.isfinite(study_baseline.prepare(np.zeros((3, 8, 6, 3), np.uint8), size=16)).all()


def test_parts_and_training_steps(folders):
    pytest.importorskip("monai")
    assert len(_measured(pipeline.part_methods(folders[0], 6))) == 4
    assert len(_measured(pipeline.training_methods([(32, 2)], folders))) == 1


def test_synthetic_patients_have_the_requested_slices(tmp_path):
    found = pipeline.write_synthetic_patients(str(tmp_path), count=2, slices=[8, 12], size=64, first=4)
    shapes = [read_patient(folder).volume.shape for folder in (*found["patients"], *found["long"])]
    assert shapes == [(4, 64, 64, 3), (4, 64, 64, 3), (8, 64, 64, 3), (12, 64, 64, 3)]


def test_keras_has_the_same_network_and_reads_slices_in_their_order(folders):
    assert count_parameters(build_network("unet", 3)) == keras_baseline.PARAMETERS
    for number in (10, 11):
        shutil.copy(f"{folders[0]}/{Path(folders[0]).name}_1.tif", f"{folders[0]}/x_{number}.tif")
    numbers = [file.stem.rpartition("_")[2] for file in keras_baseline.slice_files(Path(folders[0]))]
    assert numbers == ["1", "2", "3", "4", "10", "11"]


def test_freezes_of_the_window_are_measured(qapp):
    from qtpy.QtCore import QTimer

    meter, done = FreezeMeter(), []
    QTimer.singleShot(30, lambda: (time.sleep(0.3), done.append(True)))
    assert 0.25 < meter.wait_until(lambda: bool(done)) < 5
    with pytest.raises(TimeoutError):
        meter.wait_until(lambda: False, seconds=0.05)


def test_a_plugin_can_be_hidden_from_napari(monkeypatch):
    from importlib import metadata

    monkeypatch.setattr(metadata, "distributions", metadata.distributions)  # restored at the end
    startup.hide("npe2")
    names = {package.name for package in metadata.distributions()}
    assert "npe2" not in names
    assert "napari" in names
