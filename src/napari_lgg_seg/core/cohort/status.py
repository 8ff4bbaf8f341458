"""The status of a patient's results: how far they are, whose they are, and what may replace them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from ..choices import FileFormat
from ..data.provenance import LabelRecord, Provenance
from ..errors import CorrectedError, ExistingMasksError
from .found_labels import FoundLabels

#: States of a patient; "foreign" labels were made or changed by another program.
State = Literal["new", "segmented", "corrected", "exported", "foreign"]
STATES: tuple[str, ...] = get_args(State)

#: What a planned segmentation finds.
Standing = Literal["new", "finished", "in the way", "corrected"]


@dataclass(frozen=True)
class PatientStatus:
    """What is known about a patient's results.

    Attributes
    ----------
    state : str
        One of :data:`STATES`.
    by_hand : bool
        Whether the labels are the user's: corrected, accepted, or made or changed by another program. No
        prediction may replace them without permission. Exporting does not change it.
    uncertainty : float or None
        Mean entropy of the last prediction in bits
        (:func:`napari_lgg_seg.core.inference.uncertainty.mean_entropy`).
    expected_dice : float or None
        Expected Dice of the last prediction
        (:func:`napari_lgg_seg.core.inference.uncertainty.expected_dice`).
    nothing_found : bool
        Whether the last prediction was empty, regardless of later edits.
    made_with : dict
        Model and options of the last prediction.
    standing : {"new", "finished", "in the way", "corrected"}
        What the results are to the segmentation that was asked about: there are none; they are what it would
        give; they are another segmentation's; they are the user's.
    sentence : str
        What is there, where it is, and how to permit replacing it; empty for a new patient.
    """

    state: State = "new"
    by_hand: bool = False
    uncertainty: float | None = None
    expected_dice: float | None = None
    nothing_found: bool = False
    made_with: Mapping[str, Any] = field(default_factory=dict)
    standing: Standing = "new"
    sentence: str = ""


def status_of(
    folder: Path,
    name: str,
    found: Sequence[FoundLabels],
    wanted: Provenance | None = None,
    file_format: FileFormat | None = None,
) -> PatientStatus:
    """The status of labels that were found; see :meth:`.patient_results.PatientResults.status`."""
    if not found:
        return PatientStatus()
    owners = {labels.owner for labels in found}
    record = found[0].record or LabelRecord("person")
    state: State = "corrected" if "person" in owners else "segmented"
    if record.exported:
        state = "exported"
    if "unknown" in owners and "person" not in owners:
        state = "foreign"
    return PatientStatus(
        state,
        owners != {"model"},
        record.uncertainty,
        record.expected_dice,
        record.nothing_found,
        record.made_with,
        *_standing(folder, name, found, wanted, file_format),
    )


def _standing(
    folder: Path,
    name: str,
    found: Sequence[FoundLabels],
    wanted: Provenance | None,
    file_format: FileFormat | None,
) -> tuple[Standing, str]:
    allow = "allow replacing corrected labels (--replace-corrected)"
    if any(labels.owner == "person" for labels in found):
        text = f"{name}: the labels in {folder} were corrected or accepted by a person and are kept"
        return "corrected", f"{text}; to segment it all the same, {allow}."
    for labels in found:
        if labels.owner == "unknown":
            text = f"{name}: {labels.changed[0]} was made or changed by another program and is kept"
            return "corrected", f"{text}; to replace it, {allow}."
    different = [labels for labels in found if not is_same(labels.provenance, wanted)]
    if not different:
        if any(labels.file_format == file_format for labels in found):
            return "finished", f"{name}: already finished, skipped."
        return "new", ""
    before = different[0].provenance
    text = f"{folder} holds labels already ({different[0].files[0].name})"
    if wanted is not None and before is not None:
        text = f"{folder} holds results that were made {wanted.differences(before)}"
    return "in the way", f"{text}; choose another folder, or allow overwriting."


def is_same(before: Provenance | None, wanted: Provenance | None) -> bool:
    """Whether a result is the one that is wanted; it is not if either is unknown."""
    return before is not None and wanted is not None and not wanted.differences(before)


def check_permission(status: PatientStatus, *, overwrite: bool, replace_corrected: bool) -> None:
    """Refuse to replace a patient's labels without permission.

    Raises
    ------
    CorrectedError
        If they are the user's and ``replace_corrected`` is False.
    ExistingMasksError
        If they are another prediction and ``overwrite`` is False.
    """
    if status.by_hand and not replace_corrected:
        raise CorrectedError(status.sentence)
    if status.standing == "in the way" and not overwrite:
        raise ExistingMasksError(status.sentence)
