"""A patient's contact sheet: slices with prediction and ground truth outlined, probability, Dice by slice."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ...data.patients import UInt8Array
from ...errors import counted
from ..label_pairs import Volumes
from ..patient_metrics import PatientMetrics
from .tiles import (
    PREDICTION_COLOUR,
    PREDICTION_WIDTH,
    TILE,
    TRUTH_COLOUR,
    TRUTH_WIDTH,
    Colour,
    ShownProbability,
    draw_tiles,
    find_strip,
    find_window,
    magma,
)

if TYPE_CHECKING:
    from PIL import ImageFont
    from PIL.ImageDraw import ImageDraw

#: Maximum number of slices on a sheet.
MOST_SLICES = 24

# Sizes in pixels.
GAP, SEAM, MARGIN, CAPTION, BAR = 10, 2, 28, 26, 6
_CHART = 150
_BACKGROUND, _TRACK, _MUTED, _TEXT = (15, 18, 23), (44, 50, 60), (152, 162, 176), (234, 237, 241)
_BARS = (186, 194, 204)


def chosen_slices(volumes: Volumes, most: int = MOST_SLICES) -> list[int]:
    """Choose the slices to show: those with tumour in either mask, and one on each side.

    Parameters
    ----------
    volumes : Volumes
        The patient; without any tumour, all its slices are candidates.
    most : int
        Maximum number of slices; if there are more, evenly spaced ones are chosen.

    Returns
    -------
    list of int
        Slice indices in ascending order.
    """
    tumour = np.any(volumes.tumour, axis=(1, 2))
    around = tumour.copy()
    around[1:] |= tumour[:-1]
    around[:-1] |= tumour[1:]
    indices = np.flatnonzero(around) if tumour.any() else np.arange(len(tumour))
    if len(indices) > most:
        indices = indices[np.linspace(0, len(indices) - 1, most).round().astype(int)]
    return [int(index) for index in indices]


def draw_sheet(
    volumes: Volumes, metrics: PatientMetrics, probability: ShownProbability | None = None
) -> UInt8Array:
    """Draw a patient's contact sheet.

    Parameters
    ----------
    volumes : Volumes
        The patient; outlines are drawn on FLAIR, or on black without images.
    metrics : PatientMetrics
        The metrics of these volumes.
    probability : ShownProbability, optional
        Tumour probability to show below each slice.

    Returns
    -------
    ndarray of uint8
        Shape (height, width, 3), RGB.
    """
    from PIL import Image, ImageDraw

    shown = chosen_slices(volumes)
    columns = _columns(len(shown))
    width = 2 * MARGIN + columns * (TILE + GAP) - GAP
    lines = _wrapped(_summary(metrics, volumes, len(shown)), 19, width - 2 * MARGIN)
    notes = _wrapped(_notes(metrics, probability), 16, width - 2 * MARGIN)
    window = find_window(volumes)
    strip = window if probability is None else find_strip(volumes, shown, window, probability.values)
    below = 0 if probability is None else strip.tile_height + SEAM
    cell = CAPTION + window.tile_height + below + BAR + GAP
    cells_at = MARGIN + 54 + 27 * len(lines) + 44
    charts_at = cells_at + -(-len(shown) // columns) * (cell + GAP) + GAP
    height = charts_at + _CHART + 76 + 23 * len(notes) + MARGIN
    sheet = Image.new("RGB", (width, height), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    _draw_header(draw, width, metrics, lines, probability is not None)
    tiles = draw_tiles(volumes, shown, window, strip, probability)
    for place, (index, pictures) in enumerate(zip(shown, tiles, strict=True)):
        row, column = divmod(place, columns)
        left, top = MARGIN + column * (TILE + GAP), cells_at + row * (cell + GAP)
        for number, picture in enumerate(pictures):
            sheet.paste(
                Image.fromarray(picture), (left, top + CAPTION + number * (window.tile_height + SEAM))
            )
        _draw_caption(draw, (left, top, cell), volumes, index, metrics)
    _draw_charts(draw, charts_at, width, volumes, metrics)
    for number, line in enumerate(notes):
        _write(draw, (MARGIN, charts_at + _CHART + 76 + 23 * number), line, 16, _MUTED)
    return np.asarray(sheet)


def as_webp(picture: UInt8Array, quality: int = 82) -> bytes:
    """Encode a picture, (height, width, 3), as lossy WebP, a fraction of the size of a PNG."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "WEBP", quality=quality)
    return stream.getvalue()


def _columns(slices: int) -> int:
    """4 to 6 slices per row, whichever leaves the fewest empty places."""
    return min((6, 5, 4), key=lambda columns: -slices % columns)


# --- text --------------------------------------------------------------------------------------


