"""Batch normalisation folded into convolutions computes the same."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from napari_lgg_seg.core.inference.fold import fold_batch_norm
from napari_lgg_seg.core.model.networks import build_network


@pytest.fixture(scope="module")
def buda():
    """The original study's network with seeded weights and batch normalisation that does something."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        network = build_network("buda", 3)
        for norm in [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]:
            for values, lowest in (
                (norm.running_mean, -0.2),
                (norm.running_var, 0.8),
                (norm.weight.data, 0.8),
                (norm.bias.data, -0.2),
            ):
                values.uniform_(lowest, lowest + 0.4)
    return network.eval()


@pytest.mark.parametrize("architecture", ["unet", "buda"])
def test_folded_network_computes_the_same(request, architecture):
    network = request.getfixturevalue(architecture)
    images = torch.randn(2, 3, 40, 48, generator=torch.Generator().manual_seed(0))
    folded = fold_batch_norm(network)
    assert not [m for m in folded.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.inference_mode():
        expected = network(images)
        torch.testing.assert_close(folded(images), expected, atol=1e-4, rtol=1e-4)
    assert expected.std() > 0.01


def test_folding_does_not_change_the_network(unet):
    before = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    training = fold_batch_norm(unet).training
    assert not training
    after = unet.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_folding_a_network_in_training_mode_uses_running_statistics():
    block = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)).train()
    block[1].running_mean.copy_(torch.tensor([1.0, -2.0]))
    folded = fold_batch_norm(block)
    assert block.training
    x = torch.ones(1, 1, 2, 2)
    torch.testing.assert_close(folded(x), block.eval()(x))


def test_only_normalisation_after_a_convolution_is_folded():
    block = nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1), nn.ReLU(), nn.BatchNorm2d(2)).eval()
    block[0].running_mean.fill_(3)
    block[3].running_mean.fill_(1)
    x = torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(fold_batch_norm(block)(x), block(x))
