"""A report's page: one self-contained HTML file with metrics, a plot, and all contact sheets."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from ...atomic import replacing
from ..patient_metrics import CohortMetrics, PatientMetrics, measure_cohort

TITLE = "LGG segmentation report"

# Size of the plot and its margins at the left and at the top and bottom, in SVG units.
_WIDTH, _HEIGHT, _LEFT, _TOP = 1200, 200, 40, 10


@dataclass(frozen=True)
class Entry:
    """What the page shows of one patient.

    Attributes
    ----------
    metrics : PatientMetrics
        The patient's row in the table.
    sheet : bytes
        The patient's contact sheet as WebP.
    size : tuple of int
        Width and height of the sheet in pixels.
    """

    metrics: PatientMetrics
    sheet: bytes
    size: tuple[int, int]

    @property
    def data(self) -> str:
        """The sheet in base64, for a data URL."""
        return base64.b64encode(self.sheet).decode("ascii")


@dataclass(frozen=True)
class _Column:
    """A column of the table: its title, the metric that it shows, and whether that needs ground truth."""

    title: str
    name: str
    digits: int | None = None
    needs_truth: bool = True

    def text(self, value: float | None) -> str:
        if value is None:
            return "\N{EN DASH}"
        return f"{value:,}" if self.digits is None else f"{value:.{self.digits}f}"


_COLUMNS = (
    _Column("Dice", "dice", 3),
    _Column("Median\nslice Dice", "median_slice_dice", 3),
    _Column("Predicted\nvoxels", "voxels", needs_truth=False),
    _Column("True\nvoxels", "true_voxels"),
    _Column("Predicted\nslices", "slices", needs_truth=False),
    _Column("Predicted\nlesions", "lesions", needs_truth=False),
    _Column("Missed\nlesions", "missed_lesions"),
    _Column("False-positive\nlesions", "false_positive_lesions"),
    _Column("Voxels on\nempty slices", "false_voxels_on_empty_slices"),
    _Column("HD95,\npixels", "hd95", 1),
    _Column("Surface\nDice", "surface_dice", 3),
)


def write_page(
    path: Path, entries: Sequence[Entry], without_prediction: Sequence[str] = (), failed: Sequence[str] = ()
) -> None:
    """Write the page of a cohort, with pictures, style and script in one file.

    Parameters
    ----------
    path : Path
        The HTML file; an existing one is replaced.
    entries : sequence of Entry
        The patients, in any order; shown worst first with ground truth, otherwise by name.
    without_prediction : sequence of str
        Names of patients with ground truth only.
    failed : sequence of str
        One sentence for each patient that could not be shown.

    Raises
    ------
    ExportError
        If the disk is full or the folder cannot be written.
    """
    from jinja2 import Environment, StrictUndefined

    entries = sorted(entries, key=_worst_first)
    patients = [entry.metrics for entry in entries]
    cohort = measure_cohort(patients)
    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    template = files(__package__).joinpath("html_page.html").read_text(encoding="utf-8")
    page = environment.from_string(template).render(
        title=TITLE,
        entries=entries,
        cohort=cohort,
        plot=_plot(patients, cohort) if cohort is not None and cohort.summary.patients > 2 else None,
        columns=[column for column in _COLUMNS if cohort is not None or not column.needs_truth],
        without_prediction=without_prediction,
        failed=failed,
    )
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace", newline="\n")


def _worst_first(entry: Entry) -> tuple[float, str]:
    agreement = entry.metrics.agreement
    return (2.0 if agreement is None else agreement.dice), entry.metrics.patient


def _plot(patients: Sequence[PatientMetrics], cohort: CohortMetrics) -> dict[str, Any]:
    """Geometry of the plot: a bar for the Dice of each patient, and lines for the axis and the mean."""
    step = (_WIDTH - _LEFT - 90) / max(cohort.summary.patients, 12)

    def y(dice: float) -> float:
        return round(_TOP + (1 - dice) * _HEIGHT, 1)

    return {
        "width": _WIDTH,
        "height": _HEIGHT + 2 * _TOP,
        "left": _LEFT,
        "right": round(_LEFT + step * cohort.summary.patients, 1),
        "ticks": [(f"{dice:g}", y(dice)) for dice in (0, 0.5, 1)],
        "band": cohort.mean_interval and tuple(y(dice) for dice in cohort.mean_interval),
        "mean": y(cohort.summary.mean),
        "bar_width": round(0.76 * step, 1),
        "bars": [
            {
                "index": index,
                "patient": patient.patient,
                "dice": patient.agreement.dice,
                "x": round(_LEFT + (index + 0.12) * step, 1),
                "y": y(patient.agreement.dice),
                "height": round(max(2, y(0) - y(patient.agreement.dice)), 1),
            }
            for index, patient in enumerate(patients)
            if patient.agreement is not None
        ],
    }
