"""The command line as seen from outside."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

NAME = "TCGA_DU_0001_19990101"
OTHER = "TCGA_HT_0002_20000202"
THIRD = "TCGA_CS_0003_20000303"


class Done(NamedTuple):
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


def contents(folder: Path) -> dict[Path, bytes]:
    """All files below a folder."""
    return {file: file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}
