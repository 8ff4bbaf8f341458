"""Read the patients in folders and files, and add them to a viewer.

The reader imports this module without a window, so Qt is imported inside functions.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.data.discover import patient_folders
from ...core.data.patients import Patient, parse_name, read_patient, read_slices
from ...core.errors import PatientError, counted
from ...layers import add_layers, layers_of, patients_in
from .worker import Failure, create_worker, returns_failure

if TYPE_CHECKING:
    from napari.viewer import Viewer


def read_patients(paths: Sequence[Path]) -> tuple[list[Patient], str | None]:
    """Read the patients in paths.

    Parameters
    ----------
    paths : sequence of Path
        Patient folders, dataset folders (their first patient is read), or slice files (those of one
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
        If one of the patients is broken.
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
        else:
            found = patient_folders(path) or [path]  # reading another folder says what it lacks
            patients.append(read_patient(found[0]))
            if found[0] != path:
                notices.append(_how_to_open_others(path, found))
    patients += [read_slices(files) for files in slices.values()]
    notices += [text for patient in patients if (text := _slices_without_mask(patient))]
    return patients, " ".join(notices) or None


def open_folder(
    viewer: Viewer,
    folder: Path,
    on_failure: Callable[[str], object],
    on_finished: Callable[[], object] | None = None,
) -> None:
    """Read a folder in a worker and add its layers.

    Parameters
    ----------
    viewer : Viewer
        Where the layers are added.
    folder : Path
        A patient's folder or a dataset's.
    on_failure : callable
        Called with a message if the folder cannot be read.
    on_finished : callable, optional
        Called afterwards, whether or not the folder could be read.
    """
    from .plain_text import show_info

    def returned(result: Any) -> None:
        if isinstance(result, Failure):
            on_failure(result.message)
            return
        patients, notice = result
        add_layers(viewer, layers_of(patients, patients_in(viewer.layers)))
        if notice:
            show_info(notice)

    def finished() -> None:
        if on_finished is not None:
            on_finished()

    # Connected before the worker starts: it may be done before this function returns.
    create_worker(_read_folder, folder, _connect={"returned": returned, "finished": finished})


@returns_failure
def _read_folder(folder: Path) -> Generator[None, None, Any]:
    yield
    return read_patients([folder])


def _how_to_open_others(dataset: Path, found: Sequence[Path]) -> str:
    if len(found) == 1:
        return f"{dataset.name} holds 1 patient; {found[0].name} is open."
    return (
        f"{dataset.name} holds {len(found)} patients; {found[0].name} is open. "
        "Open another with File > IO Utilities > Open LGG patient..., or drop its folder here."
    )


def _slices_without_mask(patient: Patient) -> str | None:
    if not patient.slices_without_mask:
        return None
    without, total = len(patient.slices_without_mask), counted(len(patient.slice_numbers), "slice")
    which = "has no mask file and is" if without == 1 else "have no mask file and are"
    return f"{patient.name}: {without} of {total} {which} empty in the ground truth."
