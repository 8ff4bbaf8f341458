"""Building blocks of the widgets' forms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, count
from typing import TYPE_CHECKING, Any

from magicgui.widgets import ComboBox, Container, FileEdit, Label

if TYPE_CHECKING:
    from qtpy.QtWidgets import QWidget


Choices = Callable[[Any], Sequence[tuple[str, Any]]]


class Choice(ComboBox):
    """A combo box in which None can be chosen: magicgui's own emits no event for None."""

    null_value = object()


def distinct(choices: Sequence[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Choices of a combo box, numbered where names are equal: magicgui would merge them."""
    found: dict[str, Any] = {}
    for name, value in choices:
        numbered = (f"{name} [{number}]" for number in count(1))
        found[next(each for each in chain([name], numbered) if each not in found)] = value
    return list(found.items())


def update_choices(combo: ComboBox) -> list[Any]:
    """Ask for the choices again and keep the chosen one, even if it was renamed; returns the new ones.

    Emits no event.
    """
    before, chosen = combo.choices, combo.value
    with combo.changed.blocked():
        combo.reset_choices()
        if chosen is not None and chosen in combo.choices:
            combo.value = chosen
    return [choice for choice in combo.choices if choice not in before]


def wrap(text: Label, lines: int) -> None:
    """Show a text as it is, wrapped over the whole width, with room reserved for a few lines."""
    from qtpy.QtCore import Qt
    from qtpy.QtWidgets import QSizePolicy

    policy = QSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Minimum)
    policy.setHeightForWidth(True)
    text.native.setTextFormat(Qt.TextFormat.PlainText)
    text.native.setWordWrap(True)
    text.native.setSizePolicy(policy)
    text.native.setAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignTop)
    text.native.setMinimumHeight(lines * text.native.fontMetrics().lineSpacing())


def path_edit(mode: str, label: str, tooltip: str, files: str | None = None) -> FileEdit:
    """A path to type or to choose in a dialog: mode "d" for a folder, "w" for a new file."""
    edit = FileEdit(mode=mode, label=label, tooltip=tooltip, filter=files)
    edit.choose_btn.text = "..."
    edit.choose_btn.max_width = 34
    edit.line_edit.min_width = 80
    return edit


def allow_narrow(combo: ComboBox) -> None:
    """Let a menu be narrower than its longest choice, so that the column fits next to the canvas."""
    combo.native.setSizeAdjustPolicy(combo.native.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    combo.native.setMinimumContentsLength(10)


def rows(*widgets: Any) -> Container:
    """Controls below each other with their labels."""
    container = Container(widgets=widgets, labels=True)
    container.margins = (0, 0, 0, 0)
    return container


def side_by_side(*widgets: Any) -> Container:
    """Controls next to each other without labels."""
    container = Container(widgets=widgets, layout="horizontal", labels=False)
    container.margins = (0, 0, 0, 0)
    return container


def form(*widgets: Any, labels_above: bool = False) -> QWidget:
    """Controls below each other, with labels in a column, or above the controls to leave them the width."""
    from qtpy.QtWidgets import QFormLayout, QWidget

    native = QWidget()
    layout = QFormLayout(native)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    if labels_above:
        layout.setRowWrapPolicy(QFormLayout.RowWrapPolicy.WrapAllRows)
        layout.setVerticalSpacing(2)
    for widget in widgets:
        layout.addRow(widget.label, widget.native)
    return native


def folded(title: str, content: Container) -> QWidget:
    """Controls behind a title that expands when clicked."""
    from superqt import QCollapsible

    collapsible = QCollapsible(title)
    collapsible.addWidget(content.native)
    collapsible.collapse(animate=False)
    for layout in (collapsible.layout(), collapsible.content().layout()):
        layout.setContentsMargins(0, 0, 0, 0)
    return collapsible
