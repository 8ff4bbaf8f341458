"""Write the tables and figures of the pages in docs/, and of the README, from the files of docs/experiments.

    python benchmarks/write_report.py

Needs matplotlib (`pip install --group experiments`). Text between the generated parts is written by hand.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import loop
import numpy as np
import plots
import uncertainty
from results import (
    DOCS,
    EXPERIMENTS,
    Key,
    Row,
    Variant,
    added_up,
    as_table,
    calibration_error,
    dice_of,
    difference,
    failures,
    fill,
    load,
    mean_of,
    summary_table,
    with_interval,
)

from napari_lgg_seg.core.data.patients import institution
from napari_lgg_seg.core.model.checkpoint import DEFAULT_MODEL, ModelCard, read_card

FIGURES = DOCS / "figures"
#: Of docs/; each has the parts for which it has marks.
PAGES = ("report", "model-card", "review-loop")

#: Folds whose test patients chose the recipe.
CHOSE = (0, 1)
#: Question -> what its rows are called -> name of the runs; the first is compared with.
QUESTIONS: dict[str, dict[str, str]] = {
    "loss": {"cross-entropy + Dice": "baseline", "cross-entropy": "loss-bce", "Dice": "loss-dice"},
    "network": {"U-Net, 10,655,809 parameters": "baseline", "original study's, 7,763,041": "network-buda"},
    "sequences": {"three sequences": "baseline", "FLAIR alone": "sequences-flair"},
    "sequences-without-filled": {
        "three sequences": "sequences-all-without-filled",
        "FLAIR alone": "sequences-flair-without-filled",
    },
    "split": {"by patient": "baseline", "by slice (leaky)": "split-slice"},
    "callbacks": {"without": "callbacks-none", "with": "callbacks-all"},
    "recipe": {
        "Muon, cross-entropy + Dice": "baseline",
        "cross-entropy alone": "loss-bce",
        "AdamW instead of Muon": "recipe-adamw",
        "AdamW, Dice alone": "recipe-adamw-dice",
        "AdamW, batches of 4": "recipe-adamw-batch-4",
        "AdamW, working size 128": "recipe-adamw-size-128",
        "AdamW, tumour slices evenly over patients": "recipe-adamw-draw-patients",
        "augmentation twice as strong": "recipe-augmentation-2",
    },
    "around": {
        "the recipe": "fold",
        "three times as long": "recipe-long",
    },
}


def main() -> None:
    """Fill every document with what is there."""
    parts: dict[str, str] = {}
    for question, runs in QUESTIONS.items():
        variants = {label: load(name) for label, name in runs.items()}
        if question in ("recipe", "around"):  # tried on fold 0 alone
            variants = {k: Variant(v.name, [r for r in v.runs if not r["fold"]]) for k, v in variants.items()}
        parts |= _question(question, {label: v for label, v in variants.items() if v.runs})
    folds = load("fold")
    if folds.runs:
        parts |= _folds(folds)
    study = EXPERIMENTS / "study.json"
    if study.exists():
        parts |= _study(json.loads(study.read_text(encoding="utf-8")))
    parts |= _shipped(read_card(DEFAULT_MODEL))
    parts |= review()
    for document in (*(DOCS / f"{name}.md" for name in PAGES), DOCS.parent / "README.md"):
        text = document.read_text(encoding="utf-8")
        fill(document, {key: part for key, part in parts.items() if f"<!-- {key} -->" in text})


# --- questions ---------------------------------------------------------------------------------


def _question(question: str, variants: Mapping[str, Variant]) -> dict[str, str]:
    if len(variants) < 2:
        return {}
    rows = {label: variant.rows for label, variant in variants.items()}
    if question == "sequences-without-filled":
        rows = _complete(rows)
    baseline = next(iter(rows))
    plots.dots(FIGURES / f"{question}.png", {label: dice_of(r) for label, r in rows.items()})
    # By slice, other slices are tested, so that there are no pairs.
    parts = {question: summary_table(rows, None if question == "split" else baseline)}
    if question == "loss":
        parts["loss-thresholds"] = _thresholds(variants)
    if question == "sequences":
        parts["sequences-complete"] = summary_table(_complete(rows), baseline)
    if question == "split":
        parts["split-slices"] = _by_slice(rows)
    if question == "callbacks":
        parts |= _callbacks(variants)
    return parts


def _thresholds(variants: Mapping[str, Variant]) -> str:
    """What each loss's probabilities are worth: calibration, and labels made in other ways."""
    ways = {
        "threshold 0.5": "0.5",
        "0.4": "0.4",
        "automatic": "automatic",
        "automatic, without pieces under a quarter of the largest": "automatic, minor pieces dropped",
    }
    known = {label: v for label, v in variants.items() if all("automatic" in r["choices"] for r in v.runs)}
    lines = [
        [
            label,
            *(f"{np.mean(list(variant.choice(way).values())):.3f}" for way in ways),
            f"{min(variant.choice('automatic').values()):.2f}",
            f"{calibration_error(added_up(variant.runs)):.3f}",
        ]
        for label, variant in known.items()
    ]
    return as_table(["mean Dice", *ways.values(), "worst, automatic", "calibration error"], lines)


