"""The networks: slices in, one logit per pixel out. Independent of patients, files and devices."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

_WIDTHS = (64, 128, 256, 512)
_CONVOLUTIONS_DOWN = (2, 2, 3, 3)


class ReLU(nn.ReLU):
    """In-place ReLU with a fast path for bf16 inference on the CPU.

    There the bits are looked at as 16-bit integers, which have the same sign; torch's own goes through
    floats. A prediction takes three quarters of the time (measured on 2 cores with version 0.1.0 and
    torch 2.13). A NaN with the sign bit becomes 0.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Set negative values to 0 in place; shape, dtype and device are unchanged."""
        if x.dtype == torch.bfloat16 and x.device.type == "cpu" and not torch.is_grad_enabled():
            x.view(torch.int16).clamp_(min=0)
            return x
        return super().forward(x)


def _convolutions(inputs: int, outputs: int, count: int) -> nn.Sequential:
    """``count`` blocks of 3 x 3 convolution with bias, batch normalisation and ReLU."""
    layers: list[nn.Module] = []
    for index in range(count):
        layers += [
            nn.Conv2d(inputs if index == 0 else outputs, outputs, kernel_size=3, padding=1),
            nn.BatchNorm2d(outputs),
            ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


class _Up(nn.Module):
    """Upsample by 2, concatenate the skip connection, two convolutions."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.enlarge = nn.Sequential(
            nn.ConvTranspose2d(inputs, outputs, kernel_size=2, stride=2),
            nn.BatchNorm2d(outputs),
            ReLU(inplace=True),
        )
        self.convolutions = _convolutions(2 * outputs, outputs, 2)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        merged: Tensor = self.convolutions(torch.cat([self.enlarge(x), skip], dim=1))
        return merged


class UNet(nn.Module):
    """The four-level U-Net of this project, with 10,655,809 trainable parameters.

    Encoder: 64, 64 | 128, 128 | 256, 256, 256 | 512, 512, 512 channels with 2 x 2 max pooling between
    the levels. Decoder: three times a 2 x 2 transposed convolution with stride 2, the skip connection and
    two convolutions. Head: a 3 x 3 convolution to one channel. Every convolution except the head is
    followed by batch normalisation and ReLU.

    Parameters
    ----------
    in_channels : int
        Channels of a slice: 3 for pre-contrast, FLAIR and post-contrast.

    Notes
    -----
    After Ronneberger et al., "U-Net: Convolutional Networks for Biomedical Image Segmentation"
    (2015), https://arxiv.org/abs/1505.04597.
    """

    #: The factor by which the encoder reduces the size of a slice.
    multiple: ClassVar[int] = 2 ** (len(_WIDTHS) - 1)

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
        """Compute the logits of the tumour class for a batch of slices.

        Parameters
        ----------
        slices : Tensor
            Shape (n, in_channels, h, w), floating point, normalised as the model card says. Sides that
            are not a multiple of 8 are zero-padded, and the padding is removed from the result.

        Returns
        -------
        Tensor
            Shape (n, 1, h, w), before the sigmoid.
        """
        height, width = slices.shape[-2:]
        x = _pad_to_multiple(slices, self.multiple)
        skips: list[Tensor] = []
        for index, level in enumerate(self.down):
            x = level(x if index == 0 else self.pool(x))
            skips.append(x)
        for level, skip in zip(self.up, skips[-2::-1], strict=True):
            x = level(x, skip)
        logits: Tensor = self.head(x)
        return logits[..., :height, :width]


