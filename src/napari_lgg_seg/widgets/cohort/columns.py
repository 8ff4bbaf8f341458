"""The patients of the cohort browser's table: what is known of each, and in which columns it stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qtpy.QtGui import QIcon, QImage, QPixmap

from ...core.cohort.index import STATES, PatientStatus
from ...core.cohort.patient_summary import PatientSummary
from ...core.data.patients import UInt8Array, institution
from ..shared.table_model import CohortModel, Column, Key

#: What is shown for the state of a patient whose files are broken.
UNREADABLE = "cannot be read"
ALL_STATES = "All states"
SHOWN_STATES: tuple[str, ...] = (*STATES, UNREADABLE)

_NOTHING_FOUND = "none found"
#: Sorts patients in whom nothing was found before all that have an entropy.
_ABOVE_ALL = 2.0


@dataclass
class PatientRow:
    """One patient.

    Attributes
    ----------
    folder : Path
        The patient's.
    status : PatientStatus
        What became of it.
    details : PatientSummary or None
        None until its files were looked at.
    keys : tuple
        As :class:`.cohort_model.Row` has them.
    """

    folder: Path
    status: PatientStatus
    details: PatientSummary | None = None
    keys: tuple[Key | None, ...] = ()
    _icon: QIcon | None = None

    @property
    def name(self) -> str:
        """The name of the patient's folder, which no other has."""
        return self.folder.name

    @property
    def problem(self) -> str:
        """Why the patient's files cannot be read; empty if they can, or were not looked at."""
        return self.details.problem if self.details is not None else ""

    @property
    def search_text(self) -> str:
        """The name, and the sequences that the patient lacks."""
        return f"{self.name} {_missing(self) or ''}"

    @property
    def tooltip(self) -> str:
        """Where the patient is."""
        return str(self.folder)

    @property
    def icon(self) -> QIcon | None:
        """The thumbnail, drawn when it is first seen."""
        if self._icon is None and self.details is not None and self.details.thumbnail is not None:
            self._icon = _to_icon(self.details.thumbnail)
        return self._icon

    @property
    def state(self) -> str:
        """One of :data:`SHOWN_STATES`."""
        return UNREADABLE if self.problem else self.status.state

    @property
    def uncertainty(self) -> float | None:
        """What the prediction does not promise of Dice; above all others where nothing was found."""
        if self.problem:
            return None
        # Both are the prediction's and stay when it is corrected, so that the order of review stays, too.
        if self.status.nothing_found:
            return _ABOVE_ALL
        return None if self.status.expected_dice is None else 1 - self.status.expected_dice

    def learn(self, status: PatientStatus | None, details: PatientSummary | None) -> None:
        """Take what is known now."""
        if status is not None:
            self.status = status
        if details is not None:
            self.details, self._icon = details, None


def _detail(name: str, part: str | None = None) -> Callable[[PatientRow], Key | None]:
    """A figure from a patient's details, or from one of their parts."""

    def get(row: PatientRow) -> Key | None:
        if row.details is None or row.problem:
            return None
        value = getattr(row.details, name)
        return value if part is None or value is None else getattr(value, part)

    return get


def _missing(row: PatientRow) -> str | None:
    if row.details is None or row.problem:
        return None
    return ", ".join(name.removesuffix("-contrast") for name in row.details.missing)


def _uncertainty_text(value: float) -> str:
    return _NOTHING_FOUND if value == _ABOVE_ALL else f"{value:.3f}"


def _entropy(row: PatientRow) -> float | None:
    return None if row.problem else row.status.uncertainty


def _count(value: int) -> str:
    return f"{value:,}"


_VOXELS = "in voxels, since the files do not say how large a voxel is."
COLUMNS: tuple[Column, ...] = (
    Column(
        "Patient",
        "The patient's folder, and its FLAIR slice with the largest tumour.",
        lambda row: row.name,
        widest="TCGA_DU_0000_00000000",
        is_number=False,
    ),
    Column(
        "State",
        "new, segmented, corrected (edited or accepted), exported; or that it cannot be read.",
        lambda row: SHOWN_STATES.index(row.state),
        SHOWN_STATES.__getitem__,
        widest=UNREADABLE,
        is_number=False,
    ),
    Column(
        "Dice",
        "Of the kept labels with the truth, over the whole volume.",
        _detail("dice"),
        "{:.3f}".format,
        widest="0.000",
    ),
    Column(
        "Uncertainty",
        "What the prediction does not promise of Dice: 1 less the Dice that it would have with the truth if "
        "its probabilities were right. Patients in whom nothing was found come before all others.",
        lambda row: row.uncertainty,
        _uncertainty_text,
        widest=_NOTHING_FOUND,
    ),
    Column(
        "Mean\nentropy",
        "Of the predicted probability where tumour was found or is in doubt, in bits: 0 sure, 1 not at all.",
        _entropy,
        "{:.3f}".format,
        widest="0.000",
    ),
    Column("Volume\nfound", f"Tumour in the kept labels, {_VOXELS}", _detail("predicted", "voxels"), _count),
    Column("Volume\ntrue", f"Tumour in the dataset's masks, {_VOXELS}", _detail("truth", "voxels"), _count),
    Column(
        "Slices\nfound",
        "Slices with tumour in the kept labels.",
        _detail("predicted", "slices"),
        widest="000",
    ),
    Column(
        "Slices\ntrue", "Slices with tumour in the dataset's masks.", _detail("truth", "slices"), widest="000"
    ),
    Column("Slices\nin all", "Slices of the patient.", _detail("slices"), widest="000"),
    Column(
        "Missing",
        "Sequences that the patient lacks; FLAIR stands in for them.",
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

    def show_patients(self, folders: Sequence[Path], statuses: Mapping[str, PatientStatus]) -> None:
        """Hold these patients instead of those before; nothing is known of their files yet."""
        self.show_rows([PatientRow(folder, statuses.get(folder.name, PatientStatus())) for folder in folders])

    def update(
        self, name: str, *, status: PatientStatus | None = None, details: PatientSummary | None = None
    ) -> None:
        """Note what became of a patient, or what its files hold; unknown patients are passed over."""
        row: PatientRow | None = self.row_of(name)
        if row is not None:
            row.learn(status, details)
            self.has_changed(name)

    def counts(self) -> dict[str, int]:
        """How many patients are in each state."""
        states = [row.state for row in self.rows]
        return {state: states.count(state) for state in SHOWN_STATES}


def _to_icon(picture: UInt8Array) -> QIcon:
    height, width = picture.shape
    pixels = picture.tobytes()  # which the image does not copy
    image = QImage(pixels, width, height, width, QImage.Format.Format_Grayscale8)
    icon = QIcon(QPixmap.fromImage(image))
    for mode in (QIcon.Mode.Selected, QIcon.Mode.Disabled):  # a picture has no other colours
        icon.addPixmap(icon.pixmap(width, height), mode)
    return icon
