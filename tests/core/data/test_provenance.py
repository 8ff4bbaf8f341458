"""The hidden record next to labels: only a valid one says who made them."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest

from napari_lgg_seg.core.data.provenance import (
    LabelRecord,
    Provenance,
    StoredFile,
    provenance_file,
    read_record,
)

RUN = Provenance("01234567", "a model", {"threshold": None, "tta": True}, "0.2.0", "torch")
RECORD = LabelRecord(
    "model", {"a.tif": StoredFile("f" * 64, 3)}, RUN, {"model": "U-Net"}, 0.25, 0.5, nothing_found=True
)
OLD = {"images": "0", "model": "m", "options": {}, "version": "0.1.0"}


def read(folder: Path, content: str | bytes) -> LabelRecord | Provenance | None:
    content = content if isinstance(content, bytes) else content.encode()
    (folder / provenance_file("tiff")).write_bytes(content)
    return read_record(folder, "tiff")


def test_a_record_is_read_as_it_was_written(tmp_path):
    assert read(tmp_path, RECORD.to_json()) == RECORD
    assert read(tmp_path, LabelRecord("person").to_json()) == LabelRecord("person")
    assert read(tmp_path, b"\xef\xbb\xbf" + RECORD.to_json().encode()) == RECORD


def test_fields_of_later_versions_are_ignored(tmp_path):
    assert read(tmp_path, json.dumps({**json.loads(RECORD.to_json()), "mood": "good"})) == RECORD


@pytest.mark.parametrize("engine", [{}, {"engine": "torch-compile"}])
def test_version_0_1_0_stored_the_provenance_alone(tmp_path, engine):
    assert read(tmp_path, json.dumps({**OLD, **engine})) == Provenance("0", "m", {}, "0.1.0")


WRONG = {
    "schema": [1, 3, "2", None, True],
    "made_by": ["", "nobody", None, 1, ["model"]],
    "files": [None, [], "a.tif", {"a.tif": 3}, {"a.tif": {"sha256": 1, "size": 3}}, {"a.tif": {"size": 3}}],
    "provenance": [3, "x", [], {}, {**OLD, "images": 1}, {**OLD, "options": []}, {**OLD, "engine": None}],
    "made_with": [None, [], "U-Net", {"options": 3}, {"provenance": {"options": None}}],
    "uncertainty": ["0.5", -1, 1.5, True, float("nan"), float("inf"), 10**400, []],
    "expected_dice": ["0.5", -1, 1.5, True, float("nan"), {}],
    "nothing_found": [None, 0, "no"],
    "exported": [None, 1, "yes"],
}


@pytest.mark.parametrize("name", WRONG)
def test_a_record_with_a_wrong_or_missing_field_is_none(tmp_path, name):
    values = json.loads(RECORD.to_json())
    for value in WRONG[name]:
        assert read(tmp_path, json.dumps({**values, name: value})) is None, value
    if name != "schema":
        del values[name]
        assert read(tmp_path, json.dumps(values)) is None


def test_a_damaged_file_is_no_record(tmp_path):
    good, generator = RECORD.to_json().encode(), random.Random(0)
    for length in range(len(good) - 2):
        assert read(tmp_path, good[:length]) is None
    for content in (b"\xff\xfe", b"\0" * 50, b"[]", b"3", b"null", b"[" * 5000):
        assert read(tmp_path, content) is None
    for _ in range(500):
        changed = bytearray(good)
        changed[generator.randrange(len(good))] ^= 1 << generator.randrange(8)
        read(tmp_path, bytes(changed))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are Unix files")
def test_what_is_no_regular_file_is_no_record(tmp_path):
    assert read_record(tmp_path, "tiff") is None
    os.mkfifo(tmp_path / provenance_file("tiff"))
    assert read_record(tmp_path, "tiff") is None
    (tmp_path / provenance_file("masks")).mkdir()
    assert read_record(tmp_path, "masks") is None


@pytest.mark.parametrize("values", [None, 3, "x", [], {}, {**OLD, "options": {"x": object()}}])
def test_other_values_are_no_provenance(values):
    assert Provenance.from_values(values) is None
