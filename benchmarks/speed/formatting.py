"""How measurements become the cells of a table: medians, speed-ups, significant digits."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import Any

#: What one method measured: a list of values per key, or ``{"problem": sentence}``.
Measurement = Mapping[str, Any]
Measurements = Mapping[str, Measurement]
#: What is stored of a section.
Section = Mapping[str, Any]


def median(method: Measurement | None, key: str = "seconds") -> float | None:
    """Median over the rounds, or the single value; None where the method failed or was not measured."""
    values = None if method is None or "problem" in method else method.get(key)
    if values is None or values == []:
        return None
    return float(statistics.median(values)) if isinstance(values, list) else float(values)


def speedup(baseline: Measurement | None, method: Measurement | None) -> float | None:
    """How many times as fast as the baseline a method is: the median of the ratios of the same round."""
    if median(baseline) is None or median(method) is None:
        return None
    assert baseline is not None
    assert method is not None
    pairs = zip(baseline["seconds"], method["seconds"], strict=False)
    return statistics.median(slow / fast for slow, fast in pairs)


def number(value: float | None, unit: str = "", digits: int = 3) -> str:
    """A value with so many significant digits; empty where there is none."""
    if value is None:
        return ""
    rounded = float(f"{value:.{digits}g}")
    text = f"{rounded:,.0f}" if abs(value) >= 10 ** (digits - 1) else f"{rounded:g}"
    return f"{text} {unit}".rstrip()


def milliseconds(value: float | None, unit: str = "ms") -> str:
    """Seconds as milliseconds."""
    return number(None if value is None else 1000 * value, unit)


def factor(value: float | None) -> str:
    """A ratio."""
    return "" if value is None else f"{value:.2f}"


def percent(value: float | None) -> str:
    """A share."""
    return "" if value is None else f"{100 * value:.1f} %"


def not_measured(method: Measurement) -> str:
    """The cell of a method that failed, or an empty string."""
    return f"not measured: {method['problem']}" if "problem" in method else ""


def labelled_rows(
    methods: Measurements, labels: Mapping[str, str], columns: Callable[[str], list[str]], **words: Any
) -> list[list[str]]:
    """A row for each method that was tried: its cells, or why it was not measured."""
    rows = []
    for name, label in labels.items():
        if name in methods:
            first, *others = columns(name)
            rows.append([label.format(**words), not_measured(methods[name]) or first, *others])
    return rows
