"""Provenance of a result, stored with it, from which a later run knows which patients are finished."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..._version import __version__
from ..errors import ModelError
from ..options import label_options

if TYPE_CHECKING:
    from ..options import SegmentOptions
    from .patients import UInt8Array


@dataclass(frozen=True)
class Provenance:
    """What a result was made from, and by which engine.

    Equal provenance means equal labels, except for single voxels at the threshold whose label depends on
    engine, device or batch size. Therefore those are not compared.

    Attributes
    ----------
    images : str
        CRC-32 of the patient's voxels, independent of the location of the files.
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

    def to_json(self) -> str:
        """The content of the provenance file."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    def differences(self, other: Provenance) -> str:
        """How another result differs, as a phrase that follows "made"; empty if it does not."""
        found = []
        if other.images != self.images:
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


def provenance_of(volume: UInt8Array, model: str, options: SegmentOptions) -> Provenance:
    """Provenance of the result for a volume, (z, y, x, 3); ``model`` is from :func:`model_checksum`."""
    images = zlib.crc32(np.ascontiguousarray(volume).data, zlib.crc32(repr(volume.shape).encode()))
    return Provenance(f"{images:08x}", model, label_options(options.as_dict()), __version__)


def model_checksum(path: Path) -> str:
    """SHA-256 of a model file.

    Raises
    ------
    ModelError
        If it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{path} cannot be opened ({error.strerror}); choose another model file.") from error


def provenance_file(file_format: str) -> str:
    """Name of the hidden provenance file in a patient's results folder; one per format."""
    return f".lgg-{file_format}.json"


def read_provenance(folder: Path, file_format: str) -> Provenance | None:
    """Provenance of the results in a patient's folder, or None if unknown."""
    try:
        values = json.loads((folder / provenance_file(file_format)).read_text(encoding="utf-8"))
        return Provenance(**values) if isinstance(values["options"], dict) else None
    except (OSError, ValueError, TypeError, KeyError):  # missing, truncated, or not a provenance file
        return None
