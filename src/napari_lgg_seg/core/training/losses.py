"""Training losses on logits. torch and MONAI are imported only when a loss is created."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from ..choices import LOSSES
from ..errors import TrainingError

if TYPE_CHECKING:
    from torch import Tensor, nn


def make_loss(name: str = "bce") -> nn.Module:
    """Create a loss by its name; terms joined by "+" are added.

    - bce: binary cross-entropy, averaged over the voxels.
    - dice: 1 - soft Dice, smoothed by 1 (Milletari et al. 2016, https://arxiv.org/abs/1606.04797), over the
      whole batch: computed per slice, one false-positive voxel in an empty slice would cost as much as a
      missed tumour.

    Parameters
    ----------
    name : str
        One of :data:`LOSSES`.

    Returns
    -------
    nn.Module
        Takes logits (float32) and masks (0 to 1), both (n, 1, h, w), and returns a scalar.

    Raises
    ------
    TrainingError
        If there is no such loss, or it needs MONAI, which is not installed.
    """
    if name not in LOSSES:
        raise TrainingError(f"There is no loss {name!r}; choose one of {', '.join(LOSSES)}.")
    make = {"bce": _cross_entropy, "dice": _dice}
    terms = [make[term]() for term in name.split("+")]
    return terms[0] if len(terms) == 1 else _sum_of_losses()(terms)


def _cross_entropy() -> nn.Module:
    from torch import nn

    return nn.BCEWithLogitsLoss()


def _dice() -> nn.Module:
    try:
        from monai.losses import DiceLoss
    except ModuleNotFoundError as error:
        raise TrainingError(
            "A loss with Dice needs MONAI; install it with pip install 'napari-lgg-seg[train]', or train "
            "with the loss bce."
        ) from error
    loss: nn.Module = DiceLoss(sigmoid=True, batch=True, smooth_nr=1.0, smooth_dr=1.0)
    return loss


@cache
def _sum_of_losses() -> type[nn.Module]:
    """The class, created on first use: its base class is torch's."""
    from torch import nn

    class SumOfLosses(nn.Module):
        def __init__(self, terms: Sequence[nn.Module]) -> None:
            super().__init__()
            self.terms = nn.ModuleList(terms)

        def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
            first, *others = (term(logits, masks) for term in self.terms)
            total: Tensor = sum(others, start=first)
            return total

    return SumOfLosses
