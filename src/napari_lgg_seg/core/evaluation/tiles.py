"""The slices of a contact sheet: FLAIR with prediction and truth outlined, and probability."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..data.patients import FLAIR, UInt8Array
from .label_pairs import Volumes

Colour = tuple[int, int, int]
FloatArray = npt.NDArray[np.float32]

#: Colours of the outlines, as in the viewer (Okabe and Ito's vermilion and sky blue).
PREDICTION_COLOUR: Colour = (0xD5, 0x5E, 0x00)
TRUTH_COLOUR: Colour = (0x56, 0xB4, 0xE9)
#: The truth's line is broader, below the prediction's: where they run together both are seen.
PREDICTION_WIDTH, TRUTH_WIDTH = 2.0, 4.0
#: Width of a slice on the sheet, in pixels.
TILE = 256

# matplotlib's magma, by which the viewer shows probabilities, at equal steps from 0 to 1.
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
    """Probability of tumour on the slices that a sheet shows.

    Attributes
    ----------
    values : ndarray of float32
        Shape (n, y, x), 0 to 1, for the slices of :func:`chosen_slices`.
    note : str
        Where it comes from, in one sentence.
    """

    values: FloatArray
    note: str


@dataclass(frozen=True)
class Window:
    """The part of each slice that is shown, in pixels of the slices: all of the head, little around it."""

    top: int
    left: int
    height: int
    width: int

    @property
    def tile_height(self) -> int:
        """Height of a tile; its width is TILE."""
        return round(TILE * self.height / self.width)


def find_window(volumes: Volumes) -> Window:
    """Rows and columns with more than stray bright voxels, and all of the tumour."""
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
    # Neither very flat nor very high tiles; what lies beyond the slice is black.
    height = max(bottom - top, round(0.7 * (right - left)))
    width = max(right - left, round(0.7 * height))
    return Window((top + bottom - height) // 2, (left + right - width) // 2, height, width)


def find_strip(volumes: Volumes, shown: Sequence[int], window: Window, values: FloatArray) -> Window:
    """The rows of a window in which there is tumour, or some probability of it, on the shown slices."""
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
    """For each slice the pictures to be shown, one below the other, each (height, TILE, 3).

    FLAIR of the window, outlined; below it the probability in the strip, on dimmed FLAIR.
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
            # FLAIR fades where there is probability, so that colours are those of the legend.
            dimmed = 0.45 * (1 - values[..., None]) * _grey(flair, strip)
            pictures.append((magma(values) + dimmed).clip(0, 255).astype(np.uint8))
        yield pictures


def _grey(flair: FloatArray, window: Window) -> FloatArray:
    """The window of a slice, 0 to 1, as RGB, 0 to 255."""
    grey: FloatArray = np.repeat(255 * _fitted(flair, window).clip(0, 1)[..., None], 3, axis=-1)
    return grey


def _fitted(page: npt.NDArray[np.generic], window: Window) -> FloatArray:
    """The window of a slice, black where it reaches beyond, at the size of a tile."""
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
    """Draw the border of a mask into a tile, without stairs; half the line is on either side."""
    from scipy.ndimage import distance_transform_edt, maximum_filter

    if not mask.any():
        return
    shrink = -(-window.width // TILE)
    # What is smaller than a pixel of the tile must not vanish.
    inside = _fitted(maximum_filter(mask, shrink) if shrink > 1 else mask, window) >= 0.5
    distance = np.where(inside, distance_transform_edt(inside), distance_transform_edt(~inside)) - 0.5
    share = (width / 2 + 0.5 - distance).clip(0, 1)[..., None]
    picture += share * (np.array(colour, np.float32) - picture)


def magma(values: npt.NDArray[np.floating]) -> UInt8Array:
    """Colours of values from 0 to 1."""
    steps = np.linspace(0, 1, len(_MAGMA))
    channels = [np.interp(values, steps, channel) for channel in np.array(_MAGMA).T]
    return np.stack(channels, axis=-1).round().astype(np.uint8)
