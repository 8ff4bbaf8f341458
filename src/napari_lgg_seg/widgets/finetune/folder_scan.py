"""Find patients to train on in folders; in a worker, because disks can be slow."""

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

SCANNING = "Finding patients..."


@dataclass(frozen=True)
class FoundPatients:
    """The patients in a folder.

    Attributes
    ----------
    usable : dict of str to Path
        Names and folders of patients with images and masks.
    others : int
        Number of patients without images or masks, or that cannot be read.
    """

    usable: dict[str, Path]
    others: int

    def summary(self) -> str:
        """How many patients were found."""
        text = f"{counted(len(self.usable), 'patient')} with images and masks"
        return f"{text}; {self.others} without images or masks left out." if self.others else f"{text}."


@returns_failure
def scan_folder(folder: Path) -> Generator[None, None, FoundPatients]:
    """Find the patients in a folder by the names of their files.

    Raises
    ------
    TrainingError
        If there are none; :func:`napari_lgg_seg.widgets.shared.worker.returns_failure` turns it into a
        message.
    """
    if not folder.is_dir():
        raise TrainingError(f"{folder} is no folder; choose the folder that holds the patients' folders.")
    usable: dict[str, Path] = {}
    others = 0
    for patient in patient_folders(folder):
        yield  # so that the scan can be stopped
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
        problem = "is a patient's own folder" if is_patient_folder(folder) else "holds no patients' folders"
        raise TrainingError(f"{folder} {problem}; choose the folder that holds the patients' folders.")
    return FoundPatients(usable, others)


@dataclass(frozen=True)
class FoundCorrected:
    """The patients of a cohort with corrected labels.

    Attributes
    ----------
    usable : dict of str to CorrectedPatient
        Names of the patients and where they are read from.
    """

    usable: dict[str, CorrectedPatient]

    def summary(self) -> str:
        """How many patients were found."""
        if not self.usable:
            return "No patient of this cohort is corrected yet: correct some, or click Accept in Cohort."
        return f"{counted(len(self.usable), 'corrected patient')}."


@returns_failure
def scan_corrected(dataset: Path, results: Path) -> Generator[None, None, FoundCorrected]:
    """Find the patients of a cohort whose labels were corrected.

    Raises
    ------
    TrainingError, ResultsError
        If the folders do not exist; :func:`napari_lgg_seg.widgets.shared.worker.returns_failure` turns it
        into a message.
    """
    for folder, content in ((dataset, "the patients' folders"), (results, "the cohort's results")):
        if not folder.is_dir():
            raise TrainingError(f"{folder} is no folder; choose the folder that holds {content}.")
    usable: dict[str, CorrectedPatient] = {}
    for patient in corrected_patients(dataset, results):
        yield  # so that the scan can be stopped
        try:
            usable.setdefault(patient.name, patient)
        except PatientError:  # the cohort browser shows why it cannot be read
            continue
    return FoundCorrected(usable)


class FolderScan:
    """Scans one folder, or the folders of one cohort, at a time.

    Parameters
    ----------
    changed : callable
        Called when a scan is done.
    scan : callable
        Takes the folders; :func:`scan_folder` or :func:`scan_corrected`.

    Attributes
    ----------
    found : FoundPatients, FoundCorrected, Failure or None
        Result of the last scan; None before the first one, and during a scan.
    """

    def __init__(self, changed: Callable[[], None], scan: Callable[..., Any] = scan_folder) -> None:
        self._changed, self._scan = changed, scan
        self._worker: Any = None
        self.found: FoundPatients | FoundCorrected | Failure | None = None

    @property
    def patients(self) -> Mapping[str, Path | CorrectedPatient]:
        """The patients found, by name."""
        return {} if self.found is None or isinstance(self.found, Failure) else self.found.usable

    def start(self, *folders: Path) -> None:
        """Scan these folders, if all are chosen, instead of those before."""
        self.reset()
        if all(folder.name for folder in folders):
            self._worker = create_worker(self._scan, *folders, _connect={"returned": self._finish})

    def reset(self) -> None:
        """Stop scanning and forget what was found."""
        worker, self._worker, self.found = self._worker, None, None
        if worker is not None:
            worker.returned.disconnect(self._finish)
            worker.quit()

    def summary(self) -> str:
        """What was found; empty before the first scan."""
        if self._worker is not None:
            return SCANNING
        if isinstance(self.found, Failure):
            return self.found.message
        return self.found.summary() if self.found is not None else ""

    def _finish(self, found: FoundPatients | FoundCorrected | Failure) -> None:
        self._worker, self.found = None, found
        self._changed()
