"""A model file whose network calls bright FLAIR tumour: right about made patients, and quick."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_lgg_seg.core.data.patients import SEQUENCES

if TYPE_CHECKING:
    from torch import nn


@lru_cache
def _one_channel_unet(channels: int, flair: int) -> nn.Module:
    """A U-Net with all weights zero but for one channel's way through it.

    FLAIR, channel ``flair`` of ``channels``, goes through the two convolutions of the first level and,
    by the skip connection, through the two of the last.
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

    ``sequences`` are those that it wants; FLAIR must be among them. It sees so many ``neighbours`` on each
    side, and looks at the slice that lies ``offset`` away. It says that it learned from
    ``training_patients``; further fields of its card can be given.
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
