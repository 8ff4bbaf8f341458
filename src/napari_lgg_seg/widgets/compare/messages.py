"""What the Compare widget says: metrics, how to read them, and what is missing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...core.errors import counted
from ...core.evaluation.compare import AGREED, FALSE_NEGATIVE, FALSE_POSITIVE, SURFACE_TOLERANCE, Agreement
from ...core.evaluation.patient_metrics import CohortMetrics

NO_LABELS = (
    "Nothing to compare yet: open a patient with masks (File > IO Utilities > Open LGG patient...) and "
    "segment it, or open two labels layers."
)
ONE_LAYER = (
    "Only one labels layer is open; open the ground truth, or segment the patient, to compare the two."
)
READY = "Click Compare."
COMPARING = "Comparing..."
STALE = "The layers have changed; updating the metrics..."
CANCELLED = "Cancelled."
GONE = "The layers were removed or changed during the comparison; click Compare again."
NEEDS_PLOT = "The plot of Dice by slice needs the package pyqtgraph: pip install 'napari-lgg-seg[train]'."
NO_FOLDERS = "Choose the folders of predictions and of the ground truth, then click Compare all."
COMPARE_ALL = "Click Compare all."
FINDING_PATIENTS = "Finding patients..."

NOTHING = "\N{EN DASH}"
#: Folders that cannot be used are named up to this number.
_MOST_PROBLEMS = 3
#: What the colours of a comparison mean.
LEGEND = {
    AGREED: "True positive",
    FALSE_NEGATIVE: "False negative: only in the reference",
    FALSE_POSITIVE: "False positive: only in the prediction",
}


@dataclass(frozen=True)
class MetricText:
    """One metric as text.

    Attributes
    ----------
    name, value, help : str
        What is shown, and its tooltip.
    """

    name: str
    value: str
    help: str


def metrics(agreement: Agreement | None) -> list[MetricText]:
    """Metrics that are short enough for two in a row; without an agreement, only their names."""
    unit = "px" if agreement is None or agreement.spacing is None else "mm"
    hd95 = None if agreement is None else agreement.hd95
    return [
        MetricText(
            "Dice", _share(agreement, "dice"), "Twice the overlap over the sum of both volumes; 1 is best."
        ),
        MetricText("IoU", _share(agreement, "iou"), "Intersection over union; 1 is best."),
        MetricText(
            "Precision", _share(agreement, "precision"), "Share of the predicted voxels that are true."
        ),
        MetricText("Recall", _share(agreement, "recall"), "Share of the true voxels that are predicted."),
        MetricText(
            "HD95",
            NOTHING if hd95 is None else f"{hd95:.1f} {unit}",
            "95th percentile of the distances between the surfaces, the larger of both directions. In "
            "millimetres if the voxel size is known, otherwise in pixels, with the layers' scale.",
        ),
        MetricText(
            "Surface Dice",
            _share(agreement, "surface_dice"),
            f"Share of both surfaces within {SURFACE_TOLERANCE:g} {unit} of the other surface.",
        ),
    ]


def wide_metrics(agreement: Agreement | None) -> list[MetricText]:
    """Metrics that need a line of their own."""
    a = agreement
    return [
        MetricText(
            "Volume",
            NOTHING if a is None else _volume(a, a.predicted_voxels) + _volume_error(a),
            "Predicted volume, and its difference from the true volume, relative to the true volume.",
        ),
        MetricText(
            "True volume", NOTHING if a is None else _volume(a, a.true_voxels), "Volume of the reference."
        ),
        MetricText(
            "Missed lesions",
            NOTHING if a is None else f"{a.missed_lesions} of {a.true_lesions}",
            "True lesions without any predicted voxel. A lesion is a connected component of any size; voxels "
            "are connected across faces, edges and corners.",
        ),
        MetricText(
            "False-positive lesions",
            NOTHING if a is None else f"{a.false_positive_lesions} of {a.predicted_lesions}",
            "Predicted lesions without any true voxel.",
        ),
        MetricText(
            "On empty slices",
            NOTHING if a is None else counted(a.false_voxels_on_empty_slices, "voxel"),
            "False-positive voxels on slices without tumour in the reference.",
        ),
    ]


def _share(agreement: Agreement | None, name: str) -> str:
    value = getattr(agreement, name, None)
    return NOTHING if value is None else f"{value:.3f}"


def _volume(agreement: Agreement, voxels: int) -> str:
    size = agreement.spacing
    if size is None:
        return counted(voxels, "voxel")
    volume = voxels * math.prod(size)
    if len(size) == 2:  # a single slice has an area
        return f"{volume / 100:.1f} cm\N{SUPERSCRIPT TWO}"
    return f"{volume / 1000:.1f} ml"


def _volume_error(agreement: Agreement) -> str:
    error = agreement.volume_error
    return "" if error is None else f", {100 * error:+.1f}\N{NO-BREAK SPACE}%".replace("-", "\N{MINUS SIGN}")


def compared(agreement: Agreement, ratio: Sequence[float] | None = None, left_out: str = "") -> str:
    """What the metrics are based on: slices, voxel size, and the conventions for empty masks if they apply.

    Parameters
    ----------
    agreement : Agreement
        The metrics.
    ratio : sequence of float, optional
        Voxel size relative to the last axis, where it is not known in millimetres.
    left_out : str
        Which slices are not compared.
    """
    empty = [
        name
        for name, voxels in (("prediction", agreement.predicted_voxels), ("reference", agreement.true_voxels))
        if not voxels
    ]
    if len(empty) == 2:
        text = "Both are empty: they agree, and Dice is 1 by convention."
    elif empty:
        text = f"The {empty[0]} is empty: Dice is 0; undefined ratios are blank."
    elif agreement.spacing is not None:
        text = f"Distances are in millimetres; the voxel size is {in_mm(agreement.spacing)}."
    elif ratio is None:
        text = "The layers are sheared: distances are in voxels, whatever their size."
    elif all(abs(size - 1) < 1e-3 for size in ratio):
        text = "The voxel size is not known: distances are in pixels, with a slice distance of one pixel."
    else:
        text = (
            "The voxel size is not known in millimetres: distances are in pixels, with voxels of "
            f"{in_pixels(ratio)} as in the layers' scale."
        )
    return f"{left_out} {text}".strip()


def in_mm(spacing: Sequence[float]) -> str:
    """A voxel size without line breaks: "5 x 0.9 x 0.9 mm"."""
    return _sizes(spacing, "mm")


def in_pixels(sizes: Sequence[float]) -> str:
    """Likewise, in the layers' own unit: "5 x 1 x 1 pixels"."""
    return _sizes(sizes, "pixels")


