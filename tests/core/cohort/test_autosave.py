"""Autosaved edits survive the process that wrote them."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from killing import kills

from napari_lgg_seg.core.cohort import autosave as recovery
from napari_lgg_seg.core.cohort.autosave import Edit
from napari_lgg_seg.core.errors import DamagedEditsError, ExportError, RecoveryError


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


# --- damaged and foreign files -----------------------------------------------------------------

LABELS = (np.arange(2 * 30 * 30).reshape(2, 30, 30) % 7 == 0).astype(np.uint8)
HEADER = {
    "patient": "A",
    "title": "tumour",
    "source": "",
    "about": {},
    "saved": 1.0,
    "process": [2**31 - 1, 1],
}


def _npy(array: Any) -> bytes:
    content = BytesIO()
    np.lib.format.write_array(content, np.asarray(array))
    return content.getvalue()


def _claims(descr: str, shape: tuple[int, ...], data: bytes = b"") -> bytes:
    """An array whose header claims a type and shape."""
    content = BytesIO()
    np.lib.format.write_array_header_1_0(content, {"descr": descr, "fortran_order": False, "shape": shape})
    return content.getvalue() + data


def _write(header: Any = HEADER, labels: bytes | None = None) -> Path:
    path = recovery.recovery_folder() / "edits.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("header.npy", header if isinstance(header, bytes) else _npy(json.dumps(header)))
        file.writestr("labels.npy", _npy(LABELS) if labels is None else labels)
    return path


def test_a_file_is_read_as_it_was_written() -> None:
    np.testing.assert_array_equal(recovery.read(_write()).labels, LABELS)
    assert [leftover.patient for leftover in recovery.leftovers()] == ["A"]
    _write({**HEADER, "of a later version": 1})
    assert [leftover.patient for leftover in recovery.leftovers()] == ["A"]


def test_damage_is_noticed_and_never_another_error() -> None:
    path, generator = _write(), random.Random(0)
    good, refused = path.read_bytes(), 0
    for _ in range(400):
        content, place = bytearray(good), generator.randrange(len(good))
        damage = generator.choice(["cut", "zeros", "bit", "end"])
        if damage == "cut":
            del content[place:]
        elif damage == "zeros":
            content[place : place + 20] = bytes(20)
        elif damage == "bit":
            content[place] ^= 1 << generator.randrange(8)
        else:
            content[-generator.randrange(1, 120)] = generator.randrange(256)
        path.write_bytes(content)
        recovery.leftovers()
        try:
            labels = recovery.read(path).labels
        except DamagedEditsError:
            refused += 1
        else:
            np.testing.assert_array_equal(labels, LABELS)
    assert refused > 300


@pytest.mark.parametrize(
    "labels",
    [
        b"",
        _npy(LABELS.astype(np.float32)),
        _npy(LABELS[None]),
        _npy(LABELS[0, 0]),
        _npy(LABELS[:0]),
        _npy(np.array(["text"])),
        _claims("|O", (2, 2)),
        _claims("|u1", (10**4, 10**4, 10**4)),
        _claims("|u1", (-1, -1, 3), b"abc"),
        _claims("|u1", (2, 2, 2), b"short"),
        _claims("|u1", (2, 2, 2), b"much too long"),
    ],
)
def test_labels_that_are_none_are_refused(labels: bytes) -> None:
    with pytest.raises(DamagedEditsError, match=r"edits\.npz does not contain readable edits \(.*\)\.$"):
        recovery.read(_write(labels=labels))


def test_a_small_file_cannot_fill_the_memory() -> None:
    path = _write(labels=_npy(np.zeros((20, 1000, 1000), np.uint8)))
    assert path.stat().st_size < 100_000
    assert not recovery.read(path).labels.any()
    path = _write(labels=_claims("|u1", (2, recovery._LARGEST), bytes(1000)))
    with pytest.raises(DamagedEditsError, match="too large"):
        recovery.read(path)


WRONG = {
    "patient": ["", None, 3],
    "title": [None, 3, []],
    "source": [None, 3],
    "about": [None, [], "text"],
    "saved": ["now", None, -1, 1e300, float("nan")],
    "process": [None, 3, [], [1], ["1", 2], [-1, 0], [2**40, 0]],
}


@pytest.mark.parametrize("name", WRONG)
def test_a_header_with_a_wrong_or_missing_value_is_refused(name: str) -> None:
    for value in WRONG[name]:
        with pytest.raises(DamagedEditsError):
            recovery.read(_write({**HEADER, name: value}))
    with pytest.raises(DamagedEditsError, match=f"{name}: field required"):
        recovery.read(_write({key: value for key, value in HEADER.items() if key != name}))
    assert recovery.leftovers() == []


@pytest.mark.parametrize("header", [_npy(3), _npy("["), _npy("[" * 5000), _claims("<U250000000000", ()), b""])
def test_a_header_that_is_none_is_refused(header: bytes) -> None:
    with pytest.raises(DamagedEditsError):
        recovery.read(_write(header))


def test_damaged_files_are_set_aside_and_named_once() -> None:
    folder = recovery.recovery_folder()
    folder.mkdir(parents=True)
    (folder / "broken.npz").write_bytes(b"PK nothing")
    (folder / "broken.npz.damaged1").write_bytes(b"an earlier one")
    (folder / "folder.npz").mkdir()
    np.savez(folder / "foreign.npz", something=np.ones(3))
    _write()
    with pytest.raises(RecoveryError, match=r"broken\.npz"):
        recovery.read(folder / "broken.npz")
    sentences = recovery.set_aside_damaged()
    assert [Path(sentence.split()[0]).name for sentence in sentences] == [
        "broken.npz",
        "folder.npz",
        "foreign.npz",
    ]
    assert sentences[0].endswith("it is kept as broken.npz.damaged2, and not offered again.")
    assert (folder / "broken.npz.damaged2").read_bytes() == b"PK nothing"
    assert recovery.set_aside_damaged() == []
    assert [leftover.patient for leftover in recovery.leftovers()] == ["A"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are Unix files")
def test_a_named_pipe_is_set_aside() -> None:
    os.mkfifo(_write().with_name("pipe.npz"))
    (sentence,) = recovery.set_aside_damaged()
    assert "pipe.npz does not contain readable edits (it is not a regular file)" in sentence
    assert [leftover.patient for leftover in recovery.leftovers()] == ["A"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_cannot_be_opened_is_named_and_stays() -> None:
    path = _write()
    path.chmod(0)
    for _ in range(2):
        (sentence,) = recovery.set_aside_damaged()
        assert "edits.npz cannot be opened (Permission denied)" in sentence
    assert path.exists()


def test_error_names_the_folder_that_cannot_be_written(tmp_path: Path) -> None:
    recovery.recovery_folder().parent.mkdir(parents=True)
    recovery.recovery_folder().write_text("a file where the folder should be")
    with pytest.raises(ExportError, match="recovery"):
        recovery.save(Edit("A", "tumour", np.ones((2, 4, 4), np.uint8)))
