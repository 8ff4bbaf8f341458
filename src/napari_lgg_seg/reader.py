"""npe2 reader: patient folders, slice files and dataset folders -> layers. Reads through the core."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from .core.data.discover import is_dataset_folder, is_patient_folder, is_slice_file, patient_folders
from .core.data.patients import Patient, parse_name, read_patient, read_slices
from .core.errors import PatientError
from .layers import LayerData, patient_layers, patients_in

PathOrPaths = str | Sequence[str]


def get_reader(path: PathOrPaths) -> Callable[[PathOrPaths], list[LayerData]] | None:
    """Napari's question whether we open a path: quick, and None for whatever is not ours.

    Parameters
    ----------
    path : str or sequence of str
        Patient folders, a dataset folder, or slice files of the dataset.

    Returns
    -------
    callable or None
        Takes the same path and returns layer data.
    """
    try:
        paths = _as_paths(path)
        return read if paths and all(_is_ours(p) for p in paths) else None
    except (OSError, TypeError, ValueError):  # a strange path, for instance with a null byte
        return None


def read(path: PathOrPaths) -> list[LayerData]:
    """Layers of every patient behind a path; none if one of them is broken.

    Raises
    ------
    PatientError
        One sentence that names the file and says what to do.
    """
    patients, notice = read_patients(_as_paths(path))
    if notice:
        from napari.utils.notifications import show_info

        show_info(notice)
    return layers_of(patients, patients_open())


def read_patients(paths: Sequence[Path]) -> tuple[list[Patient], str | None]:
    """Read the patients behind paths.

    Parameters
    ----------
    paths : sequence of Path
        Patient folders, dataset folders (their first patient is read), slice files (those of one
        patient become one volume).

    Returns
    -------
    patients : list of Patient
        In the order of the paths.
    notice : str or None
        What the user should know: how many patients a dataset holds, slices without masks.

    Raises
    ------
    PatientError
        If one of them is broken.
    """
    patients: list[Patient] = []
    notices: list[str] = []
    slices: dict[tuple[Path, str], list[Path]] = {}
    for path in paths:
        if path.is_file():
            parsed = parse_name(path)
            if parsed is None:
                raise PatientError(f"{path} is not a slice named <patient>_<n>.tif; open a patient's folder.")
            slices.setdefault((path.parent, parsed[0]), []).append(path)
        elif not is_patient_folder(path) and (found := patient_folders(path)):
            patients.append(read_patient(found[0]))
            notices.append(_how_to_open_others(path, found))
        else:
            patients.append(read_patient(path))
    patients += [read_slices(files) for files in slices.values()]
    notices += [text for patient in patients if (text := _slices_without_mask(patient))]
    return patients, " ".join(notices) or None


def layers_of(patients: Sequence[Patient], already_open: Sequence[str]) -> list[LayerData]:
    """Layer data of patients; all but the first patient in a viewer carry their name as prefix."""
    result: list[LayerData] = []
    for patient in patients:
        result += patient_layers(patient, prefix=bool(already_open) or bool(result))
    return result


def _how_to_open_others(dataset: Path, found: Sequence[Path]) -> str:
    return (
        f"{dataset.name} holds {len(found)} patients; {found[0].name} is open. "
        "Open another with File > IO Utilities > Open LGG patient..., or drop its folder here."
    )


def _slices_without_mask(patient: Patient) -> str | None:
    if not patient.slices_without_mask:
        return None
    without, total = len(patient.slices_without_mask), len(patient.slice_numbers)
    return f"{patient.name}: {without} of {total} slices have no mask file and are empty in truth."


def _as_paths(path: PathOrPaths) -> list[Path]:
    return [Path(path)] if isinstance(path, str | Path) else [Path(p) for p in path]


def _is_ours(path: Path) -> bool:
    if path.is_dir():
        return is_patient_folder(path) or is_dataset_folder(path)
    return is_slice_file(path)


def patients_open() -> list[str]:
    """Patients in the viewer that is being read into, if there is one."""
    napari = sys.modules.get("napari")
    viewer = napari.current_viewer() if napari is not None else None
    return patients_in(viewer.layers) if viewer is not None else []
