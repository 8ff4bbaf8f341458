"""Notes about the patient that was being corrected when a session ended."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from napari_lgg_seg.core.cohort import unfinished

PATIENT = "TCGA_DU_0001_19990101"


@pytest.fixture
def folders(tmp_path):
    """Folders of a dataset and of its results, each with one patient's."""
    folders = tmp_path / "data", tmp_path / "data-results"
    for folder in folders:
        (folder / PATIENT).mkdir(parents=True)
    return folders


@pytest.fixture
def notes(tmp_path):
    """Where sessions leave their notes."""
    return tmp_path / "sessions"


def die_correcting(notes, folders, patient=PATIENT):
    """Another session that notes a patient and is killed."""
    code = (
        "import os, sys; from pathlib import Path; from napari_lgg_seg.core.cohort import unfinished;"
        "folder, *folders = map(Path, sys.argv[1:4]);"
        "unfinished.note(folder, *folders, sys.argv[4]); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, notes, *folders, patient], check=False, env=os.environ)


def test_a_killed_session_is_found_once(notes, folders):
    die_correcting(notes, folders)
    found = unfinished.take(notes)
    assert (found.dataset, found.results, found.patient) == (*folders, PATIENT)
    assert unfinished.take(notes) is None


def test_the_latest_of_several(notes, folders):
    for patient in ("a", "b", PATIENT):
        for folder in folders:
            (folder / patient).mkdir(exist_ok=True)
        die_correcting(notes, folders, patient)
    assert unfinished.take(notes).patient == PATIENT


def test_a_running_session_is_not_offered(notes, folders):
    unfinished.note(notes, *folders, PATIENT)
    assert unfinished.take(notes) is None
    assert len(list(notes.iterdir())) == 1
    unfinished.forget(notes)
    assert not list(notes.iterdir())
    unfinished.forget(notes)  # no error without a note


@pytest.mark.parametrize("gone", [0, 1])
def test_missing_folders_are_not_offered(notes, folders, gone):
    die_correcting(notes, folders)
    shutil.rmtree(folders[gone])
    assert unfinished.take(notes) is None


def written(notes):
    """The content of the only note."""
    (file,) = notes.glob("*.json")
    return json.loads(file.read_text())


@pytest.mark.parametrize("content", ["", "[]", "{}", json.dumps({"process": [1]}), "\0", "[" * 5000])
def test_invalid_notes_are_skipped(notes, folders, content):
    die_correcting(notes, folders)
    (notes / "other.json").write_text(content)
    assert unfinished.take(notes).patient == PATIENT


WRONG = {
    "dataset": ["", None, 3, []],
    "results": ["", None, 3, {}],
    "patient": ["", "../other", "/", ".", 3, None, ["a"]],
    "saved": ["now", None, float("nan"), 1e300, 10**400, -1, True],
    "process": [[], [1], "1", None, [1.5, 2], ["1", 2], [-1, 0], [10**30, 0], [1, "2"], {"0": 1}],
}


@pytest.mark.parametrize("name", WRONG)
def test_a_note_with_a_wrong_or_missing_value_is_skipped(notes, folders, name):
    die_correcting(notes, folders)
    values = written(notes)
    (file,) = notes.iterdir()
    for value in WRONG[name]:
        file.write_text(json.dumps({**values, name: value, "saved later": True}))
        assert unfinished.take(notes) is None, value
    del values[name]
    file.write_text(json.dumps(values))
    assert unfinished.take(notes) is None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are Unix files")
def test_what_is_no_regular_file_is_skipped(notes, folders):
    die_correcting(notes, folders)
    os.mkfifo(notes / "pipe.json")
    (notes / "folder.json").mkdir()
    assert unfinished.take(notes).patient == PATIENT
