"""The figures of a report: about each patient, and about all of them together."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .cases import Volumes
from .export import replacing
from .metrics import Summary, dice, summarise

Mask = npt.NDArray[np.bool_]

#: Surfaces agree where they are no further apart than this, in voxel steps.
SURFACE_TOLERANCE = 1.0
#: How often a cohort is drawn anew for its intervals, and the seed of the draws.
RESAMPLES, SEED = 5000, 0


# --- one patient -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Agreement:
    """How far a patient's prediction agrees with the truth.

    Attributes
    ----------
    dice : float
        Over the whole volume.
    median_slice_dice : float or None
        Of ``slice_dice``; None without any tumour.
    slice_dice : dict of int to float
        By slice number. Slices that are empty in both do not count; a slice with tumour in one of
        them alone has 0.
    true_voxels, true_slices, true_lesions : int
        Of the truth: volume, slices with tumour, pieces (joined also by a corner).
    missed_lesions, invented_lesions : int
        Pieces of the truth that no predicted voxel touches, and the reverse; of any size.
    hd95 : float or None
        95th percentile of the distances between the surfaces, the larger of both directions, in voxel
        steps: slices count as one pixel apart, since files do not say how far they are. None if one
        of them is empty.
    surface_dice : float
        Share of both surfaces that is within :data:`SURFACE_TOLERANCE` voxel steps of the other.
    """

    dice: float
    median_slice_dice: float | None
    slice_dice: Mapping[int, float]
    true_voxels: int
    true_slices: int
    true_lesions: int
    missed_lesions: int
    invented_lesions: int
    hd95: float | None
    surface_dice: float


@dataclass(frozen=True)
class PatientFigures:
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
            if name != "slice_dice"
        }
        return row


def measure_patient(volumes: Volumes) -> PatientFigures:
    """Figures about a patient's prediction and, where there is a truth, about their agreement."""
    predicted = volumes.prediction != 0
    agreement = None
    if volumes.truth is not None:
        agreement = _agreement(predicted, volumes.truth != 0, volumes.slice_numbers)
    return PatientFigures(
        volumes.name,
        of_slices=len(predicted),
        voxels=int(predicted.sum()),
        slices=int(predicted.any(axis=(1, 2)).sum()),
        lesions=_pieces(predicted)[1],
        agreement=agreement,
    )


def _agreement(predicted: Mask, true: Mask, numbers: Sequence[int]) -> Agreement:
    by_slice = {
        number: dice(p, t) for number, p, t in zip(numbers, predicted, true, strict=True) if (p | t).any()
    }
    hd95, surface_dice = _surfaces(predicted, true)
    return Agreement(
        dice=dice(predicted, true),
        median_slice_dice=float(np.median(list(by_slice.values()))) if by_slice else None,
        slice_dice=by_slice,
        true_voxels=int(true.sum()),
        true_slices=int(true.any(axis=(1, 2)).sum()),
        true_lesions=_pieces(true)[1],
        missed_lesions=_untouched(true, predicted),
        invented_lesions=_untouched(predicted, true),
        hd95=hd95,
        surface_dice=surface_dice,
    )


def _pieces(mask: Mask) -> tuple[npt.NDArray[np.int32], int]:
    from scipy.ndimage import label

    pieces, count = label(mask, structure=np.ones((3, 3, 3)))
    return pieces, int(count)


def _untouched(mask: Mask, other: Mask) -> int:
    pieces, count = _pieces(mask)
    touched = np.unique(pieces[mask & other])
    return count - len(touched)


def _surfaces(predicted: Mask, true: Mask) -> tuple[float | None, float]:
    """HD95 and surface Dice, on the surfaces that MONAI takes: a mask without its erosion."""
    from scipy.ndimage import binary_erosion, distance_transform_edt, find_objects

    boxes = find_objects((predicted | true).astype(np.uint8))
    if not boxes:
        return None, 1.0
    if not predicted.any() or not true.any():
        return None, 0.0
    # One voxel around, so that the box's own border makes no surface different.
    box = tuple(slice(max(part.start - 1, 0), part.stop + 1) for part in boxes[0])
    surfaces = [mask[box] & ~binary_erosion(mask[box]) for mask in (predicted, true)]
    distances = [
        distance_transform_edt(~other)[surface]
        for surface, other in zip(surfaces, reversed(surfaces), strict=True)
    ]
    near = sum(int((d <= SURFACE_TOLERANCE).sum()) for d in distances)
    hd95 = max(float(np.percentile(d, 95)) for d in distances)
    return hd95, near / sum(len(d) for d in distances)


# --- all patients ------------------------------------------------------------------------------


@dataclass(frozen=True)
class CohortFigures:
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


def measure_cohort(patients: Sequence[PatientFigures]) -> CohortFigures | None:
    """Figures over the patients with truth; None if there are none."""
    scores = {p.patient: p.agreement.dice for p in patients if p.agreement is not None}
    if not scores:
        return None
    summary = summarise(scores)
    if len(scores) == 1:
        return CohortFigures(summary, None, None)
    values = np.array(list(scores.values()))
    drawn = np.random.default_rng(SEED).choice(values, (RESAMPLES, len(values)))
    return CohortFigures(summary, _interval(drawn.mean(axis=1)), _interval(np.median(drawn, axis=1)))


def _interval(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)


def write_figures(
    output: Path,
    patients: Sequence[PatientFigures],
    without_prediction: Sequence[str] = (),
    failed: Sequence[str] = (),
) -> None:
    """Write ``figures.json`` (everything) and ``figures.csv`` (a row a patient).

    Raises
    ------
    ExportError
        If the disk is full or the folder cannot be written.
    """
    cohort = measure_cohort(patients)
    figures = {
        "cohort": None if cohort is None else asdict(cohort),
        "patients": [asdict(patient) for patient in patients],
        "without_prediction": list(without_prediction),
        "failed": list(failed),
    }
    rows = [patient.as_row() for patient in patients]
    table = io.StringIO()
    writer = csv.DictWriter(table, list(rows[0]) if rows else ["patient"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    for name, text in (
        ("figures.json", json.dumps(figures, indent=2, ensure_ascii=False) + "\n"),
        ("figures.csv", table.getvalue()),
    ):
        with replacing(output / name) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="")
