"""Segment many patients of a cohort, one after the other, into its results folder.

The next patient is read while one is segmented.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.label_files import Labelling
from ..data.patients import read_patient
from ..errors import CorrectedError, LggSegError
from ..inference.postprocess import postprocess, threshold_of
from ..inference.predict import Notice, SlicesDone
from ..inference.segmentation import voxels_of
from ..options import deciding
from ..prefetch import read_ahead
from .case_details import CaseDetails, measure_case
from .index import Record
from .results import CohortResults

if TYPE_CHECKING:
    from ..data.patients import Patient
    from ..inference.predict import Predictor, Probability
    from ..options import SegmentOptions


@dataclass(frozen=True)
class CaseStarted:
    """A patient's turn has come: its folder's name and its number, from 1."""

    name: str
    number: int
    of: int


@dataclass(frozen=True)
class CaseSegmented:
    """A patient's result is among the results; the details are those of the patient with it."""

    folder: Path
    record: Record
    details: CaseDetails


@dataclass(frozen=True)
class CaseSkipped:
    """A patient was left as it is, for a reason that is one sentence."""

    name: str
    sentence: str


@dataclass(frozen=True)
class CaseFailed:
    """A patient could not be segmented, for a reason that is one sentence; the others go on."""

    name: str
    sentence: str


CaseEvent = CaseStarted | SlicesDone | Notice | CaseSegmented | CaseSkipped | CaseFailed


def segment_cases(
    folders: Collection[Path],
    results: CohortResults,
    predictor: Predictor,
    options: SegmentOptions,
    made_with: Mapping[str, Any],
    *,
    replaceable: Collection[str] = (),
) -> Generator[CaseEvent, None, None]:
    """Segment patients as :func:`napari_lgg_seg.api.segment` does, and keep labels and probability.

    Parameters
    ----------
    folders : collection of Path
        The patients'.
    results : CohortResults
        Where the results go. Patients with corrected labels are skipped.
    predictor : Predictor
        The model, made ready for a device.
    options : SegmentOptions
        Threshold and clean-up are used; what concerns the device is the predictor's.
    made_with : mapping
        From :func:`describe_run`.
    replaceable : collection of str
        Names of patients' folders whose corrected labels may be replaced.

    Yields
    ------
    CaseEvent
        Close the generator to cancel: patients that are done stay done, the one in work is left as it
        was.
    """
    chosen = options.complete(predictor.card)
    with closing(read_ahead(read_patient, folders)) as patients:
        for number, (folder, reading) in enumerate(patients, start=1):
            name = folder.name
            yield CaseStarted(name, number, len(folders))
            try:
                may_replace = name in replaceable
                if results.record(name).by_hand and not may_replace:
                    raise CorrectedError(f"{name} has corrected labels, which were kept.")  # before the work
                patient = reading.result()
                probability = yield from predictor.predict(voxels_of(patient))
                labelling = _label(patient, probability, chosen, made_with)
                # Written at once: what a cancelled run wrote beside it, nobody would show.
                record = results.write_prediction(name, labelling, probability, replace_corrected=may_replace)
                yield CaseSegmented(folder, record, measure_case(patient, labelling.labels))
            except CorrectedError as error:
                yield CaseSkipped(name, str(error))
            except LggSegError as error:
                yield CaseFailed(name, str(error))


def _label(
    patient: Patient, probability: Probability, options: SegmentOptions, made_with: Mapping[str, Any]
) -> Labelling:
    threshold = threshold_of(probability, options.threshold)
    return Labelling(
        patient.name,
        postprocess(probability, replace(options, threshold=threshold)),
        patient.slice_numbers,
        patient.spacing,
        patient.affine,
        {**made_with, "threshold": threshold},
    )


def describe_run(model: Path, options: SegmentOptions) -> dict[str, Any]:
    """What results say about how they were made, and by which two runs can be told apart.

    Raises
    ------
    ModelError
        If the model file cannot be read.
    """
    from ..model.checkpoint import read_card

    card = read_card(model)
    stat = model.stat()
    # A model that is trained anew under its old name is another one.
    stamp = f"{stat.st_size} bytes, changed {stat.st_mtime_ns}"
    return {"model": card.name, "model_file": stamp, "options": options.as_dict()}


def is_done(record: Record, run: dict[str, Any]) -> bool:
    """Whether a patient's result is what such a run would give once more."""
    same = _what_counts(record.made_with) == _what_counts(run)
    return record.state != "new" and not record.by_hand and same


def _what_counts(run: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the result of a run."""
    options = deciding(run.get("options", {}))
    return {"model": run.get("model"), "model_file": run.get("model_file"), "options": options}
