"""The user's edits of an open patient's labels, and how they are saved to a cohort's results."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from ..data.label_files import LabelArray, LabelMap
from ..errors import CorrectedError
from .index import PatientStatus
from .patient_summary import PatientSummary
from .results import CohortResults, Probability


@dataclass(frozen=True)
class Edits:
    """Labels of an open patient that are not in the cohort's results yet.

    Attributes
    ----------
    label_map : LabelMap or None
        The patient's current labels; None if the results hold them already.
    by_hand : bool
        Whether the user painted or accepted them.
    probability : ndarray of float32 or None
        Shape (z, y, x); what labels that were not edited were computed from.
    more : tuple of (str, LabelMap)
        Further labels layers that the user painted in: name and labels.
    is_old : threading.Event
        Set once later edits of the same patient are saved: these must not be written any more.
    """

    label_map: LabelMap | None
    by_hand: bool = False
    probability: Probability | None = None
    more: tuple[tuple[str, LabelMap], ...] = ()
    is_old: threading.Event = field(default_factory=threading.Event)

    @property
    def painted(self) -> list[LabelArray]:
        """All labels that the user painted or accepted."""
        label_maps = [label_map for _, label_map in self.more]
        if self.by_hand and self.label_map is not None:
            label_maps.append(self.label_map)
        return [label_map.labels for label_map in label_maps]


@dataclass(frozen=True)
class SavedEdits:
    """Edits that have been saved to the results.

    Attributes
    ----------
    name : str
        The patient's folder name.
    results : CohortResults
        Where they were saved.
    edits : Edits
        What was saved.
    status : PatientStatus
        The patient's status afterwards.
    summary : PatientSummary or None
        The patient's new summary; None if its labels have not changed.
    sentence : str
        A message for the user; may be empty.
    """

    name: str
    results: CohortResults
    edits: Edits
    status: PatientStatus
    summary: PatientSummary | None = None
    sentence: str = ""


def save_edits(name: str, edits: Edits, results: CohortResults) -> SavedEdits:
    """Save a patient's edits to the results.

    A new prediction that was not edited never replaces corrected labels: it can be computed again.

    Raises
    ------
    ResultsError, ExportError
        If something cannot be written; earlier labels are left unchanged.
    """
    with results.lock:
        if edits.is_old.is_set():
            return SavedEdits(name, results, edits, results.status(name))
        sentences = _write(name, edits, results)
        return SavedEdits(name, results, edits, results.status(name), sentence=" ".join(sentences))


def _write(name: str, edits: Edits, results: CohortResults) -> list[str]:
    """Write the edits; returns messages for the user."""
    sentences = []
    if edits.label_map is not None and edits.by_hand:
        results.write_corrected(name, edits.label_map)
    elif edits.label_map is not None and edits.probability is not None:
        try:
            results.write_prediction(name, edits.label_map, edits.probability)
        except CorrectedError:
            sentences.append(f"{name} keeps its corrected labels; the new prediction was not saved.")
    for title, label_map in edits.more:
        file = results.write_more(name, title, label_map)
        sentences.append(f"Your edits of '{title}' are in {file}.")
    return sentences
