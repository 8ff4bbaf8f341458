"""The live plot of a training: loss above, Dice of the validation patients below, over epochs.

It knows numbers only. Points are collected as they come, and drawn a few times a second at most.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyqtgraph as pg
from napari.utils.theme import get_theme
from qtpy.QtCore import Qt, QTimer

#: Milliseconds between two drawings.
REDRAW_MS = 350
#: Points of the loss curve; each is the mean of as many steps as need be.
POINTS = 300

# Okabe and Ito's colours of loss and Dice: lighter ones on a dark background.
_COLOURS = {"dark": ("#e69f00", "#56b4e9"), "light": ("#d55e00", "#0072b2")}


class TrainingPlot(pg.GraphicsLayoutWidget):
    """Loss and Dice of one training.

    Parameters
    ----------
    theme : str
        The name of a napari theme, whose colours it takes.
    """

    def __init__(self, theme: str) -> None:
        super().__init__()
        self.setMinimumWidth(120)
        self.setFixedHeight(280)
        self.setFrameShape(self.Shape.NoFrame)
        self._losses: list[float] = []
        self._ends: list[float] = []
        self._dice: list[tuple[float, float]] = []
        self._loss_plot, self._dice_plot = self.addPlot(row=0, col=0), self.addPlot(row=1, col=0)
        for plot in (self._loss_plot, self._dice_plot):
            keep_still(plot)
        self._loss_plot.getAxis("bottom").setStyle(showValues=False)
        self._dice_plot.setYRange(0, 1, padding=0.06)
        self._dice_plot.getAxis("left").setTicks([[(tick, f"{tick:g}") for tick in (0, 0.25, 0.5, 0.75, 1)]])
        self._dice_plot.getAxis("bottom").setHeight(38)
        self._loss_curve = self._loss_plot.plot()
        self._dice_curve = self._dice_plot.plot(symbol="o", symbolSize=6)
        self._best = self._dice_plot.plot(symbol="star", symbolSize=15)
        self._initial = pg.InfiniteLine(angle=0)
        self._initial.setVisible(False)
        self._dice_plot.addItem(self._initial)
        self._timer = QTimer(self, singleShot=True, interval=REDRAW_MS)
        self._timer.timeout.connect(self.redraw)
        self.take_theme(theme)
        self.start(1)

    def take_theme(self, name: str) -> None:
        """Take the colours of a napari theme."""
        theme = get_theme(name)
        text = theme.text.as_hex()
        self._loss_colour, self._dice_colour = _COLOURS[theme.type]
        self.setBackground(theme.background.as_hex())
        for plot, title in ((self._loss_plot, "Training loss"), (self._dice_plot, "Validation Dice")):
            theme_axes(plot, title, text)
        self._dice_plot.setLabel("bottom", "epoch", color=text)
        self._loss_curve.setPen(self._loss_colour, width=1.5)
        self._dice_curve.setPen(self._dice_colour, width=1.5)
        self._dice_curve.setSymbolPen(self._dice_colour)
        self._dice_curve.setSymbolBrush(self._dice_colour)
        self._best.setSymbolPen(theme.background.as_hex())
        self._best.setSymbolBrush(self._dice_colour)
        self._initial.setPen(pg.mkPen(text, style=Qt.PenStyle.DashLine))

    def start(self, epochs: int) -> None:
        """Forget everything, for a training of so many epochs."""
        self._losses, self._ends, self._dice = [], [], []
        self._initial.setVisible(False)
        for plot in (self._loss_plot, self._dice_plot):
            plot.setXRange(0, epochs, padding=0.03)
        self.redraw()

    def add_losses(self, epochs: Sequence[float], losses: Sequence[float]) -> None:
        """Add the losses of steps, each with the epochs, and their parts, that were done after it."""
        self._ends.extend(epochs)
        self._losses.extend(losses)
        self._draw_soon()

    def add_dice(self, epoch: float, mean: float) -> None:
        """Add the mean Dice of a validation; the one before the first step is drawn as a line, too."""
        self._dice.append((epoch, mean))
        if epoch == 0:
            self._initial.setValue(mean)
            self._initial.setVisible(True)
        self._draw_soon()

    def _draw_soon(self) -> None:
        if not self._timer.isActive():
            self._timer.start()

    def redraw(self) -> None:
        """Draw what was added."""
        self._loss_curve.setData(averaged(self._ends, POINTS), averaged(self._losses, POINTS))
        dice = np.array(self._dice).reshape(-1, 2)
        self._dice_curve.setData(dice)
        self._best.setData(dice[[dice[:, 1].argmax()]] if len(dice) else dice)


def keep_still(plot: pg.PlotItem) -> None:
    """Let nobody move a plot's axes by accident."""
    plot.setMenuEnabled(False)
    plot.hideButtons()
    plot.setMouseEnabled(x=False, y=False)
    plot.getAxis("left").setWidth(42)


def theme_axes(plot: pg.PlotItem, title: str, colour: str) -> None:
    """Title and axes of a plot in the colour of the theme's text."""
    for side in ("left", "bottom"):
        plot.getAxis(side).setPen(colour)
        plot.getAxis(side).setTextPen(colour)
    plot.setTitle(title, color=colour, size="9pt")


def averaged(values: Sequence[float], points: int) -> npt.NDArray[np.float64]:
    """Means of neighbouring values, so that no more than a number of points is left."""
    array = np.asarray(values, np.float64)
    if len(array) <= points:
        return array
    starts = np.linspace(0, len(array), points, endpoint=False).astype(np.intp)
    return np.add.reduceat(array, starts) / np.diff(np.append(starts, len(array)))
