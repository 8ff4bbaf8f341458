"""What the Compare widget shows of one comparison: metrics, Dice by slice, and the legend."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from magicgui.widgets import CheckBox, Label, PushButton
from qtpy.QtCore import Qt
from qtpy.QtGui import QColor, QPixmap
from qtpy.QtWidgets import QGridLayout, QLabel, QSizePolicy, QVBoxLayout, QWidget

from ...core.evaluation.compare import Agreement
from ...layers import comparison_colours
from ..shared.forms import side_by_side, wrap
from . import messages
from .pair import ComparisonResult

if TYPE_CHECKING:
    from .slice_plot import SlicePlot

_SWATCH = 12  # pixels


class MetricsTable(QWidget):
    """All metrics of one comparison, two in a row where they are short."""

    def __init__(self) -> None:
        super().__init__()
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Maximum)
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setVerticalSpacing(4)
        grid.setColumnStretch(1, 1)
        grid.setColumnStretch(3, 1)
        self._values: dict[str, QLabel] = {}
        short = messages.metrics(None)
        for index, metric in enumerate(short):
            self._add(grid, metric, (index // 2, 2 * (index % 2)), columns=(1, 1))
        for index, metric in enumerate(messages.wide_metrics(None), start=(len(short) + 1) // 2):
            self._add(grid, metric, (index, 0), columns=(2, 2))

    def _add(
        self, grid: QGridLayout, metric: messages.MetricText, place: tuple[int, int], columns: tuple[int, int]
    ) -> None:
        """Add name and value; ``columns`` is how many columns each of them spans."""
        name, value = QLabel(metric.name), QLabel(metric.value)
        value.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        value.setWordWrap(columns[1] > 1)
        for label in (name, value):
            label.setToolTip(metric.help)
            label.setAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignTop)
        row, column = place
        grid.addWidget(name, row, column, 1, columns[0])
        grid.addWidget(value, row, column + columns[0], 1, columns[1])
        self._values[metric.name] = value

    def show_agreement(self, agreement: Agreement) -> None:
        """Show the metrics of a comparison."""
        for metric in [*messages.metrics(agreement), *messages.wide_metrics(agreement)]:
            self._values[metric.name].setText(metric.value)
            self._values[metric.name].setToolTip(metric.help)

    def value(self, name: str) -> str:
        """The text of a metric."""
        return str(self._values[name].text())


class Legend(QWidget):
    """The colours of the overlay, their meanings, and the number of voxels of each colour."""

    def __init__(self) -> None:
        super().__init__()
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setVerticalSpacing(2)
        grid.setColumnStretch(1, 1)
        self._counts: dict[int, QLabel] = {}
        for row, (kind, text) in enumerate(messages.LEGEND.items()):
            swatch, count = QLabel(), QLabel()
            pixels = QPixmap(_SWATCH, _SWATCH)
            pixels.fill(QColor(comparison_colours()[kind]))
            swatch.setPixmap(pixels)
            grid.addWidget(swatch, row, 0)
            grid.addWidget(QLabel(text), row, 1)
            grid.addWidget(count, row, 2, Qt.AlignmentFlag.AlignRight)
            self._counts[kind] = count

    def show_counts(self, counts: Sequence[int]) -> None:
        """Show the numbers of true-positive, false-negative and false-positive voxels."""
        for label, count in zip(self._counts.values(), counts, strict=True):
            label.setText(f"{count:,}")


class ResultsPanel(QWidget):
    """All that is shown of one comparison; hidden as long as there is none.

    Parameters
    ----------
    theme : str
        Name of a napari theme.
    """

    def __init__(self, theme: str) -> None:
        super().__init__()
        self.metrics, self.legend = MetricsTable(), Legend()
        self.plot = self._make_plot(theme)
        self.worst = PushButton(
            text="Worst slice",
            tooltip="Go to the slice with the lowest Dice; if several tie, the one with the most errors.",
        )
        self.show_overlay = CheckBox(
            text="Show overlay",
            tooltip="Show agreement and errors in colours; the two layers are hidden meanwhile.",
        )
        self._steps = side_by_side(self.worst, self.show_overlay)
        self._needs_plot = Label(value=messages.NEEDS_PLOT)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        plot = self.plot if self.plot is not None else self._needs_plot.native
        for widget in (self.metrics, plot, self._steps.native, self.legend):
            layout.addWidget(widget)
        wrap(self._needs_plot, lines=2)
        self.hide()

    def _make_plot(self, theme: str) -> SlicePlot | None:
        if find_spec("pyqtgraph") is None:
            return None
        from .slice_plot import SlicePlot

        return SlicePlot(theme, messages.slice_summary)

    def show_comparison(self, compared: ComparisonResult) -> None:
        """Show a comparison."""
        several = len(compared.slice_numbers) > 1
        self.metrics.show_agreement(compared.agreement)
        self.legend.show_counts(compared.by_slice.sum(axis=0).tolist())
        self.worst.enabled = several and compared.agreement.worst_slice is not None
        if self.plot is not None:
            self.plot.show_slices(compared.slice_numbers, compared.agreement.slice_dice, compared.by_slice)
            self.plot.setVisible(several)
        self.show()

    def show_position(self, index: int) -> None:
        """Mark the slice in view."""
        if self.plot is not None:
            self.plot.show_position(index)

    def show_switch(self, *, is_open: bool, is_shown: bool) -> None:
        """Update "Show overlay" to the state of the layer."""
        with self.show_overlay.changed.blocked():
            self.show_overlay.enabled = is_open
            self.show_overlay.value = is_shown

    def set_theme(self, name: str) -> None:
        """Use the colours of a napari theme."""
        if self.plot is not None:
            self.plot.set_theme(name)
