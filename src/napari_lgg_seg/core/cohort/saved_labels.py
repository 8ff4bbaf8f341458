"""Announces labels that the user has saved to files, so that their autosaved copies can be removed."""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt
from psygnal import Signal


class Saved:
    """Signals of the writers."""

    #: Emitted with the patient's name and the checksum of the saved labels.
    labels = Signal(str, int)


#: The instance that all writers share.
saved = Saved()


def checksum(labels: npt.NDArray[np.generic]) -> int:
    """CRC-32 of labels; equal for equal labels of the same dtype."""
    return zlib.crc32(np.ascontiguousarray(labels).data)


def labels_saved(labels: npt.NDArray[np.generic], patient: str) -> None:
    """Announce that a patient's labels have been saved to one of the user's files."""
    saved.labels.emit(patient, checksum(labels))
