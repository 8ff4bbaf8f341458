"""Fold batch normalisation into the preceding convolutions."""

from __future__ import annotations

from copy import deepcopy
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """A copy of a network in eval mode with batch normalisation folded into the preceding convolutions."""
    from torch import nn
    from torch.nn.utils.fusion import fuse_conv_bn_weights

    folded = deepcopy(network).eval()
    for block in [m for m in folded.modules() if isinstance(m, nn.Sequential)]:
        for index, (conv, norm) in enumerate(pairwise(block)):
            if isinstance(norm, nn.BatchNorm2d) and isinstance(conv, nn.Conv2d | nn.ConvTranspose2d):
                assert norm.running_mean is not None
                assert norm.running_var is not None
                conv.weight, conv.bias = fuse_conv_bn_weights(
                    conv.weight,
                    conv.bias,
                    norm.running_mean,
                    norm.running_var,
                    norm.eps,
                    norm.weight,
                    norm.bias,
                    transpose=isinstance(conv, nn.ConvTranspose2d),
                )
                block[index + 1] = nn.Identity()
    return folded
