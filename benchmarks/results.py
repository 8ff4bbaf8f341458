"""What the run files of docs/experiments hold, put together: runs of one kind over their folds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from calibration import Reliability

DOCS = Path(__file__).parent.parent / "docs"
EXPERIMENTS = DOCS / "experiments"
#: How often patients are drawn anew for an interval, and the seed of the draws.
RESAMPLES, SEED = 5000, 0

#: A test patient of a fold; by slice the same patient is tested in several folds.
Key = tuple[int, str]
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Variant:
    """All runs of one kind.

    Attributes
    ----------
    name : str
        Of the files, without fold.
    runs : list of dict
        The files' contents, by fold.
    """

    name: str
    runs: list[dict[str, Any]]

    @property
    def rows(self) -> dict[Key, Row]:
        """Figures of every test patient."""
        return {(run["fold"], row["patient"]): row for run in self.runs for row in run["patients"]}

    def choice(self, name: str) -> dict[Key, float]:
        """Dice of every test patient with another way from probabilities to labels."""
        return {
            (run["fold"], row["patient"]): value
            for run in self.runs
            for row, value in zip(run["patients"], run["choices"][name], strict=True)
        }


def load(name: str) -> Variant:
    """The runs of one kind that have results."""
    runs = [json.loads(p.read_text(encoding="utf-8")) for p in sorted(EXPERIMENTS.glob(f"{name}-fold*.json"))]
    return Variant(name, [run for run in runs if "patients" in run])


def added_up(runs: Iterable[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Voxels by probability, of the test patients of several runs."""
    counts = [run["reliability"] for run in runs]
    return {key: np.sum([one[key] for one in counts], axis=0).tolist() for key in counts[0]}


def calibration_error(counts: Mapping[str, Iterable[float]]) -> float:
    """Expected calibration error of such counts."""
    return Reliability(**{key: np.array(list(values)) for key, values in counts.items()}).error


def dice_of(rows: Mapping[Key, Row]) -> dict[Key, float]:
    """Dice by patient."""
    return {key: row["dice"] for key, row in rows.items()}


def failures(rows: Mapping[Key, Row], below: float = 0.7) -> list[Row]:
    """The patients below a Dice, worst first."""
    return sorted((row for row in rows.values() if row["dice"] < below), key=lambda row: row["dice"])


def interval(values: Iterable[float], statistic: Callable[..., Any] = np.mean) -> tuple[float, float]:
    """95 % interval of a statistic, by bootstrap over patients."""
    array = np.array(list(values), dtype=np.float64)
    drawn = np.random.default_rng(SEED).choice(array, (RESAMPLES, len(array)))
    low, high = np.percentile(statistic(drawn, axis=1), (2.5, 97.5))
    return float(low), float(high)


def mean_of(rows: Mapping[Key, Row], figure: str) -> float:
    """Mean of a figure over the patients that have it."""
    return float(np.mean([row[figure] for row in rows.values() if row[figure] is not None]))


def median_of(rows: Mapping[Key, Row], figure: str) -> float:
    """Median of a figure over the patients that have it."""
    return float(np.median([row[figure] for row in rows.values() if row[figure] is not None]))


def with_interval(values: Iterable[float], statistic: Callable[..., Any] = np.mean) -> str:
    """A statistic with its 95 % interval, for a table."""
    values = list(values)
    low, high = interval(values, statistic)
    return f"{statistic(values):.3f} ({low:.3f} to {high:.3f})"


def difference(values: Mapping[Key, float], baseline: Mapping[Key, float]) -> str:
    """Mean paired difference over the patients in both, with its 95 % interval, for a table."""
    gains = [value - baseline[key] for key, value in values.items() if key in baseline]
    low, high = interval(gains)
    return f"{np.mean(gains):+.3f} ({low:+.3f} to {high:+.3f})"


def as_table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    header = list(header)
    lines = [header, ["---"] * len(header), *(list(row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def summary_table(variants: Mapping[str, Mapping[Key, Row]], baseline: str | None = None) -> str:
    """A row for each variant: the protocol's figures, and the difference from the baseline."""
    header = ["", "patients", "mean Dice (95 %)", "median (95 %)"]
    header += ["difference of means (95 %)"] if baseline else []
    header += ["< 0.5", "missed", "tumour slices", "HD95", "surface Dice", "false voxels"]
    lines = []
    for label, rows in variants.items():
        dice = dice_of(rows)
        values = list(dice.values())
        line = [label, str(len(values)), with_interval(values), with_interval(values, np.median)]
        if baseline:
            line.append("" if label == baseline else difference(dice, dice_of(variants[baseline])))
        line += [str(sum(v < 0.5 for v in values)), str(sum(v == 0 for v in values))]
        line += [f"{mean_of(rows, 'tumour_slice_dice'):.3f}", f"{median_of(rows, 'hd95'):.1f}"]
        line += [f"{mean_of(rows, 'surface_dice'):.3f}"]
        line += [f"{mean_of(rows, 'false_voxels_on_empty_slices'):.0f}"]
        lines.append(line)
    return as_table(header, lines)


def fill(document: Path, parts: Mapping[str, str]) -> None:
    """Put generated parts between their marks in a document.

    Raises
    ------
    ValueError
        If the document lacks a mark.
    """
    text = document.read_text(encoding="utf-8")
    for name, part in parts.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        before, found, rest = text.partition(begin)
        _, found_end, after = rest.partition(end)
        if not found or not found_end:
            raise ValueError(f"{document} has no part {name}")
        text = f"{before}{begin}{part}\n{end}{after}"
    document.write_text(text, encoding="utf-8")
