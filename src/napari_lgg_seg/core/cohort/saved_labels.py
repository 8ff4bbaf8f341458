"""Says which labels are safe in files that the user chose, to whoever keeps them from a crash."""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt
from psygnal import Signal


class Saved:
    """What writers put into files."""

    #: Emitted with the checksum of the labels.
    labels = Signal(int)


#: All writers tell this one.
saved = Saved()


def checksum(labels: npt.NDArray[np.generic]) -> int:
    """The same for the same labels of the same dtype."""
    return zlib.crc32(np.ascontiguousarray(labels).data)


def labels_saved(labels: npt.NDArray[np.generic]) -> None:
    """Say that labels are in a file of the user's."""
    saved.labels.emit(checksum(labels))
