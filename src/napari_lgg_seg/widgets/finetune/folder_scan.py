"""Find patients to train on in folders; in a worker, because disks can be slow."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...core.cohort.corrected import CorrectedPatient, find_corrected
from ...core.data.discover import has_slices, search
from ...core.data.patients import find_slices
from ...core.errors import TrainingError, counted
from ..shared.worker import Failure, create_worker, returns_failure, unexpected

SCANNING = "Finding patients..."


@dataclass(frozen=True)
class FoundPatients:
    """The patients to train on in a folder.

    Attributes
    ----------
    usable : dict of str to Path or CorrectedPatient
        Where each patient is read from, by name.
    count : str
        How many, in words.
    problems : tuple of str
        One sentence for each folder that is left out.
    incomplete : dict of str to str
        Patients with slices that have no mask file, and how many: "3 of 20 slices".
    """

    usable: Mapping[str, Path | CorrectedPatient]
    count: str
    problems: tuple[str, ...] = ()
    incomplete: Mapping[str, str] = field(default_factory=dict)

    def summary(self) -> str:
        """How many patients were found, and what is left out."""
        parts = [f"{self.count}."]
        if self.incomplete:
            name, missing = next(iter(self.incomplete.items()))
            verb = "has" if len(self.incomplete) == 1 else "have"
            who = counted(len(self.incomplete), "patient")
            parts.append(f"{who} {verb} slices without a mask, which are not used ({name}: {missing}).")
        if self.problems:
            more = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
            parts.append(f"Left out: {self.problems[0].rstrip('.')}{more}.")
        return " ".join(parts)


@returns_failure
def scan_folder(folder: Path) -> Generator[None, None, FoundPatients]:
    """Find the patients with images and masks in a folder.

    Raises
    ------
    TrainingError
        If there are none; :func:`napari_lgg_seg.widgets.shared.worker.returns_failure` turns it into a
        message.
    """
    if not folder.is_dir():
        raise TrainingError(f"{folder} is no folder; choose the folder that holds the patients' folders.")
    found = yield from search("images and masks", [folder])
    own = has_slices(folder)
    if own or found.empty:
        problem = "is a patient's own folder" if own else "holds no patients' folders"
        raise TrainingError(f"{folder} {problem}; choose the folder that holds the patients' folders.")
    count = f"{counted(len(found.patients), 'patient')} with images and masks"
    incomplete = {}
    for name, path in found.patients.items():
        yield
        files = find_slices(path)
        missing = len(set(files.images) - set(files.masks))
        if missing:
            incomplete[name] = f"{missing} of {counted(len(files.images), 'slice')}"
    return FoundPatients(found.patients, count, tuple(map(str, found.problems)), incomplete)


@returns_failure
def scan_corrected(dataset: Path, results: Path) -> Generator[None, None, FoundPatients]:
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
    yield
    found = find_corrected(dataset, results)
    nothing = "No patient of this cohort is corrected yet: correct some, or click Accept in Cohort"
    count = counted(len(found.patients), "corrected patient") if found.patients else nothing
    return FoundPatients(found.patients, count, found.problems)


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
    found : FoundPatients, Failure or None
        Result of the last scan; None before the first one, and during a scan.
    """

    def __init__(self, changed: Callable[[], None], scan: Callable[..., Any] = scan_folder) -> None:
        self._changed, self._scan = changed, scan
        self._worker: Any = None
        self.found: FoundPatients | Failure | None = None

    @property
    def patients(self) -> Mapping[str, Path | CorrectedPatient]:
        """The patients found, by name."""
        return {} if self.found is None or isinstance(self.found, Failure) else self.found.usable

    def start(self, *folders: Path) -> None:
        """Scan these folders, if all are chosen, instead of those before."""
        self.reset()
        if all(folder.name for folder in folders):
            self._worker = create_worker(
                self._scan, *folders, _connect={"returned": self._finish, "errored": self._fail}
            )

    def reset(self) -> None:
        """Stop scanning and forget what was found."""
        worker, self._worker, self.found = self._worker, None, None
        if worker is not None:
            worker.returned.disconnect(self._finish)
            worker.errored.disconnect(self._fail)
            worker.quit()

    def summary(self) -> str:
        """What was found; empty before the first scan."""
        if self._worker is not None:
            return SCANNING
        if isinstance(self.found, Failure):
            return self.found.message
        return self.found.summary() if self.found is not None else ""

    def _finish(self, found: FoundPatients | Failure) -> None:
        self._worker, self.found = None, found
        self._changed()

    def _fail(self, error: Exception) -> None:
        self._finish(Failure(unexpected(error)))
