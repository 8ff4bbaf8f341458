from __future__ import annotations

import dataclasses
import html
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import imageio.v3
import numpy as np
import pytest
import tifffile
from flair_model import write_flair_model
from program import Done

from napari_lgg_seg.core import devices
from napari_lgg_seg.core.cohort.results import CohortResults
from napari_lgg_seg.core.data.discover import patient_folders
from napari_lgg_seg.core.data.label_files import LabelMap
from napari_lgg_seg.core.data.masks import write_masks, write_patient
from napari_lgg_seg.core.data.patients import read_patient
from napari_lgg_seg.core.evaluation.metrics import Summary, dice
from napari_lgg_seg.core.model.checkpoint import DEFAULT_MODEL, read_card
from napari_lgg_seg.core.training import events, train
from napari_lgg_seg.core.training.options import TrainOptions

NAME = "TCGA_DU_0001_19990101"
OTHER = "TCGA_HT_0002_20000202"
THIRD = "TCGA_CS_0003_20000303"


@pytest.fixture(scope="module")
def small_model(tmp_path_factory) -> Path:
    """A quick model file that finds the tumour of made patients."""
    return write_flair_model(tmp_path_factory.mktemp("models") / "bright FLAIR.safetensors")


@pytest.fixture
def dataset(tmp_path) -> Path:
    """Where patients are."""
    return tmp_path / "dataset"


@pytest.fixture
def write(dataset, make_patient) -> Callable[..., Path]:
    """Factory: write a small patient's folder; returns the folder."""

    def write_(name: str = NAME, **head: object) -> Path:
        write_patient(dataset / name, make_patient(name, **head))
        return dataset / name

    return write_


@pytest.fixture
def segment(run, small_model, tmp_path) -> Callable[..., Done]:
    """Factory: ``segment`` with the small model into tmp_path / "masks"."""
    return lambda *arguments: run(
        "segment", "--model", small_model, "--output", tmp_path / "masks", *arguments
    )


@pytest.fixture
def masks(tmp_path) -> Path:
    return tmp_path / "masks"


