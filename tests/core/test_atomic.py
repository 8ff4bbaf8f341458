"""Files are replaced completely or not at all, and names are safe on every system."""

from __future__ import annotations

import errno

import pytest

from napari_lgg_seg.core.atomic import filling, replacing, safe_name
from napari_lgg_seg.core.errors import ExportError


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


def test_a_failed_block_leaves_no_new_folder(tmp_path):
    folder = tmp_path / "new"

    def fail():
        with filling(folder) as temporary:
            (temporary / "a.tif").write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(ExportError, match="No space left"):
        fail()
    assert entries(tmp_path) == []


def test_files_are_added_to_an_existing_folder(tmp_path):
    (tmp_path / "a.tif").write_text("old")
    (tmp_path / "b.tif").write_text("old")
    with filling(tmp_path, ".provenance", "new provenance") as temporary:
        (temporary / "a.tif").write_text("new")
    assert entries(tmp_path) == [".provenance", "a.tif", "b.tif"]
    assert [(tmp_path / name).read_text() for name in entries(tmp_path)] == ["new provenance", "new", "old"]


@pytest.mark.parametrize(
    ("name", "expected"), [("a/b:c", "a_b_c"), (" tumour. ", "tumour"), ("", "labels"), ("..", "labels")]
)
def test_characters_that_are_not_allowed_are_replaced(name, expected):
    assert safe_name(name) == expected
