"""What the Compare widget says: figures, how they are to be read, and what is missing. Plain text, no Qt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ...core.evaluation.compare import AGREED, FALSE_NEGATIVE, FALSE_POSITIVE, SURFACE_TOLERANCE, Agreement
from ...core.evaluation.patient_metrics import CohortMetrics
from ..shared.messages import counted

NO_LABELS = (
    "Nothing to compare yet: open a patient with masks (File > IO Utilities > Open LGG patient...) and "
    "segment it, or open two labels layers."
)
ONE_LAYER = "Only one labels layer is open; open the truth, or segment the patient, and compare the two."
READY = "Click Compare."
COMPARING = "Comparing..."
STALE = "The labels have changed; new figures follow in a moment."
CANCELLED = "Cancelled."
GONE = "The layers were removed or changed during the comparison; click Compare again."
NEEDS_PLOT = "The plot of Dice by slice needs the package pyqtgraph: pip install 'napari-lgg-seg[train]'."
NO_FOLDERS = "Choose the folder of predictions and that of the truth, then click Compare all."
COMPARE_ALL = "Click Compare all."

NOTHING = "\N{EN DASH}"
#: What the colours of a comparison stand for.
LEGEND = {
    AGREED: "In both",
    FALSE_NEGATIVE: "Missed: in the truth alone",
    FALSE_POSITIVE: "Invented: in the prediction alone",
}


@dataclass(frozen=True)
class Row:
    """One figure of two layers, for people."""

    name: str
    value: str
    help: str


def metrics(agreement: Agreement | None) -> list[Row]:
    """All figures, those that stand side by side first; without an agreement, their names."""
    unit = "px" if agreement is None or agreement.spacing is None else "mm"
    hd95 = None if agreement is None else agreement.hd95
    return [
        Row("Dice", _share(agreement, "dice"), "Twice the overlap over both volumes; 1 is best."),
        Row("IoU", _share(agreement, "iou"), "Intersection over union; 1 is best."),
        Row("Precision", _share(agreement, "precision"), "Share of the predicted voxels that are true."),
        Row("Recall", _share(agreement, "recall"), "Share of the true voxels that were predicted."),
        Row(
            "HD95",
            NOTHING if hd95 is None else f"{hd95:.1f} {unit}",
            "95th percentile of the distances between the surfaces, the larger of both directions. In "
            "millimetres where the voxel size is known, else in pixels, with slices one pixel apart.",
        ),
        Row(
            "Surface Dice",
            _share(agreement, "surface_dice"),
            f"Share of both surfaces that is within {SURFACE_TOLERANCE:g} {unit} of the other.",
        ),
    ]


def wide_metrics(agreement: Agreement | None) -> list[Row]:
    """Figures that need a line of their own."""
    a = agreement
    return [
        Row(
            "Volume",
            NOTHING if a is None else _volume(a, a.predicted_voxels) + _volume_error(a),
            "Predicted volume, and its difference from the true one as a share of that.",
        ),
        Row("True volume", NOTHING if a is None else _volume(a, a.true_voxels), "Volume of the truth."),
        Row(
            "Lesions",
            NOTHING
            if a is None
            else f"{a.missed_lesions} of {a.true_lesions} missed, {a.false_positive_lesions} of "
            f"{a.predicted_lesions} invented",
            "Pieces of tumour of any size, joined also by a corner. A true one is missed if no predicted "
            "voxel touches it; a predicted one is invented if no true voxel does.",
        ),
        Row(
            "False alarm",
            NOTHING if a is None else f"{a.false_voxels_on_empty_slices:,} voxels on empty slices",
            "Voxels predicted on slices that show no tumour in the truth.",
        ),
    ]


def _share(agreement: Agreement | None, name: str) -> str:
    value = getattr(agreement, name, None)
    return NOTHING if value is None else f"{value:.3f}"


def _volume(agreement: Agreement, voxels: int) -> str:
    size = agreement.spacing
    if size is None:
        return f"{voxels:,} voxels"
    volume = voxels * math.prod(size)
    if len(size) == 2:  # a single slice has an area
        return f"{volume / 100:.1f} cm\N{SUPERSCRIPT TWO}"
    return f"{volume / 1000:.1f} ml"


def _volume_error(agreement: Agreement) -> str:
    error = agreement.volume_error
    return "" if error is None else f", {100 * error:+.1f}\N{NO-BREAK SPACE}%".replace("-", "\N{MINUS SIGN}")


def compared(agreement: Agreement) -> str:
    """What the figures rest on: the voxel size, and the rules of empty masks where they apply."""
    empty = [
        name
        for name, voxels in (("prediction", agreement.predicted_voxels), ("truth", agreement.true_voxels))
        if not voxels
    ]
    if len(empty) == 2:
        return "Both are empty: they agree, and Dice is 1 by convention."
    if empty:
        return f"The {empty[0]} is empty: Dice is 0, and what would be divided by nothing is left open."
    if agreement.spacing is None:
        return "The voxel size is not known: distances are in pixels, with slices one pixel apart."
    return f"Distances are in millimetres; a voxel has {in_mm(agreement.spacing)}."


def in_mm(spacing: Sequence[float]) -> str:
    """A voxel size for people, all on one line: "5 x 0.9 x 0.9 mm"."""
    return f"{' x '.join(f'{size:g}' for size in spacing)} mm".replace(" ", "\N{NO-BREAK SPACE}")


def slice_summary(number: int, dice: float | None, counts: Sequence[int]) -> str:
    """One slice of the plot: its Dice, or why it has none."""
    if dice is None:
        return f"Slice {number}: no tumour in either"
    agreed, missed, invented = counts
    if not agreed and not missed:
        return f"Slice {number}: Dice 0, {invented:,} voxels invented on a slice without tumour"
    if not agreed and not invented:
        return f"Slice {number}: Dice 0, all {missed:,} voxels missed"
    return f"Slice {number}: Dice {dice:.2f}, {missed:,} voxels missed, {invented:,} invented"


def cohort(
    metrics: CohortMetrics | None,
    failed: int,
    without_prediction: Sequence[str],
    without_truth: Sequence[str],
) -> str:
    """A cohort in a sentence or two: how good, how sure, and who is not counted."""
    sentences = []
    if metrics is not None:
        s = metrics.summary
        mean = _between(metrics.mean_interval, "95 % interval ")
        sentences.append(
            f"{counted(s.patients, 'patient')}: mean Dice {s.mean:.3f}{mean}, median {s.median:.3f}"
            f"{_between(metrics.median_interval)}; {len(s.below_half)} below 0.5, {len(s.missed)} missed "
            "entirely."
        )
    if failed:
        sentences.append(
            f"{counted(failed, 'patient')} could not be compared; hold the mouse over the row to read why."
        )
    for names, what in ((without_prediction, "without prediction"), (without_truth, "without truth")):
        if names:
            shown = ", ".join(names[:2]) + (", ..." if len(names) > 2 else "")
            sentences.append(f"{counted(len(names), 'patient')} {what}, not counted: {shown}.")
    return " ".join(sentences)


def _between(interval: tuple[float, float] | None, what: str = "") -> str:
    return "" if interval is None else f" ({what}{interval[0]:.3f} to {interval[1]:.3f})"


def stopped(done: int, total: int) -> str:
    """That a comparison of folders was cancelled."""
    return f"Cancelled after {done:,} of {counted(total, 'patient')}."


def exported(count: int, path: object, failed: int) -> str:
    """What was written."""
    text = f"The figures of {counted(count, 'patient')} are in {path}."
    return f"{text} {counted(failed, 'patient')} without figures are not in it." if failed else text
