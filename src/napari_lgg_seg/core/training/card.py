"""The model card of a training: how the model was made and how well it did."""

from __future__ import annotations

import dataclasses
import platform
from contextlib import suppress
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from .. import devices
from ..model.checkpoint import ModelCard
from .history import EpochRecord
from .run import Run


def model_card(run: Run, record: EpochRecord | None = None) -> ModelCard:
    """Describe the model of a training as it is now.

    Parameters
    ----------
    run : Run
        The training.
    record : EpochRecord, optional
        The epoch whose validation gives the card's results; without it the card has none.
    """
    initial, options, split = run.initial, run.options, run.split()
    before = initial.card
    return ModelCard(
        name=run.output.stem,
        architecture=initial.architecture,
        sequences=initial.sequences,
        neighbouring_slices=initial.neighbouring_slices,
        preprocess=initial.preprocess,
        threshold=options.threshold or (before.threshold if before is not None else 0.5),
        clean_up=options.clean_up or (before.clean_up if before is not None else "off"),
        training_patients=tuple(split["training"]),
        validation_patients=tuple(split["validation"]),
        earlier_patients=tuple(sorted(initial.seen - set(split["training"]))),
        training={
            **dataclasses.asdict(options),
            "initial_model": before.name if before is not None else None,
            "epoch": run.epoch if record is None else record.epoch,
            "step": run.steps_done,
            "history": [row.as_row() for row in run.history],
            "processes": run.processes.count,
            "device": devices.describe_device(run.device),
            "versions": _versions(),
        },
        results=_results(run, record),
        data=before.data if before is not None else "",
        licence=before.licence if before is not None else "",
        intended_use=before.intended_use if before is not None else "",
        created=date.today().isoformat(),
    )


def _results(run: Run, record: EpochRecord | None) -> dict[str, Any]:
    if record is None or record.validation is None:
        return {}
    first = run.history[0]
    return {
        "validation": dict(record.scores),
        "summary": dataclasses.asdict(record.validation),
        "before": dict(first.scores) if first.step == 0 else {},
        "seen_before": sorted(run.initial.seen & set(record.scores)),
        "note": "Dice of each validation patient over the whole volume, with this model's threshold and "
        "clean-up; the best epoch was chosen on the same patients.",
    }


def _versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that a training depends on."""
    versions = {"python": platform.python_version()}
    for name in ("napari-lgg-seg", "torch", "monai", "numpy"):
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions
