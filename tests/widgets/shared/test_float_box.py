"""Decimal numbers are read as they were typed, with a point or a comma, on any desktop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from qtpy.QtCore import QLocale, Qt
from qtpy.QtTest import QTest

from napari_lgg_seg.widgets.shared.float_box import DecimalSpinBox, FloatBox, ThresholdSlider


@pytest.fixture(params=["de_DE", "en_US", "fr_CH"])
def _desktop(request: Any, qtbot: Any) -> Iterator[None]:
    before = QLocale()
    QLocale.setDefault(QLocale(request.param))
    yield
    QLocale.setDefault(before)


def type_into(box: Any, text: str) -> None:
    box.selectAll()
    QTest.keyClicks(box, text)
    QTest.keyClick(box, Qt.Key.Key_Return)


TYPED = [("0.9", 0.9), ("0,9", 0.9), ("0.9375", 0.9375), ("0,4297", 0.4297), (".5", 0.5), ("1e-3", 0.001)]


@pytest.mark.usefixtures("_desktop")
@pytest.mark.parametrize(("text", "number"), TYPED)
def test_both_decimal_signs_are_read_and_all_digits_kept(text: str, number: float) -> None:
    box = FloatBox(value=0.3, min=0, max=100, step=0.1)
    type_into(box.native, text)
    assert box.value == number
    slider = ThresholdSlider(value=0.3, min=0, max=1, step=0.01)
    type_into(slider.native.findChild(DecimalSpinBox), text)
    assert slider.value == pytest.approx(number, abs=1e-9)


@pytest.mark.usefixtures("_desktop")
def test_a_value_that_nobody_typed_keeps_its_digits() -> None:
    box = FloatBox(value=0.4296875123456789, min=0, max=100, step=0.1)
    box.native.setFocus()
    box.native.clearFocus()
    assert box.value == 0.4296875123456789


@pytest.mark.usefixtures("_desktop")
def test_a_number_outside_the_limits_becomes_the_limit() -> None:
    box = FloatBox(value=1, min=0, max=100, step=0.1)
    type_into(box.native, "150")
    assert box.value == 100
    assert box.native.text() == "100"


@pytest.mark.usefixtures("_desktop")
def test_a_special_text_stands_for_the_minimum() -> None:
    box = FloatBox(value=0, min=0, max=1000, step=1)
    box.native.setDecimals(0)
    box.native.setSpecialValueText("automatic")
    assert box.native.text() == "automatic"
    type_into(box.native, "25")
    assert box.value == 25
    type_into(box.native, "0")
    assert box.native.text() == "automatic"
