"""The optimiser Muon."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from napari_lgg_seg.core.training.muon import Muon, orthogonalise


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(6, 1, 1)
    )


def gradients(net, scale=1.0):
    """Set random gradients, the same in each call except for their scale."""
    generator = torch.Generator().manual_seed(1)
    for parameter in net.parameters():
        parameter.grad = scale * torch.randn(parameter.shape, generator=generator)


def change(net, weight_decay=0.0):
    """The change of each parameter in a first step."""
    before = copy.deepcopy(net.state_dict())
    Muon(net, 0.01, weight_decay, torch.float32).step()
    return {name: value - before[name] for name, value in net.state_dict().items()}


@pytest.mark.parametrize("shape", [(4, 30), (30, 4), (8, 8)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_orthogonalising_brings_singular_values_near_one(shape, dtype):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    found = orthogonalise(matrix)
    assert found.shape == shape
    assert found.dtype == dtype
    values = torch.linalg.svdvals(found.float())
    assert float(values.min()) > 0.6
    assert float(values.max()) < 1.3
    # The singular vectors stay: of all such matrices it is the nearest.
    assert float((found.float() * matrix.float()).sum()) > 0.85 * float(
        torch.linalg.svdvals(matrix.float()).sum()
    )


def test_zeros_stay_zeros():
    assert not orthogonalise(torch.zeros(3, 5)).any()


def test_updates_of_hidden_kernels_do_not_depend_on_the_size_of_the_gradient():
    one, other = network(), network()
    gradients(one)
    gradients(other, scale=1000)
    first, second = change(one)["2.weight"], change(other)["2.weight"]
    torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-6)
    # Their root mean square is about AdamW's: 0.2 times the learning rate.
    assert float(first.square().mean().sqrt()) == pytest.approx(0.2 * 0.01, rel=0.25)


def test_all_other_parameters_are_updated_as_by_adamw():
    one, other = network(), network()
    gradients(one)
    gradients(other)
    found = change(one)
    before = copy.deepcopy(other.state_dict())
    torch.optim.AdamW(other.parameters(), lr=0.01, weight_decay=0).step()
    for name in ("0.weight", "0.bias", "1.weight", "1.bias", "2.bias", "3.weight"):
        torch.testing.assert_close(found[name], other.state_dict()[name] - before[name], rtol=1e-4, atol=1e-7)


def test_weights_decay():
    net = network()
    gradients(net)
    before = net[2].weight.detach().clone()
    with_decay = change(net, weight_decay=0.5)["2.weight"]
    plain = network()
    gradients(plain)
    torch.testing.assert_close(with_decay, change(plain)["2.weight"] - 0.01 * 0.5 * before)


def test_parameters_without_gradient_stay():
    net = network()
    gradients(net)
    net[2].weight.grad = net[3].weight.grad = None
    found = change(net)
    assert not found["2.weight"].any()
    assert not found["3.weight"].any()
    assert found["0.weight"].any()


def test_a_loaded_state_continues_with_the_same_updates():
    one, other = network(), network()
    optimisers = [Muon(net, 0.01, 0.1, torch.float32) for net in (one, other)]
    for net, optimiser in zip((one, other), optimisers, strict=True):
        gradients(net)
        optimiser.step()
    stored = copy.deepcopy(optimisers[1].state_dict())
    optimisers[1] = Muon(other, 0.01, 0.1, torch.float32)
    optimisers[1].load_state_dict(stored)
    for net, optimiser in zip((one, other), optimisers, strict=True):
        gradients(net, scale=0.3)
        optimiser.step()
    for left, right in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(left, right)


def test_a_network_learns():
    net = network()
    images = torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    wanted = (images > 0.5).float()
    optimiser = Muon(net, 0.01, 0.0, torch.float32)
    losses = []
    for _ in range(30):
        optimiser.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(net(images), wanted)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
