"""The rows and columns of the cohort browser's table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qtpy.QtGui import QIcon, QImage, QPixmap

from ...core.cohort.patient_summary import PatientSummary
from ...core.cohort.status import STATES, PatientStatus
from ...core.data.listing import ListedPatients
from ...core.data.patients import UInt8Array, institution
from ..shared.table_model import CohortModel, Column, Key

#: Shown as the state of a patient whose files are broken.
UNREADABLE = "cannot be read"
ALL_STATES = "All states"
SHOWN_STATES: tuple[str, ...] = (*STATES, UNREADABLE)

_NOTHING_FOUND = "none found"
#: Sorts patients without predicted tumour before all others.
_ABOVE_ALL = 2.0


@dataclass
class PatientRow:
    """One patient, or a folder that cannot be used as one.

    Attributes
    ----------
    name : str
        Name of the patient in its files, unique in the table.
    folder : Path
        The patient's folder.
    status : PatientStatus
        State of its labels.
    unusable : str
        Why the folder is neither segmented nor opened, in one sentence; empty if it is.
    summary : PatientSummary or None
        None until its files were read.
    keys : tuple
        Sort keys, see :class:`napari_lgg_seg.widgets.shared.table_model.Row`.
    """

    name: str
    folder: Path
    status: PatientStatus
    unusable: str = ""
    summary: PatientSummary | None = None
    keys: tuple[Key | None, ...] = ()
    _icon: QIcon | None = None

    @property
    def problem(self) -> str:
        """Why the patient's files cannot be read; empty if they can, or were not read yet."""
        return self.unusable or (self.summary.problem if self.summary is not None else "")

    @property
    def search_text(self) -> str:
        """Name, folder and missing sequences."""
        return f"{self.name} {self.folder.name} {_missing(self) or ''}"

    @property
    def tooltip(self) -> str:
        """Path of the patient's folder."""
        return str(self.folder)

    @property
    def icon(self) -> QIcon | None:
        """The thumbnail, created when it is first shown."""
        if self._icon is None and self.summary is not None and self.summary.thumbnail is not None:
            self._icon = _to_icon(self.summary.thumbnail)
        return self._icon

    @property
    def state(self) -> str:
        """One of :data:`SHOWN_STATES`."""
        return UNREADABLE if self.problem else self.status.state

    @property
    def uncertainty(self) -> float | None:
        """1 - expected Dice of the prediction; above all other values where no tumour was found."""
        if self.problem:
            return None
        # Both belong to the prediction, so that the order does not change while labels are corrected.
        if self.status.nothing_found:
            return _ABOVE_ALL
        return None if self.status.expected_dice is None else 1 - self.status.expected_dice

    def update(self, status: PatientStatus | None, summary: PatientSummary | None) -> None:
        """Replace status and summary, where given."""
        if status is not None:
            self.status = status
        if summary is not None:
            self.summary, self._icon = summary, None


def _from_summary(name: str, part: str | None = None) -> Callable[[PatientRow], Key | None]:
    """A key function: an attribute of the summary, or a part of that attribute."""

    def get(row: PatientRow) -> Key | None:
        if row.summary is None or row.problem:
            return None
        value = getattr(row.summary, name)
        return value if part is None or value is None else getattr(value, part)

    return get


def _missing(row: PatientRow) -> str | None:
    if row.summary is None or row.problem:
        return None
    return ", ".join(name.removesuffix("-contrast") for name in row.summary.missing)


def _uncertainty_text(value: float) -> str:
    return _NOTHING_FOUND if value == _ABOVE_ALL else f"{value:.3f}"


def _entropy(row: PatientRow) -> float | None:
    return None if row.problem else row.status.uncertainty


def _count(value: int) -> str:
    return f"{value:,}"


