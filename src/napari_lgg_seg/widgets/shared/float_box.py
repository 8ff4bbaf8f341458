"""Boxes and sliders for decimal numbers, typed with a point or a comma whatever the desktop's language."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from magicgui.application import use_app
from magicgui.widgets import FloatSlider, FloatSpinBox
from magicgui.widgets.bases import RangedWidget, SliderWidget
from qtpy.QtGui import QValidator
from qtpy.QtWidgets import QDoubleSpinBox, QWidget

_NUMBER = re.compile(r"[+-]?(\d+[.,]?\d*|[.,]\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_UNFINISHED = re.compile(r"[0-9.,e+\-]*", re.ASCII | re.IGNORECASE)
#: Decimals after which Qt rounds: more than a double has.
_ALL_DECIMALS = 20


def parse_number(text: str) -> float | None:
    """A number with a decimal point or comma and no thousands separators; None if it is none."""
    text = text.strip()
    return float(text.replace(",", ".")) if _NUMBER.fullmatch(text) else None


class DecimalSpinBox(QDoubleSpinBox):
    """A spin box that keeps all digits; Qt's own reads the other decimal sign as a thousands separator."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setDecimals(_ALL_DECIMALS)
        self.setKeyboardTracking(False)  # the beginning of a number is another number

    def textFromValue(self, value: float) -> str:  # noqa: N802 - Qt's name
        """The shortest text for a number, with a comma where the desktop uses it."""
        text: str = np.format_float_positional(float(f"{value:.12g}"), trim="-")
        return text.replace(".", ",") if self.locale().decimalPoint() == "," else text

    def valueFromText(self, text: str | None) -> float:  # noqa: N802 - Qt's name
        """The number that was typed; the minimum for its special text, for instance "automatic"."""
        number = parse_number(text or "")
        return self.minimum() if number is None else number

    def validate(self, text: str | None, position: int) -> tuple[QValidator.State, str, int]:
        """Accept numbers within the limits; never refuse a single key, which would give another number."""
        text = text or ""
        number = parse_number(text)
        state = QValidator.State.Invalid
        if text == self.specialValueText() or (number is not None and self._is_allowed(number)):
            state = QValidator.State.Acceptable
        elif _UNFINISHED.fullmatch(text.strip()) or self.specialValueText().startswith(text):
            state = QValidator.State.Intermediate
        return state, text, position

    def fixup(self, text: str | None) -> str:
        """The nearest number within the limits."""
        number = parse_number(text or "")
        nearest = self.value() if number is None else min(max(number, self.minimum()), self.maximum())
        return self.textFromValue(nearest if self.decimals() else round(nearest))

    def _is_allowed(self, number: float) -> bool:
        is_within = self.minimum() <= number <= self.maximum()
        return is_within and (self.decimals() > 0 or number.is_integer())


class FloatBox(RangedWidget[float]):
    """A box for a decimal number."""

    def __init__(self, **options: Any) -> None:
        super().__init__(widget_type=_box_type(), **options)


class ThresholdSlider(SliderWidget[float]):
    """A slider with a box for a decimal number."""

    def __init__(self, **options: Any) -> None:
        super().__init__(widget_type=_slider_type(), **options)
        for box in self.native.findChildren(DecimalSpinBox):
            box.setMinimumWidth(box.fontMetrics().horizontalAdvance("0.0000000"))


def _box_type() -> type[Any]:
    class Box(use_app().get_obj(FloatSpinBox.__name__)):  # type: ignore[misc]
        def __init__(self, **options: Any) -> None:
            super(use_app().get_obj(FloatSpinBox.__name__), self).__init__(DecimalSpinBox, **options)

    return Box


def _slider_type() -> type[Any]:
    class Slider(use_app().get_obj(FloatSlider.__name__)):  # type: ignore[misc]
        _readout = DecimalSpinBox

        def _pre_set_hook(self, value: float) -> int:
            return round(value * self._precision)  # magicgui truncates, 0.57 to 0.569999

    return Slider