def _summary(metrics: PatientMetrics, volumes: Volumes, shown: int) -> list[str]:
    parts = [f"Prediction {metrics.voxels:,} voxels in {counted(metrics.slices, 'slice')}"]
    agreement = metrics.agreement
    if agreement is not None:
        parts.append(
            f"ground truth {agreement.true_voxels:,} voxels in {counted(agreement.true_slices, 'slice')} of "
            f"{metrics.of_slices}"
        )
        if agreement.median_slice_dice is not None:
            parts.append(f"median slice Dice {agreement.median_slice_dice:.3f}")
        if agreement.hd95 is not None:
            parts.append(f"HD95 {agreement.hd95:.1f} pixels")
        parts.append(f"surface Dice {agreement.surface_dice:.3f}")
        parts.append(f"{agreement.missed_lesions} of {counted(agreement.true_lesions, 'lesion')} missed")
        parts.append(counted(agreement.false_positive_lesions, "false-positive lesion"))
        if agreement.false_voxels_on_empty_slices:
            parts.append(f"{counted(agreement.false_voxels_on_empty_slices, 'voxel')} on empty slices")
    else:
        parts[0] += f" of {metrics.of_slices}"
        parts.append(counted(metrics.lesions, "component"))
    every = len(chosen_slices(volumes, most=len(volumes.prediction)))
    parts.append(f"{shown} of {every} slices shown" if shown < every else f"{counted(shown, 'slice')} shown")
    return parts


def _notes(metrics: PatientMetrics, probability: ShownProbability | None) -> list[str]:
    notes = []
    if metrics.agreement is not None:
        notes.append(
            "Bars: Dice of each slice with tumour in the prediction or the ground truth; 0 where only one of "
            "them has tumour; slices that are empty in both are left out. For distances, neighbouring slices "
            "count as one pixel apart."
        )
    if probability is not None:
        notes.append(probability.note)
    return " ".join(notes).split(" ")


def _wrapped(words: Sequence[str], size: int, width: int) -> list[str]:
    """Wrap words, or phrases with a dot between them, to lines of at most ``width`` pixels."""
    joint = "  ·  " if any(" " in word for word in words) else " "
    lines: list[str] = []
    for word in words:
        longer = f"{lines[-1]}{joint}{word}" if lines else word
        if lines and _font(size).getlength(longer) <= width:
            lines[-1] = longer
        elif word:
            lines.append(word)
    return lines


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's built-in font, so that a sheet looks the same everywhere."""
    from PIL import ImageFont

    font: Any = ImageFont.load_default(size)
    return font  # type: ignore[no-any-return]


def _write(
    draw: ImageDraw, at: tuple[float, float], text: str, size: int, colour: Colour, anchor: str = "la"
) -> None:
    """Draw text in one line."""
    draw.text(at, _drawable(text), fill=colour, font=_font(size), anchor=anchor)


