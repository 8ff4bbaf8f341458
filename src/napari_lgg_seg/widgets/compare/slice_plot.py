"""The plot of Dice by slice: bars, the slice in view, and a click to go to a slice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyqtgraph as pg
from napari.utils.theme import get_theme
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QToolTip

from ..shared.plots import disable_interaction, style_axes

_HEIGHT = 150
# Colours of Okabe and Ito: bars, slices that are missed entirely, slices that are false positive.
_COLOURS = {"dark": ("#999999", "#56b4e9", "#d55e00"), "light": ("#777777", "#0072b2", "#d55e00")}


class SlicePlot(pg.PlotWidget):
    """Dice of each slice of one comparison.

    Slices with tumour in only one of the masks have no bar but a mark in the colour of that mask.

    Parameters
    ----------
    theme : str
        Name of a napari theme, whose colours are used.
    summary : callable
        Returns the tooltip of a slice; takes its number, its Dice or None, and the numbers of voxels that
        agree, are false negative and are false positive.
    """

    #: Emitted with the index of a slice that was clicked.
    chosen = Signal(int)

    def __init__(self, theme: str, summary: Callable[[int, float | None, Sequence[int]], str]) -> None:
        super().__init__()
        self._summary = summary
        self._numbers: tuple[int, ...] = ()
        self._dice: Mapping[int, float] = {}
        self._by_slice: npt.NDArray[np.int64] = np.zeros((0, 3), np.int64)
        self.setMinimumWidth(120)
        self.setFixedHeight(_HEIGHT)
        self.setFrameShape(self.Shape.NoFrame)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        plot = self.getPlotItem()
        disable_interaction(plot)
        plot.getAxis("left").setTicks([[(tick, f"{tick:g}") for tick in (0, 0.5, 1)]])
        plot.getAxis("bottom").enableAutoSIPrefix(False)
        plot.getAxis("bottom").setHeight(34)
        plot.setYRange(0, 1, padding=0.06)
        self._bars = pg.BarGraphItem(x=[], height=[], width=0.8)
        self._missed, self._false_positive = pg.ScatterPlotItem(symbol="d"), pg.ScatterPlotItem(symbol="d")
        self._in_view = pg.InfiniteLine(angle=90)
        for item in (self._bars, self._missed, self._false_positive, self._in_view):
            plot.addItem(item)
        self.scene().sigMouseClicked.connect(self._clicked)
        self.scene().sigMouseMoved.connect(self._moved)
        self.set_theme(theme)

    def set_theme(self, name: str) -> None:
        """Use the colours of a napari theme."""
        theme = get_theme(name)
        text = theme.text.as_hex()
        bars, missed, false_positive = _COLOURS[theme.type]
        self.setBackground(theme.background.as_hex())
        style_axes(self.getPlotItem(), "Dice by slice", text)
        self.getPlotItem().setLabel("bottom", "slice", color=text)
        self._bars.setOpts(brush=bars, pen=bars)
        for marks, colour in ((self._missed, missed), (self._false_positive, false_positive)):
            marks.setBrush(colour)
            marks.setPen(None)
        self._in_view.setPen(pg.mkPen(text, width=1, style=Qt.PenStyle.DashLine))

    def show_slices(
        self, numbers: Sequence[int], dice: Mapping[int, float], by_slice: npt.NDArray[np.int64]
    ) -> None:
        """Show a comparison.

        Parameters
        ----------
        numbers : sequence of int
            Numbers of all slices, in order.
        dice : mapping of int to float
            Dice by slice number, without slices that are empty in both masks.
        by_slice : ndarray of int
            Shape (z, 3): voxels of each slice that agree, are false negative and are false positive.
        """
        self._numbers, self._dice, self._by_slice = tuple(numbers), dice, by_slice
        agreed, false_negative, false_positive = by_slice.T
        positions = np.asarray(numbers)
        found = [number for number, value in dice.items() if value > 0]
        self._bars.setOpts(x=found, height=[dice[number] for number in found], width=0.8)
        for marks, alone in (
            (self._missed, (false_negative > 0) & (agreed + false_positive == 0)),
            (self._false_positive, (false_positive > 0) & (agreed + false_negative == 0)),
        ):
            marks.setData(x=positions[alone], y=np.full(int(alone.sum()), 0.04), size=9)
        self.getPlotItem().setXRange(min(numbers) - 0.5, max(numbers) + 0.5, padding=0.02)

    def show_position(self, index: int) -> None:
        """Mark the slice in view."""
        if 0 <= index < len(self._numbers):
            self._in_view.setValue(self._numbers[index])

    def index_at(self, x: float) -> int | None:
        """Index of the slice nearest to a position on the horizontal axis."""
        if not self._numbers:
            return None
        return int(np.abs(np.asarray(self._numbers) - x).argmin())

    def _index_under(self, position: Any) -> int | None:
        """Index of the slice at a position of the scene; None outside the axes."""
        box = self.getPlotItem().getViewBox()
        if not box.sceneBoundingRect().contains(position):
            return None
        return self.index_at(box.mapSceneToView(position).x())

    def _clicked(self, event: Any) -> None:
        index = self._index_under(event.scenePos())
        if index is not None:
            self.chosen.emit(index)

    def _moved(self, position: Any) -> None:
        index = self._index_under(position)
        if index is not None:
            number = self._numbers[index]
            text = self._summary(number, self._dice.get(number), self._by_slice[index].tolist())
            QToolTip.showText(self.mapToGlobal(self.mapFromScene(position)), text, self)
