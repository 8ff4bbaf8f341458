"""The results in docs/experiments: the runs of one kind over their folds, statistics, and tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from calibration import Reliability

DOCS = Path(__file__).parent.parent / "docs"
EXPERIMENTS, FIGURES = DOCS / "experiments", DOCS / "figures"
#: Bootstrap resamples for an interval, and their seed.
RESAMPLES, SEED = 5000, 0

#: Fold and name of a test patient; split by slice, the same patient is tested in several folds.
Key = tuple[int, str]
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Variant:
    """All runs of one kind.

    Attributes
    ----------
    name : str
        Name of the files without the fold.
    runs : list of dict
        Contents of the files, by fold.
    """

    name: str
    runs: list[dict[str, Any]]

    @property
    def rows(self) -> dict[Key, Row]:
        """Metrics of every test patient."""
        return {(run["fold"], row["patient"]): row for run in self.runs for row in run["patients"]}

    def choice(self, name: str) -> dict[Key, float]:
        """Dice of every test patient with other post-processing."""
        return {
            (run["fold"], row["patient"]): value
            for run in self.runs
            for row, value in zip(run["patients"], run["choices"][name], strict=True)
        }


def load(name: str) -> Variant:
    """The runs of one kind that have results."""
    runs = [json.loads(p.read_text(encoding="utf-8")) for p in sorted(EXPERIMENTS.glob(f"{name}-fold*.json"))]
    return Variant(name, [run for run in runs if "patients" in run])


def summed_counts(runs: Iterable[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Voxel counts by probability, summed over the test patients of several runs."""
    counts = [run["reliability"] for run in runs]
    return {key: np.sum([one[key] for one in counts], axis=0).tolist() for key in counts[0]}


def calibration_error(counts: Mapping[str, Iterable[float]]) -> float:
    """Expected calibration error of such counts."""
    return Reliability(**{key: np.array(list(values)) for key, values in counts.items()}).error


def dice_of(rows: Mapping[Key, Row]) -> dict[Key, float]:
    """Dice by patient."""
    return {key: row["dice"] for key, row in rows.items()}


def failures(rows: Mapping[Key, Row], below: float = 0.7) -> list[Row]:
    """The patients below a Dice, the worst first."""
    return sorted((row for row in rows.values() if row["dice"] < below), key=lambda row: row["dice"])


def interval(values: Iterable[float], statistic: Callable[..., Any] = np.mean) -> tuple[float, float]:
    """95 % interval of a statistic, by bootstrap over patients."""
    array = np.array(list(values), dtype=np.float64)
    drawn = np.random.default_rng(SEED).choice(array, (RESAMPLES, len(array)))
    low, high = np.percentile(statistic(drawn, axis=1), (2.5, 97.5))
    return float(low), float(high)


def mean_of(rows: Mapping[Key, Row], metric: str) -> float:
    """Mean of a metric over the patients for whom it is defined."""
    return float(np.mean([row[metric] for row in rows.values() if row[metric] is not None]))


def median_of(rows: Mapping[Key, Row], metric: str) -> float:
    """Median of a metric over the patients for whom it is defined."""
    return float(np.median([row[metric] for row in rows.values() if row[metric] is not None]))


def with_interval(values: Iterable[float], statistic: Callable[..., Any] = np.mean) -> str:
    """The text of a statistic with its 95 % interval."""
    values = list(values)
    low, high = interval(values, statistic)
    return f"{statistic(values):.3f} ({low:.3f} to {high:.3f})"


def difference(values: Mapping[Key, float], baseline: Mapping[Key, float]) -> str:
    """The text of the mean paired difference over the patients in both, with its 95 % interval."""
    gains = [value - baseline[key] for key, value in values.items() if key in baseline]
    low, high = interval(gains)
    return f"{np.mean(gains):+.3f} ({low:+.3f} to {high:+.3f})"


def as_table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    header = list(header)
    lines = [header, ["---"] * len(header), *(list(row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def summary_table(variants: Mapping[str, Mapping[Key, Row]], baseline: str | None = None) -> str:
    """A row for each variant: the protocol's metrics, and the difference from the baseline."""
    header = ["", "patients", "mean Dice (95 % CI)", "median (95 % CI)"]
    header += ["difference of means (95 % CI)"] if baseline else []
    header += ["< 0.5", "missed", "tumour slices", "HD95", "surface Dice", "false positives"]
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
    """Put generated parts between their markers in a document.

    Raises
    ------
    ValueError
        If the document lacks a marker.
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
