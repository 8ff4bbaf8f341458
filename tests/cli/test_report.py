from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from label_writing import write_masks
from PIL import Image
from program import Done

from napari_lgg_seg.core.data.masks import write_patient
from napari_lgg_seg.core.evaluation.metrics import dice

NAME, OTHER, THIRD = "TCGA_DU_0001_19990101", "TCGA_HT_0002_20000202", "TCGA_CS_0003_20000303"


@pytest.fixture
def write(tmp_path, make_patient) -> Callable[..., Path]:
    """Factory: write a patient to ``truth`` and its masks, shifted by ``move`` pixels, to ``masks``."""

    def write_(name: str = NAME, move: int = 3) -> Path:
        patient = make_patient(name)
        write_patient(tmp_path / "truth" / name, patient)
        write_masks(tmp_path / "masks" / name, name, np.roll(patient.truth, move, axis=2))
        return tmp_path / "truth" / name

    return write_


@pytest.fixture
def report(run, tmp_path) -> Callable[..., Done]:
    """Factory: write a report of ``masks`` to ``report``."""
    return lambda *options: run("report", tmp_path / "masks", "--output", tmp_path / "report", *options)


@pytest.fixture
def against_truth(report, tmp_path) -> Callable[..., Done]:
    """Factory: the same with ``--truth``."""
    return lambda *options: report("--truth", tmp_path / "truth", *options)


def pixels_of(file: Path) -> np.ndarray:
    return np.asarray(Image.open(file))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def test_report_writes_page_metrics_and_sheets(against_truth, write, tmp_path, make_patient):
    write(NAME)
    write(OTHER, move=12)
    done = against_truth()
    assert done.code == 0
    assert "2 of 2 patients" in done.out
    assert str(tmp_path / "report" / "index.html") in done.out
    assert list(contents(tmp_path / "report")) == [
        "index.html",
        "metrics.csv",
        "metrics.json",
        f"sheets/{NAME}.png",
        f"sheets/{OTHER}.png",
    ]
    metrics = json.loads((tmp_path / "report" / "metrics.json").read_text())
    truth = make_patient().truth
    expected = [dice(np.roll(truth, move, axis=2), truth) for move in (3, 12)]
    assert [p["agreement"]["dice"] for p in metrics["patients"]] == pytest.approx(expected)
    assert f"{expected[0]:.3f}" in done.err
    page = (tmp_path / "report" / "index.html").read_text()
    assert page.count("<section") == 2
    sheet = pixels_of(tmp_path / "report" / "sheets" / f"{NAME}.png")
    assert sheet.shape[1] > 1000


def test_report_of_predictions_only(report, write, tmp_path):
    write()
    done = report()
    assert done.code == 0
    assert "Dice" not in done.err
    assert json.loads((tmp_path / "report" / "metrics.json").read_text())["cohort"] is None


def test_report_with_images_but_without_ground_truth(report, write, tmp_path):
    write()
    assert report().code == 0
    on_black = pixels_of(tmp_path / "report" / "sheets" / f"{NAME}.png")
    assert report("--images", tmp_path / "truth", "--overwrite").code == 0
    assert pixels_of(tmp_path / "report" / "sheets" / f"{NAME}.png").mean() > on_black.mean() + 5


def test_a_bad_patient_does_not_stop_the_report(against_truth, write, tmp_path):
    for name in (NAME, OTHER, THIRD):
        folder = write(name)
        if name == OTHER:
            bad = folder / f"{name}_4.tif"
            bad.write_bytes(bad.read_bytes()[:-100])
    done = against_truth()
    assert done.code == 1
    assert f"Failed: {bad}" in done.err
    assert "2 of 3 patients" in done.out
    assert str(bad) in (tmp_path / "report" / "index.html").read_text()
    assert len(list((tmp_path / "report" / "sheets").iterdir())) == 2


def test_report_names_a_second_folder_of_a_patient(against_truth, write, tmp_path, make_patient):
    write()
    write_masks(tmp_path / "masks" / "again", NAME, make_patient(NAME).truth)
    done = against_truth()
    assert done.code == 1
    assert f"Failed: {tmp_path / 'masks' / 'again'} holds {NAME} a second time" in done.err
    assert str(tmp_path / "masks" / NAME) in done.err
    assert "1 of 2 patients" in done.out


def test_report_of_bad_patients_only_writes_nothing(against_truth, write, tmp_path):
    bad = write() / f"{NAME}_4_mask.tif"
    bad.unlink()
    done = against_truth()
    assert done.code == 1
    assert f"{bad} is missing" in done.err
    assert "0 of 1 patient" in done.out
    assert not (tmp_path / "report").exists()


