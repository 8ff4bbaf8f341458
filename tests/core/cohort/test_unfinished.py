from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from napari_lgg_seg.core.cohort import unfinished

PATIENT = "TCGA_DU_0001_19990101"


@pytest.fixture
def cohort(tmp_path):
    """Folders of a dataset and of its results, each with one patient's."""
    folders = tmp_path / "data", tmp_path / "data-results"
    for folder in folders:
        (folder / PATIENT).mkdir(parents=True)
    return folders


@pytest.fixture
def notes(tmp_path):
    """Where sessions leave their notes."""
    return tmp_path / "sessions"


def die_correcting(notes, cohort, patient=PATIENT):
    """Another session that notes a patient and is killed."""
    code = (
        "import os, sys; from pathlib import Path; from napari_lgg_seg.core.cohort import unfinished;"
        "folder, *cohort = map(Path, sys.argv[1:4]);"
        "unfinished.note(folder, *cohort, sys.argv[4]); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, notes, *cohort, patient], check=False, env=os.environ)


def test_a_killed_session_is_found_once(notes, cohort):
    die_correcting(notes, cohort)
    found = unfinished.take(notes)
    assert (found.dataset, found.results, found.patient) == (*cohort, PATIENT)
    assert unfinished.take(notes) is None


def test_the_latest_of_several(notes, cohort):
    for patient in ("a", "b", PATIENT):
        for folder in cohort:
            (folder / patient).mkdir(exist_ok=True)
        die_correcting(notes, cohort, patient)
    assert unfinished.take(notes).patient == PATIENT


def test_a_session_that_goes_on_is_left_alone(notes, cohort):
    unfinished.note(notes, *cohort, PATIENT)
    assert unfinished.take(notes) is None
    assert len(list(notes.iterdir())) == 1
    unfinished.forget(notes)
    assert not list(notes.iterdir())
    unfinished.forget(notes)  # nor does it matter if nothing was noted


@pytest.mark.parametrize("gone", [0, 1])
def test_folders_that_are_gone_are_not_offered(notes, cohort, gone):
    die_correcting(notes, cohort)
    (cohort[gone] / PATIENT).rmdir()
    assert unfinished.take(notes) is None


@pytest.mark.parametrize("content", ["", "[]", "{}", json.dumps({"process": [1]}), "\0"])
def test_files_that_are_no_notes_are_passed_over(notes, cohort, content):
    die_correcting(notes, cohort)
    (notes / "other.json").write_text(content)
    assert unfinished.take(notes).patient == PATIENT
