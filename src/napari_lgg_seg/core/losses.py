"""Training losses on logits."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class BceDiceLoss(nn.Module):
    """Binary cross-entropy plus soft Dice over the whole batch, smooth 1.

    Dice over the batch, not per slice: per slice, every empty slice with one false voxel would
    count as a full error. Dice loss after Milletari et al. 2016, https://arxiv.org/abs/1606.04797.
    """

    def __init__(self) -> None:
        super().__init__()
        from monai.losses.dice import DiceLoss

        self._cross_entropy = nn.BCEWithLogitsLoss()
        self._dice: Any = DiceLoss(sigmoid=True, batch=True, smooth_nr=1.0, smooth_dr=1.0)

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Loss of a batch: logits and masks (0 to 1), both (n, 1, h, w)."""
        loss: Tensor = self._cross_entropy(logits, masks) + self._dice(logits, masks)
        return loss
