"""The command ``segment``."""

from __future__ import annotations

import html
import os
import shutil

import numpy as np
import pytest
import tifffile
from program import NAME, OTHER, THIRD, contents

from napari_lgg_seg.core import devices
from napari_lgg_seg.core.data.patients import read_patient
from napari_lgg_seg.core.evaluation.metrics import dice


def test_segment_writes_masks_in_the_datasets_layout(segment, write, masks):
    folder = write()
    done = segment(folder)
    assert done.code == 0
    assert sorted(masks.rglob("*_mask.tif")) == sorted(
        masks / NAME / f"{NAME}_{n}_mask.tif" for n in range(1, 7)
    )
    for file in masks.rglob("*.tif"):
        pixels = tifffile.imread(file)
        assert pixels.dtype == np.uint8
        assert set(np.unique(pixels)) <= {0, 255}
    assert dice(read_patient(masks / NAME).truth, read_patient(folder).truth) > 0.85
    assert "1 of 1 patient" in done.out
    assert str(masks) in done.out


def test_segment_says_how_well_result_and_truth_agree(segment, write, masks):
    folder = write()
    done = segment(folder)
    agreement = dice(read_patient(masks / NAME).truth, read_patient(folder).truth)
    assert f"{agreement:.3f}" in done.err
    for mask in folder.glob("*_mask.tif"):
        mask.unlink()
    assert "Dice" not in segment(folder, "--overwrite").err


@pytest.mark.parametrize("engine", ["auto", "openvino", "torch"])
def test_segment_says_which_engine_ran(segment, write, masks, openvino, engine):
    folder = write()
    done = segment(folder, "--device", "cpu", "--engine", engine, "--format", "tiff")
    assert done.code == 0
    ran, words = ("torch", "on CPU.") if engine == "torch" else ("openvino", "on CPU (OpenVINO).")
    assert words in done.out
    (file,) = masks.rglob("*.tif")
    assert f'"engine": "{ran}"' in html.unescape(tifffile.TiffFile(file).ome_metadata)


def test_segment_with_an_engine_that_is_not_installed(segment, write, masks):
    done = segment(write(), "--engine", "openvino")
    assert done.code == 1
    assert "napari-lgg-seg[openvino]" in done.err
    assert not masks.exists()


def test_segment_with_an_engine_that_fails(segment, write, masks, openvino, monkeypatch):
    def fail(*arguments, **options):
        raise RuntimeError("No such operation.")

    monkeypatch.setattr(openvino, "convert_model", fail)
    done = segment(write(), "--device", "cpu")
    assert done.code == 0
    assert "OpenVINO failed (No such operation): continuing with PyTorch." in done.err
    assert "on CPU." in done.out


def test_segment_names_a_second_folder_of_a_patient(segment, write, dataset):
    shutil.copytree(write(), dataset / "again")
    done = segment(dataset)
    assert done.code == 1
    assert done.err.count("Failed: ") == 1
    assert NAME in done.err
    assert str(dataset / "again") in done.err
    assert "1 of 2 patients" in done.out


def test_segment_takes_a_dataset_folder(segment, write, masks):
    for name in (NAME, OTHER, THIRD):
        write(name)
    (masks.parent / "dataset" / "data.csv").write_text("Patient\n")
    (masks.parent / "dataset" / "empty").mkdir()
    done = segment(masks.parent / "dataset")
    assert done.code == 0
    assert "3 of 3 patients" in done.out
    assert sorted(folder.name for folder in masks.iterdir()) == [THIRD, NAME, OTHER]


def test_segment_takes_several_folders_each_once(segment, write, masks, dataset):
    done = segment(write(NAME), write(OTHER), dataset)
    assert done.code == 0
    assert "2 of 2 patients" in done.out


def test_segment_keeps_the_slices_own_numbers(segment, write_slices, masks, dataset):
    write_slices(dataset, NAME, range(9, 13), shape=(64, 64))
    assert segment(dataset).code == 0
    assert read_patient(masks / NAME).slice_numbers == (9, 10, 11, 12)


@pytest.mark.parametrize("what", ["patient", "dataset", "patient inside"])
def test_segment_follows_links(segment, write, masks, dataset, tmp_path, what):
    folder = write()
    link = tmp_path / "linked" / "here"
    link.parent.mkdir()
    try:
        link.symlink_to(dataset if what == "dataset" else folder, target_is_directory=True)
    except OSError:
        pytest.skip("links cannot be made on this system")
    done = segment(link.parent if what == "patient inside" else link)
    assert done.code == 0
    assert dice(read_patient(masks / NAME).truth, read_patient(folder).truth) > 0.85


def test_segment_goes_on_after_a_bad_patient(segment, write, masks, dataset):
    for name in (NAME, OTHER, THIRD):
        write(name)
    bad = dataset / NAME / f"{NAME}_4.tif"
    bad.write_bytes(bad.read_bytes()[:-100])
    done = segment(dataset)
    assert done.code == 1
    assert "2 of 3 patients" in done.out
    assert str(bad) in done.err
    assert sorted(folder.name for folder in masks.iterdir()) == [THIRD, OTHER]


