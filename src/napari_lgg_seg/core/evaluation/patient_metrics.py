"""The metrics of a report, for each patient and for the cohort, and their files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..atomic import replacing
from .compare import Agreement, compare, count_components
from .label_pairs import Volumes
from .metrics import Summary, summarise

#: Fields of an :class:`Agreement` that table rows leave out: they are not scalars, or repeat the columns of
#: the prediction.
_NOT_IN_ROWS = ("slice_dice", "spacing", "predicted_voxels", "predicted_lesions")

#: Number of bootstrap resamples for the confidence intervals, and their seed.
RESAMPLES, SEED = 5000, 0


# --- one patient -------------------------------------------------------------------------------


@dataclass(frozen=True)
class PatientMetrics:
    """A report's metrics of one patient.

    Attributes
    ----------
    patient : str
        The patient's name.
    of_slices : int
        Number of slices in the volume.
    voxels, slices, lesions : int
        Tumour voxels, slices with tumour, and 26-connected components of the prediction.
    agreement : Agreement or None
        Agreement with the ground truth, if there is one.
    """

    patient: str
    of_slices: int
    voxels: int
    slices: int
    lesions: int
    agreement: Agreement | None = None

    def as_row(self) -> dict[str, Any]:
        """Return the scalar metrics as one flat row; those of a missing agreement are None."""
        row = {name: value for name, value in asdict(self).items() if name != "agreement"}
        row |= {
            name: getattr(self.agreement, name, None)
            for name in Agreement.__dataclass_fields__
            if name not in _NOT_IN_ROWS
        }
        return row


def measure_patient(volumes: Volumes) -> PatientMetrics:
    """Measure a patient's prediction and, if there is ground truth, its agreement with it.

    Parameters
    ----------
    volumes : Volumes
        The patient's labels on one grid.
    """
    predicted = volumes.prediction != 0
    agreement = None
    if volumes.truth is not None:
        agreement = compare(predicted, volumes.truth, slice_numbers=volumes.slice_numbers)
    return PatientMetrics(
        volumes.name,
        of_slices=len(predicted),
        voxels=int(predicted.sum()),
        slices=int(predicted.any(axis=(1, 2)).sum()),
        lesions=count_components(predicted) if agreement is None else agreement.predicted_lesions,
        agreement=agreement,
    )


# --- all patients ------------------------------------------------------------------------------


@dataclass(frozen=True)
class CohortMetrics:
    """Dice per patient over a cohort, with confidence intervals.

    Attributes
    ----------
    summary : Summary
        Mean, median and failures.
    mean_interval, median_interval : tuple of float or None
        95 % percentile bootstrap intervals over patients; None for a single patient.
    """

    summary: Summary
    mean_interval: tuple[float, float] | None
    median_interval: tuple[float, float] | None


def measure_cohort(patients: Sequence[PatientMetrics]) -> CohortMetrics | None:
    """Summarise the Dice of the patients with ground truth; None if there are none.

    Parameters
    ----------
    patients : sequence of PatientMetrics
        Those without agreement are ignored.
    """
    scores = {p.patient: p.agreement.dice for p in patients if p.agreement is not None}
    if not scores:
        return None
    summary = summarise(scores)
    if len(scores) == 1:
        return CohortMetrics(summary, None, None)
    values = np.array(list(scores.values()))
    return CohortMetrics(summary, _interval(values, np.mean), _interval(values, np.median))


def _interval(values: npt.NDArray[np.float64], statistic: Callable[..., Any]) -> tuple[float, float]:
    from scipy.stats import bootstrap

    # In batches, so that thousands of patients do not take gigabytes.
    interval = bootstrap(
        (values,), statistic, n_resamples=RESAMPLES, batch=500, method="percentile", rng=SEED
    ).confidence_interval
    return float(interval.low), float(interval.high)


def write_metrics(
    output: Path,
    patients: Sequence[PatientMetrics],
    without_prediction: Sequence[str] = (),
    failed: Sequence[str] = (),
) -> None:
    """Write ``metrics.json`` with all metrics and ``metrics.csv`` with one row per patient.

    Parameters
    ----------
    output : Path
        The folder; existing files are replaced.
    patients : sequence of PatientMetrics
        The measured patients.
    without_prediction : sequence of str
        Names of patients with ground truth only.
    failed : sequence of str
        One sentence for each patient that could not be measured.

    Raises
    ------
    ExportError
        If the disk is full or the folder cannot be written.
    """
    cohort = measure_cohort(patients)
    metrics = {
        "cohort": None if cohort is None else asdict(cohort),
        "patients": [asdict(patient) for patient in patients],
        "without_prediction": list(without_prediction),
        "failed": list(failed),
    }
    _write(output / "metrics.json", json.dumps(metrics, indent=2, ensure_ascii=False) + "\n")
    write_table(output / "metrics.csv", patients)


def write_table(path: Path, patients: Sequence[PatientMetrics]) -> None:
    """Write the metrics of patients as CSV with one row per patient; an existing file is replaced.

    Parameters
    ----------
    path : Path
        The CSV file.
    patients : sequence of PatientMetrics
        The measured patients.

    Raises
    ------
    ExportError
        If the disk is full or the folder cannot be written.
    """
    rows = [patient.as_row() for patient in patients]
    table = io.StringIO()
    writer = csv.DictWriter(table, list(rows[0]) if rows else ["patient"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    _write(path, table.getvalue())


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")