def contents(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


# --- segment -----------------------------------------------------------------------------------


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
    assert "1 of 1 patients" in done.out
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
        pytest.skip("this system lets nobody make links")
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
    assert "0 of 1 patients" in done.out
    assert not masks.exists()


def test_segment_never_overwrites_unless_told_to(segment, write, masks):
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
def test_segment_never_writes_beside_the_truth(run, write, dataset, small_model, options):
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


@pytest.mark.parametrize(
    "arguments",
    [
        ["--nonsense"],
        ["nonsense"],
        ["segment"],
        ["segment", "."],
        ["segment", "nowhere", "--output", "masks"],
        ["segment", ".", "--output", "masks", "--device", "tpu"],
        ["segment", ".", "--output", "masks", "--threshold", "1.5"],
        ["segment", ".", "--output", "masks", "--threshold", "half"],
        ["evaluate", "."],
        ["evaluate", ".", "nowhere"],
        ["sample"],
        ["train", "."],
        ["train", ".", "--output", "m.safetensors", "--epochs", "0"],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2(run, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments).code == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["segment", "--help"], ["evaluate", "-h"]])
def test_help_is_no_error(run, arguments):
    done = run(*arguments)
    assert done.code == 0
    assert "Usage" in done.out


def test_help_names_every_command(run):
    text = run("--help").out
    for command in ("segment", "evaluate", "report", "sample", "info", "train", "shape", "associate"):
        assert command in text
    assert "not a medical device" in text


# --- evaluate ----------------------------------------------------------------------------------


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
    assert (metrics["below_half"], metrics["missed"], metrics["without_prediction"]) == ([], [], [])
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
    assert done.err.startswith("Error: ")
    assert str(masks) in done.err
    assert str(folder) in done.err


def test_evaluate_refuses_a_prediction_that_lacks_slices(run, write, masks):
    folder = write(NAME)
    write_masks(masks, NAME, read_patient(folder).truth)
    (masks / f"{NAME}_3_mask.tif").unlink()
    done = run("evaluate", masks, folder)
    assert done.code == 1
    assert f"{NAME}_3_mask.tif" in done.err


def test_evaluate_of_nothing_is_a_sentence(run, write, tmp_path):
    (tmp_path / "empty").mkdir()
    done = run("evaluate", tmp_path / "empty", write())
    assert done.code == 1
    assert str(tmp_path / "empty") in done.err


# --- sample, info, train -----------------------------------------------------------------------


@pytest.fixture
def small_sample(monkeypatch, make_patient):
    """The sample patient, made small."""
    monkeypatch.setattr(
        "napari_lgg_seg.core.data.phantom.make_sample_patient", lambda: make_patient("LGG_sample")
    )


def test_sample_is_a_patient_folder(run, small_sample, tmp_path, make_patient):
    done = run("sample", tmp_path / "sample")
    assert done.code == 0
    assert str(tmp_path / "sample") in done.out
    np.testing.assert_array_equal(read_patient(tmp_path / "sample").volume, make_patient().volume)


@pytest.fixture
def small_samples(monkeypatch, make_patient):
    """The made cohort, made small."""
    monkeypatch.setattr(
        "napari_lgg_seg.core.data.phantom_cohort.make_sample_patients",
        lambda count: (make_patient(f"TCGA_XA_000{n}_20000101", seed=n) for n in range(count)),
    )


def test_sample_makes_a_cohort(run, small_samples, tmp_path):
    done = run("sample", tmp_path / "cohort", "--patients", 3)
    assert done.code == 0
    assert f"3 made patients are in {tmp_path / 'cohort'}" in done.out
    folders = patient_folders(tmp_path / "cohort")
    assert names(folders) == [f"TCGA_XA_000{n}_20000101" for n in range(3)]
    volumes = [read_patient(folder).volume for folder in folders]
    assert not np.array_equal(volumes[0], volumes[1])
    assert all(read_patient(folder).truth is not None for folder in folders)


def test_sample_leaves_a_cohort_that_is_there_alone(run, small_samples, tmp_path):
    assert run("sample", tmp_path, "--patients", 2).code == 0
    before = contents(tmp_path)
    done = run("sample", tmp_path, "--patients", 2)
    assert done.code == 1
    assert "TCGA_XA_0000_20000101" in done.err
    assert contents(tmp_path) == before


def test_sample_leaves_a_patient_that_is_there_alone(run, small_sample, write):
    folder = write()
    before = contents(folder)
    done = run("sample", folder)
    assert done.code == 1
    assert str(folder) in done.err
    assert contents(folder) == before


def test_info_prints_the_shipped_models_header(run):
    done = run("info")
    assert done.code == 0
    first, _, rest = done.out.partition("\n")
    assert first == str(DEFAULT_MODEL)
    card = json.loads(rest)
    assert card["schema_version"] == 1
    assert card["sequences"] == ["pre-contrast", "FLAIR", "post-contrast"]
    assert card["training_patients"]
    assert not set(card["training_patients"]) & set(card["validation_patients"])
    for key in ("data", "licence", "created", "package_version", "threshold", "preprocess", "intended_use"):
        assert card[key], key
    low, high = card["results"]["mean_interval"]
    assert low < card["results"]["summary"]["mean"] < high
    assert 0 < card["results"]["calibration"]["expected_error"] < 0.1
    folds = card["results"]["cross_validation"]
    assert folds["summary"]["patients"] == 90
    failed = [row["dice"] for row in folds["failures"]]
    assert failed == sorted(failed)
    assert max(failed) < 0.7


def test_info_tells_the_neighbouring_slices(run, tmp_path):
    model = write_flair_model(tmp_path / "neighbours.safetensors", neighbours=2)
    assert json.loads(run("info", model).out.partition("\n")[2])["neighbouring_slices"] == 2
    assert json.loads(run("info").out.partition("\n")[2])["neighbouring_slices"] == 0


def test_info_of_another_model_and_of_no_model(run, small_model, tmp_path):
    assert json.loads(run("info", small_model).out.partition("\n")[2])["name"] == "bright FLAIR"
    (tmp_path / "no model").write_text("text")
    done = run("info", tmp_path / "no model")
    assert done.code == 1
    assert str(tmp_path / "no model") in done.err


def test_quick_look_finds_a_limit_and_writes_the_model_with_it(run, write, dataset, tmp_path):
    write(shape=(12, 64, 64))
    write(OTHER, shape=(10, 64, 64), seed=1)
    card = {"working_size": 192, "validation_patients": (NAME, OTHER)}
    model = write_flair_model(tmp_path / "model.safetensors", 3, **card)
    before, new = contents(tmp_path), tmp_path / "new.safetensors"
    done = run("quick-look", model, dataset, "--device", "cpu")
    assert done.code == 0
    assert "0.01: Dice with a close look 1.00000 over all voxels, 1.0000 in the worst of 2" in done.out
    assert "Worth a closer look from a probability of 0.01 on." in done.out
    assert contents(tmp_path) == before
    assert read_card(model).coarse_threshold is None
    done = run("quick-look", model, dataset, "--device", "cpu", "--output", new)
    assert f"{new} is written." in done.out
    assert read_card(new) == dataclasses.replace(read_card(model), coarse_threshold=0.01)
    refused = run("quick-look", model, dataset, "--device", "cpu", "--output", new)
    assert refused.code == 1
    assert f"{new} exists already" in refused.err


def test_quick_look_needs_validation_patients(run, write, small_model, dataset, tmp_path):
    write()
    done = run("quick-look", small_model, dataset)
    assert done.code == 1
    assert f"{small_model} names no validation patients" in done.err
    missing = write_flair_model(tmp_path / "missing.safetensors", validation_patients=("nobody",))
    done = run("quick-look", missing, dataset)
    assert done.code == 1
    assert str(dataset / "nobody") in done.err


@pytest.fixture
def pretend(monkeypatch) -> dict[str, object]:
    """Let nothing be trained; what would have been asked for is in this dictionary."""
    asked: dict[str, object] = {}

    def train_(training, validation, output, options, **keywords):
        asked.update(training=training, validation=validation, output=output, options=options, **keywords)
        summary = Summary(1, 0.75, 0.8, (), ())
        yield events.PatientRead("a", 1, 1)
        yield events.Notice("Something to know.")
        yield events.Validated(0, 0, Summary(1, 0.5, 0.6, ("x",), ()), 0.5)
        yield events.StepDone(1, 2, 1, 0.5)
        yield events.PatientValidated("b", 0.75, np.zeros((1, 2, 2), np.uint8), 1, 1)
        yield events.EpochDone(1, 3, 0.4, summary, 0.75)
        yield events.Ended("All is done.")

    monkeypatch.setattr(train, "train", train_)
    return asked


@pytest.fixture
def output(tmp_path) -> Iterator[Path]:
    """Where a model goes; the large state beside it is removed at the end."""
    yield tmp_path / "out" / "model.safetensors"
    shutil.rmtree(tmp_path / "out", ignore_errors=True)


def names(folders: Iterable[Path]) -> list[str]:
    return [folder.name for folder in folders]


def test_train_passes_its_options_on(run, write, dataset, output, pretend, tmp_path):
    for number in range(5):
        write(f"TCGA_DU_000{number}_19990101")
    given = {
        "init": "scratch",
        "network": "buda",
        "sequences": "flair",
        "neighbouring_slices": 2,
        "loss": "dice",
        "epochs": 3,
        "slices_per_epoch": 40,
        "batch_size": 2,
        "learning_rate": 0.01,
        "patience": 4,
        "validate_every": 5,
        "average_decay": 0.5,
        "tumour_share": 0.4,
        "small_size": 64,
        "small_share": 0.3,
        "crop_share": 0.2,
        "augmentation": 1.5,
        "threshold": 0.4,
        "clean_up": "off",
        "max_minutes": 9.0,
        "seed": 7,
        "device": "cpu",
    }
    words = [str(word) for name, value in given.items() for word in (f"--{name.replace('_', '-')}", value)]
    done = run(
        "train", dataset, "--output", output, "--validation", 0.4, "--freeze-encoder", "--resume", *words
    )
    assert done.code == 0
    options = pretend["options"]
    assert {name: getattr(options, name) for name in given} == given
    assert options.freeze_encoder
    assert (pretend["output"], pretend["resume"]) == (output, True)
    assert (len(pretend["training"]), len(pretend["validation"])) == (3, 2)
    assert set(pretend["training"] + pretend["validation"]) == set(dataset.iterdir())


def test_train_leaves_the_rest_to_the_engine(run, write, dataset, output, pretend):
    write(NAME)
    write(OTHER)
    assert run("train", dataset, "--output", output).code == 0
    assert pretend["options"] == TrainOptions()
    assert not pretend["resume"]


def test_train_says_what_happens(run, write, dataset, output, pretend):
    write(NAME)
    write(OTHER)
    done = run("train", dataset, "--output", output, "--init", "scratch")
    for words in (
        "1 patients for training, 1 for validation; from scratch.",
        "Something to know.",
        "Before training: 1 patients: mean Dice 0.5000, median 0.6000, 1 below 0.5, 0 missed",
        "Epoch 1 of 3: loss 0.4000; validation: 1 patients: mean Dice 0.7500",
        "All is done.",
    ):
        assert words in done.err
    assert done.out.strip() == f"The best model is in {output}"


def test_train_names_the_patients_that_it_leaves_out(run, write, dataset, output, pretend):
    for number in range(6):
        write(f"TCGA_DU_000{number}_19990101")
    for mask in (dataset / "TCGA_DU_0001_19990101").glob("*_mask.tif"):
        mask.unlink()
    for image in (dataset / "TCGA_DU_0002_19990101").glob("*_?.tif"):
        image.unlink()
    shutil.copytree(dataset / "TCGA_DU_0003_19990101", dataset / "once more")
    (dataset / "empty").mkdir()
    (dataset / "data.csv").write_text("Patient\n")
    done = run("train", dataset, "--output", output)
    assert done.code == 0
    assert done.err.count("Left out: ") == 3
    for folder in ("TCGA_DU_0001_19990101", "TCGA_DU_0002_19990101", "once more"):
        assert str(dataset / folder) in done.err
    assert sorted(names(pretend["training"]) + names(pretend["validation"])) == [
        f"TCGA_DU_000{number}_19990101" for number in (0, 3, 4, 5)
    ]


def test_train_validates_on_named_patients(run, write, dataset, output, pretend, tmp_path):
    for name in (NAME, OTHER, THIRD):
        write(name)
    listed = tmp_path / "validation.txt"
    listed.write_text(f"{THIRD}\n{NAME}\n")
    assert run("train", dataset, "--output", output, "--validation-patients", listed).code == 0
    assert names(pretend["training"]) == [OTHER]
    assert names(pretend["validation"]) == [THIRD, NAME]
    listed.write_text("nobody we know\n")
    done = run("train", dataset, "--output", output, "--validation-patients", listed)
    assert done.code == 1
    assert "nobody we know" in done.err


@pytest.fixture
def corrected(write, dataset, tmp_path) -> Path:
    """A results folder in which three of five patients are corrected; one of them has no masks."""
    results = CohortResults(tmp_path / "results")
    for number in range(5):
        folder = write(f"TCGA_DU_000{number}_19990101", seed=number)
        patient = read_patient(folder)
        label_map = LabelMap(patient.name, 3 * patient.truth, patient.slice_numbers)
        if number < 3:
            results.write_corrected(folder.name, label_map)
        else:
            results.write_prediction(folder.name, label_map, patient.truth.astype(np.float32))
    for mask in (dataset / NAMES[0]).glob("*_mask.tif"):
        mask.unlink()
    return results.folder


NAMES = [f"TCGA_DU_000{number}_19990101" for number in range(5)]


def test_train_on_corrected_labels(run, dataset, corrected, output, pretend):
    done = run("train", dataset, "--corrected", corrected, "--output", output)
    assert done.code == 0
    assert "2 patients for training, 1 for validation" in done.err
    sources = [*pretend["training"], *pretend["validation"]]
    assert sorted(source.name for source in sources) == NAMES[:3]
    assert all(source.read().truth.any() for source in sources)


def test_train_on_too_few_corrected_patients_is_a_sentence(run, dataset, corrected, output, tmp_path):
    for number in (0, 1):
        CohortResults(corrected).labels_file(NAMES[number]).unlink()
    done = run("train", dataset, "--corrected", corrected, "--output", output)
    assert done.code == 1
    assert f"Error: {corrected} holds corrected labels of 1 patients of {dataset};" in done.err


def test_train_rehearses_old_patients_that_are_no_new_ones(
    run, dataset, corrected, output, pretend, tmp_path, make_patient
):
    old = tmp_path / "old"
    others = [f"TCGA_HT_000{number}_19990101" for number in range(8)]
    for name in (*others, *NAMES):
        write_patient(old / name, make_patient(name, shape=(1, 32, 32)))
    arguments = ("train", dataset, "--corrected", corrected, "--rehearse", old, "--output", output)

    def drawn(*more: object) -> set[str]:
        done = run(*arguments, *more)
        assert done.code == 0
        added = [source for source in pretend["training"] if isinstance(source, Path)]
        assert {source.parent for source in added} == {old}
        assert not any(isinstance(source, Path) for source in pretend["validation"])
        assert f"{len(added)} of 10 old patients of {old} train as well." in done.err
        return set(names(added))

    assert len(drawn()) == 2
    assert not drawn() & set(NAMES[:3])
    assert drawn() == drawn()
    assert {*drawn("--seed", 1), *drawn("--seed", 2), *drawn("--seed", 3)} != drawn("--seed", 1)
    assert len(drawn("--rehearse-share", 0.75)) == 6


def test_the_model_knows_its_corrected_and_old_patients(
    run, dataset, corrected, output, small_model, tmp_path, make_patient
):
    write_patient(tmp_path / "old" / OTHER, make_patient(OTHER, shape=(2, 64, 64)))
    quick = ("--epochs", 1, "--slices-per-epoch", 2, "--batch-size", 2, "--device", "cpu")
    done = run(
        *("train", dataset, "--corrected", corrected, "--rehearse", tmp_path / "old"),
        *("--output", output, "--init", small_model, *quick),
    )
    assert done.code == 0
    card = read_card(output)
    assert OTHER in card.training_patients
    assert sorted({*card.training_patients, *card.validation_patients} - {OTHER}) == NAMES[:3]
    assert OTHER not in card.validation_patients


def test_train_keeps_patients_that_the_initial_model_knows_for_training(
    run, write, dataset, output, pretend, tmp_path
):
    known = read_card(DEFAULT_MODEL).training_patients[:8]
    unknown = [f"TCGA_XX_000{number}_1" for number in range(4)]
    for name in (*known, *unknown):
        write(name, shape=(1, 32, 32))
    assert run("train", dataset, "--output", output).code == 0
    assert len(pretend["validation"]) == 2
    assert set(names(pretend["validation"])) <= set(unknown)
    assert run("train", dataset, "--output", output, "--init", "scratch", "--seed", 1).code == 0
    assert not set(names(pretend["validation"])) <= set(unknown)


def test_train_trains_and_draws_its_first_batch(run, write, dataset, output, small_model, tmp_path):
    for name in (NAME, OTHER, THIRD):
        write(name, shape=(2, 64, 64))
    picture = tmp_path / "pictures" / "batch.png"
    words = ["--epochs", 1, "--slices-per-epoch", 4, "--batch-size", 4, "--device", "cpu"]
    words += ["--init", small_model, "--batch-picture", picture]
    done = run("train", dataset, "--output", output, *words)
    assert done.code == 0, done.err
    assert "2 patients for training, 1 for validation; fine-tuning bright FLAIR." in done.err
    assert "Before training: 1 patients" in done.err
    assert "Epoch 1 of 1" in done.err
    assert str(output) in done.out
    card = read_card(output)
    assert card.training["initial_model"] == "bright FLAIR"
    assert len(card.training_patients) == 2
    pixels = imageio.v3.imread(picture)
    # Four slices of 32 x 32 beside one another, three sequences of each below one another.
    assert pixels.shape == (3 * 32 + 2, 4 * 32 + 3 * 3, 3)
    assert len(np.unique(pixels)) > 50


def test_train_with_neighbouring_slices(run, write, dataset, output, tmp_path):
    """Trained, drawn, and used: by its file alone, everything knows what it sees."""
    for name in (NAME, OTHER, THIRD):
        write(name, shape=(3, 64, 64))
    picture = tmp_path / "batch.png"
    model = write_flair_model(tmp_path / "neighbours.safetensors", neighbours=1, offset=1)
    words = ["--epochs", 1, "--slices-per-epoch", 2, "--batch-size", 2, "--device", "cpu", "--init", model]
    done = run("train", dataset, "--output", output, "--batch-picture", picture, *words)
    assert done.code == 0, done.err
    assert read_card(output).neighbouring_slices == 1
    # Two slices beside one another, each between its neighbours, three sequences below one another.
    assert imageio.v3.imread(picture).shape == (3 * 32 + 2, 2 * (3 * 32 + 2) + 3, 3)
    done = run("segment", dataset / NAME, "--output", tmp_path / "masks", "--model", output)
    assert done.code == 0, done.err
    done = run("train", dataset, "--output", tmp_path / "x.safetensors", "--neighbouring-slices", 2, *words)
    assert done.code == 1
    assert "with 1 neighbouring slice on each side, not a unet network" in done.err


def test_train_never_replaces_a_model(run, write, dataset, tmp_path):
    write()
    output = tmp_path / "model.safetensors"
    output.write_text("precious")
    done = run("train", dataset, "--output", output)
    assert done.code == 1
    assert str(output) in done.err
    assert "--resume" in done.err
    assert output.read_text() == "precious"


@pytest.mark.parametrize("patients", [0, 1])
def test_train_on_too_few_patients_is_a_sentence(run, write, dataset, tmp_path, patients):
    dataset.mkdir()
    for _ in range(patients):
        write()
    done = run("train", dataset, "--output", tmp_path / "model.safetensors", "--device", "cpu")
    assert done.code == 1
    assert f"Error: {dataset} holds {patients} patients with masks" in done.err
    assert not (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--output", "model.pt"], "must end in .safetensors"),
        (["--output", "data.csv/model.safetensors"], "data.csv is a file; choose a folder for the model."),
        (["--output", "m.safetensors", "--init", "nowhere.safetensors"], "nowhere.safetensors"),
        (["--output", "m.safetensors", "--init", "default", "--network", "buda"], "not a buda network"),
    ],
    ids=" ".join,
)
def test_train_refuses_what_cannot_be(run, write, dataset, monkeypatch, tmp_path, words, sentence):
    write(NAME)
    write(OTHER)
    (tmp_path / "data.csv").write_text("Patient\n")
    monkeypatch.chdir(tmp_path)
    done = run("train", dataset, *words)
    assert done.code == 1
    assert done.err.count("Error: ") == 1
    assert sentence in done.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.csv", "dataset"]


