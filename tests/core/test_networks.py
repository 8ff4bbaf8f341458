from __future__ import annotations

import pytest
import torch
from torch import nn

from napari_lgg_seg.core.networks import UNET_PARAMETERS, build_network, count_parameters


def layers(network, kind):
    return [m for m in network.modules() if isinstance(m, kind)]


def test_number_of_trainable_parameters(unet):
    assert count_parameters(unet) == 10_655_809 == UNET_PARAMETERS


def test_frozen_parameters_do_not_count():
    network = nn.Linear(3, 2)
    network.bias.requires_grad_(False)
    assert count_parameters(network) == 6


@pytest.mark.parametrize("size", [(250, 181), (64, 64), (1, 1), (7, 9), (8, 33)])
def test_output_has_the_size_of_the_input(unet, size):
    with torch.inference_mode():
        assert unet(torch.zeros(1, 3, *size)).shape == (1, 1, *size)


def test_output_is_logits(unet):
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        logits = unet(images)
    assert logits.min() < 0
    assert not ((logits >= 0) & (logits <= 1)).all()


def test_slices_do_not_influence_each_other(unet):
    images = torch.randn(3, 3, 32, 40, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(unet(images)[1:2], unet(images[1:2]), atol=1e-4, rtol=1e-4)


def test_padding_is_cut_off_at_the_bottom_and_the_right(unet):
    images = torch.randn(1, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    images[..., 37:, :] = 0
    images[..., 34:] = 0
    with torch.inference_mode():
        torch.testing.assert_close(unet(images[..., :37, :34]), unet(images)[..., :37, :34])


def test_layers(unet):
    convolutions = layers(unet, nn.Conv2d)
    enlargements = layers(unet, nn.ConvTranspose2d)
    assert [c.out_channels for c in convolutions] == [
        *(64, 64, 128, 128, 256, 256, 256, 512, 512, 512),
        *(256, 256, 128, 128, 64, 64),
        1,
    ]
    assert [c.out_channels for c in enlargements] == [256, 128, 64]
    assert all(c.bias is not None for c in (*convolutions, *enlargements))
    assert {c.kernel_size for c in convolutions} == {(3, 3)}
    assert {(c.kernel_size, c.stride) for c in enlargements} == {((2, 2), (2, 2))}
    # All but the head are normalised.
    assert len(layers(unet, nn.BatchNorm2d)) == len(convolutions) + len(enlargements) - 1 == 19
    assert len(layers(unet, nn.ReLU)) == 19
    assert len(unet.state_dict()) == 2 * 20 + 5 * 19


def test_skip_connections_carry_detail(unet):
    """A one-pixel pattern, which pooling cannot bring back to its place, shows in the output."""
    images = torch.zeros(1, 3, 64, 64)
    moved = images.clone()
    images[..., 32, 32], moved[..., 32, 33] = 5, 5
    with torch.inference_mode():
        blank = unet(torch.zeros_like(images))
        first, second = unet(images) - blank, unet(moved) - blank
    assert first.abs().max() > 1e-3
    assert (first - second).abs().max() > 0.5 * first.abs().max()


def test_another_number_of_channels():
    network = build_network("unet", 1)
    with torch.inference_mode():
        assert network.eval()(torch.zeros(1, 1, 16, 16)).shape == (1, 1, 16, 16)


def test_unknown_architecture():
    with pytest.raises(KeyError):
        build_network("transformer", 3)
