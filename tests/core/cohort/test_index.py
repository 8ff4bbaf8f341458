from __future__ import annotations

import json
import threading

import pytest

from napari_lgg_seg.core.cohort.index import INDEX_NAME, CohortIndex, PatientStatus
from napari_lgg_seg.core.errors import ExportError, ResultsError


@pytest.fixture
def index(tmp_path):
    return CohortIndex(tmp_path / "results")


def test_reading_writes_nothing(index):
    assert index.read() == {}
    assert index.status("anybody") == PatientStatus("new")
    assert not index.path.parent.exists()


def test_statuses_are_read_back(index):
    made_with = {"model": "a", "options": {"tta": True, "threshold": None}}
    index.change(["one"], state="segmented", uncertainty=0.25, made_with=made_with)
    index.change(["one", "two"], state="corrected", by_hand=True)
    again = CohortIndex(index.path.parent)
    assert again.read() == {
        "one": PatientStatus("corrected", True, 0.25, made_with=made_with),
        "two": PatientStatus("corrected", True),
    }
    assert index.path.name == INDEX_NAME


def test_two_windows_do_not_overwrite_each_others_statuses(index):
    other = CohortIndex(index.path.parent)
    index.change(["one"], state="segmented")
    other.change(["two"], state="segmented")
    index.change(["one"], state="exported")
    assert {name: r.state for name, r in other.read().items()} == {"one": "exported", "two": "segmented"}


def test_concurrent_changes_are_not_lost(index):
    def work(kind):
        for number in range(10):
            index.change([f"{kind}{number}"], state="segmented")

    threads = [threading.Thread(target=work, args=(kind,)) for kind in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(index.read()) == 30


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"schema": 1}',
        '{"schema": 99, "patients": {}}',
        '{"schema": 1, "patients": {"a": {"state": "lost"}}}',
        '{"schema": 1, "patients": {"a": {"state": "new", "uncertainty": "much"}}}',
        '{"schema": 1, "patients": {"a": 3}}',
    ],
)
def test_a_damaged_index_is_reported_and_not_changed(index, content):
    index.path.parent.mkdir()
    index.path.write_text(content)
    for act in (index.read, lambda: index.change(["a"], state="new")):
        with pytest.raises(ResultsError, match=r"cohort\.json") as error:
            act()
        assert str(error.value).endswith(".")
        assert "\n" not in str(error.value)
    assert index.path.read_text() == content


def test_fields_of_later_versions_are_ignored(index):
    index.path.parent.mkdir()
    values = {"state": "segmented", "by_hand": False, "uncertainty": None, "made_with": {}, "mood": "good"}
    index.path.write_text(json.dumps({"schema": 1, "patients": {"a": values}}))
    assert index.status("a") == PatientStatus("segmented")


def test_a_folder_that_cannot_be_created_is_reported(index):
    index.path.parent.write_text("a file is in the way")
    with pytest.raises(ExportError, match="results"):
        index.change(["a"], state="segmented")
