"""The patients of the Compare widget's table: one row each, in columns of figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from qtpy.QtGui import QIcon

from ...core.evaluation.compare import SURFACE_TOLERANCE
from ...core.evaluation.compare_folders import PairCompared
from ..shared.table_model import Column, Key
from . import messages


@dataclass
class ComparedRow:
    """One patient that was compared, or could not be.

    Attributes
    ----------
    compared : PairCompared
        Its files and figures.
    keys : tuple
        As :class:`.cohort_model.Row` has them.
    """

    compared: PairCompared
    keys: tuple[Key | None, ...] = ()
    icon: QIcon | None = None

    @property
    def name(self) -> str:
        """The patient's name."""
        return self.compared.pair.name

    @property
    def problem(self) -> str:
        """Why the patient could not be compared."""
        return self.compared.problem

    @property
    def search_text(self) -> str:
        """The name."""
        return self.name

    @property
    def tooltip(self) -> str:
        """Where the predicted labels are."""
        return str(self.compared.pair.labels)


def _figure(
    title: str, name: str, text: Callable[[Key], str], tooltip: str, widest: str = "0.000", broken: str = ""
) -> Column:
    def get(row: ComparedRow) -> Any:
        metrics = row.compared.metrics
        return None if metrics is None else metrics.as_row()[name]

    return Column(title, tooltip, get, text, widest=widest, nothing=messages.NOTHING, broken=broken)


def _error(value: float) -> str:
    return f"{value:+.0%}".replace("-", "\N{MINUS SIGN}")


_share, _count = "{:.3f}".format, "{:,d}".format
#: Figures of a report's row, in the order in which they are looked at.
COLUMNS: tuple[Column, ...] = (
    Column("Patient", "The patient.", lambda row: row.name, widest="TCGA_DU_0000_00000000", is_number=False),
    _figure("Dice", "dice", _share, "Over the whole volume.", widest="0.0000", broken="failed"),
    _figure("HD95", "hd95", "{:.1f}".format, "In pixels, with slices one pixel apart."),
    _figure(
        "Volume\nerror",
        "volume_error",
        _error,
        "Predicted less true volume, as a share of the latter.",
        widest="+0000%",
    ),
    _figure("Lesions\nmissed", "missed_lesions", _count, "True lesions that no predicted voxel touches."),
    _figure(
        "Lesions\ninvented", "false_positive_lesions", _count, "Predicted lesions that no true voxel touches."
    ),
    _figure("IoU", "iou", _share, "Intersection over union."),
    _figure("Precision", "precision", _share, "Share of the predicted voxels that are true."),
    _figure("Recall", "recall", _share, "Share of the true voxels that were predicted."),
    _figure(
        "Surface\nDice",
        "surface_dice",
        _share,
        f"Share of both surfaces within {SURFACE_TOLERANCE:g} pixel of the other.",
    ),
    _figure("Volume\nfound", "voxels", _count, "Predicted voxels.", widest="000,000"),
    _figure("Volume\ntrue", "true_voxels", _count, "True voxels.", widest="000,000"),
    _figure(
        "False\nalarm",
        "false_voxels_on_empty_slices",
        _count,
        "Voxels predicted on slices without tumour.",
        widest="00,000",
    ),
)
DICE = 1
