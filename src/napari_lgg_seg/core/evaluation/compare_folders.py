"""Compare a folder of predictions with a folder of truth, patient by patient; a bad one stops nothing."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from ..data.label_files import find_labels, read_labels
from ..errors import ComparisonError, LggSegError, PatientError
from .compare import in_size
from .label_pairs import LabelPair, find_pairs, read_pair
from .metrics import Summary, dice, summarise
from .report import PatientMetrics, measure_patient


@dataclass(frozen=True)
class PairsFound:
    """What will be compared.

    Attributes
    ----------
    cases : tuple of LabelPair
        Patients with predicted labels and truth, by name.
    without_prediction, without_truth : tuple of str
        Names of the patients that lack one of them.
    problems : tuple of str
        A sentence for each folder that cannot be told what it is.
    """

    cases: tuple[LabelPair, ...]
    without_prediction: tuple[str, ...]
    without_truth: tuple[str, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class PairCompared:
    """One patient is done.

    Attributes
    ----------
    case : LabelPair
        Where its files are.
    figures : PatientMetrics or None
        None if the patient could not be compared.
    problem : str
        Why not, in a sentence; else empty.
    """

    case: LabelPair
    metrics: PatientMetrics | None
    problem: str = ""


FolderEvent = PairsFound | PairCompared


def compare_folders(
    predictions: Path, truth: Path, images: Path | None = None
) -> Generator[FolderEvent, None, None]:
    """Compare all patients that are in two folders.

    Parameters
    ----------
    predictions, truth : Path
        Each a patient's folder or a folder of patients' folders, as
        :func:`napari_lgg_seg.core.evaluation.label_pairs.find_pairs` takes them.
    images : Path, optional
        Where the patients' images are, if not beside the truth or the predictions. They are not
        read, but belong to each :class:`LabelPair`.

    Yields
    ------
    PairsFound
        Once, first.
    PairCompared
        For each of its cases.

    Raises
    ------
    PatientError
        If a folder holds nothing of the kind.
    ComparisonError
        If one of them is no folder, or no patient is in both.
    """
    for folder in (predictions, truth, *([images] if images is not None else [])):
        if not folder.is_dir():
            raise ComparisonError(f"{folder} is no folder; choose a patient's folder or a folder of them.")
    found = find_pairs(predictions, truth, images)
    cases = tuple(case for case in found.cases if case.truth is not None)
    if not cases:
        raise ComparisonError(
            found.problems[0]
            if found.problems
            else f"No patient is in both {predictions} and {truth}; choose folders that match."
        )
    without_truth = tuple(case.name for case in found.cases if case.truth is None)
    yield PairsFound(cases, found.without_prediction, without_truth, found.problems)
    for case in cases:
        yield _compare(case)


def _compare(case: LabelPair) -> PairCompared:
    try:
        return PairCompared(case, measure_patient(read_pair(case, with_images=False)))
    except LggSegError as error:
        return PairCompared(case, None, str(error))
    except OSError as error:  # the files have gone since
        return PairCompared(case, None, f"{case.name} cannot be read ({error.strerror or error}).")


def evaluate_folders(predictions: Path, truth: Path) -> tuple[dict[str, float], Summary, list[str]]:
    """Dice per patient over the whole volume.

    Parameters
    ----------
    predictions, truth : Path
        Each a patient's folder or a folder of patients' folders, with dataset masks, TIFF or NIfTI
        labels. Patients are matched by the name in their files; a single pair is compared whatever
        its names.

    Returns
    -------
    scores : dict of str to float
        Dice of each patient that is in both, by name.
    summary : Summary
        Over these patients.
    missing : list of str
        Patients with truth but without prediction.

    Raises
    ------
    PatientError
        If there is nothing to compare, labels are broken, or a pair has different grids.
    """
    true, predicted = _find(truth), _find(predictions)
    if len(true) == len(predicted) == 1:
        predicted = dict(zip(true, predicted.values(), strict=True))
    scores = {name: _score(predicted[name], true[name]) for name in true if name in predicted}
    if not scores:
        raise PatientError(f"No patient is in both {predictions} and {truth}; choose folders that match.")
    return scores, summarise(scores), [name for name in true if name not in predicted]


def _find(folder: Path) -> dict[str, Path]:
    found = find_labels(folder)
    if not found:
        raise PatientError(
            f"{folder} holds no labels (<patient>_<n>_mask.tif, <patient>_tumour.tif or "
            "<patient>_tumour.nii.gz); choose another folder."
        )
    return found


def _score(prediction: Path, truth: Path) -> float:
    predicted, true = read_labels(prediction), read_labels(truth)
    if predicted.shape != true.shape:
        raise PatientError(
            f"{prediction} has {in_size(predicted.shape)} voxels but {truth} has {in_size(true.shape)}; "
            "they must be the same slices."
        )
    return dice(predicted, true)
