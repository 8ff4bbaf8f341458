"""The networks: slices in, one logit a pixel out. Nothing here knows patients, files or devices."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

#: Trainable parameters of :class:`UNet` with three input channels.
UNET_PARAMETERS = 10_655_809

_WIDTHS = (64, 128, 256, 512)
_CONVOLUTIONS_DOWN = (2, 2, 3, 3)


def _convolutions(inputs: int, outputs: int, count: int) -> nn.Sequential:
    """``count`` times 3 x 3 convolution with bias, batch normalisation, ReLU."""
    layers: list[nn.Module] = []
    for index in range(count):
        layers += [
            nn.Conv2d(inputs if index == 0 else outputs, outputs, kernel_size=3, padding=1),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


class _Up(nn.Module):
    """Twice the size, the skip connection beside it, two convolutions."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.enlarge = nn.Sequential(
            nn.ConvTranspose2d(inputs, outputs, kernel_size=2, stride=2),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )
        self.convolutions = _convolutions(2 * outputs, outputs, 2)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        merged: Tensor = self.convolutions(torch.cat([self.enlarge(x), skip], dim=1))
        return merged


class UNet(nn.Module):
    """The four-floor U-Net of the project: 10,655,809 trainable parameters.

    Down: 64, 64 | 128, 128 | 256, 256, 256 | 512, 512, 512 channels with 2 x 2 max pooling between
    the floors; up: a 2 x 2 transposed convolution with stride 2, the skip connection, two
    convolutions, three times; head: a 3 x 3 convolution to one channel. Every convolution but the
    head is followed by batch normalisation and ReLU.

    Parameters
    ----------
    in_channels : int
        Channels of a slice: 3 for pre-contrast, FLAIR and post-contrast.

    Notes
    -----
    After Ronneberger et al., "U-Net: Convolutional Networks for Biomedical Image Segmentation"
    (2015), https://arxiv.org/abs/1505.04597.
    """

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__()
        inputs = (in_channels, *_WIDTHS[:-1])
        self.down = nn.ModuleList(
            _convolutions(i, o, n) for i, o, n in zip(inputs, _WIDTHS, _CONVOLUTIONS_DOWN, strict=True)
        )
        self.pool = nn.MaxPool2d(2)
        widths = _WIDTHS[::-1]
        self.up = nn.ModuleList(_Up(i, o) for i, o in pairwise(widths))
        self.head = nn.Conv2d(_WIDTHS[0], 1, kernel_size=3, padding=1)
        self.apply(_initialise)

    def forward(self, slices: Tensor) -> Tensor:
        """Logits of "tumour" for a batch of slices.

        Parameters
        ----------
        slices : Tensor
            Shape (n, in_channels, h, w), floating point, normalised as the model asks. Any h and
            w: sides that are not a multiple of 8 are padded with zeros and cut off again.

        Returns
        -------
        Tensor
            Shape (n, 1, h, w), before the sigmoid.
        """
        height, width = slices.shape[-2:]
        x = _pad_to_multiple(slices, 2 ** (len(_WIDTHS) - 1))
        skips: list[Tensor] = []
        for index, floor in enumerate(self.down):
            x = floor(x if index == 0 else self.pool(x))
            skips.append(x)
        for floor, skip in zip(self.up, skips[-2::-1], strict=True):
            x = floor(x, skip)
        logits: Tensor = self.head(x)
        return logits[..., :height, :width]


def _pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    bottom, right = (-x.shape[-2]) % multiple, (-x.shape[-1]) % multiple
    return functional.pad(x, (0, right, 0, bottom)) if bottom or right else x


def _initialise(module: nn.Module) -> None:
    """He initialisation, suited to ReLU (https://arxiv.org/abs/1502.01852)."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


NETWORKS: dict[str, type[UNet]] = {"unet": UNet}


def build_network(architecture: str, in_channels: int) -> nn.Module:
    """A new, untrained network by its name in model files.

    Raises
    ------
    KeyError
        If ``architecture`` is not in :data:`NETWORKS`.
    """
    return NETWORKS[architecture](in_channels)


def count_parameters(network: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)