_VOXELS = "in voxels, because the files do not contain the voxel size."
COLUMNS: tuple[Column, ...] = (
    Column(
        "Patient",
        "The patient's name in its files, and its FLAIR slice with the largest tumour.",
        lambda row: row.name,
        widest="TCGA_DU_0000_00000000",
        is_number=False,
    ),
    Column(
        "State",
        "New, segmented, corrected (edited or accepted), exported, foreign (made or changed by another "
        "program; accept it to train on it), or cannot be read.",
        lambda row: SHOWN_STATES.index(row.state),
        SHOWN_STATES.__getitem__,
        widest=UNREADABLE,
        is_number=False,
    ),
    Column(
        "Dice",
        "Dice of the saved labels with the ground truth, over the whole volume.",
        _from_summary("dice"),
        "{:.3f}".format,
        widest="0.000",
    ),
    Column(
        "Uncertainty",
        "1 - expected Dice of the prediction. Patients in whom no tumour was found come before all others.",
        lambda row: row.uncertainty,
        _uncertainty_text,
        widest=_NOTHING_FOUND,
    ),
    Column(
        "Mean\nentropy",
        "Entropy of the predicted probability in bits, averaged over voxels with predicted or doubtful "
        "tumour: 0 is certain, 1 is undecided.",
        _entropy,
        "{:.3f}".format,
        widest="0.000",
    ),
    Column(
        "Volume\nfound",
        f"Tumour in the saved labels, {_VOXELS}",
        _from_summary("predicted", "voxels"),
        _count,
    ),
    Column(
        "Volume\ntrue", f"Tumour in the ground truth, {_VOXELS}", _from_summary("truth", "voxels"), _count
    ),
    Column(
        "Slices\nfound",
        "Slices with tumour in the saved labels.",
        _from_summary("predicted", "slices"),
        widest="000",
    ),
    Column(
        "Slices\ntrue",
        "Slices with tumour in the ground truth.",
        _from_summary("truth", "slices"),
        widest="000",
    ),
    Column("Slices\nin all", "Number of slices.", _from_summary("slices"), widest="000"),
    Column(
        "Missing",
        "Missing sequences; FLAIR is used instead.",
        _missing,
        widest="pre, post",
        is_number=False,
    ),
    Column(
        "Institution",
        "The institution's code in the patient's name.",
        lambda row: institution(row.name),
        is_number=False,
    ),
)
UNCERTAINTY = next(i for i, column in enumerate(COLUMNS) if column.title == "Uncertainty")


class BrowserModel(CohortModel):
    """The patients of a dataset, in the order of their names."""

    rows: list[PatientRow]

    def __init__(self, parent: Any = None) -> None:
        super().__init__(COLUMNS, parent)

    def show_patients(self, listed: ListedPatients, statuses: Mapping[str, PatientStatus]) -> None:
        """Replace all patients; their files are not read yet."""
        self.show_rows(
            [
                PatientRow(name, folder, statuses.get(name, PatientStatus()), listed.problems.get(name, ""))
                for name, folder in listed.folders.items()
            ]
        )

    def update(
        self, name: str, *, status: PatientStatus | None = None, summary: PatientSummary | None = None
    ) -> None:
        """Replace a patient's status and summary, where given; unknown patients are ignored."""
        row: PatientRow | None = self.row_of(name)
        if row is not None:
            row.update(status, summary)
            self.refresh(name)

    def counts(self) -> dict[str, int]:
        """Number of patients in each state."""
        states = [row.state for row in self.rows]
        return {state: states.count(state) for state in SHOWN_STATES}


def _to_icon(picture: UInt8Array) -> QIcon:
    height, width = picture.shape
    pixels = picture.tobytes()  # not copied by the image
    image = QImage(pixels, width, height, width, QImage.Format.Format_Grayscale8)
    icon = QIcon(QPixmap.fromImage(image))
    for mode in (QIcon.Mode.Selected, QIcon.Mode.Disabled):  # without Qt's tints
        icon.addPixmap(icon.pixmap(width, height), mode)
    return icon