def test_report_names_patients_that_were_not_compared(against_truth, write, tmp_path):
    write(NAME)
    for file in write(OTHER).iterdir():
        file.unlink()
    for file in (tmp_path / "masks" / write(THIRD).name).iterdir():
        file.unlink()
    done = against_truth()
    assert done.code == 0
    assert "has no ground truth for this patient" in done.err
    metrics = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert metrics["without_prediction"] == [THIRD]
    assert metrics["cohort"]["summary"]["patients"] == 1
    assert THIRD in (tmp_path / "report" / "index.html").read_text()


def test_report_overwrites_only_on_request(against_truth, write, tmp_path):
    write()
    assert against_truth().code == 0
    before = contents(tmp_path / "report")
    write_masks(tmp_path / "masks" / NAME, NAME, np.zeros((6, 64, 64), np.uint8))
    done = against_truth()
    assert done.code == 1
    assert "exists already" in done.err
    assert contents(tmp_path / "report") == before
    assert against_truth("--overwrite").code == 0
    after = contents(tmp_path / "report")
    assert after.keys() == before.keys()
    assert all(after[name] != before[name] for name in after)


def test_report_never_replaces_a_sheet_of_another_report(against_truth, write, tmp_path):
    write()
    sheet = tmp_path / "report" / "sheets" / f"{NAME}.png"
    sheet.parent.mkdir(parents=True)
    sheet.write_bytes(b"mine")
    done = against_truth()
    assert done.code == 1
    assert str(sheet) in done.err
    assert contents(tmp_path / "report") == {f"sheets/{NAME}.png": b"mine"}


def test_output_that_is_a_file_is_refused(run, write, tmp_path):
    write()
    (tmp_path / "report").write_text("")
    done = run("report", tmp_path / "masks", "--output", tmp_path / "report")
    assert done.code == 1
    assert done.err.startswith(f"Error: {tmp_path / 'report'} is a file")


def test_report_of_an_empty_folder_is_refused(run, write, tmp_path):
    write()
    (tmp_path / "empty").mkdir()
    done = run("report", tmp_path / "empty", "--output", tmp_path / "report")
    assert done.code == 1
    assert str(tmp_path / "empty") in done.err
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize("options", [[], ["--truth", "nowhere"], ["--device", "tpu"]])
def test_wrong_usage_exits_with_2(run, tmp_path, monkeypatch, options):
    monkeypatch.chdir(tmp_path)
    assert run("report", ".", *options, *(["--output", "report"] if options else [])).code == 2
    assert list(tmp_path.iterdir()) == []


def test_help_says_how_the_probability_is_computed(run):
    text = " ".join(run("report", "--help").out.replace("│", " ").split())
    assert "the model is run again on the images" in text


# --- probability -------------------------------------------------------------------------------


def test_probability_makes_the_sheet_taller(against_truth, write, tmp_path, small_model):
    write()
    assert against_truth().code == 0
    sheet = tmp_path / "report" / "sheets" / f"{NAME}.png"
    before = pixels_of(sheet)
    assert against_truth("--model", small_model, "--device", "cpu", "--overwrite").code == 0
    after = pixels_of(sheet)
    assert after.shape[0] > before.shape[0] + 40
    assert (after == (252, 253, 191)).all(axis=-1).sum() > 1000


@pytest.mark.parametrize(
    ("move", "words"), [(0, "match the prediction shown"), (5, "differ from the prediction shown")]
)
def test_sheet_states_whether_the_labels_match_the_model(
    run, write, against_truth, tmp_path, small_model, monkeypatch, move, words
):
    folder = write(move=move)
    segmented = tmp_path / "masks"
    if not move:
        done = run("segment", folder, "--model", small_model, "--output", segmented, "--replace-corrected")
        assert done.code == 0
    notes = []
    from napari_lgg_seg.core.evaluation.report import contact_sheet as sheet

    draw = sheet.draw_sheet
    monkeypatch.setattr(sheet, "draw_sheet", lambda *a: notes.append(a[2].note) or draw(*a))
    assert against_truth("--model", small_model, "--device", "cpu").code == 0
    assert words in notes[0]
    assert "bright FLAIR" in notes[0]


def test_no_probability_without_images(report, write, small_model):
    write()
    done = report("--model", small_model)
    assert done.code == 0
    assert "no images were found" in done.err


def test_invalid_model_is_refused_in_one_sentence(report, write, tmp_path):
    write()
    (tmp_path / "m.safetensors").write_text("no model")
    done = report("--model", tmp_path / "m.safetensors")
    assert done.code == 1
    assert done.err.startswith("Error: ")
    assert not (tmp_path / "report").exists()