def _complete(rows: Mapping[str, Mapping[Key, Row]]) -> dict[str, dict[Key, Row]]:
    """Those of the patients who have all three sequences."""
    return {
        label: {key: row for key, row in some.items() if not row["filled_sequences"]}
        for label, some in rows.items()
    }


def _by_slice(rows: Mapping[str, Mapping[Key, Row]]) -> str:
    """As notebooks count: Dice of each slice, over tumour slices, and with empty slices that count as 1."""
    lines = [
        [label, f"{mean_of(some, 'tumour_slice_dice'):.3f}", f"{mean_of(some, 'slice_dice_with_empty'):.3f}"]
        for label, some in rows.items()
    ]
    return as_table(["", "Dice of tumour slices", "of all slices, rightly empty ones count as 1"], lines)


def _callbacks(variants: Mapping[str, Variant]) -> dict[str, str]:
    histories = {label: [run["history"] for run in variant.runs] for label, variant in variants.items()}
    plots.curves(FIGURES / "callbacks-curves.png", histories)
    lines = []
    for label, variant in variants.items():
        for run in variant.runs:
            last = run["history"][-1]
            best = max(row["dice_mean"] for row in run["history"] if "dice_mean" in row)
            lines.append(
                [
                    f"{label}, fold {run['fold']}",
                    f"{last['epoch']:.0f}",
                    f"{run['epoch']}",
                    f"{best:.3f}",
                    f"{last.get('dice_mean', float('nan')):.3f}",
                    f"{last['loss']:.3f}",
                    f"{np.mean([row['dice'] for row in run['patients']]):.3f}",
                    f"{np.mean(list(run['last'].values())):.3f}",
                ]
            )
    header = ["", "epochs", "epoch kept", "validation, kept", "validation, last", "loss, last"]
    header += ["test, kept", "test, last"]
    return {"callbacks-epochs": as_table(header, lines)}


# --- folds -------------------------------------------------------------------------------------


def _folds(folds: Variant) -> dict[str, str]:
    by_fold = {
        f"fold {run['fold']}": {(run["fold"], row["patient"]): row for row in run["patients"]}
        for run in folds.runs
    }
    free = {key: row for key, row in folds.rows.items() if key[0] not in CHOSE}
    everybody = {
        "all": folds.rows,
        **({"folds 2 to 4 alone": free} if free else {}),
        **by_fold,
    }
    plots.dots(FIGURES / "folds.png", {label: dice_of(rows) for label, rows in everybody.items()})
    counts = added_up(folds.runs)
    plots.reliability(FIGURES / "reliability.png", counts)
    error = calibration_error(counts)
    return {
        "folds": summary_table(everybody),
        "folds-short": _short({"five folds": folds.rows, "folds 2 to 4 alone": free}),
        "institutions": summary_table(_by_institution(folds.rows)),
        "choices": _choices(folds),
        "failures": _failures(folds.rows),
        "calibration": f"Expected calibration error over the foreground region: **{error:.4f}**.",
    }


def _short(variants: Mapping[str, Mapping[Key, Row]]) -> str:
    """The headline alone, for the README."""
    lines = []
    for label, rows in variants.items():
        values = list(dice_of(rows).values())
        failed = [str(sum(v < 0.5 for v in values)), str(sum(v == 0 for v in values))]
        line = [label, str(len(values)), with_interval(values), with_interval(values, np.median)]
        lines.append([*line, *failed])
    header = ["", "patients", "mean Dice (95 %)", "median (95 %)", "below 0.5", "missed"]
    return as_table(header, [line for line in lines if line[1] != "0"])


