"""Checks of options: limits, choices and thresholds, whatever the options are for."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import pytest

from napari_lgg_seg.core.choices import (
    OptionsError,
    check_options,
    check_threshold,
    option,
    parse_threshold,
)


@dataclass(frozen=True)
class Options:
    """An option of each kind."""

    edge_length: int = field(default=3, metadata=option("At least 1.", minimum=1))
    area: float | None = field(default=None, metadata=option("From 0 to 1.", minimum=0, maximum=1))
    kind: Literal["round", "flat"] = field(default="round", metadata=option("One of two."))
    colour: Literal["red", "blue"] | None = field(default=None, metadata=option("One of two, or None."))
    name: str = field(default="", metadata=option("Anything."))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"edge_length": 0}, "Edge length cannot be 0; choose a value of at least 1."),
        ({"area": 1.5}, "Area cannot be 1.5; choose a value from 0 to 1."),
        ({"area": -0.1}, "Area cannot be -0.1; choose a value from 0 to 1."),
        ({"area": math.nan}, "Area cannot be nan; choose a value from 0 to 1."),
        ({"kind": "square"}, "Kind cannot be 'square'; choose one of round, flat."),
        ({"colour": "green"}, "Colour cannot be 'green'; choose one of red, blue."),
    ],
    ids=str,
)
def test_values_outside_limits_and_choices_are_refused(wrong, message):
    with pytest.raises(OptionsError) as caught:
        check_options(Options(**wrong))
    assert str(caught.value) == message


@pytest.mark.parametrize("right", [{"edge_length": 1}, {"area": 0}, {"area": 1}, {"colour": "blue"}], ids=str)
def test_limits_themselves_and_none_are_allowed(right):
    check_options(Options(**right))
    with pytest.raises(OptionsError):  # each value was checked
        check_options(Options(**right, kind="square"))


def test_metadata_of_an_option():
    metadata = option("Help.", minimum=1, may_change=True, fine_tuning=2, scratch=3)
    assert metadata == {
        "help": "Help.",
        "limits": (1, None),
        "may_change": True,
        "defaults": {"fine_tuning": 2, "scratch": 3},
    }


@pytest.mark.parametrize(("text", "threshold"), [("auto", "auto"), ("0.35", 0.35), ("1", 1.0)])
def test_a_threshold_is_parsed(text, threshold):
    assert parse_threshold(text) == threshold


@pytest.mark.parametrize("text", ["half", "", "0", "1.5", "nan", "Auto"])
def test_text_that_is_not_a_threshold_is_refused(text):
    with pytest.raises(OptionsError, match=r"^A threshold of .*; choose for instance 0\.5, or 'auto'\.$"):
        parse_threshold(text)


@pytest.mark.parametrize("threshold", [0, -0.5, 1.01, math.nan, "high"])
def test_values_that_are_not_thresholds_are_refused(threshold):
    with pytest.raises(OptionsError, match=r"is not between 0 and 1; choose for instance 0\.5, or 'auto'\.$"):
        check_threshold(threshold)
