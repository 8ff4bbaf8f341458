"""Files are replaced completely or not at all, and names are safe on every system."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from killing import kills

from napari_lgg_seg.core.atomic import filling, locked, replacing, safe_name, settle
from napari_lgg_seg.core.errors import BusyError, ExportError


def entries(folder):
    return sorted(path.name for path in folder.iterdir())


def test_replacing_puts_the_new_file_in_place(tmp_path):
    path = tmp_path / "new" / "file.bin"
    for text in ("first", "second"):
        with replacing(path) as temporary:
            assert temporary.parent == path.parent
            temporary.write_text(text)
        assert path.read_text() == text
    assert entries(path.parent) == ["file.bin"]


def test_replaced_file_has_the_usual_permissions(tmp_path):
    (tmp_path / "usual").write_text("x")
    with replacing(tmp_path / "file") as temporary:
        temporary.write_text("x")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), ExportError),
        (OSError("without a number"), ExportError),
        (ValueError("x"), ValueError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_failure_leaves_the_old_file_whole(tmp_path, error, expected):
    path = tmp_path / "file.bin"
    path.write_text("old")

    def fail():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(expected):
        fail()
    assert path.read_text() == "old"
    assert entries(tmp_path) == ["file.bin"]


def test_name_taken_by_a_folder(tmp_path):
    (tmp_path / "taken" / "inside").mkdir(parents=True)
    with (
        pytest.raises(ExportError, match="taken could not be written"),
        replacing(tmp_path / "taken") as temporary,
    ):
        temporary.write_text("x")
    assert entries(tmp_path) == ["taken"]


# --- file systems that lack something, and errors ---------------------------------------------


def failing(code):
    """A function of os that fails in this way."""

    def fail(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    return fail


def write_both_ways(folder, text):
    with replacing(folder / "file.bin") as temporary:
        temporary.write_text(text)
    with filling(folder / "results") as files:
        (files.staging / "a").write_text(text)


@pytest.mark.parametrize(
    ("function", "code"),
    [
        ("chmod", errno.EPERM),
        ("chmod", errno.ENOTSUP),
        ("fsync", errno.EINVAL),
        ("fsync", errno.ENOTSUP),
        ("fsync", errno.ENOSYS),
        ("flock", errno.ENOLCK),
        ("flock", errno.ENOSYS),
        ("flock", errno.ENOTSUP),
    ],
)
def test_files_are_written_where_a_file_system_lacks_something(
    tmp_path, monkeypatch, recwarn, function, code
):
    module = pytest.importorskip("fcntl") if function == "flock" else os
    monkeypatch.setattr(module, function, failing(code))
    for text in ("first", "second"):
        write_both_ways(tmp_path, text)
        assert (tmp_path / "file.bin").read_text() == text
        assert (tmp_path / "results" / "a").read_text() == text
    assert entries(tmp_path) == ["file.bin", "results"]
    assert entries(tmp_path / "results") == ["a"]
    assert not recwarn.list


def test_without_locks_of_the_system_a_file_is_the_lock(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(fcntl, "flock", failing(errno.ENOLCK))
    test_a_lock_holds_for_other_threads_and_leaves_nothing(tmp_path)


def test_without_any_locks_files_are_written_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("filelock.FileLock.acquire", failing(errno.ENOLCK))
    monkeypatch.setattr("filelock.SoftFileLock.acquire", failing(errno.ENOTSUP))
    write_both_ways(tmp_path, "text")
    assert entries(tmp_path) == ["file.bin", "results"]


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.ENOSPC, "free space or choose another folder"),
        (errno.EDQUOT, "free space or choose another folder"),
        (errno.EACCES, "change its permissions"),
        (errno.EPERM, "change its permissions"),
        (errno.EROFS, "read-only"),
        (errno.ENAMETOOLONG, "choose a shorter one"),
        (errno.EIO, "check the drive"),
        (errno.ESTALE, "check the drive"),
        (errno.ENOENT, "choose another folder"),
    ],
)
@pytest.mark.parametrize("function", ["rename", "fsync"])
def test_the_advice_fits_the_error(tmp_path, monkeypatch, function, code, advice):
    write_both_ways(tmp_path, "old")
    for name in (function, "replace") if function == "rename" else (function,):
        monkeypatch.setattr(os, name, failing(code))
    with pytest.raises(ExportError) as error, replacing(tmp_path / "file.bin") as temporary:
        temporary.write_text("new")
    assert str(error.value).startswith(f"{tmp_path / 'file.bin'} could not be written ({os.strerror(code)})")
    with pytest.raises(ExportError) as other, filling(tmp_path / "results") as files:
        (files.staging / "a").write_text("new")
    assert all(advice in str(e.value) for e in (error, other))
    assert ("free space" in str(error.value)) == (code in (errno.ENOSPC, errno.EDQUOT))
    monkeypatch.undo()
    assert [(tmp_path / name).read_text() for name in ("file.bin", "results/a")] == ["old", "old"]
    assert entries(tmp_path) == ["file.bin", "results"]
    assert entries(tmp_path / "results") == ["a"]


def test_a_file_may_have_a_name_of_any_length_that_the_system_allows(tmp_path):
    path = tmp_path / ("n" * 251 + ".txt")
    for text in ("first", "second"):
        with replacing(path) as temporary:
            temporary.write_text(text)
        assert path.read_text() == text
    assert entries(tmp_path) == [path.name]
    with filling(tmp_path / ("f" * 255)) as files:
        (files.staging / "a").write_text("new")
    assert entries(tmp_path) == ["f" * 255, path.name]


def test_text_that_cannot_be_encoded_is_one_sentence(tmp_path):
    with pytest.raises(ExportError, match="not Unicode"), replacing(tmp_path / "file") as temporary:
        temporary.write_text("a\udcff", encoding="utf-8")
    assert entries(tmp_path) == []


# --- killed writers ----------------------------------------------------------------------------


def write_old(folder):
    with replacing(folder / "file.bin") as temporary:
        temporary.write_text("old" * 1000)


def write_new(folder):
    with replacing(folder / "file.bin") as temporary:
        temporary.write_text("new" * 1000)


@pytest.mark.parametrize("half_written", [False, True], ids=["killed", "half written"])
def test_killed_writer_leaves_the_old_file_or_the_new_one(tmp_path, half_written):
    found = []
    for killed in kills(write_old, write_new, tmp_path, half_written=half_written):
        found.append((killed.folder / "file.bin").read_text())
        write_new(killed.folder)
        assert entries(killed.folder) == ["file.bin"], killed
    assert set(found) == {"old" * 1000, "new" * 1000}
    assert found == sorted(found, reverse=True)


@pytest.fixture
def running():
    """Id of another process, which is running."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process.pid
    process.communicate()


