"""Reads ``cohort.json``, in which version 0.1.0 kept the states of a results folder's patients."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..data.provenance import LabelRecord
from ..errors import ResultsError

INDEX_NAME = "cohort.json"

_STATES = ("new", "segmented", "corrected", "exported")


def read_old_index(folder: Path) -> dict[str, LabelRecord]:
    """What version 0.1.0 recorded about the TIFF labels in a results folder, by patient; without hashes.

    Raises
    ------
    ResultsError
        If the file exists but cannot be read: it may say which labels the user corrected.
    """
    path = folder / INDEX_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise _unusable(path, str(error)) from error
    try:
        return {name: _record(values) for name, values in content["patients"].items()}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise _unusable(path, f"{type(error).__name__}: {error}") from error


def _record(values: dict[str, Any]) -> LabelRecord:
    uncertainty, expected_dice = values.get("uncertainty"), values.get("expected_dice")
    by_hand, nothing_found = values.get("by_hand", False), values.get("nothing_found", False)
    numbers = all(value is None or isinstance(value, int | float) for value in (uncertainty, expected_dice))
    flags = isinstance(by_hand, bool) and isinstance(nothing_found, bool)
    if values["state"] not in _STATES or not numbers or not flags:
        raise ValueError(f"{values} is not a patient's status")
    return LabelRecord(
        "person" if by_hand else "model",
        made_with=dict(values.get("made_with", {})),
        uncertainty=uncertainty,
        expected_dice=expected_dice,
        nothing_found=nothing_found,
        exported=values["state"] == "exported",
    )


def _unusable(path: Path, reason: str) -> ResultsError:
    return ResultsError(
        f"{path} cannot be read ({' '.join(reason.split())}); repair it or move it away, or choose another "
        "results folder."
    )
