"""What somebody did to the labels of an open patient, and how it comes among a cohort's results."""

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
    """The labels of an open patient that the results do not hold yet.

    Attributes
    ----------
    label_map : LabelMap or None
        Its labels as they are now; None if the results hold them already.
    by_hand : bool
        Whether somebody painted in them, or accepted them.
    probability : ndarray of float32 or None
        From which labels that nobody touched were made.
    more : tuple of (str, LabelMap)
        Further labels in which somebody painted, and what they are called.
    is_old : threading.Event
        Set when later work on the same patient is kept: this must not be written after that.
    """

    label_map: LabelMap | None
    by_hand: bool = False
    probability: Probability | None = None
    more: tuple[tuple[str, LabelMap], ...] = ()
    is_old: threading.Event = field(default_factory=threading.Event)

    @property
    def painted(self) -> list[LabelArray]:
        """All labels in which somebody painted, or that somebody accepted."""
        label_maps = [label_map for _, label_map in self.more]
        if self.by_hand and self.label_map is not None:
            label_maps.append(self.label_map)
        return [label_map.labels for label_map in label_maps]


@dataclass(frozen=True)
class SavedEdits:
    """Work that is among the results.

    Attributes
    ----------
    name : str
        The patient's folder name.
    results : CohortResults
        That hold it.
    work : Edits
        What was kept.
    status : PatientStatus
        What became of the patient.
    details : PatientSummary or None
        What the table says of the patient now; None if its labels are as they were.
    sentence : str
        What the user should know; empty if nothing.
    """

    name: str
    results: CohortResults
    work: Edits
    status: PatientStatus
    details: PatientSummary | None = None
    sentence: str = ""


def keep(name: str, work: Edits, results: CohortResults) -> SavedEdits:
    """Write somebody's work on a patient among the results.

    A new prediction that nobody touched does not replace corrected labels; it can be made again.

    Raises
    ------
    ResultsError, ExportError
        If something cannot be written; what was kept before is as it was.
    """
    with results.lock:
        if work.is_old.is_set():
            return SavedEdits(name, results, work, results.status(name))
        return _keep(name, work, results)


def _keep(name: str, work: Edits, results: CohortResults) -> SavedEdits:
    sentences = []
    if work.label_map is not None and work.by_hand:
        results.write_corrected(name, work.label_map)
    elif work.label_map is not None and work.probability is not None:
        try:
            results.write_prediction(name, work.label_map, work.probability)
        except CorrectedError:
            sentences.append(f"{name} keeps its corrected labels; the new prediction was not kept.")
    for title, label_map in work.more:
        file = results.write_more(name, title, label_map)
        sentences.append(f"Your edits of '{title}' are in {file}.")
    return SavedEdits(name, results, work, results.status(name), sentence=" ".join(sentences))
