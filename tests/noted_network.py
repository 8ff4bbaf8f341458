"""A network that records the shapes of its input, and predictors with it."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from napari_lgg_seg.core.inference.predict import Predictor
from napari_lgg_seg.core.model.checkpoint import Model, ModelCard
from napari_lgg_seg.core.model.preprocess import PreprocessOptions

SIZE = 96


class Noted(nn.Module):
    """Labels FLAIR brighter than ``above`` standard deviations, and records the shapes of its input.

    It runs out of memory with more than ``at_most`` slices.
    """

    def __init__(self, channel=1, at_most=1000, above=1.5):
        super().__init__()
        self.channel, self.at_most, self.above = channel, at_most, above
        self.seen = []

    def forward(self, slices):
        if len(slices) > self.at_most:
            raise MemoryError
        self.seen.append(tuple(slices.shape))
        return 6 * (slices[:, self.channel : self.channel + 1] - self.above)

    @property
    def pixels(self):
        return sum(n * h * w for n, _, h, w in self.seen)


def model_of(network, size=SIZE, **card):
    return Model(
        network.eval(), ModelCard("test", preprocess=PreprocessOptions(working_size=size), **card), Path("m")
    )


def predictor(network, batch_size=None, *, size=SIZE, tta=False, coarse_to_fine=False, whole=False, **card):
    # The predictor copies the network, but both must share the recorded shapes.
    made = Predictor(
        model_of(network, size, **card),
        "cpu",
        batch_size,
        tta=tta,
        coarse_to_fine=coarse_to_fine,
        whole_slices=whole,
    )
    if isinstance(network, Noted):
        made.engine._network.seen = network.seen
    return made


def finish(work):
    """All events of a prediction, and its result."""
    events = []
    while True:
        try:
            events.append(next(work))
        except StopIteration as stop:
            return events, stop.value
