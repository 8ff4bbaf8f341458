"""npe2 reader: patient folders, slice files and dataset folders as layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from .core.data.discover import is_dataset_folder, is_patient_folder, is_slice_file
from .core.errors import PatientError
from .layers import LayerData, layers_of, patients_open
from .widgets.shared.open_folder import read_patients
from .widgets.shared.worker import cannot_be_read, show_warnings

PathOrPaths = str | Sequence[str]


def get_reader(path: PathOrPaths) -> Callable[[PathOrPaths], list[LayerData]] | None:
    """The reader for a path, or None if the path is not ours; quick, and never raises.

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
    except (OSError, TypeError, ValueError):  # not a valid path, for instance with a null byte
        return None


def read(path: PathOrPaths) -> list[LayerData]:
    """Layers of all patients in a path; none at all if one patient is broken.

    Raises
    ------
    PatientError
        Names the broken file and says what to do.
    """
    show_warnings()
    try:
        patients, notice = read_patients(_as_paths(path))
    except OSError as error:
        raise PatientError(cannot_be_read(error)) from error
    if notice:
        from .widgets.shared.plain_text import show_info

        show_info(notice)
    return layers_of(patients, patients_open())


def _as_paths(path: PathOrPaths) -> list[Path]:
    return [Path(path)] if isinstance(path, str | Path) else [Path(p) for p in path]


def _is_ours(path: Path) -> bool:
    if path.is_dir():
        return is_patient_folder(path) or is_dataset_folder(path)
    return is_slice_file(path)
