"""The live plot of a training: loss above, Dice of the validation patients below, over epochs.

Points are collected as they arrive and drawn a few times a second at most.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyqtgraph as pg
from napari.utils.theme import get_theme
from qtpy.QtCore import Qt, QTimer

from ..shared.plots import disable_interaction, style_axes

#: Milliseconds between two redraws.
_REDRAW_INTERVAL = 350

# Colours of Okabe and Ito for loss and Dice; lighter on a dark background.
_COLOURS = {"dark": ("#e69f00", "#56b4e9"), "light": ("#d55e00", "#0072b2")}


class TrainingPlot(pg.GraphicsLayoutWidget):
    """Loss and Dice of one training.

    Parameters
    ----------
    theme : str
        Name of a napari theme, whose colours are used.
    """

    def __init__(self, theme: str) -> None:
        super().__init__()
        self.setMinimumWidth(120)
        self.setFixedHeight(280)
        self.setFrameShape(self.Shape.NoFrame)
        self._losses: list[float] = []
        self._loss_epochs: list[float] = []
        self._dice: list[tuple[float, float]] = []
        self._loss_plot, self._dice_plot = self.addPlot(row=0, col=0), self.addPlot(row=1, col=0)
        for plot in (self._loss_plot, self._dice_plot):
            disable_interaction(plot)
        self._loss_plot.setDownsampling(auto=True, mode="mean")
        self._loss_plot.setClipToView(True)
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
        self._timer = QTimer(self, singleShot=True, interval=_REDRAW_INTERVAL)
        self._timer.timeout.connect(self.redraw)
        self.set_theme(theme)
        self.start(1)

    def set_theme(self, name: str) -> None:
        """Use the colours of a napari theme."""
        theme = get_theme(name)
        text = theme.text.as_hex()
        loss_colour, dice_colour = _COLOURS[theme.type]
        self.setBackground(theme.background.as_hex())
        for plot, title in ((self._loss_plot, "Training loss"), (self._dice_plot, "Validation Dice")):
            style_axes(plot, title, text)
        self._dice_plot.setLabel("bottom", "epoch", color=text)
        self._loss_curve.setPen(loss_colour, width=1.5)
        self._dice_curve.setPen(dice_colour, width=1.5)
        self._dice_curve.setSymbolPen(dice_colour)
        self._dice_curve.setSymbolBrush(dice_colour)
        self._best.setSymbolPen(theme.background.as_hex())
        self._best.setSymbolBrush(dice_colour)
        self._initial.setPen(pg.mkPen(text, style=Qt.PenStyle.DashLine))

    def start(self, epochs: int) -> None:
        """Clear the plot for a training of a number of epochs."""
        self._losses, self._loss_epochs, self._dice = [], [], []
        self._initial.setVisible(False)
        for plot in (self._loss_plot, self._dice_plot):
            plot.setXRange(0, epochs, padding=0.03)
        self.redraw()

    def add_losses(self, epochs: Sequence[float], losses: Sequence[float]) -> None:
        """Add the losses of steps, each with the (fractional) number of epochs done after it."""
        self._loss_epochs.extend(epochs)
        self._losses.extend(losses)
        self._redraw_soon()

    def add_dice(self, epoch: float, mean: float) -> None:
        """Add the mean Dice of a validation; that of the initial model is also drawn as a line."""
        self._dice.append((epoch, mean))
        if epoch == 0:
            self._initial.setValue(mean)
            self._initial.setVisible(True)
        self._redraw_soon()

    def _redraw_soon(self) -> None:
        if not self._timer.isActive():
            self._timer.start()

    def redraw(self) -> None:
        """Draw all points."""
        self._loss_curve.setData(self._loss_epochs, self._losses)
        dice = np.array(self._dice).reshape(-1, 2)
        self._dice_curve.setData(dice)
        self._best.setData(dice[[dice[:, 1].argmax()]] if len(dice) else dice)
