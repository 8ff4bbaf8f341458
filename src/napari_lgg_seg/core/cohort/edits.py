"""The user's edits of an open patient's labels, and how they are saved to a cohort's results."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from ..atomic import locked
from ..data.label_files import LabelArray, LabelMap
from ..data.provenance import Provenance
from ..errors import ChangedError, CorrectedError
from .patient_results import PatientResults
from .patient_summary import PatientSummary
from .result_files import Probability
from .status import PatientStatus


@dataclass
class KnownRevision:
    """The revision of a patient's result that the user has seen; shared by all edits of an open patient.

    Attributes
    ----------
    value : str or None
        See :class:`.result_files.StoredResult`; None to replace whatever is there.
    """

    value: str | None = None


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
        Shape (z, y, x); of the prediction that the labels are or were made from, if it is not stored yet.
    known : KnownRevision
        Revision of the result that was edited; changed when they are saved.
    is_stored : bool
        Whether the results hold these labels already, so that accepting them is all that remains.
    leaving : bool
        Whether the patient is about to be closed, so that its edits cannot stay in the window.
    more : tuple of (str, LabelMap)
        Further labels layers that the user painted in: name and labels.
    is_old : threading.Event
        Set once later edits of the same patient are saved: these must not be written any more.
    """

    label_map: LabelMap | None
    by_hand: bool = False
    probability: Probability | None = None
    known: KnownRevision = field(default_factory=KnownRevision)
    is_stored: bool = False
    leaving: bool = False
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
    results : PatientResults
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

    results: PatientResults
    edits: Edits
    status: PatientStatus
    summary: PatientSummary | None = None
    sentence: str = ""

    @property
    def name(self) -> str:
        """The patient's name."""
        return self.results.name


def save_edits(results: PatientResults, edits: Edits, shape: tuple[int, int, int]) -> SavedEdits:
    """Save a patient's edits to its results.

    A new prediction that was not edited never replaces corrected labels: it can be computed again. If another
    window or program has changed the result since it was read, edits are only saved when the patient is
    closed, in a file of their own.

    Parameters
    ----------
    results : PatientResults
        Where they are saved.
    edits : Edits
        What is saved.
    shape : tuple of int
        The patient's shape, (z, y, x).

    Raises
    ------
    ResultsError, ExportError
        If something cannot be saved; earlier labels are left unchanged.
    """
    with locked(results.folder):
        if edits.is_old.is_set():
            return SavedEdits(results, edits, results.status())
        sentences = _write(results, edits, shape)
        return SavedEdits(results, edits, results.status(), sentence=" ".join(sentences))


def _write(results: PatientResults, edits: Edits, shape: tuple[int, int, int]) -> list[str]:
    """Write the edits; returns messages for the user."""
    sentences = []
    try:
        if edits.label_map is not None:
            _write_labels(results, edits, edits.label_map, shape)
            edits.known.value = results.revision()
    except CorrectedError:
        sentences.append(f"{results.name} keeps its corrected labels; the new prediction was not saved.")
    except ChangedError as error:
        if not edits.leaving or edits.label_map is None:
            raise ChangedError(
                f"{error} Close the patient to save your edits in a file of their own, or export them."
            ) from error
        file = results.write_more("tumour", edits.label_map)
        sentences.append(f"{error} Your edits are in {file}.")
    for title, label_map in edits.more:
        file = results.write_more(title, label_map)
        sentences.append(f"Your edits of '{title}' are in {file}.")
    return sentences


def _write_labels(
    results: PatientResults, edits: Edits, label_map: LabelMap, shape: tuple[int, int, int]
) -> None:
    if edits.by_hand and edits.is_stored:
        results.accept(edits.known.value)
    elif edits.by_hand:
        results.write_edits(label_map, revision=edits.known.value, shape=shape, probability=edits.probability)
    elif edits.probability is not None:
        results.write_prediction(
            label_map,
            provenance=Provenance.from_values(label_map.made_with.get("provenance")),
            probability=edits.probability,
            keep_probability=True,
            overwrite=True,
        )
