"""A model file whose network labels bright FLAIR: fast, and correct for synthetic patients."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_lgg_seg.core.data.patients import SEQUENCES

if TYPE_CHECKING:
    from torch import nn


@lru_cache
def _one_channel_unet(channels: int, flair: int) -> nn.Module:
    """A U-Net with all weights zero except for the path of one channel.

    FLAIR, channel ``flair`` of ``channels``, passes through the two convolutions of the first level and, via
    the skip connection, the two of the last.
    """
    import torch

    from napari_lgg_seg.core.model.networks import build_network

    network = build_network("unet", channels)
    first, last = network.down[0], network.up[-1].convolutions
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
                layer.weight.zero_()
                layer.bias.zero_()
        skipped = last[0].in_channels // 2
        for layer, channel in ((first[0], flair), (first[3], 0), (last[0], skipped), (last[3], 0)):
            layer.weight[0, channel, 1, 1] = 1
        network.head.weight[0, 0, 1, 1] = 8
    return network


def write_flair_model(
    path: Path,
    cut: float = 1.2,
    sequences: tuple[str, ...] = SEQUENCES,
    neighbours: int = 0,
    offset: int = 0,
    training_patients: tuple[str, ...] = (),
    working_size: int = 32,
    **card_fields: Any,
) -> Path:
    """Write such a model; FLAIR brighter than ``cut`` standard deviations is tumour.

    Parameters
    ----------
    path : Path
        The model file; its stem becomes the model's name.
    cut : float
        In standard deviations above the mean.
    sequences : tuple of str
        Input sequences, including FLAIR.
    neighbours : int
        Neighbouring slices on each side.
    offset : int
        The network uses the slice that is ``offset`` away.
    training_patients : tuple of str
        Names for the model's card.
    working_size : int
        In pixels.
    **card_fields
        Further fields of the model's card.
    """
    import torch

    from napari_lgg_seg.core.model.checkpoint import ModelCard, save_model
    from napari_lgg_seg.core.model.preprocess import PreprocessOptions

    channel = (neighbours + offset) * len(sequences) + sequences.index("FLAIR")
    network = _one_channel_unet(len(sequences) * (2 * neighbours + 1), channel)
    with torch.no_grad():
        network.head.bias[0] = -8 * cut
    preprocess = PreprocessOptions(working_size=working_size)
    card = ModelCard(
        path.stem,
        sequences=sequences,
        neighbouring_slices=neighbours,
        preprocess=preprocess,
        training_patients=training_patients,
        **card_fields,
    )
    save_model(path, network, card)
    return path
