"""The results of one patient: what there is, who made it, and what may replace it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path

from ..atomic import filling, locked, locked_for_reading, reading, safe_name, settle
from ..choices import FileFormat
from ..data.label_files import LabelArray, LabelMap, label_files, put_labels
from ..data.patients import one_form
from ..data.provenance import LabelRecord, Provenance
from ..errors import ChangedError, ExistingMasksError, ExportError, ResultsError
from ..evaluation.compare import format_shape
from .found_labels import FORMATS, FoundLabels, find_labels, probability_name, revision_of
from .result_files import (
    Probability,
    StoredResult,
    change_records,
    check_folder,
    measure_prediction,
    read_pages,
    read_probability_pages,
    write_results,
)
from .status import PatientStatus, check_permission, status_of


class PatientResults:
    """The results of one patient; may be shared between threads.

    Parameters
    ----------
    folder : Path
        Holds the results; created when something is first written.
    name : str, optional
        The patient's name in the file names; by default that of the folder.
    """

    def __init__(self, folder: Path, name: str | None = None) -> None:
        self.folder, self.name = folder, one_form(folder.name if name is None else name)
        self._probability_file = folder / probability_name(self.name)

    # --- what is there ---------------------------------------------------------------------------

    def status(
        self,
        wanted: Provenance | None = None,
        file_format: FileFormat | None = None,
        slice_numbers: Sequence[int] = (),
        *,
        verify: bool = False,
    ) -> PatientStatus:
        """What results there are, who made them, and how they relate to a planned segmentation.

        Parameters
        ----------
        wanted : Provenance, optional
            Of the planned segmentation; without it, results of a model are "in the way".
        file_format : {"masks", "tiff", "nifti"}, optional
            Format of the planned segmentation.
        slice_numbers : sequence of int
            The patient's slices, to check whether masks of version 0.1.0 are complete.
        verify : bool
            Compute the hashes of files, even if they have the size in the record and are not younger.

        Raises
        ------
        ResultsError
            If the states that version 0.1.0 stored cannot be read.
        ExportError
            If the folder cannot be read.
        """
        settle(self.folder)
        found = find_labels(self.folder, self.name, verify=verify, slice_numbers=slice_numbers)
        if any(labels.owner == "unknown" for labels in found):
            with locked_for_reading(self.folder):  # perhaps they are just being written
                found = find_labels(self.folder, self.name, verify=verify, slice_numbers=slice_numbers)
        return status_of(self.folder, self.name, found, wanted, file_format)

    def check_folder(self) -> None:
        """Refuse a folder where labels would be taken for the ground truth of a patient's images.

        Raises
        ------
        ExportError
            If it holds images or another patient's masks, is a file, or cannot be read.
        """
        check_folder(self.folder, self.name)

    def revision(self) -> str:
        """As :attr:`StoredResult.revision`; empty if there is no result.

        Raises
        ------
        ResultsError, ExportError
            As :meth:`status`.
        """
        with locked_for_reading(self.folder):
            settle(self.folder)
            return revision_of(find_labels(self.folder, self.name, verify=True))

    def stamps(self) -> list[tuple[str, int, int]]:
        """Path, size and time of change of each label file, to notice changes quickly."""
        found = []
        with suppress(OSError, ExportError):
            for path in (p for f in FORMATS for p in label_files(self.folder, self.name, f)):
                stat = path.stat()
                found.append((str(path), stat.st_size, stat.st_mtime_ns))
        return found

    # --- reading ---------------------------------------------------------------------------------

    def read(self, shape: tuple[int, int, int] | None = None) -> StoredResult | None:
        """The stored result, or None if there is none.

        ``shape`` is the patient's, (z, y, x), which the result must have.

        Raises
        ------
        PatientError
            If a file is broken, or has another shape.
        ResultsError, ExportError
            As :meth:`status`.
        """
        settle(self.folder)
        if not os.path.isdir(self.folder):  # noqa: PTH112 - Path.is_dir raises errors
            return None
        with locked_for_reading(self.folder):
            settle(self.folder)
            found = find_labels(self.folder, self.name, verify=True)
            if not found:
                return None
            with reading(self.folder):
                source = self.folder if found[0].file_format == "masks" else found[0].files[0]
                labels = read_pages(source, shape, is_ours=found[0].owner != "unknown")
                return StoredResult(
                    labels,
                    self._read_probability(found[0], labels.shape),
                    status_of(self.folder, self.name, found),
                    revision_of(found),
                )

    def read_labels(self, shape: tuple[int, int, int] | None = None) -> LabelArray | None:
        """The stored labels, (z, y, x), or None if there are none.

        Raises
        ------
        PatientError, ResultsError, ExportError
            As :meth:`read`.
        """
        result = self.read(shape)
        return None if result is None else result.labels

    def _read_probability(self, labels: FoundLabels, shape: tuple[int, ...]) -> Probability | None:
        path = self._probability_file
        if not labels.stored_probability(path):
            return None
        return read_probability_pages(path, shape)

    # --- writing ---------------------------------------------------------------------------------

    def write_prediction(
        self,
        label_map: LabelMap,
        file_format: FileFormat = "tiff",
        *,
        provenance: Provenance | None = None,
        probability: Probability | None = None,
        keep_probability: bool = False,
        overwrite: bool = False,
        replace_corrected: bool = False,
    ) -> PatientStatus:
        """Store a prediction.

        Parameters
        ----------
        label_map : LabelMap
            The predicted labels, with the model and options that made them.
        file_format : {"masks", "tiff", "nifti"}
            When it replaces something, other formats that are there are written as well, so that all hold
            the same labels.
        provenance : Provenance, optional
            What the prediction was made from.
        probability : ndarray of float32, optional
            Shape (z, y, x), 0 to 1.
        keep_probability : bool
            Store the probability as well.
        overwrite : bool
            Whether it may replace another prediction.
        replace_corrected : bool
            Whether it may replace labels of the user.

        Returns
        -------
        PatientStatus
            The new status; that of the existing result if it is the one that would be written and need not
            be overwritten.

        Raises
        ------
        CorrectedError
            If it would replace labels of the user without permission.
        ExistingMasksError
            If it would replace a prediction without permission.
        ExportError, ResultsError
            If the folder holds images, or cannot be read or written.
        """
        label_map = self._named(label_map)
        measured = measure_prediction(probability, label_map.labels)
        record = LabelRecord("model", provenance=provenance, made_with=label_map.made_with, **measured)
        with locked(self.folder):
            settle(self.folder)
            found = find_labels(self.folder, self.name, verify=True, slice_numbers=label_map.slice_numbers)
            status = status_of(self.folder, self.name, found, provenance, file_format)
            if status.standing == "finished" and not overwrite:
                return status
            check_permission(status, overwrite=overwrite, replace_corrected=replace_corrected)
            formats, stored, kept = {file_format}, probability if keep_probability else None, {}
            if status.standing == "new" and found:  # only another format of the same result
                kept = found[0].stored_probability(self._probability_file)
                stored = None if kept else stored
            else:
                formats |= {labels.file_format for labels in found}
            write_results(
                self.folder, label_map, formats, record, stored, kept, replace_all=replace_corrected
            )
            return self.status()

    def write_edits(
        self,
        label_map: LabelMap,
        *,
        revision: str | None = None,
        shape: tuple[int, int, int] | None = None,
        probability: Probability | None = None,
    ) -> PatientStatus:
        """Store labels that the user made or corrected, as TIFF and in the formats that are there already.

        Parameters
        ----------
        label_map : LabelMap
            The labels.
        revision : str, optional
            :attr:`StoredResult.revision` of the result that was edited, "" if there was none. By default,
            whatever is there is replaced, as predictions are in any case: they can be computed again.
        shape : tuple of int, optional
            The patient's shape, (z, y, x), which the labels must have.
        probability : ndarray of float32, optional
            Shape (z, y, x), 0 to 1; that of the prediction which was edited, if it is not stored yet.

        Returns
        -------
        PatientStatus
            The new status.

        Raises
        ------
        ChangedError
            If there are labels of the user that have been changed since they were read.
        ResultsError
            If the labels have another shape.
        ExportError
            If the folder holds images, or cannot be read or written; earlier labels are left unchanged.
        """
        if shape is not None and label_map.labels.shape != shape:
            raise ResultsError(
                f"The labels of {self.name} have {format_shape(label_map.labels.shape)} voxels but its "
                f"images have {format_shape(shape)}; they were not saved - export them to keep them."
            )
        label_map = self._named(label_map)
        with locked(self.folder):
            settle(self.folder)
            found = find_labels(self.folder, self.name, verify=True)
            if any(labels.owner != "model" for labels in found):  # a prediction can be computed again
                self._check_revision(found, revision)
            known = [labels for labels in found if labels.owner != "unknown"]
            if any(f.file_format == "tiff" and f not in known and f is not found[0] for f in found):
                raise self._changed()  # it would be replaced although it was not seen
            before, kept = LabelRecord("person", made_with=label_map.made_with), {}
            if known and known[0].record is not None and revision in (None, revision_of(found)):
                before, kept = known[0].record, known[0].stored_probability(self._probability_file)
            record = replace(before, made_by="person", provenance=None, exported=False)
            if probability is not None:
                measured = measure_prediction(probability, label_map.labels)
                record = replace(record, made_with=label_map.made_with, **measured)
            formats: set[FileFormat] = {"tiff", *(labels.file_format for labels in known)}
            write_results(self.folder, label_map, formats, record, probability, kept)
            return self.status()

    def accept(self, revision: str | None = None) -> PatientStatus:
        """Record that a person has accepted the stored labels.

        Raises
        ------
        ChangedError
            If they have been changed since they were read.
        ResultsError
            If there are none.
        ExportError
            If the folder cannot be read or written.
        """
        with locked(self.folder):
            settle(self.folder)
            found = find_labels(self.folder, self.name, verify=True)
            self._check_revision(found, revision)
            if not found:
                raise ResultsError(f"{self.folder} holds no labels of {self.name}; segment it first.")
            # In other formats, labels that another program changed may differ from those that were seen.
            seen = [labels for labels in found if labels is found[0] or labels.owner != "unknown"]
            change_records(
                self.folder, self.name, seen, lambda r: replace(r, made_by="person", provenance=None)
            )
            return self.status()

    def mark_exported(self) -> PatientStatus:
        """Record that the labels were exported.

        Raises
        ------
        ResultsError, ExportError
            If the folder cannot be read or written.
        """
        with locked(self.folder):
            settle(self.folder)
            found = find_labels(self.folder, self.name, verify=True)
            known = [labels for labels in found if labels.owner != "unknown"]
            change_records(self.folder, self.name, known, lambda record: replace(record, exported=True))
            return self.status()

    def write_copy(
        self, label_map: LabelMap, file_format: FileFormat, *, by_hand: bool | None, overwrite: bool = False
    ) -> list[Path]:
        """Export labels to this folder.

        Parameters
        ----------
        label_map : LabelMap
            The labels.
        file_format : {"masks", "tiff", "nifti"}
            Other formats that are there already are written as well.
        by_hand : bool or None
            Whether the user made, corrected or accepted them; None if that is unknown.
        overwrite : bool
            Whether they may replace any labels that are there.

        Returns
        -------
        list of Path
            The files.

        Raises
        ------
        ExistingMasksError
            If there are labels and ``overwrite`` is False.
        ExportError, ResultsError
            If the folder holds images, or cannot be read or written.
        """
        label_map = self._named(label_map)
        with locked(self.folder):
            settle(self.folder)
            found = find_labels(self.folder, self.name, verify=False)
            if found and not overwrite:
                raise ExistingMasksError(
                    f"{self.folder} holds labels already ({found[0].files[0].name}); choose another folder, "
                    "or allow overwriting."
                )
            record = None
            if by_hand is not None:
                record = LabelRecord("person" if by_hand else "model", made_with=label_map.made_with)
            formats = {file_format, *(labels.file_format for labels in found)}
            write_results(self.folder, label_map, formats, record, replace_all=True)
            return label_files(self.folder, self.name, file_format)

    def write_more(self, title: str, label_map: LabelMap) -> Path:
        """Store further labels that the user painted, in a new TIFF.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        ExportError
            If the folder holds images, or cannot be written.
        """
        label_map = self._named(label_map)
        stem = f"{self.name}_{safe_name(title)[:80]} edited"
        names = (f"{stem}.tif" if number == 1 else f"{stem} {number}.tif" for number in count(1))
        with locked(self.folder):
            path = next(free for name in names if not os.path.lexists(free := self.folder / name))
            with filling(self.folder) as files:
                (written,) = put_labels(files.staging, label_map, "tiff")
                written.rename(files.staging / path.name)
        return path

    def _named(self, label_map: LabelMap) -> LabelMap:
        """The labels under this patient's name, if they may be written here."""
        check_folder(self.folder, self.name)
        return replace(label_map, patient=self.name)

    def _check_revision(self, found: Sequence[FoundLabels], revision: str | None) -> None:
        if revision is not None and revision != revision_of(found):
            raise self._changed()

    def _changed(self) -> ChangedError:
        return ChangedError(
            f"The labels of {self.name} in {self.folder} have been changed by another window or program "
            "since they were opened, and were not replaced."
        )
