"""The results folder of a cohort: each patient's labels, probability and status.

Patients are identified by their folder names, which are unique even if file names are not. The labels of
``<patient>`` are in ``<results>/<patient>/<patient>_tumour.tif``, as written by ``segment --format tiff``,
its probability is in ``<patient>_probability.tif`` in the same folder (8 bit, 255 for 1).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from ..atomic import replacing, safe_name
from ..data.discover import has_slices
from ..data.label_files import LabelArray, LabelMap, target_file, write_tiff
from ..errors import CorrectedError, PatientError, ResultsError
from ..inference.uncertainty import expected_dice, mean_entropy
from .index import CohortIndex, PatientStatus

Probability = npt.NDArray[np.float32]


@dataclass(frozen=True)
class StoredResult:
    """A patient's stored result.

    Attributes
    ----------
    labels : ndarray of unsigned integers
        Shape (z, y, x), with their original values.
    probability : ndarray of float32 or None
        Shape (z, y, x), 0 to 1 in steps of 1/255, if stored.
    status : PatientStatus
        The patient's status.
    """

    labels: LabelArray
    probability: Probability | None
    status: PatientStatus


class CohortResults:
    """Reads and writes a results folder; may be shared between threads.

    Parameters
    ----------
    folder : Path
        Created when something is first written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._index = CohortIndex(folder)
        #: Held while something is written; reentrant.
        self.lock = self._index.lock

    # --- paths ---------------------------------------------------------------------------------

    def labels_file(self, name: str) -> Path:
        """File of a patient's labels, whether it exists or not."""
        return target_file(self.folder, name, "tiff")

    def probability_file(self, name: str) -> Path:
        """File of a patient's probability, whether it exists or not."""
        return self.folder / name / f"{name}_probability.tif"

    def check(self, dataset: Path) -> None:
        """Refuse a folder in which results would be mixed with a patient's images.

        Raises
        ------
        ResultsError
            If it is a file, the dataset folder itself, or inside a patient's folder.
        """
        folder, dataset = self.folder.resolve(), dataset.resolve()
        if folder == dataset:
            raise ResultsError(f"{self.folder} is the dataset folder; choose another folder for the results.")
        if folder.exists() and not folder.is_dir():
            raise ResultsError(f"{self.folder} is a file; choose a folder for the results.")
        for above in (folder, *folder.parents):
            if above != dataset and above not in dataset.parents and has_slices(above):
                raise ResultsError(
                    f"{self.folder} is inside {above}, which holds a patient's images; choose another folder "
                    "for the results."
                )

    # --- statuses ------------------------------------------------------------------------------

    def statuses(self, names: Iterable[str]) -> dict[str, PatientStatus]:
        """Statuses of patients; labels that are not in the index count as segmented.

        Raises
        ------
        ResultsError
            If the index cannot be read.
        """
        known = self._index.read()
        return {name: self._with_files(name, known.get(name, PatientStatus())) for name in names}

    def status(self, name: str) -> PatientStatus:
        """One patient's status, as in :meth:`statuses`."""
        return self.statuses([name])[name]

    def corrected(self) -> list[str]:
        """Names of the patients with corrected or accepted labels, sorted.

        Raises
        ------
        ResultsError
            As :meth:`statuses`.
        """
        known = self._index.read()
        return sorted(name for name, status in known.items() if self._with_files(name, status).by_hand)

    def _with_files(self, name: str, status: PatientStatus) -> PatientStatus:
        """A status consistent with the files: labels may have been added or removed by hand."""
        there = self.labels_file(name).is_file()
        if there and status.state == "new":
            return PatientStatus("segmented")
        return status if there else PatientStatus()

    def mark_exported(self, name: str) -> PatientStatus:
        """Record that a patient's masks were exported.

        Raises
        ------
        ResultsError, ExportError
            If the index cannot be read or written.
        """
        return self._index.change([name], state="exported")[name]

    # --- writing -------------------------------------------------------------------------------

    def write_prediction(
        self, name: str, label_map: LabelMap, probability: Probability, *, replace_corrected: bool = False
    ) -> PatientStatus:
        """Store a prediction.

        Parameters
        ----------
        name : str
            The patient's folder name.
        label_map : LabelMap
            The predicted labels, with the model and options that made them.
        probability : ndarray of float32
            Shape (z, y, x), 0 to 1.
        replace_corrected : bool
            Whether it may replace corrected labels.

        Returns
        -------
        PatientStatus
            The patient's new status.

        Raises
        ------
        CorrectedError
            If it would replace corrected labels without permission.
        ResultsError, ExportError
            If the patient's results folder holds images, or cannot be read or written.
        """
        self._check_target(name)
        uncertainty = mean_entropy(probability, label_map.labels)
        expected = expected_dice(probability, label_map.labels)
        with self.lock:
            if self.status(name).by_hand and not replace_corrected:
                raise CorrectedError(f"{name} has corrected labels, which were not replaced.")
            _write_probability(self.probability_file(name), probability)
            write_tiff(self.labels_file(name), label_map)
            return self._index.change(
                [name],
                state="segmented",
                by_hand=False,
                uncertainty=uncertainty,
                expected_dice=expected,
                nothing_found=not label_map.labels.any(),
                made_with=dict(label_map.made_with),
            )[name]

    def write_corrected(self, name: str, label_map: LabelMap) -> PatientStatus:
        """Store labels that the user corrected or accepted.

        Returns
        -------
        PatientStatus
            The patient's new status.

        Raises
        ------
        ResultsError, ExportError
            If the patient's results folder holds images, or cannot be read or written; earlier labels are
            left unchanged.
        """
        self._check_target(name)
        with self.lock:
            # The status comes first, since it protects the labels from being replaced by predictions.
            before = self.status(name)
            status = self._index.change([name], state="corrected", by_hand=True)[name]
            try:
                write_tiff(self.labels_file(name), label_map)
            except BaseException:
                self._index.change([name], state=before.state, by_hand=before.by_hand)
                raise
        return status

    def write_more(self, name: str, title: str, label_map: LabelMap) -> Path:
        """Store further labels that the user painted for a patient, in a new file.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        ResultsError, ExportError
            As :meth:`write_corrected`.
        """
        self._check_target(name)
        stem = f"{name}_{safe_name(title)} edited"
        names = (f"{stem}.tif" if number == 1 else f"{stem} {number}.tif" for number in count(1))
        path = next(free for n in names if not (free := self.folder / name / n).exists())
        write_tiff(path, label_map)
        return path

    def _check_target(self, name: str) -> None:
        if has_slices(self.folder / name):
            raise ResultsError(
                f"{self.folder / name} holds images or masks of a patient; choose another folder for the "
                "results."
            )

    # --- reading -------------------------------------------------------------------------------

    def read(self, name: str, shape: tuple[int, int, int] | None = None) -> StoredResult | None:
        """A patient's result, or None if there is none.

        Parameters
        ----------
        name : str
            The patient's folder name.
        shape : tuple of int, optional
            The patient's shape, (z, y, x), which the result must have.

        Raises
        ------
        PatientError
            If a file is broken, or has another shape.
        ResultsError
            If the index cannot be read.
        """
        labels = self.read_labels(name, shape)
        if labels is None:
            return None
        path = self.probability_file(name)
        pages = _read_pages(path, labels.shape) if path.is_file() else None
        probability = None if pages is None else pages.astype(np.float32) / np.float32(255)
        return StoredResult(labels, probability, self.status(name))

    def read_labels(self, name: str, shape: tuple[int, int, int] | None = None) -> LabelArray | None:
        """A patient's stored labels, (z, y, x), or None if there are none.

        Raises
        ------
        PatientError
            As :meth:`read`.
        """
        path = self.labels_file(name)
        return _read_pages(path, shape) if path.is_file() else None


