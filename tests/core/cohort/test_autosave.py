"""Autosaved edits survive the process that wrote them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from killing import kills

from napari_lgg_seg.core.cohort import autosave as recovery
from napari_lgg_seg.core.cohort.autosave import Edit
from napari_lgg_seg.core.errors import ExportError, RecoveryError


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_DATA_HOME", "HOME", "LOCALAPPDATA", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))


def _saved_by_another_process(patient: str, *, killed: bool = True) -> subprocess.Popen[bytes]:
    """A process that autosaves an edit; it is killed unless told otherwise."""
    program = textwrap.dedent(
        f"""
        import time, numpy as np
        from napari_lgg_seg.core.cohort import autosave as recovery
        labels = np.zeros((3, 8, 8), np.uint8); labels[1, 2:5, 2:5] = 2
        recovery.save(recovery.Edit({patient!r}, "tumour", labels, "/data/p", {{"role": "tumour"}}))
        print("saved", flush=True)
        time.sleep(600)
        """
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"saved\n"
    if killed:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    return process


def test_edits_of_a_killed_session_are_found_and_read() -> None:
    _saved_by_another_process("TCGA_DU_0001")
    (leftover,) = recovery.leftovers()
    assert (leftover.patient, leftover.title, leftover.source) == ("TCGA_DU_0001", "tumour", "/data/p")
    edit = recovery.read(leftover.path)
    assert edit.labels.dtype == np.uint8
    assert edit.labels[1, 2:5, 2:5].all()
    assert (edit.labels > 0).sum() == 9
    assert edit.about == {"role": "tumour"}
    recovery.forget(leftover.path)
    assert recovery.leftovers() == []


def test_edits_of_a_running_session_are_not_offered() -> None:
    process = _saved_by_another_process("A", killed=False)
    try:
        recovery.save(Edit("B", "tumour", np.ones((2, 4, 4), np.uint8)))
        assert recovery.leftovers() == []
    finally:
        process.kill()
        process.wait()
    assert [leftover.patient for leftover in recovery.leftovers()] == ["A"]


def test_saving_again_replaces_only_the_file_of_the_same_labels() -> None:
    _saved_by_another_process("A")
    first = recovery.save(Edit("A", "tumour", np.zeros((3, 8, 8), np.uint8), "/data/p"))
    second = recovery.save(Edit("A", "tumour", np.ones((3, 8, 8), np.uint8), "/data/p"))
    other = recovery.save(Edit("A", "truth", np.zeros((3, 8, 8), np.uint8), "/data/p"))
    assert first == second != other
    assert recovery.read(first).labels.all()
    (leftover,) = recovery.leftovers()
    assert leftover.path not in (first, other)


OLD, NEW = 1, 2


def _save(folder: Path, patient: str, value: int) -> None:
    os.environ.update(dict.fromkeys(("XDG_DATA_HOME", "HOME"), str(folder)))
    recovery.save(Edit(patient, "tumour", np.full((3, 32, 32), value, np.uint8), "/data/p"))


def save_before(folder: Path) -> None:
    _save(folder, "before", OLD)


def save_twice(folder: Path) -> None:
    _save(folder, "now", OLD)
    (folder / "saved once").touch()
    _save(folder, "now", NEW)


@pytest.mark.parametrize("half_written", [False, True], ids=["killed", "half written"])
def test_a_session_killed_while_it_saves_leaves_the_old_edits_or_the_new_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, half_written: bool
) -> None:
    seen, temporaries = [], 0
    for killed in kills(save_before, save_twice, tmp_path, half_written=half_written):
        for name in ("XDG_DATA_HOME", "HOME"):
            monkeypatch.setenv(name, str(killed.folder))
        temporaries += len(list(killed.folder.rglob("*.tmp")))
        found = {leftover.patient: recovery.read(leftover.path).labels for leftover in recovery.leftovers()}
        assert not list(killed.folder.rglob("*.tmp")), killed
        assert (found.pop("before") == OLD).all()
        if (killed.folder / "saved once").exists():
            assert "now" in found, killed
        values = np.unique(found["now"]).tolist() if "now" in found else []
        assert len(values) < 2, killed
        seen.append(sum(values))
    assert temporaries > 2
    assert seen == sorted(seen)
    assert set(seen) == {0, OLD, NEW}


def test_temporary_files_of_a_running_session_stay() -> None:
    path = recovery.save(Edit("A", "tumour", np.zeros((3, 8, 8), np.uint8)))
    temporary = path.with_name(f".{path.name}.{os.getpid()}-abcdefgh.tmp")
    temporary.write_bytes(b"half")
    recovery.leftovers()
    assert temporary.exists()


def test_invalid_files_are_skipped() -> None:
    folder = recovery.recovery_folder()
    folder.mkdir(parents=True)
    (folder / "broken.npz").write_bytes(b"PK nothing")
    np.savez(folder / "foreign.npz", something=np.ones(3))
    assert recovery.leftovers() == []
    with pytest.raises(RecoveryError, match=r"broken\.npz"):
        recovery.read(folder / "broken.npz")


def test_error_names_the_folder_that_cannot_be_written(tmp_path: Path) -> None:
    recovery.recovery_folder().parent.mkdir(parents=True)
    recovery.recovery_folder().write_text("a file where the folder should be")
    with pytest.raises(ExportError, match="recovery"):
        recovery.save(Edit("A", "tumour", np.ones((2, 4, 4), np.uint8)))
