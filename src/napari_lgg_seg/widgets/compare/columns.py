"""The rows and columns of the Compare widget's table."""

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
        Files and metrics.
    keys : tuple
        Sort keys, see :class:`napari_lgg_seg.widgets.shared.table_model.Row`.
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
        """Path of the predicted labels."""
        return str(self.compared.pair.labels)


def _metric(
    title: str, name: str, text: Callable[[Key], str], tooltip: str, widest: str = "0.000", broken: str = ""
) -> Column:
    def get(row: ComparedRow) -> Any:
        metrics = row.compared.metrics
        return None if metrics is None else metrics.as_row()[name]

    return Column(title, tooltip, get, text, widest=widest, nothing=messages.NOTHING, broken=broken)


def _percentage(value: float) -> str:
    return f"{value:+.0%}".replace("-", "\N{MINUS SIGN}")


_share, _count = "{:.3f}".format, "{:,d}".format
#: Metrics of a report's row, most important first.
COLUMNS: tuple[Column, ...] = (
    Column("Patient", "The patient.", lambda row: row.name, widest="TCGA_DU_0000_00000000", is_number=False),
    _metric("Dice", "dice", _share, "Over the whole volume.", widest="0.0000", broken="failed"),
    _metric("HD95", "hd95", "{:.1f}".format, "In pixels, with a slice distance of one pixel."),
    _metric(
        "Volume\nerror",
        "volume_error",
        _percentage,
        "Predicted minus true volume, relative to the true volume.",
        widest="+0000%",
    ),
    _metric("Missed\nlesions", "missed_lesions", _count, "True lesions without any predicted voxel."),
    _metric(
        "False-pos.\nlesions",
        "false_positive_lesions",
        _count,
        "False-positive lesions: predicted lesions without any true voxel.",
    ),
    _metric("IoU", "iou", _share, "Intersection over union."),
    _metric("Precision", "precision", _share, "Share of the predicted voxels that are true."),
    _metric("Recall", "recall", _share, "Share of the true voxels that are predicted."),
    _metric(
        "Surface\nDice",
        "surface_dice",
        _share,
        f"Share of both surfaces within {SURFACE_TOLERANCE:g} pixel of the other surface.",
    ),
    _metric("Volume\nfound", "voxels", _count, "Predicted voxels.", widest="000,000"),
    _metric("Volume\ntrue", "true_voxels", _count, "True voxels.", widest="000,000"),
    _metric(
        "Empty\nslices",
        "false_voxels_on_empty_slices",
        _count,
        "False-positive voxels on slices without tumour in the ground truth.",
        widest="00,000",
    ),
)
DICE = 1
