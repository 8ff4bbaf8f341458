"""Neighbouring slices as additional input channels ("2.5D").

The channels of a slice are the sequences of the slices at offsets -n to n, in that order. Beyond either end
of the volume its outermost slice is repeated.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.intp]


def input_channels(sequences: Sequence[str], neighbours: int) -> int:
    """Number of input channels of a network that sees ``neighbours`` slices on each side of a slice."""
    return len(sequences) * (2 * neighbours + 1)


def with_neighbours(slices: IntArray, total: int, neighbours: int) -> IntArray:
    """Indices of the slices that the network sees for each slice, in ascending order.

    Parameters
    ----------
    slices : ndarray of int
        Shape (m,), slice indices from 0 to ``total`` - 1.
    total : int
        Number of slices in the volume.
    neighbours : int
        Number of neighbouring slices on each side.

    Returns
    -------
    ndarray of int
        Shape (m, 2 * neighbours + 1), slice indices, clipped to the volume.
    """
    offsets = np.arange(-neighbours, neighbours + 1)
    around: IntArray = (slices[:, None] + offsets).clip(0, total - 1)
    return around
