"""The results of a cohort: the only code that reads and writes them, and decides what may be replaced.

The results of ``<patient>`` are in ``<results>/<patient>/``, in one or more formats that hold the same
labels: ``<patient>_tumour.tif``, ``<patient>_tumour.nii.gz`` or ``<patient>_<n>_mask.tif``, and perhaps
``<patient>_probability.tif`` (8 bit, 255 for 1). For each format, a hidden
:class:`napari_lgg_seg.core.data.provenance.LabelRecord` says who made the labels, with a hash of each file.
Labels that differ from their hash, or have no record, count as the user's. Labels and record change together
(:func:`napari_lgg_seg.core.atomic.filling`), one writer at a time.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..atomic import check_name
from ..choices import FileFormat
from ..data.discover import has_slices
from ..data.label_files import label_files
from ..data.patients import one_form, stored_path
from ..errors import LggSegError, ResultsError
from ..inference.segmentation import Segmentation
from .patient_results import PatientResults
from .status import PatientStatus, check_permission


@dataclass(frozen=True)
class Statuses:
    """Statuses of patients by name, and why those of others cannot be read, one sentence each."""

    found: Mapping[str, PatientStatus] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)


class ResultStore:
    """The results of a cohort; may be shared between threads.

    Parameters
    ----------
    folder : Path
        The results folder; created when something is first written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def patient(self, name: str) -> PatientResults:
        """The results of one patient."""
        return PatientResults(stored_path(self.folder, name))

    def statuses(self, names: Iterable[str]) -> Statuses:
        """Statuses of patients, see :meth:`PatientResults.status`; one that cannot be read hides no other."""
        found: dict[str, PatientStatus] = {}
        problems: dict[str, str] = {}
        for name in names:
            try:
                found[name] = self.patient(name).status()
            except LggSegError as error:
                problems[name] = str(error)
        return Statuses(found, problems)

    def corrected(self) -> Statuses:
        """The patients whose labels are the user's, in the order of their names.

        Raises
        ------
        ResultsError
            If the folder cannot be opened.
        """
        try:
            with os.scandir(self.folder) as entries:
                names = [entry.name for entry in entries if entry.name[0] != "." and _is_folder(entry)]
        except (FileNotFoundError, NotADirectoryError):
            return Statuses()
        except OSError as error:
            raise ResultsError(
                f"{self.folder} cannot be opened ({error.strerror}); choose another folder of results."
            ) from error
        statuses = self.statuses(sorted({one_form(name) for name in names}))
        by_hand = {name: status for name, status in statuses.found.items() if status.by_hand}
        return Statuses(by_hand, statuses.problems)

    def check(self, dataset: Path) -> None:
        """Refuse a folder in which results would be mixed with a patient's images.

        Raises
        ------
        ResultsError
            If it is a file, the dataset folder itself, or inside a patient's folder.
        """
        folder, dataset = Path(os.path.realpath(self.folder)), Path(os.path.realpath(dataset))
        if folder == dataset:
            raise ResultsError(f"{self.folder} is the dataset folder; choose another folder for the results.")
        if os.path.exists(folder) and not os.path.isdir(folder):  # noqa: PTH110, PTH112 - never raise errors
            raise ResultsError(f"{self.folder} is a file; choose a folder for the results.")
        for above in (folder, *folder.parents):
            if above != dataset and above not in dataset.parents and has_slices(above):
                raise ResultsError(
                    f"{self.folder} is inside {above}, which holds a patient's images; choose another folder "
                    "for the results."
                )


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder; also if that is not known, so that it is not left out silently."""
    try:
        return entry.is_dir()
    except OSError:
        return True


def default_results_folder(dataset: Path) -> Path:
    """``<dataset>-results`` next to the dataset folder."""
    dataset = Path(os.path.abspath(dataset))  # noqa: PTH100 - resolve() would follow a linked folder
    return dataset.with_name(f"{dataset.name}-results")


def write_labels(
    output: str | os.PathLike[str],
    segmentation: Segmentation,
    file_format: FileFormat = "masks",
    *,
    overwrite: bool = False,
    replace_corrected: bool = False,
) -> list[Path]:
    """Write a segmentation to ``<output>/<patient>/``.

    Parameters
    ----------
    output : path
        Created if it does not exist.
    segmentation : Segmentation
        From :func:`napari_lgg_seg.segment`.
    file_format : {"masks", "tiff", "nifti"}
        The dataset's ``<patient>_<n>_mask.tif``, one ``<patient>_tumour.tif``, or
        ``<patient>_tumour.nii.gz`` (needs the extra ``nifti``).
    overwrite : bool
        Replace an existing prediction.
    replace_corrected : bool
        Replace existing labels even if a person corrected or accepted them, or another program made or
        changed them.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    ExportError
        If another prediction exists already, the folder holds images, or files cannot be written.
    CorrectedError
        If the existing labels are the user's.

    Examples
    --------
    >>> import tempfile
    >>> import napari_lgg_seg as lgg
    >>> from napari_lgg_seg.core.data.phantom import make_sample_patient
    >>> result = lgg.segment(make_sample_patient(), options=lgg.SegmentOptions(device="cpu"))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     files = lgg.write_labels(folder, result)
    >>> files[0].name
    'LGG_sample_1_mask.tif'
    """
    label_map = segmentation.label_map()
    check_name(label_map.patient)
    results = ResultStore(Path(output)).patient(label_map.patient)
    check_permission(results.status(), overwrite=overwrite, replace_corrected=replace_corrected)
    results.write_prediction(
        label_map,
        file_format,
        provenance=segmentation.provenance,
        probability=segmentation.probability,
        overwrite=overwrite,
        replace_corrected=replace_corrected,
    )
    return label_files(results.folder, results.name, file_format)


def write_masks(*arguments: Any, **keywords: Any) -> list[Path]:
    """Earlier name of :func:`write_labels`."""
    warnings.warn("write_masks is now called write_labels.", DeprecationWarning, stacklevel=2)
    return write_labels(*arguments, **keywords)
