"""Predicted masks against true ones, folder by folder."""

from __future__ import annotations

from pathlib import Path

from .errors import PatientError
from .metrics import Summary, dice, summarise
from .patients import UInt8Array, find_slices, is_patient_folder, patient_folders, read_patient


def evaluate_folders(predictions: Path, truth: Path) -> tuple[dict[str, float], Summary, list[str]]:
    """Dice per patient over the whole volume.

    Parameters
    ----------
    predictions, truth : Path
        Each a patient folder or a folder of patient folders in the dataset's layout. Patients are
        matched by the name in their files; a single pair of folders is compared whatever its names.

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
        If there is nothing to compare, a folder is broken, or a pair has different grids.
    """
    true = _by_name(truth)
    predicted = _by_name(predictions)
    if is_patient_folder(predictions) and is_patient_folder(truth):
        (name,) = true
        predicted = {name: predictions}
    scores = {name: _score(predicted[name], true[name]) for name in true if name in predicted}
    if not scores:
        raise PatientError(f"No patient is in both {predictions} and {truth}; choose folders that match.")
    return scores, summarise(scores), [name for name in true if name not in predicted]


def _by_name(folder: Path) -> dict[str, Path]:
    folders = [folder] if is_patient_folder(folder) else patient_folders(folder)
    if not folders:
        raise PatientError(f"{folder} holds no masks named <patient>_<n>_mask.tif; choose another folder.")
    return {find_slices(f).name: f for f in folders}


def _score(prediction: Path, truth: Path) -> float:
    a, b = _masks(prediction), _masks(truth)
    if a[1] != b[1] or a[0].shape != b[0].shape:
        raise PatientError(
            f"{prediction} has {len(a[1])} slices of {a[0].shape[1]} x {a[0].shape[2]} but {truth} has "
            f"{len(b[1])} of {b[0].shape[1]} x {b[0].shape[2]}; they must be the same slices."
        )
    return dice(a[0], b[0])


def _masks(folder: Path) -> tuple[UInt8Array, tuple[int, ...]]:
    patient = read_patient(folder)
    if patient.truth is None:
        raise PatientError(f"{folder} holds no masks; choose the folder with masks of this patient.")
    if patient.unmarked:
        raise PatientError(
            f"{folder / f'{patient.name}_{patient.unmarked[0]}_mask.tif'} is missing, although other slices "
            "have masks; add it before comparing."
        )
    return patient.truth, patient.slice_numbers
