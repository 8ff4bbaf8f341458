"""CSV and JSON files."""

from __future__ import annotations

import csv
import json
import math
import os

import numpy as np
import pytest

from napari_lgg_seg.core.errors import PatientError
from napari_lgg_seg.core.evaluation.tables import as_json, read_csv, write_csv, write_json

NAMES = [
    "=1+1",
    "@SUM(A1)",
    "+1",
    "-1",
    "\tx",
    "\rx",
    "'=x",
    "''=x",
    "'plain",
    " padded ",
    'a "b", c',
    "a;=1",
]
NAMES += ["[rescan]", "Zoë 中", "two\nlines", "\uff1d1"]


def test_formulas_are_neutralised_and_read_back(tmp_path):
    file = tmp_path / "table.csv"
    write_csv(file, ["name", "number"], [(name, -1) for name in NAMES])
    with file.open(encoding="utf-8", newline="") as stream:
        cells = [row["name"] for row in csv.DictReader(stream)]
    assert not any(cell.startswith(("=", "@", "+", "-", "\t", "\r", "\uff1d")) for cell in cells)
    assert cells[0] == "'=1+1"
    assert '"a;=1"' in file.read_text(encoding="utf-8")
    assert [row["name"] for _, row in read_csv(file, ["name"])] == NAMES


def test_numbers_stay_numbers(tmp_path):
    file = tmp_path / "table.csv"
    values = [-1, -0.5, np.float32(-2), np.int64(-3), math.nan, -math.inf, None, True]
    write_csv(file, ["a"] * len(values), [values])
    assert file.read_bytes().splitlines()[1] == b"-1,-0.5,-2.0,-3,,,,True"


def test_json_has_null_for_nan(tmp_path):
    values = {"a": [math.nan, (1.5, -math.inf)], "b": np.float64("nan"), "c": "ä"}
    expected = {"a": [None, [1.5, None]], "b": None, "c": "ä"}
    assert json.loads(as_json(values)) == expected
    write_json(tmp_path / "file.json", values)
    assert json.loads((tmp_path / "file.json").read_text(encoding="utf-8")) == expected


def test_names_that_are_not_unicode_can_be_written(tmp_path):
    name = os.fsdecode(b"caf\xe9")
    write_json(tmp_path / "file.json", [name])
    write_csv(tmp_path / "file.csv", ["name"], [[name]])
    assert json.loads((tmp_path / "file.json").read_text(encoding="utf-8")) == [name]
    assert "caf" in (tmp_path / "file.csv").read_text(encoding="utf-8")


PLAIN = "name,x\nJosé,1\n\nb,2\n"
EXPECTED = [(2, {"name": "José", "x": "1"}), (4, {"name": "b", "x": "2"})]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_tables_of_spreadsheets_are_read(tmp_path, encoding, delimiter, newline):
    file = tmp_path / "table.csv"
    file.write_bytes(PLAIN.replace(",", delimiter).replace("\n", newline).encode(encoding))
    assert read_csv(file, ["name", "x"]) == EXPECTED


@pytest.mark.parametrize(
    "text",
    ["sep=;\nname;x\nJosé;1\n", "\n name , x \nJosé,1\n", "name,x,\nJosé,1,\n,,\n", "name,x\nJosé,1,,\n"],
)
def test_details_of_spreadsheets_are_read(tmp_path, text):
    file = tmp_path / "table.csv"
    file.write_text(text, encoding="utf-8")
    assert [row for _, row in read_csv(file, ["name", "x"])] == [{"name": "José", "x": "1"}]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no column name"),
        (b"name,y\na,1\n", "no column x"),
        (b"name,x,x\na,1,2\n", "two columns x"),
        (b"name,x\n", "no patients"),
        (b"name,x\na\n", "1 fields in line 2 but 2 columns"),
        (b"name,x\na,1,2\n", "3 fields in line 2 but 2 columns"),
        (b'name,x\n"a,1\nb,2\n', "check its quotes"),
        (b'name,x\n"a"b,1\n', "check its quotes"),
        (b"name,x\na\0,1\n", "not plain text"),
        ("name,x\na,1\n".encode("utf-16-le"), "not plain text"),
        (b"\xff\xfea", "not plain text"),
        (b"name,x\n" + b"a" * 200_000 + b",1\n", "cannot be read"),
    ],
)
def test_broken_tables_are_refused_in_one_sentence(tmp_path, data, says):
    file = tmp_path / "table.csv"
    file.write_bytes(data)
    with pytest.raises(PatientError, match=says) as caught:
        read_csv(file, ["name", "x"])
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "missing", tmp_path / ("x" * 300)):
        with pytest.raises(PatientError):
            read_csv(path, ["name"])
