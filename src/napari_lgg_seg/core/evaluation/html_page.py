"""A report's page: one HTML file that needs nothing else, with figures, a plot, and all contact sheets."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from ..atomic import replacing
from .metrics import Summary
from .report import CohortMetrics, PatientMetrics, measure_cohort

TITLE = "LGG segmentation report"
_RULES = (
    "Dice over the whole volume of each patient. Slice Dice counts slices with tumour in prediction or truth "
    "(0 where one of them alone has tumour); slices empty in both do not count. HD95 and surface Dice "
    "(within 1 pixel) count neighbouring slices as one pixel apart, since the files do not say how far they "
    "are. A lesion is a piece of tumour of any size, joined also by a corner: missed if no predicted voxel "
    "touches it, invented if no true voxel does. Voxels on empty slices are predicted where the truth has "
    "no tumour in the whole slice. Intervals: 95 % bootstrap over patients, fixed seed."
)
_DISCLAIMER = "Made by napari-lgg-seg. For research; not a medical device."


@dataclass(frozen=True)
class Entry:
    """What the page shows of one patient.

    Attributes
    ----------
    figures : PatientMetrics
        Its row in the table.
    sheet : bytes
        Its contact sheet as WebP.
    size : tuple of int
        Width and height of the sheet in pixels.
    """

    metrics: PatientMetrics
    sheet: bytes
    size: tuple[int, int]


@dataclass(frozen=True)
class _Column:
    """One column of the table: its title, and what to show and to sort by for a patient."""

    title: str
    name: str
    digits: int | None = None
    always: bool = False

    def cell(self, metrics: PatientMetrics) -> str:
        value = metrics.as_row()[self.name]
        if value is None:
            return '<td data-value="">&ndash;</td>'
        shown = f"{value:,}" if self.digits is None else f"{value:.{self.digits}f}"
        kind = ' class="low"' if self.name == "dice" and value < 0.5 else ""
        return f'<td data-value="{value}"{kind}>{shown}</td>'


_COLUMNS = (
    _Column("Dice", "dice", 3),
    _Column("Median<br>slice Dice", "median_slice_dice", 3),
    _Column("Predicted<br>voxels", "voxels", always=True),
    _Column("True<br>voxels", "true_voxels"),
    _Column("Slices<br>predicted", "slices", always=True),
    _Column("Pieces<br>predicted", "lesions", always=True),
    _Column("Lesions<br>missed", "missed_lesions"),
    _Column("Lesions<br>invented", "false_positive_lesions"),
    _Column("Voxels on<br>empty slices", "false_voxels_on_empty_slices"),
    _Column("HD95,<br>pixels", "hd95", 1),
    _Column("Surface<br>Dice", "surface_dice", 3),
)


def write_page(
    path: Path, entries: Sequence[Entry], without_prediction: Sequence[str] = (), failed: Sequence[str] = ()
) -> None:
    """Write the page of a cohort: pictures, style and script are in the file.

    Parameters
    ----------
    path : Path
        The HTML file.
    entries : sequence of Entry
        The patients; shown worst first where the truth is known, else by name.
    without_prediction : sequence of str
        Names of patients with truth alone.
    failed : sequence of str
        A sentence for each patient that could not be shown.

    Raises
    ------
    ExportError
        If the disk is full or the folder cannot be written.
    """
    entries = sorted(entries, key=_worst_first)
    patients = [entry.metrics for entry in entries]
    cohort = measure_cohort(patients)
    columns = [column for column in _COLUMNS if cohort is not None or column.always]
    page = Template(files(__package__).joinpath("html_page.html").read_text(encoding="utf-8")).substitute(
        title=TITLE,
        subtitle=_subtitle(patients, cohort, without_prediction, failed),
        summary="" if cohort is None else _summary(cohort),
        plot=_plot(patients, cohort) if cohort is not None and cohort.summary.patients > 2 else "",
        heads=_heads(columns, by_dice=cohort is not None),
        rows="\n".join(_row(number, metrics, columns) for number, metrics in enumerate(patients)),
        sections="\n".join(_section(number, entry) for number, entry in enumerate(entries)),
        rules=f"{_RULES} {_DISCLAIMER}" if cohort is not None else _DISCLAIMER,
    )
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8", newline="\n")


def _worst_first(entry: Entry) -> tuple[float, str]:
    agreement = entry.metrics.agreement
    return (2.0 if agreement is None else agreement.dice), entry.metrics.patient


def _subtitle(
    patients: Sequence[PatientMetrics],
    cohort: CohortMetrics | None,
    without_prediction: Sequence[str],
    failed: Sequence[str],
) -> str:
    scored = 0 if cohort is None else cohort.summary.patients
    text = f"{len(patients)} patient{'' if len(patients) == 1 else 's'}, {scored or 'none'} with known truth."
    if without_prediction:
        words = f"{len(without_prediction)} with truth have no prediction and are not counted"
        names = escape(", ".join(without_prediction))
        text += f"</p><details><summary>{words}</summary>{names}</details><p>"
    if failed:
        items = "".join(f"<li>{escape(sentence)}</li>" for sentence in failed)
        text += f'</p><div class="card"><b>Not in this report</b><ul>{items}</ul></div><p>'
    return text


def _summary(cohort: CohortMetrics) -> str:
    summary = cohort.summary
    items = [
        (f"{summary.mean:.3f}", f"mean Dice{_between(cohort.mean_interval)}"),
        (f"{summary.median:.3f}", f"median Dice{_between(cohort.median_interval)}"),
        (f"{len(summary.below_half)} of {summary.patients}", "patients below 0.5"),
        (f"{len(summary.missed)} of {summary.patients}", "patients missed (Dice 0)"),
    ]
    metrics = "".join(f'<div><b>{big}</b><span class="muted">{small}</span></div>' for big, small in items)
    return f'<div class="card stats">{metrics}</div>'


def _between(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f", 95 % interval {interval[0]:.3f} to {interval[1]:.3f}"


def _plot(patients: Sequence[PatientMetrics], cohort: CohortMetrics) -> str:
    """Dice of each patient as a bar that leads to its sheet, worst first, with mean and its interval."""
    width, height, left, top = 1200, 200, 40, 10
    summary: Summary = cohort.summary
    step = (width - left - 90) / max(summary.patients, 12)
    end = left + step * summary.patients

    def y(dice: float) -> float:
        return round(top + (1 - dice) * height, 1)

    parts = []
    for value in (0, 0.5, 1):
        parts.append(
            f'<line x1="{left}" x2="{end:.1f}" y1="{y(value)}" y2="{y(value)}" stroke="var(--line)"/>'
        )
        parts.append(f'<text x="{left - 8}" y="{y(value) + 4}" text-anchor="end">{value:g}</text>')
    if cohort.mean_interval is not None:
        low, high = cohort.mean_interval
        parts.append(
            f'<rect x="{left}" width="{end - left:.1f}" y="{y(high)}" height="{y(low) - y(high):.1f}" '
            'fill="var(--band)"/>'
        )
    for number, metrics in enumerate(patients):
        if metrics.agreement is None:
            continue
        dice = metrics.agreement.dice
        colour = "var(--low)" if dice < 0.5 else "var(--bar)"
        parts.append(
            f'<a href="#sheet-{number}"><title>{escape(metrics.patient)}: {dice:.3f}</title>'
            f'<rect x="{left + (number + 0.12) * step:.1f}" width="{0.76 * step:.1f}" y="{y(dice)}" '
            f'height="{max(2, y(0) - y(dice)):.1f}" fill="{colour}"/></a>'
        )
    mean = y(summary.mean)
    parts.append(f'<line x1="{left}" x2="{end:.1f}" y1="{mean}" y2="{mean}" stroke="var(--truth)"/>')
    parts.append(f'<text x="{end + 8:.1f}" y="{mean + 4}">mean {summary.mean:.3f}</text>')
    return (
        '<div class="card"><p class="muted">Dice of each patient, worst first; below 0.5 in orange. '
        "Blue: the mean and its interval.</p>"
        f'<svg viewBox="0 0 {width} {height + 2 * top}" role="img" aria-label="Dice of each patient">'
        f"{''.join(parts)}</svg></div>"
    )


def _heads(columns: Sequence[_Column], *, by_dice: bool) -> str:
    order = ' aria-sort="ascending"'
    titles = [("Patient", "" if by_dice else order)]
    titles += [(column.title, order if column.name == "dice" else "") for column in columns]
    return "".join(
        f'<th scope="col"{order}><button type="button">{title}</button></th>' for title, order in titles
    )


def _row(number: int, metrics: PatientMetrics, columns: Sequence[_Column]) -> str:
    name = escape(metrics.patient)
    first = f'<td data-value="{name}"><a href="#sheet-{number}">{name}</a></td>'
    cells = "".join(column.cell(metrics) for column in columns)
    return f'<tr data-sheet="sheet-{number}">{first}{cells}</tr>'


def _section(number: int, entry: Entry) -> str:
    name = escape(entry.metrics.patient)
    agreement = entry.metrics.agreement
    dice = "" if agreement is None else f'<span class="muted">Dice {agreement.dice:.3f}</span>'
    width, height = entry.size
    picture = base64.b64encode(entry.sheet).decode("ascii")
    return (
        f'<section class="card" id="sheet-{number}"><header><h2>{name}</h2>{dice}'
        '<a href="#top">back to the table</a></header>'
        f'<div><img width="{width}" height="{height}" decoding="async" alt="Contact sheet of {name}" '
        f'src="data:image/webp;base64,{picture}"></div></section>'
    )