def _sizes(sizes: Sequence[float], unit: str) -> str:
    return f"{' x '.join(f'{size:g}' for size in sizes)} {unit}".replace(" ", "\N{NO-BREAK SPACE}")


def left_out(common: Sequence[int], only: Sequence[tuple[str, Sequence[int]]]) -> str:
    """Which slices are compared, and which layer has others; empty if none has."""
    if not only:
        return ""
    verb = "is" if len(common) == 1 else "are"
    text = f"Only {slices(common)} {verb} compared: "
    return text + " and ".join(f"{slices(numbers)} only in {name}" for name, numbers in only) + "."


def no_common_slices(name: str, numbers: Sequence[int], other: str, others: Sequence[int]) -> str:
    """That two layers show different slices."""
    return (
        f"{name} shows {slices(numbers)} but {other} shows {slices(others)}; choose two layers with common "
        "slices."
    )


def gap(name: str, numbers: Sequence[int], other: str, others: Sequence[int]) -> str:
    """That slices in between are missing in one of two layers, or are in another order."""
    return (
        f"{name} shows {slices(numbers)} but {other} shows {slices(others)}; choose two layers whose common "
        "slices follow each other in both."
    )


def slices(numbers: Sequence[int]) -> str:
    """Slice numbers in words: "slice 3", "slices 1 to 5 and 7"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    parts = [f"{run[0]} to {run[-1]}" if len(run) > 2 else " and ".join(map(str, run)) for run in runs]
    if len(parts) == 1:
        return f"{'slice' if len(numbers) == 1 else 'slices'} {parts[0]}"
    shown = [*parts[:4], "others"] if len(parts) > 5 else parts
    return f"slices {', '.join(shown[:-1])} and {shown[-1]}"


def slice_summary(number: int, dice: float | None, counts: Sequence[int]) -> str:
    """One slice of the plot; counts are voxels that agree, false negatives, false positives."""
    if dice is None:
        return f"Slice {number}: no tumour in either"
    agreed, false_negative, false_positive = counts
    if not agreed and not false_negative:
        return f"Slice {number}: Dice 0, {_all(false_positive, 'predicted')} false positive"
    if not agreed and not false_positive:
        return f"Slice {number}: Dice 0, {_all(false_negative, 'true')} missed"
    noun = "voxel" if false_positive == 1 else "voxels"
    return (
        f"Slice {number}: Dice {dice:.2f}, {false_negative:,} false-negative and {false_positive:,} "
        f"false-positive {noun}"
    )


def _all(count: int, kind: str) -> str:
    return f"the only {kind} voxel is" if count == 1 else f"all {count:,} {kind} voxels are"


def cohort(
    metrics: CohortMetrics | None,
    failed: int,
    without_prediction: Sequence[str],
    without_truth: Sequence[str],
    problems: Sequence[str],
) -> str:
    """Metrics of a cohort, and which patients and folders are not included."""
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
            f"{counted(failed, 'patient')} could not be compared; hover over the row to see why."
        )
    for names, what in (
        (without_prediction, "without prediction"),
        (without_truth, "without ground truth"),
    ):
        if names:
            shown = ", ".join(names[:2]) + (", ..." if len(names) > 2 else "")
            sentences.append(f"{counted(len(names), 'patient')} {what}, not included: {shown}.")
    sentences += [f"Not included: {problem}" for problem in problems[:_MOST_PROBLEMS]]
    if len(problems) > _MOST_PROBLEMS:
        more = counted(len(problems) - _MOST_PROBLEMS, "more folder")
        sentences.append(f"Not included: {more}; the command evaluate lists all of them.")
    return " ".join(sentences)


def _between(interval: tuple[float, float] | None, what: str = "") -> str:
    return "" if interval is None else f" ({what}{interval[0]:.3f} to {interval[1]:.3f})"


def other_folders(predictions: Path, truth: Path) -> str:
    """Which folders the table is of, once others are chosen."""
    return f"The table still compares {predictions} with {truth}; click Compare all for the chosen folders."


def stopped(done: int, total: int) -> str:
    """That a comparison of folders was cancelled."""
    return f"Cancelled after {done:,} of {counted(total, 'patient')}."


def exported(count: int, path: object) -> str:
    """What was written."""
    return f"The metrics of {counted(count, 'patient')} are in {path}."
