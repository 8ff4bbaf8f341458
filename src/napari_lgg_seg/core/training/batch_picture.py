"""Contact sheets of training batches, to check what a network is trained on."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..atomic import replacing

if TYPE_CHECKING:
    from torch import Tensor

UInt8Array = npt.NDArray[np.uint8]

#: The tumour's colour, as in the viewer (Okabe and Ito's vermilion).
TUMOUR_COLOUR = (0xD5, 0x5E, 0x00)
#: Width in pixels of the separators between slices and between the images of a slice, and their grey value.
SLICE_GAP, SEQUENCE_GAP, SEPARATOR = 3, 1, 96


def batch_picture(images: Tensor, masks: Tensor, columns: int = 4, neighbours: int = 0) -> UInt8Array:
    """Draw a contact sheet of a training batch.

    Each slice shows its sequences one below the other, with an outline around the tumour, and the
    neighbouring slices that the network sees to its left and right. Each sequence is scaled from its 1st to
    its 99th percentile over the whole batch, so that slices can be compared.

    Parameters
    ----------
    images : Tensor
        Shape (n, c, h, w), any scale; with neighbours, channels in the order of
        :mod:`napari_lgg_seg.core.model.neighbours`.
    masks : Tensor
        Shape (n, 1, h, w), 0 to 1; tumour from 0.5.
    columns : int
        Slices per row.
    neighbours : int
        Number of neighbouring slices on each side among the channels.

    Returns
    -------
    ndarray of uint8
        Shape (height, width, 3), RGB.
    """
    by_slice = images.reshape(len(images), 2 * neighbours + 1, -1, *images.shape[2:])
    pixels = _coloured(_to_grey(_as_array(by_slice)), _outline(_as_array(masks)[:, 0] >= 0.5))
    # Stack sequences vertically, join neighbours and then slices horizontally, and stack the rows.
    slices = [
        _joined([_joined(list(sequences), SEQUENCE_GAP, axis=0) for sequences in seen], SEQUENCE_GAP, axis=1)
        for seen in pixels
    ]
    columns = min(columns, len(slices))
    slices += [np.zeros_like(slices[0])] * (-len(slices) % columns)
    rows = [slices[start : start + columns] for start in range(0, len(slices), columns)]
    return _joined([_joined(row, SLICE_GAP, axis=1) for row in rows], SLICE_GAP, axis=0)


def write_picture(path: str | os.PathLike[str], pixels: UInt8Array) -> None:
    """Write a picture as PNG, atomically: an existing file stays intact until the new one is complete.

    Parameters
    ----------
    path : path
        The file.
    pixels : ndarray of uint8
        Shape (height, width, 3), RGB.

    Raises
    ------
    ExportError
        If the disk is full or the folder cannot be written.
    """
    from PIL import Image

    with replacing(path) as temporary:
        Image.fromarray(pixels).save(temporary, "PNG")


def _as_array(tensor: Tensor) -> npt.NDArray[np.float32]:
    array: npt.NDArray[np.float32] = tensor.detach().float().cpu().numpy()
    return array


def _to_grey(images: npt.NDArray[np.float32]) -> UInt8Array:
    low, high = np.percentile(images, (1, 99), axis=(0, 1, 3, 4), keepdims=True)
    share = (images - low) / np.maximum(high - low, 1e-6)
    grey: UInt8Array = np.rint(255 * share.clip(0, 1)).astype(np.uint8)
    return grey


def _outline(tumour: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The pixels around each slice's tumour, (n, h, w), which leave the tumour itself visible."""
    from scipy.ndimage import binary_dilation

    within_slices = np.ones((1, 3, 3), bool)
    outline: npt.NDArray[np.bool_] = binary_dilation(tumour, within_slices) & ~tumour
    return outline


def _coloured(grey: UInt8Array, outline: npt.NDArray[np.bool_]) -> UInt8Array:
    """Grey slices with neighbours, (n, 2k + 1, c, h, w), as RGB with outlines on the middle slices."""
    colours = np.repeat(grey[..., None], 3, axis=-1)
    middle = colours[:, grey.shape[1] // 2]
    middle[np.broadcast_to(outline[:, None], middle.shape[:-1])] = TUMOUR_COLOUR
    return colours


def _joined(tiles: list[UInt8Array], gap: int, axis: int) -> UInt8Array:
    """Join pictures of equal size along an axis, with separators between them."""
    shape = list(tiles[0].shape)
    shape[axis] = gap
    separator = np.full(shape, SEPARATOR, np.uint8)
    parts = [part for tile in tiles for part in (separator, tile)]
    return np.concatenate(parts[1:], axis=axis)
