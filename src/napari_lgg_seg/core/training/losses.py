"""Training losses on logits. torch and MONAI are imported when a loss is made, not to list the names."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, get_args

from ..errors import TrainingError

if TYPE_CHECKING:
    from torch import Tensor, nn

Loss = Literal["bce", "dice", "bce+dice", "bce+tversky"]
#: The names that :func:`make_loss` knows.
LOSSES: tuple[str, ...] = get_args(Loss)

#: What a false positive and a false negative voxel cost in the Tversky loss.
FALSE_POSITIVE, FALSE_NEGATIVE = 0.3, 0.7


def make_loss(name: str = "bce") -> nn.Module:
    """A loss by its name: one term, or the sum of the terms joined by "+".

    The overlap terms are soft, with 1 added above and below, and over the whole batch, not per slice:
    per slice, every empty slice with one false voxel would count as a full error.

    - bce: binary cross-entropy, mean over the voxels.
    - dice: 1 - Dice (Milletari et al. 2016, https://arxiv.org/abs/1606.04797).
    - tversky: 1 - Tversky index, in which missed voxels weigh 0.7 and invented ones 0.3 where Dice has
      0.5 each (Salehi et al. 2017, https://arxiv.org/abs/1706.05721); for small lesions.

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
        If there is no such loss, or MONAI is needed and missing.
    """
    if name not in LOSSES:
        raise TrainingError(f"There is no loss {name!r}; choose one of {', '.join(LOSSES)}.")
    make = {"bce": _cross_entropy, "dice": _dice, "tversky": _tversky}
    terms = [make[term]() for term in name.split("+")]
    return terms[0] if len(terms) == 1 else _sum_of_losses()(terms)


def _cross_entropy() -> nn.Module:
    from torch import nn

    return nn.BCEWithLogitsLoss()


def _dice() -> nn.Module:
    loss: nn.Module = _monai_losses().DiceLoss(sigmoid=True, batch=True, smooth_nr=1.0, smooth_dr=1.0)
    return loss


def _tversky() -> nn.Module:
    loss: nn.Module = _monai_losses().TverskyLoss(
        sigmoid=True, batch=True, alpha=FALSE_POSITIVE, beta=FALSE_NEGATIVE, smooth_nr=1.0, smooth_dr=1.0
    )
    return loss


def _monai_losses() -> Any:
    try:
        from monai import losses
    except ModuleNotFoundError as error:
        raise TrainingError(
            "Training needs MONAI; install it with: pip install 'napari-lgg-seg[train]'."
        ) from error
    return losses


@cache
def _sum_of_losses() -> type[nn.Module]:
    """The class, made on first use: its base is torch's."""
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
