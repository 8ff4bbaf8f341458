"""What somebody did to the labels of an open patient, and how it comes among a cohort's results."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from ..data.label_files import LabelArray, Labelling
from ..errors import CorrectedError
from .patient_summary import CaseDetails
from .index import Record
from .results import CohortResults, Probability


@dataclass(frozen=True)
class Work:
    """The labels of an open patient that the results do not hold yet.

    Attributes
    ----------
    labelling : Labelling or None
        Its labels as they are now; None if the results hold them already.
    by_hand : bool
        Whether somebody painted in them, or accepted them.
    probability : ndarray of float32 or None
        From which labels that nobody touched were made.
    more : tuple of (str, Labelling)
        Further labels in which somebody painted, and what they are called.
    is_old : threading.Event
        Set when later work on the same patient is kept: this must not be written after that.
    """

    labelling: Labelling | None
    by_hand: bool = False
    probability: Probability | None = None
    more: tuple[tuple[str, Labelling], ...] = ()
    is_old: threading.Event = field(default_factory=threading.Event)

    @property
    def painted(self) -> list[LabelArray]:
        """All labels in which somebody painted, or that somebody accepted."""
        labellings = [labelling for _, labelling in self.more]
        if self.by_hand and self.labelling is not None:
            labellings.append(self.labelling)
        return [labelling.labels for labelling in labellings]


@dataclass(frozen=True)
class Kept:
    """Work that is among the results.

    Attributes
    ----------
    name : str
        The patient's folder name.
    results : CohortResults
        That hold it.
    work : Work
        What was kept.
    record : Record
        What became of the patient.
    details : CaseDetails or None
        What the table says of the patient now; None if its labels are as they were.
    sentence : str
        What the user should know; empty if nothing.
    """

    name: str
    results: CohortResults
    work: Work
    record: Record
    details: CaseDetails | None = None
    sentence: str = ""


def keep(name: str, work: Work, results: CohortResults) -> Kept:
    """Write somebody's work on a patient among the results.

    A new prediction that nobody touched does not replace corrected labels; it can be made again.

    Raises
    ------
    ResultsError, ExportError
        If something cannot be written; what was kept before is as it was.
    """
    with results.lock:
        if work.is_old.is_set():
            return Kept(name, results, work, results.record(name))
        return _keep(name, work, results)


def _keep(name: str, work: Work, results: CohortResults) -> Kept:
    sentences = []
    if work.labelling is not None and work.by_hand:
        results.write_corrected(name, work.labelling)
    elif work.labelling is not None and work.probability is not None:
        try:
            results.write_prediction(name, work.labelling, work.probability)
        except CorrectedError:
            sentences.append(f"{name} keeps its corrected labels; the new prediction was not kept.")
    for title, labelling in work.more:
        file = results.write_more(name, title, labelling)
        sentences.append(f"Your edits of '{title}' are in {file}.")
    return Kept(name, results, work, results.record(name), sentence=" ".join(sentences))
