"""Compare a folder of predictions with a folder of ground truth, patient by patient."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from ..errors import ComparisonError, failure_sentence
from .label_pairs import LabelPair, find_pairs, read_pair
from .patient_metrics import PatientMetrics, measure_patient


@dataclass(frozen=True)
class PairsFound:
    """Event: the patients that will be compared.

    Attributes
    ----------
    pairs : tuple of LabelPair
        Patients with predicted labels and ground truth, sorted by name.
    without_prediction, without_truth : tuple of str
        Names of the patients that lack one of the two.
    problems : tuple of str
        One sentence for each folder that cannot be used.
    """

    pairs: tuple[LabelPair, ...]
    without_prediction: tuple[str, ...]
    without_truth: tuple[str, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class PairCompared:
    """Event: one patient was compared, or could not be.

    Attributes
    ----------
    pair : LabelPair
        Where the patient's files are.
    metrics : PatientMetrics or None
        None if the patient could not be compared.
    problem : str
        Why not, in one sentence; empty otherwise.
    """

    pair: LabelPair
    metrics: PatientMetrics | None
    problem: str = ""


FolderEvent = PairsFound | PairCompared


def compare_folders(
    predictions: Path, truth: Path, images: Path | None = None
) -> Generator[FolderEvent, None, None]:
    """Compare all patients that are in both folders; one that fails does not stop the others.

    Parameters
    ----------
    predictions, truth : Path
        Each a patient's folder or a folder of patients' folders, as
        :func:`napari_lgg_seg.core.evaluation.label_pairs.find_pairs` takes them.
    images : Path, optional
        Where the patients' images are, if they are not with the ground truth or the predictions. They are
        not read, but each :class:`LabelPair` says where they are.

    Yields
    ------
    PairsFound
        Once, first.
    PairCompared
        For each pair.

    Raises
    ------
    PatientError
        If a folder contains nothing of the kind.
    ComparisonError
        If a path is not a folder, or no patient is in both.
    """
    for folder in (predictions, truth, *([images] if images is not None else [])):
        if not folder.is_dir():
            raise ComparisonError(
                f"{folder} is not a folder; choose a patient's folder or a folder of patients."
            )
    found = find_pairs(predictions, truth, images)
    pairs = tuple(pair for pair in found.pairs if pair.truth is not None)
    if not pairs:
        raise ComparisonError(
            found.problems[0]
            if found.problems
            else f"No patient is in both {predictions} and {truth}; choose folders that match."
        )
    without_truth = tuple(pair.name for pair in found.pairs if pair.truth is None)
    yield PairsFound(pairs, found.without_prediction, without_truth, found.problems)
    for pair in pairs:
        yield _compare(pair)


def _compare(pair: LabelPair) -> PairCompared:
    try:
        return PairCompared(pair, measure_patient(read_pair(pair, with_images=False)))
    except Exception as error:  # noqa: BLE001 - one patient must not end the others
        return PairCompared(pair, None, failure_sentence(pair.labels, error))
