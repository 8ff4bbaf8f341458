"""Networks with an eighth of the channels: same class and file format, but trained in a second."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from torch import Tensor, nn

    from napari_lgg_seg.core.model.checkpoint import Model


@contextmanager
def narrow_network() -> Iterator[None]:
    """Build U-Nets with 8 to 64 channels instead of 64 to 512 for the length of a block.

    They run in one thread, which is as fast and gives the same sums everywhere.
    """
    import torch

    from napari_lgg_seg.core.model import networks

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(networks, "_WIDTHS", (8, 16, 32, 64))
            yield
    finally:
        torch.set_num_threads(threads)


def make_narrow(architecture: str = "unet", channels: int = 3, seed: int = 0) -> nn.Module:
    """A narrow network with seeded weights and non-trivial batch normalisation."""
    import torch

    from napari_lgg_seg.core.model.networks import build_network

    with narrow_network(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(architecture, channels)
        for norm in [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]:
            norm.running_mean.uniform_(-0.2, 0.2)
            norm.running_var.uniform_(0.8, 1.2)
    return network.eval()


def narrow_model(network: nn.Module, **card: Any) -> Model:
    """A model with such a network and a working size of 48."""
    from napari_lgg_seg.core.model.checkpoint import Model, ModelCard
    from napari_lgg_seg.core.model.preprocess import PreprocessOptions

    described = ModelCard("test", preprocess=PreprocessOptions(working_size=48), **card)
    return Model(network.eval(), described, Path("test.safetensors"))


def random_slices(*shape: int, seed: int = 0) -> Tensor:
    """Seeded standard normal values."""
    import torch

    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
