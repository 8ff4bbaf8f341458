"""Neighbouring slices as further input of the network ("2.5D"): which they are, and in what order.

The channels of a slice are, for each offset from -n to n, the sequences of the slice that lies so far
from it in the volume. Beyond an end of the volume its last slice is repeated.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.intp]


def input_channels(sequences: Sequence[str], neighbours: int) -> int:
    """Input channels of a network that sees so many slices above each slice, and as many below."""
    return len(sequences) * (2 * neighbours + 1)


def with_neighbours(slices: IntArray, total: int, neighbours: int) -> IntArray:
    """What the network sees of each slice: it and its neighbours, from the lowest index to the highest.

    Parameters
    ----------
    slices : ndarray of int
        Shape (m,), indices from 0 to ``total`` - 1.
    total : int
        Slices of the volume.
    neighbours : int
        How many on each side.

    Returns
    -------
    ndarray of int
        Shape (m, 2 * neighbours + 1), indices of the volume's slices.
    """
    offsets = np.arange(-neighbours, neighbours + 1)
    around: IntArray = (slices[:, None] + offsets).clip(0, total - 1)
    return around
