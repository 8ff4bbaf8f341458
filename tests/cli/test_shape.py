from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from label_writing import write_labels

from napari_lgg_seg.core.data.label_files import LabelMap
from napari_lgg_seg.core.data.label_reading import read_labels
from napari_lgg_seg.core.evaluation.study.shape import Shape, measure_shape
from napari_lgg_seg.core.evaluation.study.shape_table import read_shapes, write_shapes

NAME = "TCGA_DU_0001_19990101"
OTHER = "TCGA_HT_0002_20000202"
HEADER = "Patient,RNASeqCluster,MethylationCluster,miRNACluster,CNCluster,COCCluster,gender"


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")


@pytest.fixture
def table(tmp_path) -> Path:
    return tmp_path / "shapes.csv"


# --- shape -------------------------------------------------------------------------------------


def test_shape_writes_a_table_of_a_dataset(run, write, dataset, table):
    folder = write(NAME)
    write(OTHER, seed=1)
    (dataset / "data.csv").write_text("Patient\n")
    (dataset / "empty").mkdir()
    code, out, _ = run("shape", dataset, "--csv", table)
    assert code == 0
    shapes = read_shapes(table)
    assert list(shapes) == [NAME, OTHER]
    assert shapes[NAME] == measure_shape(read_labels(folder))
    assert "2 of 2 patients measured, 0 without tumour" in out
    assert str(table) in out
    assert f"{shapes[NAME].bevr:.4f}" in out


@pytest.mark.parametrize("file_format", ["masks", "tiff", "nifti"])
def test_shape_reads_every_format(run, tmp_path, table, file_format):
    if file_format == "nifti":
        pytest.importorskip("nibabel")
    labels = np.zeros((5, 20, 24), np.uint8)
    labels[1:4, 3:11, 5:15] = 1
    labels[2, 3:17, 5:8] = 1
    files = write_labels(tmp_path / "masks", LabelMap(NAME, labels), file_format)
    places = [tmp_path / "masks", tmp_path / "masks" / NAME] + ([files[0]] if file_format != "masks" else [])
    for place in places:
        assert run("shape", place, "--csv", table, "--overwrite")[0] == 0
        assert read_shapes(table) == {NAME: measure_shape(labels)}


def test_shape_of_masks_without_tumour(run, write, table):
    code, out, _ = run("shape", write(tumour=False), "--csv", table)
    assert code == 0
    assert read_shapes(table) == {NAME: Shape(None, None, None, None, 0)}
    assert table.read_text().splitlines()[1].endswith("no tumour")
    assert "1 without tumour" in out


def test_bad_patients_do_not_stop_shape(run, write, dataset, table):
    bad, without = write(NAME), write(OTHER)
    good = write("TCGA_CS_0003_20000303")
    next(iter(bad.glob("*_3_mask.tif"))).write_bytes(b"no picture")
    for mask in without.glob("*_mask.tif"):
        mask.unlink()
    code, out, err = run("shape", dataset, "--csv", table)
    assert code == 1
    assert list(read_shapes(table)) == [good.name]
    assert "1 of 3 patients" in out
    assert err.count("Failed:") == 2
    assert "_3_mask.tif" in err


def test_a_folder_with_two_patients_does_not_stop_shape(run, write, write_slices, dataset, table):
    write(NAME)
    write_slices(dataset / "mixed", "one", 2)
    write_slices(dataset / "mixed", "two", 2)
    (dataset / "empty").mkdir()
    code, _, err = run("shape", dataset, "--csv", table)
    assert code == 1
    assert list(read_shapes(table)) == [NAME]
    assert err.count("Failed:") == 1
    assert "mixed" in err


def test_shape_measures_each_patient_once(run, write, dataset, table, tmp_path):
    folder = write()
    assert run("shape", folder, dataset, "--csv", table)[0] == 0
    assert list(read_shapes(table)) == [NAME]
    write_labels(tmp_path / "again", LabelMap(NAME, np.ones((2, 4, 4), np.uint8)))
    code, _, err = run("shape", dataset, tmp_path / "again", "--csv", table, "--overwrite")
    assert code == 1
    assert f"{tmp_path / 'again' / NAME} holds {NAME} a second time, after {folder}" in err
    assert read_shapes(table)[NAME] == measure_shape(read_labels(folder))


def test_shape_replaces_a_table_only_on_request(run, write, table):
    table.write_text("mine")
    folder = write()
    code, _, err = run("shape", folder, "--csv", table)
    assert code == 1
    assert "exists already" in err
    assert table.read_text() == "mine"
    assert run("shape", folder, "--csv", table, "--overwrite")[0] == 0
    assert list(read_shapes(table)) == [NAME]


