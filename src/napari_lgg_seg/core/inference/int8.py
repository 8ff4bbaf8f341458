"""Quantize a network to int8, weights and activations, for OpenVINO.

Only the inner levels are quantized, which are two thirds of the computation. The first two levels of the
encoder and the last one of the decoder would add more error than all the rest (``docs/speed-8-bit.md``).

The ranges of activations are calibrated on the synthetic sample patient: this needs no real data, works for
any model when it is first used, and gives the same result everywhere.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from itertools import dropwhile, pairwise, takewhile
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..data.patients import SEQUENCES
from ..data.phantom import make_sample_patient
from ..model.background import subtract_background
from ..model.neighbours import with_neighbours
from ..model.preprocess import crop_and_resample, measure, normalise

if TYPE_CHECKING:
    from ..model.checkpoint import ModelCard

#: Every n-th slice of the sample patient is used: neighbouring slices are similar.
_SLICE_STEP = 2
#: Number of values sampled from each ReLU and slice.
_SAMPLES = 20_000
#: Upper limits of the range to try for a ReLU, as fractions of its highest value.
_FRACTIONS = np.linspace(0.1, 1, 46)

_CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)


def example_slices(card: ModelCard) -> Tensor:
    """Slices of the synthetic sample patient as network input of a model, shape (n, c, h, w)."""
    volume = make_sample_patient().volume
    assert volume is not None
    volume = subtract_background(volume[..., [SEQUENCES.index(sequence) for sequence in card.sequences]])
    preparation = measure(volume, card.preprocess)
    raw = crop_and_resample(volume, preparation.box, card.preprocess.working_size)
    with_head = np.flatnonzero([extent is not None for extent in preparation.extents])[::_SLICE_STEP]
    around = with_neighbours(with_head, len(volume), card.neighbouring_slices)
    return normalise(raw, preparation)[torch.from_numpy(around)].flatten(1, 2)


def quantize(network: nn.Module, examples: Tensor) -> nn.Module:
    """A copy whose inner convolutions have quantized inputs, and weights quantized per channel.

    Parameters
    ----------
    network : Module
        With batch normalisation folded, in fp32 and eval mode. It must run its modules in the same order for
        all slices.
    examples : Tensor
        Slices, shape (n, c, h, w), with typical activations, see :func:`example_slices`.
    """
    quantized = deepcopy(network)
    steps = _steps(quantized, examples)
    full = steps[0].size
    # From the first convolution of the third level until slices have their full size again.
    inner = dropwhile(lambda pair: 4 * pair[1].size[0] > full[0], pairwise(steps))
    for relu, convolution in takewhile(lambda pair: pair[1].size != full, inner):
        # Convolutions whose input is not the output of a ReLU stay as they are.
        if isinstance(relu.module, nn.ReLU) and isinstance(convolution.module, _CONVOLUTIONS):
            _replace(quantized, relu.module, _QuantizedReLU(relu.module, _best_range(relu)))
            _replace(quantized, convolution.module, _QuantizedConvolution(convolution.module))
    return quantized.eval()


@dataclass
class _Step:
    """A convolution or ReLU that ran: height and width of its output; for a ReLU, also a sample of it."""

    module: nn.Module
    size: tuple[int, ...]
    highest: float = 0.0
    values: list[Tensor] = field(default_factory=list)


def _steps(network: nn.Module, examples: Tensor) -> list[_Step]:
    """Convolutions and ReLUs in the order in which they ran, with samples from all examples."""
    steps: dict[nn.Module, _Step] = {}
    generator = torch.Generator().manual_seed(0)

    def record(module: nn.Module, _: object, output: Tensor) -> None:
        step = steps.setdefault(module, _Step(module, tuple(output.shape[-2:])))
        if isinstance(module, nn.ReLU):
            drawn = torch.randint(output.numel(), (_SAMPLES,), generator=generator)
            step.values.append(output.flatten()[drawn])
            step.highest = max(step.highest, float(output.max()))

    watched = [m for m in network.modules() if isinstance(m, (nn.ReLU, *_CONVOLUTIONS))]
    hooks = [module.register_forward_hook(record) for module in watched]
    with torch.inference_mode():
        for one in examples:
            network(one[None])
    for hook in hooks:
        hook.remove()
    return list(steps.values())


def _best_range(relu: _Step) -> float:
    """Upper limit of the range of 256 steps that gives the least error; higher values are clipped.

    The error is the mean fourth power: with the mean square, too many high values would be clipped.
    """
    values = torch.cat(relu.values)

    def error(highest: float) -> float:
        rounded = torch.fake_quantize_per_tensor_affine(values, _step(highest), 0, 0, 255)
        return float((rounded - values).pow(4).mean())

    return min((float(fraction) * relu.highest for fraction in _FRACTIONS), key=error)


def _step(highest: float) -> float:
    return max(highest, 1e-6) / 255


def _replace(network: nn.Module, module: nn.Module, by: nn.Module) -> None:
    """Replace a module of a network."""
    for parent in network.modules():
        for name, child in parent.named_children():
            if child is module:
                setattr(parent, name, by)
                return


class _QuantizedReLU(nn.Module):
    """A ReLU with output quantized to uint8."""

    def __init__(self, relu: nn.Module, highest: float) -> None:
        super().__init__()
        self.relu = relu
        self.step = _step(highest)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        rounded: Tensor = torch.fake_quantize_per_tensor_affine(self.relu(x), self.step, 0, 0, 255)
        return rounded


class _QuantizedConvolution(nn.Module):
    """A convolution with weights quantized symmetrically to int8, with one step per output channel."""

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
