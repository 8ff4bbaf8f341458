"""Write the tables and figures of the pages in docs/, and of the README, from the files in docs/experiments.

    python benchmarks/write_report.py

Needs matplotlib (`pip install --group experiments`). Everything outside the markers of the generated parts is
written by hand.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import loop
import numpy as np
import plots
import uncertainty
from fold_tables import fold_parts, shipped_parts
from results import (
    DOCS,
    EXPERIMENTS,
    FIGURES,
    Key,
    Row,
    Variant,
    as_table,
    calibration_error,
    dice_of,
    fill,
    load,
    mean_of,
    summary_table,
    summed_counts,
)

from napari_lgg_seg.core.model.checkpoint import DEFAULT_MODEL, read_card

#: Pages with generated parts; each gets the parts that it has markers for.
PAGES = tuple(DOCS / f"{name}.md" for name in ("report", "model-card", "review-loop"))

#: Question -> label of each row -> name of its runs; the first row is the baseline.
QUESTIONS: dict[str, dict[str, str]] = {
    "loss": {"cross-entropy + Dice": "baseline", "cross-entropy": "loss-bce", "Dice": "loss-dice"},
    "network": {
        "U-Net, 10,655,809 parameters": "baseline",
        "original study's, 7,763,041 parameters": "network-buda",
    },
    "sequences": {"three sequences": "baseline", "FLAIR only": "sequences-flair"},
    "sequences-without-filled": {
        "three sequences": "sequences-all-without-filled",
        "FLAIR only": "sequences-flair-without-filled",
    },
    "split": {"by patient": "baseline", "by slice (leaky)": "split-slice"},
    "callbacks": {"without callbacks": "callbacks-none", "with callbacks": "callbacks-all"},
    "recipe": {
        "Muon, cross-entropy + Dice": "baseline",
        "cross-entropy only": "loss-bce",
        "AdamW instead of Muon": "recipe-adamw",
        "AdamW, Dice only": "recipe-adamw-dice",
        "AdamW, batches of 4": "recipe-adamw-batch-4",
        "AdamW, working size 128": "recipe-adamw-size-128",
        "AdamW, tumour slices drawn evenly over patients": "recipe-adamw-draw-patients",
        "augmentation twice as strong": "recipe-augmentation-2",
    },
    "around": {
        "the recipe": "fold",
        "three times as many steps": "recipe-long",
    },
}
#: Questions without a figure of the patients.
TABLES_ONLY = ("callbacks", "sequences-without-filled")


def main() -> None:
    """Fill every page with the parts for which there are results."""
    parts = make_parts()
    for page in (*PAGES, DOCS.parent / "README.md"):
        fill_page(page, parts)


def make_parts() -> dict[str, str]:
    """The generated parts of all pages, by the names of their markers; draws the figures."""
    parts: dict[str, str] = {}
    for question, runs in QUESTIONS.items():
        variants = {label: load(name) for label, name in runs.items()}
        if question in ("recipe", "around"):  # tried on fold 0 only
            variants = {k: Variant(v.name, [r for r in v.runs if not r["fold"]]) for k, v in variants.items()}
        parts |= _question(question, {label: v for label, v in variants.items() if v.runs})
    folds = load("fold")
    if folds.runs:
        parts |= fold_parts(folds)
    study = EXPERIMENTS / "study.json"
    if study.exists():
        parts |= _study(json.loads(study.read_text(encoding="utf-8")))
    return parts | shipped_parts(read_card(DEFAULT_MODEL)) | review()


def fill_page(page: Path, parts: Mapping[str, str]) -> None:
    """Put the parts into a page that it has markers for."""
    text = page.read_text(encoding="utf-8")
    fill(page, {name: part for name, part in parts.items() if f"<!-- {name} -->" in text})


# --- questions ---------------------------------------------------------------------------------


def _question(question: str, variants: Mapping[str, Variant]) -> dict[str, str]:
    if len(variants) < 2:
        return {}
    rows = {label: variant.rows for label, variant in variants.items()}
    if question == "sequences-without-filled":
        rows = _complete(rows)
    baseline = next(iter(rows))
    if question not in TABLES_ONLY:
        plots.dots(FIGURES / f"{question}.png", {label: dice_of(r) for label, r in rows.items()})
    # Split by slice, other slices are tested, so there are no pairs.
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
    """Calibration of the probabilities of each loss, and Dice with other post-processing."""
    choices = {
        "threshold 0.5": "threshold 0.5",
        "0.4": "0.4",
        "automatic": "automatic",
        "automatic, without pieces under a quarter of the largest": "automatic, small components removed",
    }
    known = {label: v for label, v in variants.items() if all("automatic" in r["choices"] for r in v.runs)}
    lines = [
        [
            label,
            *(f"{np.mean(list(variant.choice(name).values())):.3f}" for name in choices),
            f"{min(variant.choice('automatic').values()):.2f}",
            f"{calibration_error(summed_counts(variant.runs)):.3f}",
        ]
        for label, variant in known.items()
    ]
    header = ["mean Dice", *choices.values(), "worst patient, automatic", "calibration error"]
    return as_table(header, lines)


def _complete(rows: Mapping[str, Mapping[Key, Row]]) -> dict[str, dict[Key, Row]]:
    """The rows of patients who have all three sequences."""
    return {
        label: {key: row for key, row in some.items() if not row["filled_sequences"]}
        for label, some in rows.items()
    }


def _by_slice(rows: Mapping[str, Mapping[Key, Row]]) -> str:
    """Mean Dice by slice, as notebooks compute it: tumour slices, and all slices with empty ones as 1."""
    lines = [
        [label, f"{mean_of(some, 'tumour_slice_dice'):.3f}", f"{mean_of(some, 'slice_dice_with_empty'):.3f}"]
        for label, some in rows.items()
    ]
    return as_table(["", "Dice of tumour slices", "of all slices, correctly empty ones count as 1"], lines)


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
    header = ["", "epochs", "best epoch", "validation Dice, best epoch", "last epoch"]
    header += ["training loss, last epoch", "test Dice, best epoch", "last epoch"]
    return {"callbacks-epochs": as_table(header, lines)}


# --- reviewing a cohort ------------------------------------------------------------------------


def review() -> dict[str, str]:
    """The tables of uncertainty.py and loop.py; draws their figures as well."""
    parts: dict[str, str] = {}
    for name, script in (("uncertainty", uncertainty), ("loop", loop)):
        if script.FILE.exists():
            parts[name] = script.table(json.loads(script.FILE.read_text(encoding="utf-8")))
            script.draw(script.FILE, script.FIGURE)
    return parts


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
    header = ["", "AUC of BEVR for R2 (95 % CI)", "patients", "in cluster R2"]
    return {
        "shape-agreement": as_table(
            [
                "feature",
                "patients",
                "Pearson",
                "Spearman",
                "mean of predicted - manual (limits of agreement)",
            ],
            agreement,
        ),
        "associations": as_table(
            ["clusters", "feature", "manual masks: p", "corrected p", "predicted masks: p", "corrected p"],
            tests,
        ),
        "auc": as_table(header, aucs),
    }


if __name__ == "__main__":
    main()
