"""What the Compare widget shows of one comparison: figures, Dice by slice, and what the colours stand for."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from magicgui.widgets import CheckBox, Container, Label, PushButton
from qtpy.QtCore import Qt
from qtpy.QtGui import QColor, QPixmap
from qtpy.QtWidgets import QGridLayout, QLabel, QSizePolicy, QVBoxLayout, QWidget

from ...core.evaluation.compare import Agreement
from ...layers import comparison_colours
from ..shared.forms import wrap
from . import messages
from .pair import Compared

if TYPE_CHECKING:
    from .slice_plot import SlicePlot

_SWATCH = 12  # pixels


class ResultsTable(QWidget):
    """All figures of one comparison, two in a row where they are short."""

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
        for place, row in enumerate(short):
            self._add(grid, row, (place // 2, 2 * (place % 2)), columns=1)
        for place, row in enumerate(messages.wide_metrics(None), start=(len(short) + 1) // 2):
            self._add(grid, row, (place, 0), columns=3)

    def _add(self, grid: QGridLayout, row: messages.Row, place: tuple[int, int], columns: int) -> None:
        name, value = QLabel(row.name), QLabel(row.value)
        value.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        value.setWordWrap(columns > 1)
        for label in (name, value):
            label.setToolTip(row.help)
            label.setAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignTop)
        grid.addWidget(name, *place)
        grid.addWidget(value, place[0], place[1] + 1, 1, columns)
        self._values[row.name] = value

    def show_agreement(self, agreement: Agreement | None) -> None:
        """Show the figures of a comparison, or that there are none."""
        for row in [*messages.metrics(agreement), *messages.wide_metrics(agreement)]:
            self._values[row.name].setText(row.value)
            self._values[row.name].setToolTip(row.help)

    def value(self, name: str) -> str:
        """What is shown beside a name."""
        return str(self._values[name].text())


class Legend(QWidget):
    """The colours of the overlay, what they stand for, and how many voxels have them."""

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

    def show_counts(self, counts: Sequence[int] | None) -> None:
        """Show how many voxels agree, are missed, are invented; or nothing."""
        texts = [f"{count:,}" for count in counts] if counts is not None else [""] * len(self._counts)
        for label, text in zip(self._counts.values(), texts, strict=True):
            label.setText(text)


class Results(QWidget):
    """All that is shown of one comparison; hidden as long as there is none.

    Parameters
    ----------
    theme : str
        The name of a napari theme.
    """

    def __init__(self, theme: str) -> None:
        super().__init__()
        self.metrics, self.legend = ResultsTable(), Legend()
        self.plot = self._make_plot(theme)
        self.worst = PushButton(
            text="Worst slice",
            tooltip="Go to the slice with the lowest Dice; of several, to that with most wrong voxels.",
        )
        self.show_overlay = CheckBox(
            text="Show overlay",
            tooltip="Show in colours where the two layers agree; they themselves are hidden meanwhile.",
        )
        self._steps = Container(widgets=[self.worst, self.show_overlay], layout="horizontal", labels=False)
        self._steps.margins = (0, 0, 0, 0)
        self._needs_plot = Label(value=messages.NEEDS_PLOT)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        shown = self.plot if self.plot is not None else self._needs_plot.native
        for widget in (self.metrics, shown, self._steps.native, self.legend):
            layout.addWidget(widget)
        wrap(self._needs_plot, lines=2)
        self.hide()

    def _make_plot(self, theme: str) -> SlicePlot | None:
        if find_spec("pyqtgraph") is None:
            return None
        from .slice_plot import SlicePlot

        return SlicePlot(theme, messages.slice_summary)

    def show_comparison(self, compared: Compared) -> None:
        """Show a comparison."""
        several = len(compared.slice_numbers) > 1
        self.metrics.show_agreement(compared.agreement)
        self.legend.show_counts(compared.by_slice.sum(axis=0).tolist())
        self.worst.enabled = several and compared.agreement.worst_slice is not None
        if self.plot is not None:
            self.plot.show_slices(compared.slice_numbers, compared.agreement.slice_dice, compared.by_slice)
            self.plot.setVisible(several)
        self.show()

    def show_place(self, index: int) -> None:
        """Mark the slice that the viewer shows."""
        if self.plot is not None:
            self.plot.show_place(index)

    def show_switch(self, *, is_open: bool, is_shown: bool) -> None:
        """Tick "Show overlay" as the layer is."""
        with self.show_overlay.changed.blocked():
            self.show_overlay.enabled = is_open
            self.show_overlay.value = is_shown

    def take_theme(self, name: str) -> None:
        """Take the colours of a napari theme."""
        if self.plot is not None:
            self.plot.take_theme(name)