def default_results_folder(dataset: Path) -> Path:
    """``<dataset>-results`` next to the dataset folder."""
    dataset = Path(os.path.abspath(dataset))  # noqa: PTH100 - resolve() would follow a linked folder
    return dataset.with_name(f"{dataset.name}-results")


def _write_probability(path: Path, probability: Probability) -> None:
    values = np.rint(np.clip(probability, 0, 1) * 255).astype(np.uint8)
    metadata: dict[str, Any] = {"axes": "ZYX", "Description": "Probability of tumour, 255 for 1"}
    with replacing(path) as temporary:
        tifffile.imwrite(
            temporary, values, ome=True, compression="zlib", photometric="minisblack", metadata=metadata
        )


def _read_pages(path: Path, shape: tuple[int, ...] | None) -> LabelArray:
    try:
        pages: LabelArray = tifffile.imread(path)
    except Exception as error:  # tifffile raises many kinds of errors on broken files
        raise PatientError(
            f"{path} cannot be read ({' '.join(str(error).split()) or type(error).__name__}); remove it and "
            "segment the patient again."
        ) from error
    if pages.ndim == 2:  # tifffile drops the axis of a single slice
        pages = pages[None]
    if pages.dtype.kind not in "bui" or (shape is not None and pages.shape != shape):
        wanted = " x ".join(map(str, shape or ("slices", "height", "width")))
        raise PatientError(
            f"{path} is {' x '.join(map(str, pages.shape))} {pages.dtype}, but the patient is {wanted}; "
            "remove it and segment the patient again."
        )
    return pages
