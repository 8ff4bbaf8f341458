from __future__ import annotations

import pytest

from napari_lgg_seg.core.errors import ExportError, PatientError
from napari_lgg_seg.core.evaluation.study.shape import Shape
from napari_lgg_seg.core.evaluation.study.shape_table import read_shapes, write_shapes

SHAPES = {"a": Shape(0.4, 0.1, 1 / 3, 7, 1234), "b, with comma": Shape(None, None, None, None, 0)}


def test_table_survives_a_round_trip(tmp_path):
    file = tmp_path / "new" / "shapes.csv"
    write_shapes(file, SHAPES)
    assert read_shapes(file) == SHAPES
    lines = file.read_text().splitlines()
    assert lines[0] == "patient,bevr,asd,mf,slice,voxels,note"
    assert lines[2] == '"b, with comma",,,,,0,no tumour'
    assert [path.name for path in file.parent.iterdir()] == ["shapes.csv"]


def test_table_is_not_replaced_silently(tmp_path):
    file = tmp_path / "shapes.csv"
    file.write_text("mine")
    with pytest.raises(ExportError, match="exists already"):
        write_shapes(file, SHAPES)
    assert file.read_text() == "mine"
    write_shapes(file, SHAPES, overwrite=True)
    assert read_shapes(file) == SHAPES
    with pytest.raises(ExportError, match="is a folder"):
        write_shapes(tmp_path, SHAPES, overwrite=True)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no column patient"),
        ("patient,bevr,asd,mf,slice,voxels\n", "no patients"),
        ("patient,bevr,asd\na,1,2\n", "no column mf"),
        ("patient,bevr,asd,mf,slice,voxels\na,much,1,1,1,1\n", "line 2"),
        ("patient,bevr,asd,mf,slice,voxels\na,.5,.1,.1,3,\n", "line 2"),
        ("patient,bevr,asd,mf,slice,voxels\na,.5,,.1,3,9\n", "without features"),
        ("patient,bevr,asd,mf,slice,voxels\na,nan,.1,.1,3,9\n", "bevr is 'nan'"),
        ("patient,bevr,asd,mf,slice,voxels\na,1,1,1,1,1\na,1,1,1,1,1\n", "a twice"),
    ],
)
def test_broken_tables_are_refused(tmp_path, text, says):
    file = tmp_path / "shapes.csv"
    file.write_text(text)
    with pytest.raises(PatientError, match=says):
        read_shapes(file)


HEADER = "patient,bevr,asd,mf,slice,voxels"


@pytest.mark.parametrize(
    "values",
    [
        "1e400,.1,.1,3,9",
        "inf,.1,.1,3,9",
        "-.5,.1,.1,3,9",
        "1.5,.1,.1,3,9",
        "1_0,.1,.1,3,9",
        "nan,.1,.1,,0",
        ".5,.1,.1,3,-9",
        ".5,.1,.1,3,1.000",
        ".5,.1,.1,3,9.5",
        ".5,.1,.1,,9",
    ],
)
def test_a_bad_row_is_left_out_and_named(tmp_path, values):
    file = tmp_path / "shapes.csv"
    file.write_text(f"{HEADER}\nbad,{values}\ngood,.5,.1,.1,3,9\n")
    problems: list[str] = []
    assert read_shapes(file, problems.append) == {"good": Shape(0.5, 0.1, 0.1, 3, 9)}
    assert len(problems) == 1
    assert "line 2" in problems[0]
    with pytest.raises(PatientError, match="line 2"):
        read_shapes(file)


def test_a_table_saved_by_a_german_spreadsheet_is_read(tmp_path):
    file = tmp_path / "shapes.csv"
    file.write_text("patient;bevr;asd;mf;slice;voxels\ngood;0,5;1E-1;,1;3;9\n", encoding="utf-16")
    assert read_shapes(file) == {"good": Shape(0.5, 0.1, 0.1, 3, 9)}


def test_files_that_are_not_tables_are_refused(tmp_path):
    file = tmp_path / "shapes.csv"
    file.write_bytes(b"\xff\xfe\x00")
    for path in (file, tmp_path / "missing.csv"):
        with pytest.raises(PatientError, match="cannot be read"):
            read_shapes(path)
