"""The look that all plots share."""

from __future__ import annotations

import pyqtgraph as pg


def disable_interaction(plot: pg.PlotItem) -> None:
    """Keep the axes of a plot from being moved by accident."""
    plot.setMenuEnabled(False)
    plot.hideButtons()
    plot.setMouseEnabled(x=False, y=False)
    plot.getAxis("left").setWidth(42)


def style_axes(plot: pg.PlotItem, title: str, colour: str) -> None:
    """Give title and axes of a plot the colour of the theme's text."""
    for side in ("left", "bottom"):
        plot.getAxis(side).setPen(colour)
        plot.getAxis(side).setTextPen(colour)
    plot.setTitle(title, color=colour, size="9pt")
