"""The cache of patient summaries: when it is used, and that everything works without it."""

from __future__ import annotations

import json
import os
import sqlite3

import numpy as np
import pytest

from napari_lgg_seg.core.cohort import summary_cache
from napari_lgg_seg.core.cohort.patient_summary import PatientSummary, read_summary
from napari_lgg_seg.core.cohort.summary_cache import SummaryCache, cached_summary
from napari_lgg_seg.core.data.label_files import LabelMap

NAME = "TCGA_DU_0001_19990101"


@pytest.fixture
def reads(monkeypatch):
    """Folders of the patients that were read from disk."""
    read, seen = summary_cache.read_summary, []

    def spy(folder, labels):
        seen.append(folder.name)
        return read(folder, labels)

    monkeypatch.setattr(summary_cache, "read_summary", spy)
    return seen


def summary_of(folder, results, path):
    with SummaryCache(path) as cache:
        return cached_summary(folder, results.patient(NAME), cache)


def assert_same(one, other):
    for name in PatientSummary.__dataclass_fields__:
        np.testing.assert_equal(getattr(one, name), getattr(other, name))


def test_unchanged_patients_are_read_once(folder, results, tmp_path, reads):
    first = summary_of(folder, results, tmp_path / "deep" / "cache")
    second = summary_of(folder, results, tmp_path / "deep" / "cache")
    assert reads == [NAME]
    assert_same(first, second)
    assert second.thumbnail is not None


@pytest.mark.parametrize("change", ["touch", "rewrite", "add", "remove", "labels"])
def test_changed_patients_are_read_again(folder, results, tmp_path, reads, patient, change):
    summary_of(folder, results, tmp_path / "cache")
    file = folder / f"{NAME}_6.tif"
    if change == "touch":
        os.utime(file, ns=(1, 1))
    elif change == "rewrite":
        file.write_bytes(file.read_bytes() + b"0")
    elif change == "add":
        (folder / f"{NAME}_8.tif").write_bytes(file.read_bytes())
    elif change == "remove":
        file.unlink()
    else:
        results.patient(NAME).write_edits(LabelMap(NAME, patient.truth))
    summary = summary_of(folder, results, tmp_path / "cache")
    assert reads == [NAME, NAME]
    assert (summary.dice == 1) == (change == "labels")


def test_broken_patients_are_read_again(folder, results, tmp_path, reads):
    (folder / f"{NAME}_3.tif").unlink()
    for _ in range(2):
        assert summary_of(folder, results, tmp_path / "cache").problem
    assert reads == [NAME, NAME]


def test_broken_labels_become_the_problem(folder, results, tmp_path):
    path = results.folder / NAME / f"{NAME}_tumour.tif"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no TIFF")
    assert path.name in summary_of(folder, results, tmp_path / "cache").problem


def test_an_updated_summary_is_found(folder, results, tmp_path, reads):
    summary = read_summary(folder, None)
    with SummaryCache(tmp_path / "cache") as cache:
        cache.update(folder, results.patient(NAME), summary)
    assert_same(summary_of(folder, results, tmp_path / "cache"), summary)
    assert reads == []


def test_a_damaged_cache_is_replaced(folder, results, tmp_path, reads):
    path = tmp_path / "cache"
    path.write_bytes(b"no database, but long enough to be taken for one" * 100)
    for _ in range(2):
        assert summary_of(folder, results, path).slices == 6
    assert reads == [NAME]


def change_row(path, column, value):
    with sqlite3.connect(path) as database:
        assert database.execute(f"UPDATE cases SET {column} = ?", (value,)).rowcount == 1
    database.close()


WRONG = {
    "slices": [0, -1, "6", None, 1.5, True, 10**30],
    "missing": ["FLAIR", None, ["T2"], [1]],
    "truth": [3, {}, {"voxels": -1, "slices": 1}, {"voxels": "1", "slices": 1}],
    "predicted": [[], {"voxels": 1}, {"voxels": 1.5, "slices": None}],
    "dice": ["1", -1, 2, float("nan"), []],
    "problem": [None, 1, "a problem is not stored"],
    "shape": [None, [], [3, 3], [64, 64, 1], [10**6, 10**6], [-1, 3], "64"],
}


@pytest.mark.parametrize("name", WRONG)
def test_a_row_with_a_wrong_value_is_read_again(folder, results, tmp_path, reads, name):
    path = tmp_path / "cache"
    first = summary_of(folder, results, path)
    with sqlite3.connect(path) as database:
        ((good,),) = database.execute("SELECT details FROM cases").fetchall()
    database.close()
    for number, value in enumerate(WRONG[name], 2):
        change_row(path, "details", json.dumps({**json.loads(good), name: value}))
        assert_same(summary_of(folder, results, path), first)
        assert len(reads) == number, value


@pytest.mark.parametrize("text", ["", "{", "[]", "null", b"\xff", 3, None, "[" * 5000])
def test_a_damaged_row_is_read_again(folder, results, tmp_path, reads, text):
    first = summary_of(folder, results, tmp_path / "cache")
    change_row(tmp_path / "cache", "details", text)
    for _ in range(2):
        assert_same(summary_of(folder, results, tmp_path / "cache"), first)
    assert reads == [NAME, NAME]


@pytest.mark.parametrize("picture", [b"", b"short", "text", 3])
def test_a_row_with_a_damaged_thumbnail_is_read_again(folder, results, tmp_path, reads, picture):
    first = summary_of(folder, results, tmp_path / "cache")
    change_row(tmp_path / "cache", "thumbnail", picture)
    assert_same(summary_of(folder, results, tmp_path / "cache"), first)
    assert reads == [NAME, NAME]


def test_a_row_with_an_unknown_field_is_used(folder, results, tmp_path, reads):
    path = tmp_path / "cache"
    first = summary_of(folder, results, path)
    with sqlite3.connect(path) as database:
        ((good,),) = database.execute("SELECT details FROM cases").fetchall()
    database.close()
    change_row(path, "details", json.dumps({**json.loads(good), "mood": "good"}))
    assert_same(summary_of(folder, results, path), first)
    assert reads == [NAME]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are Unix files")
def test_a_named_pipe_is_no_cache(folder, results, tmp_path):
    os.mkfifo(tmp_path / "cache")
    assert summary_of(folder, results, tmp_path / "cache").slices == 6


def test_everything_works_without_a_cache(folder, results, tmp_path, reads):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "cache", tmp_path):
        assert summary_of(folder, results, path).slices == 6
    # Another window has locked it.
    summary_of(folder, results, tmp_path / "cache")
    other = sqlite3.connect(tmp_path / "cache", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    assert summary_of(folder, results, tmp_path / "cache").slices == 6
    other.close()


def test_a_folder_whose_name_is_no_text_is_cached(folder, results, tmp_path, reads):
    odd = folder.with_name("odd\udcff")
    try:
        folder.rename(odd)
    except OSError:
        pytest.skip("this system has no such names")
    for _ in range(2):
        summary_of(odd, results, tmp_path / "cache")
    assert reads == [odd.name]
