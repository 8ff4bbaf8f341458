"""What a patient's labels were made from and by whom, stored with them in a hidden file.

From it, a later run knows which patients are finished, and which labels are the user's.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from ..._version import __version__
from ..errors import ModelError, PatientError
from ..options import label_options
from .json_files import Count, Fraction, JsonError, build, read_values
from .regular_files import open_regular

if TYPE_CHECKING:
    from ..options import SegmentOptions


_SCHEMA = 2


@dataclass(frozen=True)
class Provenance:
    """What a result was made from, and by which engine.

    Equal provenance means equal labels, except for single voxels at the threshold whose label depends on
    engine, device or batch size. Therefore those are not compared.

    Attributes
    ----------
    images : str
        CRC-32 of the patient's voxels, independent of the location of the files; empty if they have not been
        read yet.
    model : str
        SHA-256 of the model file.
    options : dict
        Those of :class:`napari_lgg_seg.core.options.SegmentOptions` that affect labels; the engine only if it
        is int8.
    version : str
        Version of this package.
    engine : str
        Engine that ran the network, for instance "torch" or "openvino"; empty before that. Records of version
        0.1.0 may name the former engine "torch-compile".
    """

    images: str
    model: str
    options: Mapping[str, Any]
    version: str
    engine: str = field(default="", compare=False)

    @classmethod
    def from_values(cls, values: Any) -> Provenance | None:
        """The provenance from JSON values; None if these are not one."""
        try:
            return build(cls, values)
        except JsonError:
            return None

    def differences(self, other: Provenance) -> str:
        """How another result differs, as a phrase that follows "made"; empty if it does not.

        Images that have not been read yet are not compared.
        """
        found = []
        if self.images and other.images and other.images != self.images:
            found.append("from other images")
        if other.model != self.model:
            found.append("with another model")
        changed = [
            k for k in {**self.options, **other.options} if self.options.get(k) != other.options.get(k)
        ]
        if changed:
            found.append(f"with another {' and '.join(name.replace('_', ' ') for name in changed)}")
        if other.version != self.version:
            found.append(f"by version {other.version}")
        return ", ".join(found)


def provenance_of(
    volume: npt.NDArray[np.generic] | None,
    model: str,
    options: SegmentOptions,
    slice_numbers: Sequence[int] = (),
) -> Provenance:
    """Provenance of the result for a volume, (z, y, x, 3), or for one that has not been read yet.

    ``model`` is from :func:`model_checksum`. Other slice numbers than 1, 2, ... are part of the images: the
    names of the results follow from them.
    """
    images = ""
    if volume is not None:
        shape = zlib.crc32(repr(volume.shape).encode())
        if slice_numbers and list(slice_numbers) != list(range(1, len(volume) + 1)):
            shape = zlib.crc32(repr(tuple(slice_numbers)).encode(), shape)
        images = f"{zlib.crc32(np.ascontiguousarray(volume).data, shape):08x}"
    return Provenance(images, model, label_options(options.as_dict()), __version__)


def model_checksum(path: Path) -> str:
    """SHA-256 of a model file.

    Raises
    ------
    ModelError
        If it cannot be read.
    """
    try:
        stat = path.stat()
        return _checksum(path, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise ModelError(f"{path} cannot be opened ({error.strerror}); choose another model file.") from error


@lru_cache(maxsize=4)
def _checksum(path: Path, size: int, changed: int) -> str:
    """SHA-256 of a file, computed again only if its size or time of change has changed."""
    return file_checksum(path)


def file_checksum(path: Path) -> str:
    """SHA-256 of a file; raises OSError."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def provenance_file(file_format: str) -> str:
    """Name of the hidden provenance file in a patient's results folder; one per format."""
    return f".lgg-{file_format}.json"


@dataclass(frozen=True)
class StoredFile:
    """A file as it was written: SHA-256, and size in bytes."""

    sha256: str
    size: Count

    @classmethod
    def of(cls, path: Path) -> StoredFile:
        """A file as it is now.

        Raises
        ------
        PatientError
            If it cannot be read.
        """
        try:
            return cls(file_checksum(path), path.stat().st_size)
        except OSError as error:
            raise PatientError(
                f"{path} cannot be read ({error.strerror or error}); make it readable, or move it away."
            ) from error

    def is_same(self, path: Path, recorded: int | None = None) -> bool:
        """Whether a file is unchanged.

        Parameters
        ----------
        path : Path
            The file.
        recorded : int, optional
            When its record was written, in ns since the epoch. With it, a file of the same size that is not
            younger counts as unchanged without computing its hash.
        """
        try:
            stat = path.stat()
            if recorded is not None and stat.st_size == self.size and stat.st_mtime_ns <= recorded:
                return True
            return stat.st_size == self.size and file_checksum(path) == self.sha256
        except OSError:
            return False


@dataclass(frozen=True)
class _HasOptions:
    options: Mapping[str, Any]


@dataclass(frozen=True)
class MadeWith:
    """What is read of :attr:`LabelRecord.made_with`, to check it; the rest is only displayed."""

    options: Mapping[str, Any] = field(default_factory=dict)
    provenance: _HasOptions = field(default_factory=lambda: _HasOptions({}))


@dataclass(frozen=True)
class LabelRecord:
    """Content of the hidden file that is stored together with a patient's labels in one format.

    Attributes
    ----------
    made_by : {"model", "person"}
        A person's labels were corrected or accepted by the user.
    files : mapping of str to StoredFile
        The label files by name, and the file of the probability, if there is one.
    provenance : Provenance or None
        Of a model's labels, if known.
    made_with : mapping
        Model and options of the last prediction, for display.
    uncertainty, expected_dice : float or None
        Of the last prediction, see :class:`napari_lgg_seg.core.cohort.store.PatientStatus`.
    nothing_found : bool
        Whether the last prediction was empty.
    exported : bool
        Whether the labels were exported.
    """

    made_by: Literal["model", "person"]
    files: Mapping[str, StoredFile] = field(default_factory=dict)
    provenance: Provenance | None = None
    made_with: Mapping[str, Any] = field(default_factory=dict)
    uncertainty: Fraction | None = None
    expected_dice: Fraction | None = None
    nothing_found: bool = False
    exported: bool = False

    def to_json(self) -> str:
        """The content of the file."""
        values = {"schema": _SCHEMA, **dataclasses.asdict(self)}
        return json.dumps(values, indent=2, default=str) + "\n"

    def with_files(self, paths: Iterable[Path]) -> LabelRecord:
        """The same about these files, as they are now; raises :class:`PatientError` if one cannot be read."""
        return dataclasses.replace(self, files={path.name: StoredFile.of(path) for path in paths})


def read_record(folder: Path, file_format: str) -> LabelRecord | Provenance | None:
    """What is recorded about a patient's labels in one format.

    Returns
    -------
    LabelRecord, Provenance or None
        Version 0.1.0 stored the provenance of a model's labels alone. None if there is no valid record.
    """
    try:
        values = read_values(folder / provenance_file(file_format))
        if "schema" not in values:
            return Provenance.from_values(values)
        if values["schema"] != _SCHEMA or not values.keys() >= LabelRecord.__dataclass_fields__.keys():
            return None
        build(MadeWith, values["made_with"])
        return build(LabelRecord, values)
    except JsonError:  # missing or damaged
        return None