def test_train_help_lists_every_option(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    text = run("train", "--help").out
    for field in dataclasses.fields(TrainOptions):
        if field.name not in ("warm_up", "weight_decay", "gradient_clip"):
            assert f"--{field.name.replace('_', '-')} " in text, field.name
    whom = ("--validation", "--validation-patients", "--corrected", "--rehearse", "--rehearse-share")
    for option in ("--output", *whom, "--batch-picture", "--resume"):
        assert f"{option} " in text, option
    assert "10 from a model, 12 from scratch" in text


# --- as a program ------------------------------------------------------------------------------


def program(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "napari_lgg_seg", *map(str, arguments)]
    environment = {**os.environ, "COLUMNS": "200", "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", timeout=600, check=False, env=environment
    )


def test_sample_segment_evaluate_with_the_shipped_model(tmp_path):
    sample, masks, metrics = tmp_path / "sample", tmp_path / "masks", tmp_path / "dice.json"
    done = program("sample", sample)
    assert done.returncode == 0, done.stderr
    done = program("segment", sample, "--output", masks)
    assert done.returncode == 0, done.stderr
    assert "1 of 1 patients" in done.stdout
    done = program("evaluate", masks, sample, "--json", metrics)
    assert done.returncode == 0, done.stderr
    assert json.loads(metrics.read_text())["mean"] > 0.7


def test_program_ends_with_a_sentence_where_it_cannot_go_on(tmp_path):
    done = program("info", tmp_path / "ä nowhere")
    assert done.returncode == 1
    assert "ä nowhere" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="Windows has no way to send Ctrl-C to one program alone")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_training_keeps_its_model_and_goes_on(write, dataset, output, small_model, number):
    for name in (NAME, OTHER):
        write(name, shape=(2, 64, 64))
    words = ["train", dataset, "--output", output, "--init", small_model, "--device", "cpu"]
    words += ["--slices-per-epoch", 4, "--batch-size", 2, "--patience", 0]
    command = [sys.executable, "-m", "napari_lgg_seg", *map(str, words)]
    state = output.with_name("model.state") / "last.pt"
    process = subprocess.Popen(
        [*command, "--epochs", "1000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 300
        # The state with the initial model's validation; steps follow.
        while not state.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(number)
        out, err = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "Go on with --resume." in err
    assert "Traceback" not in err
    assert "The best model" not in out
    assert read_card(output).training["initial_model"] == "bright FLAIR"
    assert sorted(path.name for path in state.parent.iterdir()) == ["history.csv", "last.pt"]
    if number == signal.SIGINT:
        done = program(*words, "--epochs", 1, "--resume")
        assert done.returncode == 0, done.stderr
        assert str(output) in done.stdout


@pytest.mark.real_data
def test_real_patients_are_segmented(run, lgg_dataset, masks, tmp_path):
    folders = [
        lgg_dataset / name for name in json.loads(run("info").out.partition("\n")[2])["validation_patients"]
    ]
    chosen = sorted((f for f in folders if f.is_dir()), key=lambda f: len(list(f.iterdir())))[:2]
    assert len(chosen) == 2
    done = run("segment", *chosen, "--output", masks)
    assert done.code == 0
    assert "2 of 2 patients" in done.out
    for folder in chosen:
        assert read_patient(masks / folder.name).shape == read_patient(folder).shape
    assert run("evaluate", masks, lgg_dataset, "--json", tmp_path / "dice.json").code == 0
    assert json.loads((tmp_path / "dice.json").read_text())["mean"] > 0.3
