"""The slices of a contact sheet: FLAIR with prediction and ground truth outlined, and probability."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...data.patients import FLAIR, UInt8Array
from ..label_pairs import Volumes

Colour = tuple[int, int, int]
FloatArray = npt.NDArray[np.float32]

#: Colours of the outlines, as in the viewer (Okabe and Ito's vermilion and sky blue).
PREDICTION_COLOUR: Colour = (0xD5, 0x5E, 0x00)
TRUTH_COLOUR: Colour = (0x56, 0xB4, 0xE9)
#: Line widths in pixels: the wider line of the ground truth stays visible below that of the prediction.
PREDICTION_WIDTH, TRUTH_WIDTH = 2.0, 4.0
#: Width of a slice on the sheet, in pixels.
TILE = 256

# matplotlib's magma, the viewer's colormap for probabilities, sampled at equal steps from 0 to 1.
_MAGMA = (
    (0, 0, 4),
    (28, 16, 68),
    (79, 18, 123),
    (129, 37, 129),
    (181, 54, 122),
    (229, 80, 100),
    (251, 135, 97),
    (254, 194, 135),
    (252, 253, 191),
)


@dataclass(frozen=True)
class ShownProbability:
    """Tumour probability of the slices that a sheet shows.

    Attributes
    ----------
    values : ndarray of float32
        Shape (n, y, x), 0 to 1, for the slices from :func:`.contact_sheet.chosen_slices`.
    note : str
        Its origin, in one sentence.
    """

    values: FloatArray
    note: str


@dataclass(frozen=True)
class Window:
    """The part of each slice that is shown, in pixels; it may extend beyond the slice.

    Attributes
    ----------
    top, left : int
        First row and column.
    height, width : int
        Number of rows and columns.
    """

    top: int
    left: int
    height: int
    width: int

    @property
    def tile_height(self) -> int:
        """Height of a tile in pixels; its width is :data:`TILE`."""
        return round(TILE * self.height / self.width)


def find_window(volumes: Volumes) -> Window:
    """Find the window around the head, ignoring stray bright voxels, and all tumour."""
    tumour = np.any(volumes.tumour, axis=0)
    head = np.ones_like(tumour)
    if volumes.images is not None:
        flair = volumes.images[..., FLAIR]
        bright = flair > 0.15 * max(1.0, float(np.percentile(flair[:, ::2, ::2], 99.5)))
        head = bright.sum(axis=0) > 0.1 * len(bright)
    spans = []
    for axis in (1, 0):
        counts = head.sum(axis=axis)
        found = np.flatnonzero((counts > min(3, counts.max() - 1)) | tumour.any(axis=axis))
        spans.append((max(int(found[0]) - 5, 0), min(int(found[-1]) + 6, len(counts))))
    (top, bottom), (left, right) = spans
    # Aspect ratios are limited; beyond the slice, tiles are black.
    height = max(bottom - top, round(0.7 * (right - left)))
    width = max(right - left, round(0.7 * height))
    return Window((top + bottom - height) // 2, (left + right - width) // 2, height, width)


def find_strip(volumes: Volumes, shown: Sequence[int], window: Window, values: FloatArray) -> Window:
    """Find the rows of a window with tumour, or a probability of at least 0.1, on the shown slices."""
    rows = np.any(volumes.tumour[shown] | (values >= 0.1), axis=(0, 2))
    found = np.flatnonzero(rows) if rows.any() else np.array([window.top + window.height // 2])
    least = window.height // 3
    top, bottom = int(found[0]) - 8, int(found[-1]) + 9
    top -= max(0, least - (bottom - top)) // 2
    top = max(window.top, min(top, window.top + window.height - least))
    bottom = min(window.top + window.height, max(bottom, top + least))
    return Window(top, window.left, bottom - top, window.width)


def draw_tiles(
    volumes: Volumes,
    shown: Sequence[int],
    window: Window,
    strip: Window,
    probability: ShownProbability | None,
) -> Iterator[list[UInt8Array]]:
    """Draw the shown slices.

    Parameters
    ----------
    volumes : Volumes
        The patient.
    shown : sequence of int
        Indices of the slices.
    window, strip : Window
        The parts of a slice shown with outlines and with probability.
    probability : ShownProbability or None
        Drawn over dimmed FLAIR, if given.

    Yields
    ------
    list of ndarray of uint8
        The pictures of one slice from top to bottom, each (height, TILE, 3), RGB.
    """
    low, high = 0.0, 1.0
    if volumes.images is not None:
        sparse = volumes.images[:, ::2, ::2, FLAIR]
        low, high = float(sparse.min()), float(np.percentile(sparse, 99.8))
    for place, index in enumerate(shown):
        flair = np.zeros(volumes.prediction.shape[1:], np.float32)
        if volumes.images is not None:
            flair = (volumes.images[index, ..., FLAIR] - low) / max(high - low, 1e-6)
        picture = _grey(flair, window)
        if volumes.truth is not None:
            _outline(picture, volumes.truth[index], window, TRUTH_COLOUR, TRUTH_WIDTH)
        _outline(picture, volumes.prediction[index], window, PREDICTION_COLOUR, PREDICTION_WIDTH)
        pictures = [picture.round().astype(np.uint8)]
        if probability is not None:
            values = _fitted(probability.values[place], strip).clip(0, 1)
            # FLAIR fades with increasing probability, so that colours match the legend.
            dimmed = 0.45 * (1 - values[..., None]) * _grey(flair, strip)
            pictures.append((magma(values) + dimmed).clip(0, 255).astype(np.uint8))
        yield pictures


def _grey(flair: FloatArray, window: Window) -> FloatArray:
    """Crop and scale a slice with values from 0 to 1 to an RGB tile from 0 to 255."""
    grey: FloatArray = np.repeat(255 * _fitted(flair, window).clip(0, 1)[..., None], 3, axis=-1)
    return grey


def _fitted(page: npt.NDArray[np.generic], window: Window) -> FloatArray:
    """Crop a slice to the window, 0 beyond the slice, and scale it to the size of a tile."""
    from PIL import Image

    whole = Image.fromarray(page.astype(np.float32))
    right, bottom = window.left + window.width, window.top + window.height
    part = whole.crop((window.left, window.top, right, bottom))
    return np.array(part.resize((TILE, window.tile_height), Image.Resampling.BICUBIC))


def _outline(
    picture: FloatArray,
    mask: npt.NDArray[np.generic],
    window: Window,
    colour: Colour,
    width: float,
) -> None:
    """Draw the antialiased outline of a mask into a tile, centred on the mask's border."""
    from scipy.ndimage import distance_transform_edt, maximum_filter

    if not mask.any():
        return
    shrink = -(-window.width // TILE)
    # Structures smaller than a pixel of the tile must not vanish.
    inside = _fitted(maximum_filter(mask, shrink) if shrink > 1 else mask, window) >= 0.5
    distance = np.where(inside, distance_transform_edt(inside), distance_transform_edt(~inside)) - 0.5
    share = (width / 2 + 0.5 - distance).clip(0, 1)[..., None]
    picture += share * (np.array(colour, np.float32) - picture)


def magma(values: npt.NDArray[np.floating]) -> UInt8Array:
    """Map values from 0 to 1 to RGB colours, shape (..., 3)."""
    steps = np.linspace(0, 1, len(_MAGMA))
    channels = [np.interp(values, steps, channel) for channel in np.array(_MAGMA).T]
    return np.stack(channels, axis=-1).round().astype(np.uint8)
