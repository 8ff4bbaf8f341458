"""A network rounded to 8 bits, weights and activations, for OpenVINO to compute with whole numbers.

How far activations reach is measured on the made sample patient: that needs nobody's data, any model can be
rounded so when it is first used, and it comes out the same everywhere. What the network is given stays as it
is, and so does the first convolution, a fiftieth of the work.
"""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from .neighbours import with_neighbours
from .patients import SEQUENCES
from .phantom import make_sample_patient
from .preprocess import crop_and_resample, measure, normalise

if TYPE_CHECKING:
    from .checkpoint import ModelCard

#: Each so many-th slice of the sample patient is looked at: neighbours are much alike.
_EVERY = 2
#: Activations may reach so many times as far as those of the made patient before they are cut off.
_ROOM = 1.25


def example_slices(card: ModelCard) -> Tensor:
    """Slices of the made sample patient as a model's network sees them, shape (n, c, h, w)."""
    volume = make_sample_patient().volume
    assert volume is not None
    volume = volume[..., [SEQUENCES.index(sequence) for sequence in card.sequences]]
    preparation = measure(volume, card.preprocess)
    raw = crop_and_resample(volume, preparation.box, card.preprocess.working_size)
    with_head = np.flatnonzero([extent is not None for extent in preparation.extents])[::_EVERY]
    around = with_neighbours(with_head, len(volume), card.neighbouring_slices)
    return normalise(raw, preparation)[torch.from_numpy(around)].flatten(1, 2)


def in_eight_bits(network: nn.Module, examples: Tensor) -> nn.Module:
    """A copy that rounds weights, channel by channel, and what comes out of each ReLU.

    Parameters
    ----------
    network : Module
        With batch normalisation folded, in fp32 and eval mode.
    examples : Tensor
        Slices, shape (n, c, h, w), that make activations reach as far as they usually do.
    """
    rounded = deepcopy(network)
    for module, highest in _highest(rounded, examples).items():
        _replace(rounded, module, _RoundedReLU(module, highest * _ROOM))
    _first, *others = [m for m in rounded.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    for module in others:
        _replace(rounded, module, _RoundedConvolution(module))
    return rounded.eval()


def _highest(network: nn.Module, examples: Tensor) -> dict[nn.Module, float]:
    """The highest value that comes out of each ReLU."""
    highest: dict[nn.Module, float] = {
        module: 0.0 for module in network.modules() if isinstance(module, nn.ReLU)
    }

    def note(module: nn.Module, _: object, output: Tensor) -> None:
        highest[module] = max(highest[module], float(output.max()))

    hooks = [module.register_forward_hook(note) for module in highest]
    with torch.inference_mode():
        for one in examples:
            network(one[None])
    for hook in hooks:
        hook.remove()
    return highest


def _replace(network: nn.Module, module: nn.Module, by: nn.Module) -> None:
    """Put a module in the place of another one."""
    for parent in network.modules():
        for name, child in parent.named_children():
            if child is module:
                setattr(parent, name, by)
                return


class _RoundedReLU(nn.Module):
    """A ReLU whose values are whole multiples, 0 to 255, of a step."""

    def __init__(self, relu: nn.Module, highest: float) -> None:
        super().__init__()
        self.relu = relu
        self.step = max(highest, 1e-6) / 255

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        rounded: Tensor = torch.fake_quantize_per_tensor_affine(self.relu(x), self.step, 0, 0, 255)
        return rounded


class _RoundedConvolution(nn.Module):
    """A convolution whose weights are whole multiples, -127 to 127, of a step of each output channel."""

    def __init__(self, convolution: nn.Conv2d | nn.ConvTranspose2d) -> None:
        super().__init__()
        self.convolution = convolution
        self.axis = 1 if isinstance(convolution, nn.ConvTranspose2d) else 0
        others = [axis for axis in range(4) if axis != self.axis]
        step = convolution.weight.detach().abs().amax(others).clamp(min=1e-12) / 127
        self.step, self.zero = nn.Buffer(step), nn.Buffer(torch.zeros(len(step), dtype=torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        c = self.convolution
        weight = torch.fake_quantize_per_channel_affine(c.weight, self.step, self.zero, self.axis, -127, 127)
        compute: Any = functional.conv2d
        if isinstance(c, nn.ConvTranspose2d):
            compute = functional.conv_transpose2d
        result: Tensor = compute(x, weight, c.bias, c.stride, c.padding)
        return result
