"""A patient's labels in each format, as they are on disk, and who made them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Literal

from ..atomic import reading
from ..choices import FileFormat
from ..data.label_files import label_files
from ..data.patients import parse_name
from ..data.provenance import LabelRecord, Provenance, StoredFile, provenance_file, read_record
from .old_index import INDEX_NAME, read_old_record

#: The order in which formats are preferred for reading.
FORMATS: tuple[FileFormat, ...] = ("tiff", "masks", "nifti")
#: Version 0.1.0 wrote labels and record one after the other; what changed later was changed by others.
_WRITTEN_TOGETHER = 2_000_000_000  # ns


@dataclass(frozen=True)
class FoundLabels:
    """A patient's labels in one format.

    Attributes
    ----------
    file_format : str
        Their format.
    files : list of Path
        The label files, at least one.
    record : LabelRecord or None
        What is recorded about them.
    changed : list of Path
        Files that are not those of the record.
    is_complete : bool
        Whether all files of the record are there.
    """

    file_format: FileFormat
    files: list[Path]
    record: LabelRecord | None
    changed: list[Path]
    is_complete: bool

    @property
    def owner(self) -> Literal["model", "person", "unknown"]:
        """Who made them; unknown if they are not those of the record."""
        return "unknown" if self.record is None or self.changed else self.record.made_by

    @property
    def provenance(self) -> Provenance | None:
        """What a model's labels were made from; None if they are not complete, or if it is unknown."""
        known = self.owner == "model" and self.is_complete
        return self.record.provenance if known and self.record is not None else None

    def stored_probability(self, path: Path) -> dict[str, StoredFile]:
        """The record's entry about a probability file; empty if it does not belong to these labels."""
        if self.owner == "unknown" or self.record is None or not os.path.isfile(path):  # noqa: PTH113
            return {}
        if not self.record.files:  # of version 0.1.0, which stored no hashes
            return {path.name: StoredFile.of(path)}
        stored = self.record.files.get(path.name)
        return {path.name: stored} if stored is not None and stored.is_same(path) else {}


def find_labels(
    folder: Path, name: str, *, verify: bool, slice_numbers: Sequence[int] = ()
) -> list[FoundLabels]:
    """A patient's labels in each format that is there; a person's first, then in the order of preference.

    Parameters
    ----------
    folder : Path
        The patient's results folder.
    name : str
        The patient's name.
    verify : bool
        Compute the hashes of files, even if they have the size in the record and are not younger.
    slice_numbers : sequence of int
        The patient's slices, to check whether masks of version 0.1.0 are complete.

    Raises
    ------
    ResultsError
        If the states that version 0.1.0 stored cannot be read.
    ExportError
        If the folder cannot be read.
    """
    with reading(folder):
        return _labels_in(folder, name, verify, slice_numbers)


def _labels_in(folder: Path, name: str, verify: bool, slice_numbers: Sequence[int]) -> list[FoundLabels]:
    found = []
    for file_format in FORMATS:
        files = label_files(folder, name, file_format)
        if not files:
            continue
        record = read_record(folder, file_format)
        if isinstance(record, LabelRecord):
            found.append(_recorded(file_format, files, record, name, verify=verify))
            continue
        before = None
        # A record of this version that was damaged is not replaced by what an older one said.
        if file_format == "tiff" and (record is not None or not (folder / provenance_file("tiff")).exists()):
            before = read_old_record(folder.parent, name)
        found.append(_recorded_before(file_format, files, record, before))
        if file_format == "masks" and slice_numbers:
            numbers = {parsed[1] for file in files if (parsed := parse_name(file)) is not None}
            complete = found[-1].is_complete and numbers == set(slice_numbers)
            found[-1] = replace(found[-1], is_complete=complete)
    return sorted(found, key=lambda labels: labels.owner != "person")


def _recorded(
    file_format: FileFormat, files: list[Path], record: LabelRecord, name: str, *, verify: bool
) -> FoundLabels:
    known = {file: stored for file, stored in record.files.items() if file != probability_name(name)}
    recorded = None if verify else _stat(files[0].parent / provenance_file(file_format))[1]
    changed = [f for f in files if f.name not in known or not known[f.name].is_same(f, recorded)]
    return FoundLabels(file_format, files, record, changed, {file.name for file in files} == known.keys())


def _recorded_before(
    file_format: FileFormat, files: list[Path], provenance: Provenance | None, index: LabelRecord | None
) -> FoundLabels:
    """Labels of version 0.1.0, which stored no hashes."""
    stats = {file: _stat(file) for file in files}
    complete = all(size > 0 for size, _ in stats.values())  # a power failure left empty ones
    if index is None and provenance is None:
        return FoundLabels(file_format, files, None, files, complete)
    record = replace(index or LabelRecord("model"), provenance=provenance)
    folder = files[0].parent
    known = [] if provenance is None else [folder / provenance_file(file_format)]
    known += [] if index is None else [folder.parent / INDEX_NAME]
    written = max(_stat(path)[1] for path in known)
    changed = [f for f, (_, time) in stats.items() if time > written + _WRITTEN_TOGETHER]
    return FoundLabels(file_format, files, record, changed, complete)


def _stat(path: Path) -> tuple[int, int]:
    """Size, and time of the last change in ns; 0 for a file that has just been removed."""
    try:
        stat = path.stat()
        return stat.st_size, stat.st_mtime_ns
    except OSError:
        return 0, 0


def is_reviewed(folder: Path) -> bool:
    """Whether a folder is one patient's in results that the cohort browser can save edits to."""
    files = (folder / provenance_file("tiff"), folder.parent / INDEX_NAME)
    return any(os.path.isfile(file) for file in files)  # noqa: PTH113 - Path.is_file raises errors


def probability_name(name: str) -> str:
    """Name of the file of a patient's probability."""
    return f"{name}_probability.tif"


def revision_of(found: Sequence[FoundLabels]) -> str:
    """Identifies labels and who made them; empty if there are none."""
    if not found:
        return ""
    files = [(f.name, StoredFile.of(f).sha256) for labels in found for f in labels.files]
    owners = [(labels.file_format, labels.owner) for labels in found]
    return sha256(repr((sorted(files), sorted(owners))).encode()).hexdigest()
