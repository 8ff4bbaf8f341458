"""Whether uncertainty finds the failures: the script on a few synthetic patients."""

from __future__ import annotations

import json

import pytest
from flair_model import write_flair_model

pytest.importorskip("matplotlib")

import uncertainty

NAMES = [f"TCGA_DU_000{n}_19990101" for n in range(5)]


@pytest.fixture
def dataset(write_cohort):
    """Five patients."""
    return write_cohort(NAMES, slices=6)


def _row(model: str, dice: float, doubt: float, voxels: int = 100) -> dict:
    one = {"dice": dice, "uncertainty": doubt, "not_promised": doubt, "voxels": voxels}
    return {"model": model, "patient": "x", "plain": one, "mirrored": one}


def test_unseen_patients_are_measured_with_the_model_s_own_threshold(dataset, tmp_path, capsys):
    own = {"threshold": "auto", "clean_up": "minor", "validation_patients": (NAMES[1],)}
    model = write_flair_model(tmp_path / "own.safetensors", training_patients=(NAMES[0],), **own)
    uncertainty.measure(dataset, [model], tmp_path / "results.json", None)
    rows = json.loads((tmp_path / "results.json").read_text())
    assert [row["patient"] for row in rows] == NAMES[2:]
    assert all(row[prediction]["dice"] > 0.5 for row in rows for prediction in uncertainty.PREDICTIONS)
    assert uncertainty.table(rows) in capsys.readouterr().out
    uncertainty.show(tmp_path / "results.json", tmp_path / "figure.png")
    assert uncertainty.table(rows) in capsys.readouterr().out
    assert (tmp_path / "figure.png").stat().st_size > 1000


def test_a_model_that_has_seen_all_patients_is_measured_on_its_validation_patients(dataset, tmp_path):
    own = {"validation_patients": tuple(NAMES[3:])}
    model = write_flair_model(tmp_path / "all.safetensors", training_patients=tuple(NAMES[:3]), **own)
    uncertainty.measure(dataset, [model], tmp_path / "results.json", 1)
    assert [row["patient"] for row in json.loads((tmp_path / "results.json").read_text())] == [NAMES[3]]


def test_the_table_shows_where_the_failures_are():
    rows = [_row("a", 0.9, 0.1), _row("a", 0.8, 0.3), _row("a", 0.5, 0.2), _row("a", 0.0, 0.0, voxels=0)]
    first = uncertainty.table(rows).splitlines()[2]
    # First comes the one in whom nothing was found, then a good one, then the other failure.
    assert first.startswith("| plain | a | mean entropy | 4 | 1 | 2 | 0.750 (")
    assert first.endswith("| 1 of 2 | 3 of 4 |")


def test_models_have_rows_of_their_own_and_without_failures_the_auc_is_blank():
    rows = [_row("a", 0.9, 0.1), _row("b", 0.9, 0.2), _row("b", 0.2, 0.9)]
    table = uncertainty.table(rows).splitlines()
    lines = [line for line in table if "plain" in line and "mean entropy" in line]
    assert [line.split(" | ")[1] for line in lines] == ["a", "b", "all"]
    assert lines[0].endswith("| 1 | 0 | 0 |  |  |  |")
    assert lines[1].split(" | ")[6].startswith("1.000")
