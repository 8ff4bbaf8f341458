"""The tables and figures of the five folds and of the shipped model, for :mod:`write_report`."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import plots
from results import (
    FIGURES,
    Key,
    Row,
    Variant,
    as_table,
    calibration_error,
    dice_of,
    difference,
    failures,
    summary_table,
    summed_counts,
    with_interval,
)

from napari_lgg_seg.core.data.patients import institution
from napari_lgg_seg.core.model.checkpoint import ModelCard

#: Folds whose test patients were used to choose the recipe.
CHOSE = (0, 1)


def fold_parts(folds: Variant) -> dict[str, str]:
    """Tables and figures of the five folds."""
    by_fold = {
        f"fold {run['fold']}": {(run["fold"], row["patient"]): row for row in run["patients"]}
        for run in folds.runs
    }
    unused = {key: row for key, row in folds.rows.items() if key[0] not in CHOSE}
    groups = {
        "all": folds.rows,
        **({"folds 2 to 4 only": unused} if unused else {}),
        **by_fold,
    }
    plots.dots(FIGURES / "folds.png", {label: dice_of(rows) for label, rows in groups.items()})
    counts = summed_counts(folds.runs)
    plots.reliability(FIGURES / "reliability.png", counts)
    error = calibration_error(counts)
    return {
        "folds": summary_table(groups),
        "folds-short": _short({"five folds": folds.rows, "folds 2 to 4 only": unused}),
        "institutions": summary_table(_by_institution(folds.rows)),
        "choices": _choices(folds),
        "failures": _failures(folds.rows),
        "calibration": f"Expected calibration error over the foreground region: **{error:.4f}**.",
    }


def _short(variants: Mapping[str, Mapping[Key, Row]]) -> str:
    """The main results, for the README."""
    lines = []
    for label, rows in variants.items():
        values = list(dice_of(rows).values())
        failed = [str(sum(v < 0.5 for v in values)), str(sum(v == 0 for v in values))]
        line = [label, str(len(values)), with_interval(values), with_interval(values, np.median)]
        lines.append([*line, *failed])
    header = ["", "patients", "mean Dice (95 % CI)", "median (95 % CI)", "< 0.5", "missed"]
    return as_table(header, [line for line in lines if line[1] != "0"])


def _by_institution(rows: Mapping[Key, Row]) -> dict[str, dict[Key, Row]]:
    found: dict[str, dict[Key, Row]] = {}
    for key, row in sorted(rows.items(), key=lambda item: item[0][1]):
        found.setdefault(row["patient"].split("_")[1], {})[key] = row
    return found


def _choices(folds: Variant) -> str:
    plain = dice_of(folds.rows)
    lines = [["the recipe", with_interval(plain.values()), "", _median(plain), _failed(plain)]]
    for name in folds.runs[0]["choices"]:
        dice = folds.choice(name)
        lines.append(
            [
                _choice_label(name),
                with_interval(dice.values()),
                difference(dice, plain),
                _median(dice),
                _failed(dice),
            ]
        )
    return as_table(["", "mean Dice (95 % CI)", "difference (95 % CI)", "median", "< 0.5, missed"], lines)


def _choice_label(name: str) -> str:
    """The label of a key of :data:`scoring.CHOICES`."""
    label = re.sub(r"without pieces under ([^,]+)", r"components under \1 removed", name)
    label = label.replace("largest piece", "largest component only").replace("over slices", "across slices")
    label = re.sub(r"^automatic", "automatic threshold", label)
    return re.sub(r"^0", "threshold 0", label)


def _median(dice: Mapping[Key, float]) -> str:
    return f"{np.median(list(dice.values())):.3f}"


def _failed(dice: Mapping[Key, float]) -> str:
    return f"{sum(v < 0.5 for v in dice.values())}, {sum(v == 0 for v in dice.values())}"


def _failures(rows: Mapping[Key, Row]) -> str:
    lines = [
        [
            row["patient"],
            f"{row['dice']:.3f}",
            f"{row['true_voxels']:,}",
            f"{row['voxels']:,}",
            str(row["true_slices"]),
            f"{row['missed_lesions']} of {row['true_lesions']}",
            f"{row['false_voxels_on_empty_slices']:,}",
        ]
        for row in failures(rows)
    ]
    header = ["patient", "Dice", "tumour voxels", "predicted voxels", "tumour slices", "missed lesions"]
    header += ["false positives on other slices"]
    return as_table(header, lines)


# --- the shipped model -------------------------------------------------------------------------

#: Training options in the model card, in this order.
_OPTIONS = (
    *("loss", "optimiser", "learning_rate", "weight_decay", "batch_size", "epochs", "slices_per_epoch"),
    *("tumour_share", "augmentation", "small_size", "small_share", "average_decay", "seed"),
)


def shipped_parts(card: ModelCard) -> dict[str, str]:
    """Tables of the shipped model."""
    dice = card.results["dice"]
    failed = {
        "Dice < 0.5": [n for n, v in dice.items() if v < 0.5],
        "missed": [n for n in dice if not dice[n]],
    }
    lines = [
        ["mean Dice (95 % CI)", with_interval(dice.values())],
        ["median (95 % CI)", with_interval(dice.values(), np.median)],
        *(
            [label, f"{len(names)} of {len(dice)}" + (f": {', '.join(names)}" if names else "")]
            for label, names in failed.items()
        ),
    ]
    options = [
        [name.replace("_", " "), str(card.training[name])] for name in _OPTIONS if name in card.training
    ]
    return {
        "shipped": as_table(["validation patients", str(len(dice))], lines),
        "shipped-split": _split_table(card),
        "shipped-recipe": as_table(
            ["option", "value"],
            [
                *options,
                ["best epoch", str(card.training["epoch"])],
                ["threshold", str(card.threshold)],
                ["clean-up", card.clean_up],
            ],
        ),
    }


def _split_table(card: ModelCard) -> str:
    sides = {"training": card.training_patients, "validation": card.validation_patients}
    sites = sorted({institution(name) for names in sides.values() for name in names})
    lines = [
        [side, str(len(names)), *(str(sum(institution(n) == site for n in names)) for site in sites)]
        for side, names in sides.items()
    ]
    return as_table(["", "patients", *sites], lines)
