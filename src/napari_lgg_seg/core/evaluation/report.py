"""The figures of a report: about each patient, and about all of them together."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..atomic import replacing
from .compare import Agreement, compare, count_pieces
from .label_pairs import Volumes
from .metrics import Summary, summarise

#: Figures of an :class:`Agreement` that a row of a table leaves out: they are no single figure, or the
#: prediction's own, which stand there under their names.
_NOT_IN_ROWS = ("slice_dice", "spacing", "predicted_voxels", "predicted_lesions")

#: How often a cohort is drawn anew for its intervals, and the seed of the draws.
RESAMPLES, SEED = 5000, 0


# --- one patient -------------------------------------------------------------------------------


@dataclass(frozen=True)
class PatientMetrics:
    """What a report says about one patient.

    Attributes
    ----------
    patient : str
        The patient's name.
    of_slices : int
        Slices of the volume.
    voxels, slices, lesions : int
        Of the prediction: volume, slices with tumour, pieces (joined also by a corner).
    agreement : Agreement or None
        With the truth, where it is known.
    """

    patient: str
    of_slices: int
    voxels: int
    slices: int
    lesions: int
    agreement: Agreement | None = None

    def as_row(self) -> dict[str, Any]:
        """Flat figures, without those of single slices."""
        row = {name: value for name, value in asdict(self).items() if name != "agreement"}
        row |= {
            name: getattr(self.agreement, name, None)
            for name in Agreement.__dataclass_fields__
            if name not in _NOT_IN_ROWS
        }
        return row


def measure_patient(volumes: Volumes) -> PatientMetrics:
    """Figures about a patient's prediction and, where there is a truth, about their agreement."""
    predicted = volumes.prediction != 0
    agreement = None
    if volumes.truth is not None:
        agreement = compare(predicted, volumes.truth, slice_numbers=volumes.slice_numbers)
    return PatientMetrics(
        volumes.name,
        of_slices=len(predicted),
        voxels=int(predicted.sum()),
        slices=int(predicted.any(axis=(1, 2)).sum()),
        lesions=count_pieces(predicted) if agreement is None else agreement.predicted_lesions,
        agreement=agreement,
    )


# --- all patients ------------------------------------------------------------------------------


@dataclass(frozen=True)
class CohortMetrics:
    """Dice per patient over a cohort, with how sure one can be of it.

    Attributes
    ----------
    summary : Summary
        Mean, median and failures.
    mean_interval, median_interval : tuple of float or None
        95 % bootstrap intervals (percentiles over patients drawn anew); None of a single patient.
    """

    summary: Summary
    mean_interval: tuple[float, float] | None
    median_interval: tuple[float, float] | None


def measure_cohort(patients: Sequence[PatientMetrics]) -> CohortMetrics | None:
    """Figures over the patients with truth; None if there are none."""
    scores = {p.patient: p.agreement.dice for p in patients if p.agreement is not None}
    if not scores:
        return None
    summary = summarise(scores)
    if len(scores) == 1:
        return CohortMetrics(summary, None, None)
    values = np.array(list(scores.values()))
    drawn = np.random.default_rng(SEED).choice(values, (RESAMPLES, len(values)))
    return CohortMetrics(summary, _interval(drawn.mean(axis=1)), _interval(np.median(drawn, axis=1)))


def _interval(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)


def write_metrics(
    output: Path,
    patients: Sequence[PatientMetrics],
    without_prediction: Sequence[str] = (),
    failed: Sequence[str] = (),
) -> None:
    """Write ``metrics.json`` (everything) and ``metrics.csv`` (a row a patient).

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
    """Write the figures of patients as CSV, a row a patient; an older file is replaced.

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
        temporary.write_text(text, encoding="utf-8", newline="")
