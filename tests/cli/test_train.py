"""The command ``train``."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from flair_model import write_flair_model
from PIL import Image
from program import NAME, OTHER, THIRD

from napari_lgg_seg.core.cohort.store import ResultStore
from napari_lgg_seg.core.data.label_files import LabelMap
from napari_lgg_seg.core.data.masks import write_patient
from napari_lgg_seg.core.data.patients import read_patient
from napari_lgg_seg.core.evaluation.metrics import Summary
from napari_lgg_seg.core.model.checkpoint import DEFAULT_MODEL, read_card
from napari_lgg_seg.core.training import events, train
from napari_lgg_seg.core.training.options import TrainOptions


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


def names(folders: Iterable[Path]) -> list[str]:
    return [folder.name for folder in folders]


def test_train_passes_its_options_on(run, write, dataset, output, pretend, tmp_path):
    for number in range(5):
        write(f"TCGA_DU_000{number}_19990101")
    given = {
        "init": "scratch",
        "network": "buda",
        "sequences": "flair",
        "loss": "dice",
        "epochs": 3,
        "batch_size": 2,
        "learning_rate": 0.01,
        "patience": 4,
        "threshold": 0.4,
        "clean_up": "off",
        "max_minutes": 9.0,
        "seed": 7,
        "device": "cpu",
    }
    recipe = {
        "neighbouring_slices": 2,
        "slices_per_epoch": 40,
        "optimiser": "adamw",
        "warm_up": 0.1,
        "weight_decay": 0.0,
        "gradient_clip": 2.0,
        "validate_every": 5,
        "average_decay": 0.5,
        "tumour_share": 0.4,
        "small_size": 64,
        "small_share": 0.3,
        "augmentation": 1.5,
    }
    assert {*given, *recipe} == {field.name for field in dataclasses.fields(TrainOptions)}
    words = [str(word) for name, value in given.items() for word in (f"--{name.replace('_', '-')}", value)]
    words += [word for name, value in recipe.items() for word in ("--set", f"{name}={value}")]
    done = run("train", dataset, "--output", output, "--validation", 0.4, "--resume", *words)
    assert done.code == 0, done.err
    assert pretend["options"] == TrainOptions(**given, **recipe)
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
        "1 patient for training, 1 for validation; from scratch.",
        "Something to know.",
        "Before training: 1 patient: mean Dice 0.5000, median 0.6000, 1 below 0.5, 0 missed",
        "Epoch 1 of 3: loss 0.4000; validation: 1 patient: mean Dice 0.7500",
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
    assert f"a second time, after {dataset / 'TCGA_DU_0003_19990101'}" in done.err
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
    results = ResultStore(tmp_path / "results")
    for number in range(5):
        folder = write(f"TCGA_DU_000{number}_19990101", seed=number)
        patient = read_patient(folder)
        label_map = LabelMap(patient.name, 3 * patient.truth, patient.slice_numbers)
        if number < 3:
            results.patient(folder.name).write_edits(label_map)
        else:
            results.patient(folder.name).write_prediction(label_map)
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


def test_train_names_a_second_folder_of_a_corrected_patient(run, dataset, corrected, output, pretend):
    shutil.copytree(dataset / NAMES[1], dataset / "again")
    patient = read_patient(dataset / "again")
    label_map = LabelMap(patient.name, patient.truth, patient.slice_numbers)
    ResultStore(corrected).patient("again").write_edits(label_map)
    done = run("train", dataset, "--corrected", corrected, "--output", output)
    assert done.code == 0
    assert done.err.count("Left out: ") == 1
    assert str(dataset / "again") in done.err
    assert str(dataset / NAMES[1]) in done.err
    assert "2 patients for training, 1 for validation" in done.err


def test_train_on_too_few_corrected_patients_is_a_sentence(run, dataset, corrected, output, tmp_path):
    for number in (0, 1):
        (corrected / NAMES[number] / f"{NAMES[number]}_tumour.tif").unlink()
    done = run("train", dataset, "--corrected", corrected, "--output", output)
    assert done.code == 1
    assert f"Error: {corrected} holds corrected labels of 1 patient of {dataset};" in done.err


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
        assert f"{len(added)} of 10 earlier patients in {old} are trained on as well." in done.err
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
    quick = ("--epochs", 1, "--set", "slices_per_epoch=2", "--batch-size", 2, "--device", "cpu")
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
        write(name, shape=(3, 64, 64))
    picture = tmp_path / "pictures" / "batch.png"
    words = ["--epochs", 1, "--set", "slices_per_epoch=4", "--batch-size", 4, "--device", "cpu"]
    words += ["--init", small_model, "--batch-picture", picture]
    done = run("train", dataset, "--output", output, *words)
    assert done.code == 0, done.err
    assert "2 patients for training, 1 for validation; fine-tuning bright FLAIR." in done.err
    assert "Before training: 1 patient" in done.err
    assert "Epoch 1 of 1" in done.err
    assert str(output) in done.out
    card = read_card(output)
    assert card.training["initial_model"] == "bright FLAIR"
    assert len(card.training_patients) == 2
    pixels = np.asarray(Image.open(picture))
    # Four slices of 32 x 32 beside one another, three sequences of each below one another.
    assert pixels.shape == (3 * 32 + 2, 4 * 32 + 3 * 3, 3)
    assert len(np.unique(pixels)) > 50


def test_train_with_neighbouring_slices(run, write, dataset, output, tmp_path):
    """Trained, drawn, and used: by its file alone, everything knows what it sees."""
    for name in (NAME, OTHER, THIRD):
        write(name, shape=(3, 64, 64))
    picture = tmp_path / "batch.png"
    model = write_flair_model(tmp_path / "neighbours.safetensors", neighbours=1, offset=1)
    words = [
        "--epochs",
        1,
        "--set",
        "slices_per_epoch=2",
        "--batch-size",
        2,
        "--device",
        "cpu",
        "--init",
        model,
    ]
    done = run("train", dataset, "--output", output, "--batch-picture", picture, *words)
    assert done.code == 0, done.err
    assert read_card(output).neighbouring_slices == 1
    # Two slices beside one another, each between its neighbours, three sequences below one another.
    assert np.asarray(Image.open(picture)).shape == (3 * 32 + 2, 2 * (3 * 32 + 2) + 3, 3)
    done = run("segment", dataset / NAME, "--output", tmp_path / "masks", "--model", output)
    assert done.code == 0, done.err
    done = run(
        "train", dataset, "--output", tmp_path / "x.safetensors", "--set", "neighbouring_slices=2", *words
    )
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
    number = "1 patient" if patients == 1 else f"{patients} patients"
    assert f"Error: {dataset} holds {number} with masks" in done.err
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
        option = f"--{field.name.replace('_', '-')} "
        assert (option in text) is not (f"{field.name}: " in text), field.name
    whom = ("--validation", "--validation-patients", "--corrected", "--rehearse", "--rehearse-share")
    for option in ("--output", *whom, "--batch-picture", "--set", "--resume"):
        assert f"{option} " in text, option
    assert "10 for fine-tuning, 12 from scratch" in text


@pytest.mark.parametrize(
    "setting",
    ["epochs", "nonsense=1", "slices_per_epoch=few", "tumour_share=2", "optimiser=sgd", "threshold=high"],
)
def test_a_wrong_setting_is_wrong_usage(run, write, dataset, output, pretend, setting):
    write(NAME)
    write(OTHER)
    done = run("train", dataset, "--output", output, "--set", setting)
    assert done.code == 2
    assert not pretend
    assert "--set" in done.err


def test_a_setting_can_be_any_option(run, write, dataset, output, pretend):
    write(NAME)
    write(OTHER)
    settings = ["--set", "threshold=auto", "--set", "max_minutes=2.5", "--set", "tumour-share=0.3"]
    assert run("train", dataset, "--output", output, *settings).code == 0
    assert pretend["options"] == TrainOptions(threshold="auto", max_minutes=2.5, tumour_share=0.3)
