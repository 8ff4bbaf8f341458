"""The figures of the pages in docs/, drawn with matplotlib."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from results import Key

matplotlib.use("agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

#: The colour-blind safe palette of Okabe and Ito.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "savefig.dpi": 130,
    "savefig.bbox": "tight",
}


@contextmanager
def figure(path: Path, width: float, height: float, columns: int = 1, rows: int = 1) -> Iterator[list[Axes]]:
    """A figure that is saved at the end; gives its axes row by row. Sizes are in inches."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with plt.rc_context(_STYLE):
        drawn, axes = plt.subplots(
            rows, columns, figsize=(width, height), squeeze=False, layout="constrained"
        )
        yield list(axes.flat)
        drawn.savefig(path, metadata={"Software": None})
        plt.close(drawn)


def dots(path: Path, variants: Mapping[str, Mapping[Key, float]]) -> None:
    """Dice of each patient by variant, with mean and median."""
    with figure(path, 6.5, 0.9 + 0.55 * len(variants)) as (axes,):
        rng = np.random.default_rng(0)
        for position, dice in enumerate(variants.values()):
            values = np.array(list(dice.values()))
            heights = position + rng.uniform(-0.18, 0.18, len(values))
            axes.plot(values, heights, "o", ms=3.5, alpha=0.55, mew=0, color=COLOURS[position % len(COLOURS)])
            for statistic, style in ((np.mean, "-"), (np.median, ":")):
                axes.plot(
                    [statistic(values)] * 2, [position - 0.32, position + 0.32], style, color="black", lw=1.6
                )
        axes.set_yticks(range(len(variants)), list(variants))
        axes.set_ylim(len(variants) - 0.5, -0.5)
        axes.set_xlim(-0.02, 1.02)
        axes.set_xlabel("Dice per test patient (line: mean, dotted: median)")


def curves(path: Path, runs: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]) -> None:
    """Training loss and validation Dice by epoch, a line for each fold."""
    with figure(path, 7.5, 3.0, columns=2) as axes:
        for number, (label, histories) in enumerate(runs.items()):
            for fold, history in enumerate(histories):
                style: dict[str, Any] = {
                    "color": COLOURS[number],
                    "ls": ("-", "--", ":")[fold % 3],
                    "lw": 1.3,
                }
                for one, column in zip(axes, ("loss", "dice_mean"), strict=True):
                    points = [(r["epoch"], r[column]) for r in history if column in r and r["epoch"]]
                    one.plot(*zip(*points, strict=True), label=label if fold == 0 else None, **style)
        for one, text in zip(axes, ("training loss", "mean Dice of validation patients"), strict=True):
            one.set_xlabel("epoch (one line per fold)")
            one.set_title(text, fontsize=9)
        axes[0].set_yscale("log")
        axes[0].legend(frameon=False)


def reliability(path: Path, counts: Mapping[str, Sequence[float]]) -> None:
    """Observed share of tumour against predicted probability, and the number of voxels per bin."""
    voxels = np.array(counts["voxels"])
    used = voxels > 0
    predicted = np.array(counts["probability"])[used] / voxels[used]
    observed = np.array(counts["tumour"])[used] / voxels[used]
    with figure(path, 7.0, 3.2, columns=2) as (left, right):
        left.plot([0, 1], [0, 1], color="grey", lw=1, ls=":")
        left.plot(predicted, observed, "o-", color=COLOURS[0], ms=4)
        left.set(xlabel="predicted probability", ylabel="observed share of tumour", xlim=(0, 1), ylim=(0, 1))
        left.set_aspect("equal")
        edges = np.linspace(0, 1, len(voxels) + 1)
        right.bar(edges[:-1], voxels, width=np.diff(edges) * 0.9, align="edge", color=COLOURS[0])
        right.set(xlabel="predicted probability", ylabel="voxels", yscale="log")


def bland_altman(
    path: Path, features: Mapping[str, tuple[Sequence[float], Sequence[float]]], limits: Mapping[str, Any]
) -> None:
    """Predicted minus manual against their mean, for each shape feature, with the limits of agreement."""
    with figure(path, 9.0, 3.0, columns=len(features)) as axes:
        for one, (name, (predicted, manual)) in zip(axes, features.items(), strict=True):
            left, right = np.array(predicted), np.array(manual)
            one.plot((left + right) / 2, left - right, "o", ms=3.5, alpha=0.6, mew=0, color=COLOURS[0])
            agreement = limits[name]
            one.axhline(agreement["mean_difference"], color="black", lw=1.2)
            for side in ("lower", "upper"):
                one.axhline(agreement[side], color="black", lw=1, ls=":")
            one.set_title(name.upper(), fontsize=9)
            one.set_xlabel("mean of both")
        axes[0].set_ylabel("predicted - manual")