def test_shape_without_masks_writes_nothing(run, dataset, table):
    dataset.mkdir()
    code, out, err = run("shape", dataset, "--csv", table)
    assert code == 1
    assert "contains no patient's labels" in err
    assert "0 of 1 patient" in out
    assert not table.exists()


@pytest.mark.parametrize("arguments", [[], ["."], ["nowhere", "--csv", "x.csv"]])
def test_wrong_usage_exits_with_2(run, arguments):
    assert run("shape", *arguments)[0] == 2


# --- associate ---------------------------------------------------------------------------------


@pytest.fixture
def tables(tmp_path, table) -> tuple[Path, Path]:
    """Eight patients with the irregular ones in R2, one without tumour, and one without clusters."""
    shapes = {
        f"TCGA_CS_{n}_19990101": Shape(0.1 + 0.05 * n, 0.5 - 0.05 * n, 0.1, 2, 50) for n in range(8)
    } | {"TCGA_CS_8_19990101": Shape(None, None, None, None, 0), "stranger": Shape(0.3, 0.1, 0.1, 1, 9)}
    write_shapes(table, shapes)
    clusters = tmp_path / "data.csv"
    lines = [f"TCGA_CS_{n},{2 if n < 4 else 1},,{n % 2},,1,2" for n in range(9)]
    clusters.write_text("\n".join([HEADER, *lines]) + "\n")
    return table, clusters


def test_associate_prints_and_writes_the_tests(run, tables, tmp_path):
    metrics = tmp_path / "metrics.json"
    code, out, _ = run("associate", *tables, "--json", metrics)
    assert code == 0
    found = json.loads(metrics.read_text())
    assert len(found["associations"]) == 6
    assert found["associations"][0] == {
        "feature": "bevr",
        "cluster": "RNASeqCluster",
        "patients": 8,
        "median": pytest.approx(0.275),
        "above_median": {"1": 4, "2": 0},
        "cluster_sizes": {"1": 4, "2": 4},
        "p": pytest.approx(2 / 70),
        "corrected": pytest.approx(12 / 70),
    }
    assert found["r2"]["auc"] == 1
    assert found["without_tumour"] == ["TCGA_CS_8_19990101"]
    assert found["unmatched"] == ["stranger"]
    assert "0.0286" in out
    assert "1: 4 of 4, 2: 0 of 4" in out
    assert "AUC 1.000" in out
    assert "TCGA_CS_8_19990101 has no tumour" in out
    assert "stranger is not in" in out


def test_associate_goes_on_after_a_bad_row(run, tables, tmp_path):
    shapes = tables[0]
    shapes.write_text(shapes.read_text().replace("TCGA_CS_3_19990101,", "TCGA_CS_3_19990101,1e400"))
    done = run("associate", *tables, "--json", tmp_path / "metrics.json")
    assert done.code == 1
    (line,) = done.err.splitlines()
    assert line.startswith(f"Not counted: {shapes} has an invalid value in line 5")
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert found["associations"][0]["patients"] == 7
    assert [f"Not counted: {sentence}" for sentence in found["failed"]] == [line]


def test_associate_knows_names_that_look_like_formulas(run, tmp_path, table):
    write_shapes(table, {f"={n}": Shape(0.1 * n, 0.1, 0.1, 2, 50) for n in range(1, 9)})
    clusters = tmp_path / "data.csv"
    lines = [f"={n},{1 + n // 5},,,,,2" for n in range(1, 9)]
    clusters.write_text("\n".join([HEADER, *lines]).replace(",", ";") + "\n", encoding="utf-16")
    done = run("associate", table, clusters)
    assert done.code == 0
    assert "Not counted" not in done.out


def test_associate_refuses_broken_tables_in_one_sentence(run, tables, tmp_path):
    shapes, clusters = tables
    code, _, err = run("associate", clusters, shapes)
    assert code == 1
    assert "no column patient" in err
    assert run("associate", shapes, tmp_path / "missing.csv")[0] == 2
    clusters.write_text(f"{HEADER}\nunknown,1,1,1,1,1,1\n")
    code, _, err = run("associate", shapes, clusters)
    assert code == 1
    assert "No patient" in err


@pytest.mark.real_data
def test_manual_masks_reproduce_the_result_of_the_study(run, lgg_dataset, table, tmp_path):
    assert run("shape", lgg_dataset, "--csv", table)[0] == 0
    assert run("associate", table, lgg_dataset / "data.csv", "--json", tmp_path / "metrics.json")[0] == 0
    found = json.loads((tmp_path / "metrics.json").read_text())
    rnaseq = {test["feature"]: test["p"] for test in found["associations"][:3]}
    # The study: p < 0.0002 for BEVR and < 0.005 for MF of its 92 patients, AUC 0.78 of manual masks.
    assert rnaseq["bevr"] < 0.001
    assert rnaseq["mf"] < 0.01
    assert 0.7 < found["r2"]["auc"] < 0.86
