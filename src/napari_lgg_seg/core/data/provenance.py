"""What a result was made from, kept beside it: by this a later run knows which patients are finished."""

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
    """What decides a result, and what computed it.

    Two runs with equal origins give the same labels, but for single voxels that lie at the threshold and
    come out differently with another engine, device or batch; so these are not compared.

    Attributes
    ----------
    images : str
        CRC-32 of the patient's voxels, wherever the files are.
    model : str
        SHA-256 of the model file, wherever it is.
    options : dict
        Those of :class:`napari_lgg_seg.core.options.SegmentOptions` that change labels; the engine only if
        that computes in 8 bits.
    version : str
        Of this package.
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
        """The record's text."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    def differences(self, other: Provenance) -> str:
        """How another result was made differently, in words that follow "made"; empty if it was not."""
        words = []
        if other.images != self.images:
            words.append("from other images")
        if other.model != self.model:
            words.append("with another model")
        changed = [
            k for k in {**self.options, **other.options} if self.options.get(k) != other.options.get(k)
        ]
        if changed:
            words.append(f"with another {' and '.join(name.replace('_', ' ') for name in changed)}")
        if other.version != self.version:
            words.append(f"by version {other.version}")
        return ", ".join(words)


def provenance_of(volume: UInt8Array, model: str, options: SegmentOptions) -> Provenance:
    """The origin of the result for a patient's volume; ``model`` is from :func:`model_checksum`."""
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
    """Name of the hidden file in a patient's folder of results; one for each format."""
    return f".lgg-{file_format}.json"


def read_provenance(folder: Path, file_format: str) -> Provenance | None:
    """What the results in a patient's folder were made from, if that is known."""
    try:
        values = json.loads((folder / provenance_file(file_format)).read_text(encoding="utf-8"))
        return Provenance(**values) if isinstance(values["options"], dict) else None
    except (OSError, ValueError, TypeError, KeyError):  # none, half of one, or somebody else's
        return None
