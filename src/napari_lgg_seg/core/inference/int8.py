"""A network rounded to 8 bits, weights and activations, for OpenVINO to compute with whole numbers.

Rounded are the inner levels, two thirds of the work: labels then agree with those of the exact network as
those of any two engines do. The two upper levels on the way down and the topmost on the way up would add more
error than all of the rest (``docs/speed-8-bit.md``).

How far activations reach is measured on the made sample patient: that needs nobody's data, any model can be
rounded so when it is first used, and it comes out the same everywhere.
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
from ..model.neighbours import with_neighbours
from ..model.preprocess import crop_and_resample, measure, normalise

if TYPE_CHECKING:
    from ..model.checkpoint import ModelCard

#: Each so many-th slice of the sample patient is looked at: neighbours are much alike.
_EVERY = 2
#: So many values of each ReLU and slice, drawn by chance, tell how far its values should reach; and the parts
#: of the highest of all that are tried for it.
_VALUES, _PARTS = 20_000, np.linspace(0.1, 1, 46)

_CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)


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


def quantize(network: nn.Module, examples: Tensor) -> nn.Module:
    """A copy that rounds what its inner convolutions are given, and their weights, channel by channel.

    Parameters
    ----------
    network : Module
        With batch normalisation folded, in fp32 and eval mode. It runs its modules one after the other, in
        the same order for all slices.
    examples : Tensor
        Slices, shape (n, c, h, w), that make activations reach as far as they usually do.
    """
    rounded = deepcopy(network)
    steps = _steps(rounded, examples)
    full = steps[0].size
    # From the first convolution of the third level on, until slices have their full size again.
    inner = dropwhile(lambda pair: 4 * pair[1].size[0] > full[0], pairwise(steps))
    for relu, convolution in takewhile(lambda pair: pair[1].size != full, inner):
        # What is given something else than the values of a ReLU stays as it is.
        if isinstance(relu.module, nn.ReLU) and isinstance(convolution.module, _CONVOLUTIONS):
            _replace(rounded, relu.module, _RoundedReLU(relu.module, _best_range(relu)))
            _replace(rounded, convolution.module, _RoundedConvolution(convolution.module))
    return rounded.eval()


@dataclass
class _Step:
    """A convolution or ReLU as it ran: the height and width that came out; of a ReLU, what values."""

    module: nn.Module
    size: tuple[int, ...]
    highest: float = 0.0
    values: list[Tensor] = field(default_factory=list)


def _steps(network: nn.Module, examples: Tensor) -> list[_Step]:
    """What ran, in this order; values are from all of the examples."""
    steps: dict[nn.Module, _Step] = {}
    chance = torch.Generator().manual_seed(0)

    def note(module: nn.Module, _: object, output: Tensor) -> None:
        step = steps.setdefault(module, _Step(module, tuple(output.shape[-2:])))
        if isinstance(module, nn.ReLU):
            drawn = torch.randint(output.numel(), (_VALUES,), generator=chance)
            step.values.append(output.flatten()[drawn])
            step.highest = max(step.highest, float(output.max()))

    watched = [m for m in network.modules() if isinstance(m, (nn.ReLU, *_CONVOLUTIONS))]
    hooks = [module.register_forward_hook(note) for module in watched]
    with torch.inference_mode():
        for one in examples:
            network(one[None])
    for hook in hooks:
        hook.remove()
    return list(steps.values())


def _best_range(relu: _Step) -> float:
    """Up to which value 256 steps reach best; what is above is cut off.

    By the fourth power of the errors: by their square, too much of the high values would be cut off.
    """
    values = torch.cat(relu.values)

    def error(highest: float) -> float:
        rounded = torch.fake_quantize_per_tensor_affine(values, _step(highest), 0, 0, 255)
        return float((rounded - values).pow(4).mean())

    return min((float(part) * relu.highest for part in _PARTS), key=error)


def _step(highest: float) -> float:
    return max(highest, 1e-6) / 255


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
        self.step = _step(highest)

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
