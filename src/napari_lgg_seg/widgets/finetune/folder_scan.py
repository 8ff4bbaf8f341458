"""What folders of patients hold for a training; looked up in a worker, since disks can be slow."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari.qt.threading import create_worker

from ...core.cohort.corrected import CorrectedPatient, corrected_patients
from ...core.data.discover import is_patient_folder, patient_folders
from ...core.data.patients import find_slices
from ...core.errors import PatientError, TrainingError
from ..shared.messages import counted
from ..shared.worker import Failure, returns_failure


@dataclass(frozen=True)
class FoundPatients:
    """The patients in a folder.

    Attributes
    ----------
    folder : Path
        Where it was looked.
    usable : dict of str to Path
        Patients with images and masks, and where they are.
    others : int
        Patients that have images or masks only, or that cannot be read.
    """

    folder: Path
    usable: dict[str, Path]
    others: int

    def summary(self) -> str:
        """A sentence for the user."""
        count = len(self.usable)
        text = f"{count} patient{'s' if count != 1 else ''} with images and masks"
        return f"{text}; {self.others} left out for lack of either." if self.others else f"{text}."


@returns_failure
def look_into(folder: Path) -> Generator[None, None, FoundPatients]:
    """Find the patients in a folder, by their file names only.

    Raises
    ------
    TrainingError
        If there are none; :func:`.worker.returns_failure` makes it a sentence.
    """
    if not folder.is_dir():
        raise TrainingError(f"{folder} is no folder; choose the folder that holds the patients' folders.")
    usable: dict[str, Path] = {}
    others = 0
    for patient in patient_folders(folder):
        yield  # so that it can be given up
        try:
            files = find_slices(patient)
        except PatientError:
            others += 1
            continue
        if files.images and files.masks and files.name not in usable:
            usable[files.name] = patient
        else:
            others += 1
    if not usable and not others:
        kind = "a patient's own folder" if is_patient_folder(folder) else "without patients' folders"
        raise TrainingError(f"{folder} is {kind}; choose the folder that holds the patients' folders.")
    return FoundPatients(folder, usable, others)


@dataclass(frozen=True)
class FoundCorrected:
    """The patients of a cohort with corrected labels.

    Attributes
    ----------
    usable : dict of str to CorrectedPatient
        Their names, and where they are read from.
    """

    usable: dict[str, CorrectedPatient]

    def summary(self) -> str:
        """A sentence for the user."""
        if not self.usable:
            return "No patient of this cohort is corrected yet: correct some, or click Accept in Cohort."
        return f"{counted(len(self.usable), 'corrected patient')}."


@returns_failure
def look_for_corrected(dataset: Path, results: Path) -> Generator[None, None, FoundCorrected]:
    """Find the patients of a cohort whose labels somebody corrected.

    Raises
    ------
    TrainingError, ResultsError
        If there are no such folders; :func:`.worker.returns_failure` makes it a sentence.
    """
    for folder, held in ((dataset, "the patients' folders"), (results, "the cohort's results")):
        if not folder.is_dir():
            raise TrainingError(f"{folder} is no folder; choose the folder that holds {held}.")
    usable: dict[str, CorrectedPatient] = {}
    for patient in corrected_patients(dataset, results):
        yield  # so that it can be given up
        try:
            usable.setdefault(patient.name, patient)
        except PatientError:  # the cohort's table says what is wrong with it
            continue
    return FoundCorrected(usable)


class FolderScan:
    """Visibility into one folder at a time, or into those of one cohort, and tells when it knows.

    Parameters
    ----------
    changed : callable
        Called when a look is over.
    look : callable
        Takes the folders; :func:`look_into` or :func:`look_for_corrected`.

    Attributes
    ----------
    found : FoundPatients, FoundCorrected, Failure or None
        What the last look gave; None while nobody knows.
    """

    def __init__(self, changed: Callable[[], None], look: Callable[..., Any] = look_into) -> None:
        self._changed, self._look = changed, look
        self._worker: Any = None
        self.found: FoundPatients | FoundCorrected | Failure | None = None

    @property
    def patients(self) -> Mapping[str, Path | CorrectedPatient]:
        """The patients that can be used, as far as is known."""
        return {} if self.found is None or isinstance(self.found, Failure) else self.found.usable

    @property
    def is_looking(self) -> bool:
        """Whether it is at work."""
        return self._worker is not None

    def look(self, *folders: Path) -> None:
        """Look into these folders, if all are chosen, and no more into those before."""
        self.forget()
        if all(folder.name for folder in folders):
            self._worker = create_worker(self._look, *folders, _connect={"returned": self._take})

    def forget(self) -> None:
        """Know nothing, and look no further."""
        worker, self._worker, self.found = self._worker, None, None
        if worker is not None:
            worker.returned.disconnect(self._take)
            worker.quit()

    def summary(self) -> str:
        """What is known, in a sentence; empty before the first look."""
        if self._worker is not None:
            return "Looking for patients..."
        if isinstance(self.found, Failure):
            return self.found.sentence
        return self.found.summary() if self.found is not None else ""

    def _take(self, found: FoundPatients | FoundCorrected | Failure) -> None:
        self._worker, self.found = None, found
        self._changed()
