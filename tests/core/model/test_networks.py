from __future__ import annotations

import pytest
import torch
from torch import nn

from napari_lgg_seg.core.model.networks import NETWORKS, ReLU, build_network, count_parameters


@pytest.fixture(scope="module")
def buda():
    """The original study's network with seeded weights; tests must not modify it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return build_network("buda", 3).eval()


@pytest.fixture(params=["unet", "buda"])
def network(request):
    """Each of the networks in turn."""
    return request.getfixturevalue(request.param)


def layers(network, kind):
    return [m for m in network.modules() if isinstance(m, kind)]


def test_number_of_trainable_parameters(unet):
    assert count_parameters(unet) == 10_655_809


def test_number_of_trainable_parameters_of_the_original_study(buda):
    assert count_parameters(buda) == 7_763_041


def test_frozen_parameters_do_not_count():
    network = nn.Linear(3, 2)
    network.bias.requires_grad_(False)
    assert count_parameters(network) == 6


@pytest.mark.parametrize("size", [(250, 181), (64, 64), (1, 1), (7, 9), (8, 33)])
def test_output_has_the_size_of_the_input(network, size):
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, *size)).shape == (1, 1, *size)


def test_output_is_logits(network):
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        logits = network(images)
    assert logits.min() < 0
    assert not ((logits >= 0) & (logits <= 1)).all()


def test_slices_do_not_influence_each_other(network):
    images = torch.randn(3, 3, 32, 40, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(network(images)[1:2], network(images[1:2]), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("network", "side"), [("unet", 40), ("buda", 48)], indirect=["network"])
def test_padding_is_removed_at_the_bottom_and_the_right(network, side):
    images = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    images[..., 37:, :] = 0
    images[..., 34:] = 0
    with torch.inference_mode():
        torch.testing.assert_close(network(images[..., :37, :34]), network(images)[..., :37, :34])


def test_layers(unet):
    convolutions = layers(unet, nn.Conv2d)
    upsamplings = layers(unet, nn.ConvTranspose2d)
    assert [c.out_channels for c in convolutions] == [
        *(64, 64, 128, 128, 256, 256, 256, 512, 512, 512),
        *(256, 256, 128, 128, 64, 64),
        1,
    ]
    assert [c.out_channels for c in upsamplings] == [256, 128, 64]
    assert all(c.bias is not None for c in (*convolutions, *upsamplings))
    assert {c.kernel_size for c in convolutions} == {(3, 3)}
    assert {(c.kernel_size, c.stride) for c in upsamplings} == {((2, 2), (2, 2))}
    # All convolutions except the head are normalised.
    assert len(layers(unet, nn.BatchNorm2d)) == len(convolutions) + len(upsamplings) - 1 == 19
    assert len(layers(unet, nn.ReLU)) == 19
    assert len(unet.state_dict()) == 2 * 20 + 5 * 19


def published_shapes():
    """Keys and shapes of the weights published with the original study, in order."""
    shapes = {}

    def add_block(prefix, inputs, outputs):
        for index, channels in ((1, inputs), (2, outputs)):
            shapes[f"{prefix}conv{index}.weight"] = (outputs, channels, 3, 3)
            for name in ("weight", "bias", "running_mean", "running_var"):
                shapes[f"{prefix}norm{index}.{name}"] = (outputs,)
            shapes[f"{prefix}norm{index}.num_batches_tracked"] = ()

    for level, (inputs, outputs) in enumerate([(3, 32), (32, 64), (64, 128), (128, 256)], start=1):
        add_block(f"encoder{level}.enc{level}", inputs, outputs)
    add_block("bottleneck.bottleneck", 256, 512)
    for level, width in ((4, 256), (3, 128), (2, 64), (1, 32)):
        shapes[f"upconv{level}.weight"] = (2 * width, width, 2, 2)
        shapes[f"upconv{level}.bias"] = (width,)
        add_block(f"decoder{level}.dec{level}", 2 * width, width)
    return shapes | {"conv.weight": (1, 32, 1, 1), "conv.bias": (1,)}


def test_state_dict_matches_the_published_weights(buda):
    state = buda.state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == published_shapes()
    assert list(state) == list(published_shapes())


def test_skip_connections_are_concatenated_after_the_upsampled_channels(buda):
    """The channel order that the published weights expect."""
    seen = {}
    watched = [
        buda.encoder1,
        buda.encoder2,
        buda.encoder3,
        buda.encoder4,
        buda.upconv1,
        buda.upconv2,
        buda.upconv3,
        buda.upconv4,
    ]
    watched += [buda.decoder1, buda.decoder2, buda.decoder3, buda.decoder4]
    hooks = [m.register_forward_hook(lambda m, i, o: seen.__setitem__(m, (i[0], o))) for m in watched]
    with torch.inference_mode():
        buda(torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    for hook in hooks:
        hook.remove()
    for n in (1, 2, 3, 4):
        upsampled, skip = (seen[getattr(buda, f"{kind}{n}")][1] for kind in ("upconv", "encoder"))
        merged = seen[getattr(buda, f"decoder{n}")][0]
        torch.testing.assert_close(merged, torch.cat([upsampled, skip], dim=1))


def test_skip_connections_carry_detail(network):
    """Moving a single pixel by one, which pooling alone would lose, changes the output."""
    images = torch.zeros(1, 3, 64, 64)
    moved = images.clone()
    images[..., 32, 32], moved[..., 32, 33] = 5, 5
    with torch.inference_mode():
        blank = network(torch.zeros_like(images))
        first, second = network(images) - blank, network(moved) - blank
    assert first.abs().max() > 1e-3
    assert (first - second).abs().max() > 0.5 * first.abs().max()


@pytest.mark.parametrize("architecture", NETWORKS)
def test_single_input_channel(architecture):
    network = build_network(architecture, 1)
    with torch.inference_mode():
        assert network.eval()(torch.zeros(1, 1, 16, 16)).shape == (1, 1, 16, 16)


def test_unknown_architecture_is_a_key_error():
    with pytest.raises(KeyError):
        build_network("transformer", 3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("with_gradients", [True, False])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_relu_equals_the_one_of_torch(dtype, with_gradients, layout):
    values = torch.randn(2, 5, 7, 9, generator=torch.Generator().manual_seed(0)).to(dtype)
    values[0, 0, 0, :5] = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, -1e-30])
    values = values.to(memory_format=layout)
    wanted = torch.relu(values)
    with torch.set_grad_enabled(with_gradients):
        result = ReLU(inplace=True)(values)
    assert torch.equal(result, wanted)
    assert result.data_ptr() == values.data_ptr()
    assert result.is_contiguous(memory_format=layout)
