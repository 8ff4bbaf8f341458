"""The script that asks whether uncertainty finds the failures, on a few made patients."""

from __future__ import annotations

import json

import pytest
from flair_model import write_flair_model

pytest.importorskip("matplotlib")

from napari_lgg_seg.core.data.masks import write_patient

NAMES = [f"TCGA_DU_000{n}_19990101" for n in range(5)]


@pytest.fixture(scope="module")
def script(benchmarks):
    """The script as a module."""
    import uncertainty

    return uncertainty


@pytest.fixture
def dataset(tmp_path, make_patient):
    """Five patients."""
    for seed, name in enumerate(NAMES):
        write_patient(tmp_path / "data" / name, make_patient(name, shape=(6, 64, 64), seed=seed))
    return tmp_path / "data"


def _row(model: str, dice: float, doubt: float, voxels: int = 100) -> dict:
    way = {"dice": dice, "uncertainty": doubt, "not_promised": doubt, "voxels": voxels}
    return {"model": model, "patient": "x", "plain": way, "mirrored": way}


def test_patients_that_a_model_has_not_seen_are_measured_with_its_own_threshold(
    script, dataset, tmp_path, capsys
):
    own = {"threshold": "auto", "clean_up": "minor", "validation_patients": (NAMES[1],)}
    model = write_flair_model(tmp_path / "own.safetensors", training_patients=(NAMES[0],), **own)
    script.measure(dataset, [model], tmp_path / "doubts.json", None)
    rows = json.loads((tmp_path / "doubts.json").read_text())
    assert [row["patient"] for row in rows] == NAMES[2:]
    assert all(row[way]["dice"] > 0.5 for row in rows for way in script.WAYS)
    assert script.table(rows) in capsys.readouterr().out
    script.show(tmp_path / "doubts.json", tmp_path / "doubts.png")
    assert script.table(rows) in capsys.readouterr().out
    assert (tmp_path / "doubts.png").stat().st_size > 1000


def test_a_model_that_has_seen_all_is_asked_about_its_validation_patients(script, dataset, tmp_path):
    own = {"validation_patients": tuple(NAMES[3:])}
    model = write_flair_model(tmp_path / "all.safetensors", training_patients=tuple(NAMES[:3]), **own)
    script.measure(dataset, [model], tmp_path / "doubts.json", 1)
    assert [row["patient"] for row in json.loads((tmp_path / "doubts.json").read_text())] == [NAMES[3]]


def test_the_table_says_where_the_failures_are(script):
    rows = [_row("a", 0.9, 0.1), _row("a", 0.8, 0.3), _row("a", 0.5, 0.2), _row("a", 0.0, 0.0, voxels=0)]
    first = script.table(rows).splitlines()[2]
    # The one in whom nothing was found comes first, then a good one, then the other failure.
    assert first.startswith("| plain | a | mean entropy | 4 | 1 | 2 | 0.750 (")
    assert first.endswith("| 1 of 2 | 3 of 4 |")


def test_models_stand_alone_and_together_and_without_failures_there_is_no_area(script):
    rows = [_row("a", 0.9, 0.1), _row("b", 0.9, 0.2), _row("b", 0.2, 0.9)]
    lines = [line for line in script.table(rows).splitlines() if "plain" in line and "mean entropy" in line]
    assert [line.split(" | ")[1] for line in lines] == ["a", "b", "all"]
    assert lines[0].endswith("| 1 | 0 | 0 |  |  |  |")
    assert lines[1].split(" | ")[6].startswith("1.000")
