"""A network that labels what is bright in FLAIR, which can be made to fail, and predictions with it."""

from __future__ import annotations

from pathlib import Path

import torch
from noted_network import finish
from torch import nn

from napari_lgg_seg.core.inference.predict import Predictor
from napari_lgg_seg.core.model.checkpoint import Model, ModelCard
from napari_lgg_seg.core.model.preprocess import PreprocessOptions


class BrightFlair(nn.Module):
    """Labels what is bright in one channel.

    Parameters
    ----------
    at_most : int
        Number of slices that fit into its memory.
    error : callable
        Makes the exception for more slices than that.
    only_on : str, optional
        Kind of device on which it fails; any by default.
    channel : int
        Input channel of FLAIR.
    """

    def __init__(self, at_most=1000, error=None, only_on=None, channel=1):
        super().__init__()
        self.at_most, self.error, self.only_on, self.channel = at_most, error, only_on, channel
        self.scale = nn.Parameter(torch.tensor(6.0))

    def forward(self, slices):
        if len(slices) > self.at_most and self.only_on in (None, slices.device.type):
            raise self.error()
        return self.scale * (slices[:, self.channel : self.channel + 1] - 1.5)


class Neighbour(BrightFlair):
    """Labels what is bright in FLAIR of the slice ``offset`` away, given ``neighbours`` on each side."""

    def __init__(self, offset, neighbours, **options):
        super().__init__(channel=3 * (neighbours + offset) + 1, **options)
        self.channels = 3 * (2 * neighbours + 1)

    def forward(self, slices):
        assert slices.shape[1] == self.channels
        return super().forward(slices)


def out_of_memory():
    return torch.OutOfMemoryError("Tried to allocate 1 GiB.")


def model_of(network, working_size=48, **card):
    card = ModelCard(name="test", preprocess=PreprocessOptions(working_size=working_size), **card)
    return Model(network.eval(), card, Path("test.safetensors"))


def predict(volume, network=None, batch_size=None, **options):
    """All events of a prediction on the CPU, and the probability."""
    predictor = Predictor(model_of(network or BrightFlair(), **options), "cpu", batch_size)
    return finish(predictor.predict(volume))
