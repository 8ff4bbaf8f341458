"""The command ``evaluate``."""

from __future__ import annotations

import json

import numpy as np
import pytest
from label_writing import write_masks
from program import NAME, OTHER, THIRD

from napari_lgg_seg.core.data.patients import read_patient
from napari_lgg_seg.core.evaluation.metrics import dice


def test_evaluate_scores_each_patient_over_its_volume(run, segment, write, masks, dataset, tmp_path):
    for name, seed in ((NAME, 0), (OTHER, 1)):
        write(name, seed=seed)
    assert segment(dataset).code == 0
    file = tmp_path / "figures" / "dice.json"
    done = run("evaluate", masks, dataset, "--json", file)
    assert done.code == 0
    metrics = json.loads(file.read_text())
    expected = {
        n: dice(read_patient(masks / n).truth, read_patient(dataset / n).truth) for n in (NAME, OTHER)
    }
    assert metrics["dice"] == pytest.approx(expected)
    assert metrics["patients"] == 2
    assert metrics["mean"] == pytest.approx(np.mean(list(expected.values())))
    assert metrics["median"] == pytest.approx(np.median(list(expected.values())))
    for key in ("below_half", "missed", "without_prediction", "failed"):
        assert metrics[key] == []
    for name, value in expected.items():
        assert name in done.out
        assert f"{value:.4f}" in done.out


def test_evaluate_names_patients_below_half_and_missed_ones(run, write, masks, dataset, tmp_path):
    truth = read_patient(write(NAME)).truth
    write(OTHER)
    write_masks(masks / NAME, NAME, np.zeros_like(truth))
    weak = truth.copy()
    weak[:, :, : weak.shape[2] * 11 // 16] = 0
    write_masks(masks / OTHER, OTHER, weak)
    assert 0 < dice(weak, truth) < 0.5
    assert run("evaluate", masks, dataset, "--json", tmp_path / "dice.json").code == 0
    metrics = json.loads((tmp_path / "dice.json").read_text())
    assert metrics["below_half"] == [NAME, OTHER]
    assert metrics["missed"] == [NAME]


def test_evaluate_names_patients_without_prediction(run, write, masks, dataset, tmp_path):
    write_masks(masks / NAME, NAME, read_patient(write(NAME)).truth)
    write(OTHER)
    done = run("evaluate", masks, dataset, "--json", tmp_path / "dice.json")
    assert done.code == 0
    assert f"{OTHER} has no prediction" in done.out
    metrics = json.loads((tmp_path / "dice.json").read_text())
    assert metrics["dice"] == {NAME: 1.0}
    assert metrics["without_prediction"] == [OTHER]


def test_evaluate_compares_a_single_pair_whatever_its_names(run, write, masks, tmp_path):
    folder = write(NAME)
    write_masks(masks, "painted by hand", read_patient(folder).truth)
    done = run("evaluate", masks, folder)
    assert done.code == 0
    assert "1.0000" in done.out


def test_evaluate_refuses_other_grids(run, write, masks):
    folder = write(NAME)
    write_masks(masks, NAME, read_patient(folder).truth[:-1])
    done = run("evaluate", masks, folder)
    assert done.code == 1
    assert done.err.startswith(f"Not counted: {NAME}: ")
    assert str(masks) in done.err
    assert str(folder) in done.err


def test_evaluate_refuses_a_prediction_that_lacks_slices(run, write, masks):
    folder = write(NAME)
    write_masks(masks, NAME, read_patient(folder).truth)
    (masks / f"{NAME}_3_mask.tif").unlink()
    done = run("evaluate", masks, folder)
    assert done.code == 1
    assert f"{NAME}_3_mask.tif" in done.err


def test_evaluate_goes_on_after_a_patient_that_fails(run, write, masks, dataset, tmp_path):
    for name in (NAME, OTHER, THIRD):
        write_masks(masks / name, name, read_patient(write(name)).truth)
    broken = masks / NAME / f"{NAME}_3_mask.tif"
    broken.write_bytes(b"no TIFF")
    done = run("evaluate", masks, dataset, "--json", tmp_path / "dice.json")
    assert done.code == 1
    (line,) = done.err.splitlines()
    assert line.startswith(f"Not counted: {NAME}: {broken}")
    assert "2 patients: mean Dice 1.0000" in done.out
    metrics = json.loads((tmp_path / "dice.json").read_text())
    assert metrics["dice"] == {OTHER: 1.0, THIRD: 1.0}
    assert [f"Not counted: {sentence}" for sentence in metrics["failed"]] == [line]


def test_evaluate_of_patients_that_all_fail_replaces_earlier_results(run, write, masks, tmp_path):
    folder = write(NAME)
    write_masks(masks, NAME, read_patient(folder).truth[:-1])
    (tmp_path / "dice.json").write_text("earlier")
    done = run("evaluate", masks, folder, "--json", tmp_path / "dice.json")
    assert done.code == 1
    assert "No patient could be scored." in done.out
    metrics = json.loads((tmp_path / "dice.json").read_text())
    assert (metrics["patients"], metrics["mean"], metrics["dice"]) == (0, None, {})
    assert len(metrics["failed"]) == 1


def test_evaluate_names_a_second_folder_of_a_patient(run, write, masks, dataset):
    truth = read_patient(write(NAME)).truth
    for folder in ("first", "second"):
        write_masks(masks / folder, NAME, truth)
    done = run("evaluate", masks, dataset)
    assert done.code == 1
    (line,) = done.err.splitlines()
    assert line.startswith("Not counted: ")
    assert str(masks / "first") in line
    assert str(masks / "second") in line
    assert "1 patient: mean Dice 1.0000, median 1.0000, 0 below 0.5, 0 missed; 1 not counted" in done.out


def test_evaluate_of_nothing_is_a_sentence(run, write, tmp_path):
    (tmp_path / "empty").mkdir()
    done = run("evaluate", tmp_path / "empty", write())
    assert done.code == 1
    assert str(tmp_path / "empty") in done.err