def _by_institution(rows: Mapping[Key, Row]) -> dict[str, dict[Key, Row]]:
    found: dict[str, dict[Key, Row]] = {}
    for key, row in sorted(rows.items(), key=lambda item: item[0][1]):
        found.setdefault(row["patient"].split("_")[1], {})[key] = row
    return found


def _choices(folds: Variant) -> str:
    plain = dice_of(folds.rows)
    lines = [["as the recipe does it", with_interval(plain.values()), "", _median(plain), _failed(plain)]]
    for name in folds.runs[0]["choices"]:
        dice = folds.choice(name)
        lines.append(
            [name, with_interval(dice.values()), difference(dice, plain), _median(dice), _failed(dice)]
        )
    return as_table(["", "mean Dice (95 %)", "difference (95 %)", "median", "< 0.5, missed"], lines)


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
    header = [
        "patient",
        "Dice",
        "true voxels",
        "predicted",
        "tumour slices",
        "lesions missed",
        "false voxels",
    ]
    return as_table(header, lines)


# --- the shipped model -------------------------------------------------------------------------

#: Options of the training that the card names, in this order.
_NAMED = (
    *("loss", "optimiser", "learning_rate", "weight_decay", "batch_size", "epochs", "slices_per_epoch"),
    *("tumour_share", "augmentation", "small_size", "small_share", "average_decay", "seed"),
)


def _shipped(card: ModelCard) -> dict[str, str]:
    dice = card.results["dice"]
    failed = {
        "below 0.5": [n for n, v in dice.items() if v < 0.5],
        "missed": [n for n in dice if not dice[n]],
    }
    lines = [
        ["mean Dice (95 %)", with_interval(dice.values())],
        ["median (95 %)", with_interval(dice.values(), np.median)],
        *(
            [label, f"{len(names)} of {len(dice)}" + (f": {', '.join(names)}" if names else "")]
            for label, names in failed.items()
        ),
    ]
    options = [[name.replace("_", " "), str(card.training[name])] for name in _NAMED if name in card.training]
    return {
        "shipped": as_table(["validation patients", str(len(dice))], lines),
        "shipped-split": _split_table(card),
        "shipped-recipe": as_table(
            ["option", "value"],
            [
                *options,
                ["epoch kept", str(card.training["epoch"])],
                ["its own threshold", str(card.threshold)],
                ["its own clean-up", card.clean_up],
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


# --- reviewing a cohort ------------------------------------------------------------------------


def review() -> dict[str, str]:
    """What uncertainty.py and loop.py say of their files, which they draw figures of as well."""
    made: dict[str, str] = {}
    for name, script in (("uncertainty", uncertainty), ("loop", loop)):
        if script.FILE.exists():
            made[name] = script.table(json.loads(script.FILE.read_text(encoding="utf-8")))
            script.draw(script.FILE, script.FIGURE)
    return made


# --- the original study ------------------------------------------------------------------------


def _study(study: Mapping[str, Any]) -> dict[str, str]:
    features = {name: (values["predicted"], values["manual"]) for name, values in study["features"].items()}
    plots.bland_altman(FIGURES / "shapes.png", features, study["agreement"])
    agreement = [
        [
            name.upper(),
            str(a["patients"]),
            f"{a['pearson']:.2f}",
            f"{a['spearman']:.2f}",
            f"{a['mean_difference']:+.3f} ({a['lower']:+.3f} to {a['upper']:+.3f})",
        ]
        for name, a in study["agreement"].items()
    ]
    tests = [
        [
            manual["cluster"],
            manual["feature"].upper(),
            *(f"{test[p]:.2g}" for test in (manual, predicted) for p in ("p", "corrected")),
        ]
        for manual, predicted in zip(study["manual"]["tests"], study["predicted"]["tests"], strict=True)
    ]
    aucs = [
        [
            f"{masks} masks",
            f"{r2['auc']:.2f} ({r2['lower']:.2f} to {r2['upper']:.2f})",
            str(r2["patients"]),
            str(r2["positive"]),
        ]
        for masks, r2 in ((masks, study[masks]["r2"]) for masks in ("manual", "predicted"))
    ]
    header = ["", "AUC of R2 by BEVR (95 %)", "patients", "of R2"]
    return {
        "shape-agreement": as_table(
            ["feature", "patients", "Pearson", "Spearman", "predicted - manual (limits of agreement)"],
            agreement,
        ),
        "associations": as_table(
            ["clusters", "feature", "manual: p", "corrected", "predicted: p", "corrected"], tests
        ),
        "auc": as_table(header, aucs),
    }


if __name__ == "__main__":
    main()