@pytest.fixture
def ended():
    """Id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_temporary_files_of_ended_processes_are_removed(tmp_path, running, ended):
    of_ended = f".file.bin.{ended}-abcdefgh.tmp"
    kept = [
        f".file.bin.{running}-abcdefgh.tmp",
        f".file.bin.{os.getpid()}-abcdefgh.tmp",
        f".file.bin.more.{ended}-abcdefgh.tmp",  # of another file
        f".file-bin.{ended}-abcdefgh.tmp",
        ".file.bin.settings.json",
    ]
    for name in (of_ended, *kept):
        (tmp_path / name).write_text("half")
    with replacing(tmp_path / "file.bin") as temporary:
        temporary.write_text("new")
    assert entries(tmp_path) == sorted([*kept, "file.bin"])


def test_temporary_files_of_version_0_1_0_are_removed_once_they_are_old(tmp_path):
    """They do not say which process writes them."""
    old, recent = tmp_path / ".file.bin.abcd_123.tmp", tmp_path / ".file.bin.abcd_124.tmp"
    for path in (old, recent):
        path.write_text("half")
    os.utime(old, (0, 0))
    with replacing(tmp_path / "file.bin") as temporary:
        temporary.write_text("new")
    assert entries(tmp_path) == [recent.name, "file.bin"]


# --- folders -----------------------------------------------------------------------------------


def test_a_failed_block_leaves_no_new_folder(tmp_path):
    folder = tmp_path / "new"

    def fail():
        with filling(folder) as files:
            (files.staging / "a.tif").write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(ExportError, match="No space left"):
        fail()
    assert entries(tmp_path) == []


def test_files_of_an_existing_folder_are_replaced_and_removed_at_once(tmp_path):
    for name in "abc":
        (tmp_path / name).write_text("old")
    with filling(tmp_path) as files:
        (files.staging / "a").write_text("new")
        files.removed.add("b")
        assert (tmp_path / "a").read_text() == "old"
    assert entries(tmp_path) == ["a", "c"]
    assert [(tmp_path / name).read_text() for name in "ac"] == ["new", "old"]


def test_a_committed_change_is_completed_and_an_uncommitted_one_removed(tmp_path):
    folder = tmp_path / "p"
    for hidden in (".lgg-committed", ".lgg-staging"):
        (folder / hidden).mkdir(parents=True)
        (folder / hidden / f"{hidden[5:]}").write_text("new")
    (tmp_path / ".p.lgg-staging").mkdir()
    settle(folder)
    assert entries(folder) == ["committed"]
    assert entries(tmp_path) == ["p"]


def test_a_committed_change_removes_nothing_outside_of_the_folder(tmp_path):
    committed = tmp_path / "p" / ".lgg-committed"
    committed.mkdir(parents=True)
    (tmp_path / "mine").write_text("mine")
    (committed / ".removed.json").write_text('["../mine", "gone"]')
    settle(tmp_path / "p")
    assert (tmp_path / "mine").read_text() == "mine"


@pytest.mark.parametrize(
    "content",
    [b"", b"[", b"{}", b'[1, null, "", "..", "a/b", "\\u0000"]', b"\xff", b"[" * 5000, None],
)
def test_a_damaged_list_of_removed_files_removes_nothing(tmp_path, content):
    committed = tmp_path / "p" / ".lgg-committed"
    committed.mkdir(parents=True)
    (committed / "new").write_text("new")
    (tmp_path / "p" / "old").write_text("old")
    if content is not None:
        (committed / ".removed.json").write_bytes(content)
    elif hasattr(os, "mkfifo"):
        os.mkfifo(committed / ".removed.json")
    settle(tmp_path / "p")
    assert entries(tmp_path / "p") == ["new", "old"]


def test_a_lock_holds_for_other_threads_and_leaves_nothing(tmp_path):
    def take():
        with locked(tmp_path / "p", timeout=0):
            return True

    with ThreadPoolExecutor(1) as other:
        with locked(tmp_path / "p"):
            assert take(), "the same thread may take it again"
            with pytest.raises(BusyError, match="another window or program"):
                other.submit(take).result()
        assert other.submit(take).result()
    assert entries(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "expected"), [("a/b:c", "a_b_c"), (" tumour. ", "tumour"), ("", "labels"), ("..", "labels")]
)
def test_characters_that_are_not_allowed_are_replaced(name, expected):
    assert safe_name(name) == expected


@pytest.mark.skipif(os.name == "nt", reason="Windows has no named pipes in folders")
def test_a_pipe_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ExportError, match="pipe or a device"), replacing(tmp_path / "pipe"):
        pass
    assert (tmp_path / "pipe").is_fifo()