def _buda_block(name: str, inputs: int, outputs: int) -> nn.Sequential:
    """Two blocks of 3 x 3 convolution without bias, batch normalisation, ReLU; published names."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index, channels in enumerate((inputs, outputs), start=1):
        layers[f"{name}conv{index}"] = nn.Conv2d(channels, outputs, kernel_size=3, padding=1, bias=False)
        layers[f"{name}norm{index}"] = nn.BatchNorm2d(outputs)
        layers[f"{name}relu{index}"] = ReLU(inplace=True)
    return nn.Sequential(layers)


class BudaUNet(nn.Module):
    """The five-level U-Net of the dataset's original study with 7,763,041 trainable parameters.

    Encoder: 32, 64, 128, 256, 512 channels, two convolutions each, with 2 x 2 max pooling between the
    levels. Decoder: four times a 2 x 2 transposed convolution with stride 2, the skip connection and two
    convolutions. Head: a 1 x 1 convolution to one channel. The 3 x 3 convolutions have no bias and are
    followed by batch normalisation and ReLU.

    Parameters
    ----------
    in_channels : int
        Channels of a slice: 3 for pre-contrast, FLAIR and post-contrast.

    Notes
    -----
    After Buda et al., "Association of genomic subtypes of lower-grade gliomas with shape features
    automatically extracted by a deep learning algorithm" (2019), https://arxiv.org/abs/1906.03720.
    The state dict has the keys and shapes of the authors' PyTorch code,
    https://github.com/mateuszbuda/brain-segmentation-pytorch, so that the published weights can be loaded.
    The published network ends with a sigmoid; this one returns logits, like all networks here.
    """

    #: The factor by which the encoder reduces the size of a slice.
    multiple: ClassVar[int] = 16

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__()
        self.encoder1 = _buda_block("enc1", in_channels, 32)
        self.encoder2 = _buda_block("enc2", 32, 64)
        self.encoder3 = _buda_block("enc3", 64, 128)
        self.encoder4 = _buda_block("enc4", 128, 256)
        self.bottleneck = _buda_block("bottleneck", 256, 512)
        self.upconv4 = nn.ConvTranspose2d(512, 256, kernel_size=2, stride=2)
        self.decoder4 = _buda_block("dec4", 512, 256)
        self.upconv3 = nn.ConvTranspose2d(256, 128, kernel_size=2, stride=2)
        self.decoder3 = _buda_block("dec3", 256, 128)
        self.upconv2 = nn.ConvTranspose2d(128, 64, kernel_size=2, stride=2)
        self.decoder2 = _buda_block("dec2", 128, 64)
        self.upconv1 = nn.ConvTranspose2d(64, 32, kernel_size=2, stride=2)
        self.decoder1 = _buda_block("dec1", 64, 32)
        self.conv = nn.Conv2d(32, 1, kernel_size=1)
        self.pool = nn.MaxPool2d(2)
        self.apply(_initialise)

    def forward(self, slices: Tensor) -> Tensor:
        """Compute the logits of the tumour class for a batch of slices.

        Parameters
        ----------
        slices : Tensor
            Shape (n, in_channels, h, w), floating point, normalised as the model card says. Sides that
            are not a multiple of 16 are zero-padded, and the padding is removed from the result.

        Returns
        -------
        Tensor
            Shape (n, 1, h, w), before the sigmoid.
        """
        height, width = slices.shape[-2:]
        *levels, bottleneck = self._encoder()
        x = _pad_to_multiple(slices, self.multiple)
        skips: list[Tensor] = []
        for level in levels:
            x = level(x)
            skips.append(x)
            x = self.pool(x)
        x = bottleneck(x)
        for enlarge, decoder, skip in zip(
            (self.upconv4, self.upconv3, self.upconv2, self.upconv1),
            (self.decoder4, self.decoder3, self.decoder2, self.decoder1),
            skips[::-1],
            strict=True,
        ):
            x = decoder(torch.cat([enlarge(x), skip], dim=1))
        logits: Tensor = self.conv(x)
        return logits[..., :height, :width]

    def _encoder(self) -> list[nn.Module]:
        """The encoder's levels, from the first to the bottleneck."""
        return [self.encoder1, self.encoder2, self.encoder3, self.encoder4, self.bottleneck]


def _pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    bottom, right = (-x.shape[-2]) % multiple, (-x.shape[-1]) % multiple
    # A traced network must accept other sizes than the one it was traced with.
    pads = torch.jit.is_tracing() or bottom or right  # type: ignore[attr-defined,no-untyped-call]
    return functional.pad(x, (0, right, 0, bottom)) if pads else x


def _initialise(module: nn.Module) -> None:
    """He initialisation, suited to ReLU (https://arxiv.org/abs/1502.01852)."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


#: Any of the networks.
Network = UNet | BudaUNet

#: The networks by their names in model cards.
NETWORKS: dict[str, type[UNet] | type[BudaUNet]] = {"unet": UNet, "buda": BudaUNet}


def build_network(architecture: str, in_channels: int) -> Network:
    """Build an untrained network by its name in model cards.

    Parameters
    ----------
    architecture : str
        A key of :data:`NETWORKS`.
    in_channels : int
        Input channels of a slice.

    Returns
    -------
    Network
        In training mode, initialised for ReLU.

    Raises
    ------
    KeyError
        If ``architecture`` is not in :data:`NETWORKS`.
    """
    return NETWORKS[architecture](in_channels)


def count_parameters(network: nn.Module) -> int:
    """Count the trainable parameters of a network."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)
