"""The command ``calibrate-coarse``."""

from __future__ import annotations

import dataclasses

from flair_model import write_flair_model
from program import NAME, OTHER, contents

from napari_lgg_seg.core.model.checkpoint import read_card


def test_the_threshold_is_found_and_written_with_the_model_with_it(run, write, dataset, tmp_path):
    write(shape=(12, 64, 64))
    write(OTHER, shape=(10, 64, 64), seed=1)
    card = {"working_size": 192, "validation_patients": (NAME, OTHER)}
    model = write_flair_model(tmp_path / "model.safetensors", 3, **card)
    before, new = contents(tmp_path), tmp_path / "new.safetensors"
    done = run("calibrate-coarse", model, dataset, "--device", "cpu")
    assert done.code == 0
    assert "0.01: Dice with full resolution 1.00000 over all voxels, 1.0000 in the worst of 2" in done.out
    assert "The threshold is 0.01." in done.out
    assert contents(tmp_path) == before
    assert read_card(model).coarse_threshold is None
    done = run("calibrate-coarse", model, dataset, "--device", "cpu", "--output", new)
    assert f"{new} is written." in done.out
    assert read_card(new) == dataclasses.replace(read_card(model), coarse_threshold=0.01)
    refused = run("calibrate-coarse", model, dataset, "--device", "cpu", "--output", new)
    assert refused.code == 1
    assert f"{new} exists already" in refused.err
    image = dataset / NAME / f"{NAME}_1.tif"
    before = contents(dataset)
    refused = run("calibrate-coarse", model, dataset, "--output", image, "--overwrite")
    assert refused.code == 1
    assert f"{image} must end in .safetensors" in refused.err
    assert contents(dataset) == before


def test_a_model_needs_validation_patients(run, write, small_model, dataset, tmp_path):
    write()
    done = run("calibrate-coarse", small_model, dataset)
    assert done.code == 1
    assert f"{small_model} names no validation patients" in done.err
    missing = write_flair_model(tmp_path / "missing.safetensors", validation_patients=("absent",))
    done = run("calibrate-coarse", missing, dataset)
    assert done.code == 1
    assert str(dataset / "absent") in done.err
