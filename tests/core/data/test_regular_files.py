from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from napari_lgg_seg.core.data.regular_files import (
    NotRegularError,
    TooLargeError,
    check_regular,
    open_regular,
    read_bytes,
    read_text,
)

unix = pytest.mark.skipif(os.name == "nt", reason="named pipes and sockets are files on Unix")


def test_a_file_and_a_link_to_it_are_read(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"text")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    check_regular(tmp_path / "link")
    with open_regular(tmp_path / "link") as file:
        assert file.read() == b"text"
    assert read_text(tmp_path / "file") == "text"


@unix
def test_a_pipe_a_socket_and_a_device_are_refused_at_once(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # paths of sockets are short
    os.mkfifo("pipe")
    (tmp_path / "link").symlink_to("pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        for path in ("pipe", "link", "socket", "/dev/zero"):
            for read in (check_regular, open_regular, read_bytes, read_text):
                with pytest.raises(NotRegularError, match="not a regular file"):
                    read(path)


def test_a_folder_and_a_missing_file_are_refused(tmp_path: Path):
    with pytest.raises(IsADirectoryError, match="it is a folder"):
        open_regular(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "missing")
    with pytest.raises(OSError, match="its name is invalid"):
        read_text(tmp_path / "nul\0")


def test_a_file_over_the_limit_is_refused(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"12345")
    assert read_bytes(tmp_path / "file", limit=5) == b"12345"
    with pytest.raises(TooLargeError, match="larger than 4 bytes"):
        read_text(tmp_path / "file", limit=4)


def test_text_is_utf8_with_or_without_a_byte_order_mark(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"\xef\xbb\xbfgr\xc3\xbcn")
    assert read_text(tmp_path / "file") == "grün"
    (tmp_path / "file").write_bytes(b"gr\xfcn")
    with pytest.raises(UnicodeDecodeError):
        read_text(tmp_path / "file")