def _drawable(text: str) -> str:
    """Text with line breaks, and characters that the font lacks, replaced."""
    plain = (c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return "".join(c if (c.isascii() and c.isprintable()) or c == "·" else "?" for c in plain)


def _draw_header(
    draw: ImageDraw, width: int, metrics: PatientMetrics, lines: Sequence[str], probability: bool
) -> None:
    right = width - MARGIN
    room = right - MARGIN
    if metrics.agreement is not None:
        text = f"Dice {metrics.agreement.dice:.3f}"
        _write(draw, (right, MARGIN), text, 36, _TEXT, "ra")
        room -= round(_font(36).getlength(text)) + 30
    name = _drawable(metrics.patient)
    size = next((s for s in range(36, 10, -2) if _font(s).getlength(name) <= room), 10)
    _write(draw, (MARGIN, MARGIN), name, size, _TEXT)
    for number, line in enumerate(lines):
        _write(draw, (MARGIN, MARGIN + 54 + 27 * number), line, 19, _MUTED)
    top = MARGIN + 54 + 27 * len(lines) + 20
    left = _legend(draw, MARGIN, top, "prediction", PREDICTION_COLOUR, PREDICTION_WIDTH + 1)
    if metrics.agreement is not None:
        left = _legend(draw, left, top, "ground truth", TRUTH_COLOUR, TRUTH_WIDTH + 1)
    if probability:
        for step, colour in enumerate(magma(np.linspace(0, 1, 120))):
            draw.line([(left + 16 + step, top - 6), (left + 16 + step, top + 6)], tuple(map(int, colour)))
        _write(draw, (left, top), "0", 17, _MUTED, "lm")
        _write(draw, (left + 144, top), "1  probability (below each slice)", 17, _MUTED, "lm")


def _legend(draw: ImageDraw, left: int, y: int, text: str, colour: Colour, thickness: float) -> int:
    draw.line([(left, y), (left + 34, y)], colour, round(thickness))
    _write(draw, (left + 44, y), text, 17, _MUTED, "lm")
    return left + 44 + round(_font(17).getlength(text)) + 32


# --- slices ------------------------------------------------------------------------------------


def _draw_caption(
    draw: ImageDraw, cell: tuple[int, int, int], volumes: Volumes, index: int, metrics: PatientMetrics
) -> None:
    """A slice's number above it and, with ground truth, its Dice as text and as a bar."""
    left, top, height = cell
    number = volumes.slice_numbers[index]
    _write(draw, (left, top + CAPTION / 2 - 2), f"slice {number}", 17, _TEXT, "lm")
    if metrics.agreement is None or volumes.truth is None:
        return
    score = metrics.agreement.slice_dice.get(number)
    if score is None:
        return
    words, colour = f"{score:.2f}", _TEXT
    if not volumes.truth[index].any():
        words, colour = "prediction only", PREDICTION_COLOUR
    elif not volumes.prediction[index].any():
        words, colour = "ground truth only", TRUTH_COLOUR
    _write(draw, (left + TILE, top + CAPTION / 2 - 2), words, 17, colour, "rm")
    y = top + height - BAR - GAP + 4
    draw.rectangle([left, y, left + TILE - 1, y + BAR - 1], _TRACK)
    if score:
        draw.rectangle([left, y, left + max(1, round(score * TILE)) - 1, y + BAR - 1], _BARS)


# --- charts ------------------------------------------------------------------------------------


def _draw_charts(draw: ImageDraw, top: int, width: int, volumes: Volumes, metrics: PatientMetrics) -> None:
    """Tumour pixels by slice and, with ground truth, Dice by slice."""
    areas = {PREDICTION_COLOUR: volumes.prediction.sum(axis=(1, 2), dtype=np.int64)}
    chart = _Chart(draw, MARGIN + 56, top + 36, width - 2 * MARGIN - 56, volumes.slice_numbers)
    if volumes.truth is not None and metrics.agreement is not None:
        areas = {TRUTH_COLOUR: volumes.truth.sum(axis=(1, 2), dtype=np.int64), **areas}
        half = (width - 2 * MARGIN - GAP) // 2
        chart = _Chart(draw, MARGIN + 56, top + 36, half - 76, volumes.slice_numbers)
        chart.axes("Dice by slice", 1.0)
        chart.bars(metrics.agreement.slice_dice)
        chart = _Chart(draw, MARGIN + half + GAP + 56, top + 36, half - 56, volumes.slice_numbers)
    highest = _round_number(max(int(values.max()) for values in areas.values()))
    chart.axes("Tumour pixels by slice", float(highest))
    for colour, values in areas.items():
        chart.steps(values / highest, colour, 4 if colour == TRUTH_COLOUR else 2)


def _round_number(value: int) -> int:
    """Round up to an even number with two significant digits."""
    step = int(2 * 10 ** max(len(str(value)) - 2, 0))
    return max(step, -(-value // step) * step)


@dataclass(frozen=True)
class _Chart:
    """A chart over all slices of a volume, with heights from 0 to 1."""

    draw: ImageDraw
    left: int
    top: int
    width: int
    numbers: Sequence[int]

    def axes(self, title: str, highest: float) -> None:
        """Draw the title, lines at 0, half and all of the height, and slice numbers."""
        _write(self.draw, (self.left - 56, self.top - 36), title, 18, _TEXT)
        for share in (0.0, 0.5, 1.0):
            y = self._y(share)
            self.draw.line([(self.left, y), (self.left + self.width, y)], _TRACK)
            text = f"{share:g}" if highest == 1 else f"{share * highest:,.0f}"
            _write(self.draw, (self.left - 8, y), text, 15, _MUTED, "rm")
        every = next(s for s in (1, 2, 5, 10, 20, 50, 100, 10**6) if 34 * len(self.numbers) / s <= self.width)
        for index, number in enumerate(self.numbers):
            if number % every == 0 or every == 1:
                x = self.left + (index + 0.5) * self.width / len(self.numbers)
                _write(self.draw, (x, self.top + _CHART + 7), str(number), 15, _MUTED, "ma")

    def bars(self, heights: Mapping[int, float]) -> None:
        """Draw a bar for each slice number; a height of 0 is a thin line."""
        step = self.width / len(self.numbers)
        for index, number in enumerate(self.numbers):
            if number not in heights:
                continue
            left, right = self.left + (index + 0.12) * step, self.left + (index + 0.88) * step
            top = min(self._y(heights[number]), self._y(0) - 2)
            self.draw.rectangle([round(left), round(top), round(right), self._y(0)], _BARS)

    def steps(self, heights: npt.NDArray[np.floating], colour: Colour, thickness: int) -> None:
        """Draw a step line over all slices."""
        step = self.width / len(heights)
        points = []
        for index, share in enumerate(heights):
            left = self.left + index * step
            points += [(left, self._y(share)), (left + step, self._y(share))]
        self.draw.line(points, colour, thickness)

    def _y(self, share: float) -> int:
        return round(self.top + (1 - share) * _CHART)