def test_segment_goes_on_after_paths_that_are_no_patients(segment, write, dataset):
    (dataset / "README.md").parent.mkdir(parents=True, exist_ok=True)
    (dataset / "README.md").write_text("text")
    (dataset / "empty").mkdir()
    done = segment(dataset / "README.md", dataset / "empty", write())
    assert "1 of " in done.out
    assert str(dataset / "empty") in done.err
    assert str(dataset / "README.md") in done.err


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
@pytest.mark.parametrize("name", ["[bold]", "\udcff\udcfe"])
def test_segment_prints_any_folder_name(segment, write, dataset, name):
    folder = write().rename(dataset / name)
    (folder / f"{NAME}_2.tif").write_text("broken")
    done = segment(write(OTHER).rename(dataset / f"{name} 2"), folder)
    assert done.code == 1
    assert "1 of 2 patients" in done.out
    assert f"{NAME}_2.tif" in done.err


@pytest.mark.parametrize("damage", ["gap", "image gone", "masks only", "nothing"])
def test_segment_names_what_is_wrong_with_a_patient(segment, write, masks, damage):
    folder = write()
    if damage != "gap":
        for image in folder.glob("*_?.tif") if damage != "image gone" else [folder / f"{NAME}_3.tif"]:
            image.unlink()
    else:
        for file in folder.glob("*_3*.tif"):
            file.unlink()
    if damage == "nothing":
        for mask in folder.iterdir():
            mask.unlink()
    done = segment(folder)
    assert done.code == 1
    assert str(folder if damage in ("masks only", "nothing") else folder / f"{NAME}_3") in done.err
    assert "0 of 1 patient" in done.out
    assert not masks.exists()


def test_segment_never_overwrites_without_the_option(segment, write, masks):
    folder = write()
    assert segment(folder).code == 0
    before = contents(masks)
    done = segment(folder, "--threshold", "0.01")
    assert done.code == 1
    assert str(masks / NAME) in done.err
    assert contents(masks) == before
    assert segment(folder, "--threshold", "0.01", "--overwrite").code == 0
    assert contents(masks).keys() == before.keys()
    assert contents(masks) != before


@pytest.mark.parametrize("options", [[], ["--overwrite"]])
def test_segment_never_writes_next_to_the_ground_truth(run, write, dataset, small_model, options):
    folder = write()
    before = contents(dataset)
    done = run("segment", folder, "--output", dataset, "--model", small_model, *options)
    assert done.code == 1
    assert str(folder) in done.err
    assert contents(dataset) == before


def test_segment_keeps_apart_two_folders_of_one_patient(segment, write, dataset, masks):
    folder = write()
    copy = dataset / "copy"
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    done = segment(folder, copy)
    assert done.code == 1
    assert str(copy) in done.err
    assert "1 of 2 patients" in done.out


def test_lower_threshold_finds_more(segment, write, masks):
    folder = write()
    voxels = []
    for threshold in ("0.01", "0.5", "0.99"):
        assert segment(folder, "--threshold", threshold, "--overwrite").code == 0
        voxels.append(int(read_patient(masks / NAME).truth.sum()))
    assert voxels[0] > voxels[1] > voxels[2] > 0


def test_the_threshold_can_be_chosen_for_the_patient(segment, write, masks):
    folder = write()
    assert segment(folder, "--threshold", "auto").code == 0
    found = read_patient(masks / NAME).truth
    assert segment(folder, "--threshold", "0.99", "--overwrite").code == 0
    assert found.sum() > read_patient(masks / NAME).truth.sum()


@pytest.mark.parametrize("kind", ["text", "nothing", "absent", "truncated"])
def test_wrong_model_file_is_one_sentence(run, write, masks, small_model, tmp_path, kind):
    file = tmp_path / "other.safetensors"
    if kind != "absent":
        file.write_bytes(
            {"text": b"no model", "nothing": b"", "truncated": small_model.read_bytes()[:-99]}[kind]
        )
    done = run("segment", write(), "--output", masks, "--model", file)
    assert done.code == 1
    assert str(file) in done.err
    assert done.err.startswith("Error: ")
    assert not masks.exists()


def test_absent_device_is_one_sentence(segment, write, monkeypatch):
    monkeypatch.setattr(devices, "available_devices", lambda: ("cpu",))
    done = segment(write(), "--device", "cuda")
    assert done.code == 1
    assert "'cuda' is not present" in done.err


def test_failing_network_is_a_failed_patient(segment, write, masks, monkeypatch):
    from napari_lgg_seg.core.model.networks import UNet

    def fail(network, slices):
        raise RuntimeError("no kernel image\nsecond line")

    monkeypatch.setattr(UNet, "forward", fail)
    done = segment(write())
    assert done.code == 1
    assert "no kernel image" in done.err
    assert not masks.exists()
