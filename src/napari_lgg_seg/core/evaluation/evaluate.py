"""Predicted labels against true ones, patient by patient, whatever format they are in."""

from __future__ import annotations

from pathlib import Path

from ..data.label_files import find_labels, read_labels
from ..errors import PatientError
from .compare import in_size
from .metrics import Summary, dice, summarise


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
