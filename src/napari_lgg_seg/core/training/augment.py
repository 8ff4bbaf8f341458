"""Random augmentation of training slices, a whole batch at once, on any device.

It varies what differs between scanners and patients: pose and anatomy (one sampling grid), contrast, coil
sensitivity, sharpness, noise, and which sequences were acquired. A slice and its neighbours come from one
scan and are changed alike, except for the noise. The transforms, and applying each to only some of the
slices, follow nnU-Net (Isensee et al. 2021, https://doi.org/10.1038/s41592-020-01008-z, supplement 4), with
smaller strengths.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..data.patients import SEQUENCES
from ..model.neighbours import input_channels
from ..model.preprocess import resample

if TYPE_CHECKING:
    import torch
    from torch import Tensor

#: Largest rotation (radians), log scale, and shift (fraction of the side), in either direction.
ROTATION, SCALE, SHIFT = math.radians(18), 0.12, 0.04
#: Elastic deformation: fraction of the slices, points of the coarse field along a side, and the largest
#: standard deviation of a point's displacement along an axis (fraction of the side; 3 pixels of 192).
ELASTIC_SHARE, ELASTIC_POINTS, ELASTIC = 0.3, 6, 0.016
#: Standard deviations of gain and offset of each sequence, in standard deviations of the sequence.
GAIN, OFFSET = 0.12, 0.12
#: Contrast: fraction of the slices, and the largest exponent (and its inverse) applied to values above the
#: background, for each sequence separately; the darkest and the brightest value stay.
GAMMA_SHARE, GAMMA = 0.3, 1.3
#: Bias field of a coil, the same for all sequences: fraction of the slices, points of the coarse field along
#: a side, and the largest standard deviation of its logarithm.
BIAS_SHARE, BIAS_POINTS, BIAS = 0.3, 4, 0.2
#: Gaussian blur: fraction of the slices, smallest and largest standard deviation, in pixels of the input
#: slices; if they are downsampled, which smooths them already, they are blurred less.
BLUR_SHARE, BLUR = 0.25, (0.3, 0.8)
#: Noise: fraction of the slices, and its largest standard deviation in standard deviations of the sequence.
NOISE_SHARE, NOISE = 0.5, 0.08
#: How often pre- or post-contrast is replaced by FLAIR, as in the dataset's patients that lack it.
MISSING = 0.06


def augment(
    images: Tensor,
    masks: Tensor,
    generator: torch.Generator,
    sequences: Sequence[str] = SEQUENCES,
    size: int | None = None,
    neighbours: int = 0,
    strength: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Transform slices together with their masks, change intensities, and drop sequences.

    Parameters
    ----------
    images : Tensor
        Shape (n, c, h, h), z-scored floats; with neighbours in the order of
        :mod:`napari_lgg_seg.core.model.neighbours`. Not modified.
    masks : Tensor
        Shape (n, 1, h, h), 0 to 1. Not modified.
    generator : torch.Generator
        On the CPU; the only source of randomness, so that a seed reproduces a batch.
    sequences : sequence of str
        The channels of a slice, named as in :data:`napari_lgg_seg.core.data.patients.SEQUENCES`.
    size : int, optional
        Side of the augmented slices, in pixels; h by default.
    neighbours : int
        Neighbouring slices on each side, whose channels are among the c.
    strength : float
        Multiplies how often and how far slices are changed; has no effect on mirroring and missing sequences.

    Returns
    -------
    images, masks : Tensor
        Shapes (n, c, size, size) and (n, 1, size, size), dtype and device of the input; masks stay between 0
        and 1, with soft edges.

    Raises
    ------
    ValueError
        If the channels are not those of the sequences of a slice and its neighbours.
    """
    import torch

    channels = images.shape[1]
    if channels != input_channels(sequences, neighbours):
        seen = f"{', '.join(sequences)}{' and neighbours' if neighbours else ''}"
        raise ValueError(f"Slices of {channels} channels cannot be {seen}.")
    # The background, which also fills what lies outside of a slice, is each sequence's smallest value.
    background = _by_slice(images, sequences).amin(dim=(1, 3, 4))[..., None, None]
    both = torch.cat([images - _for_all(background, channels), masks], dim=1)
    top = _by_slice(both[:, :-1], sequences).amax(dim=(1, 3, 4))[..., None, None]
    side = images.shape[-1]
    size = size or side
    both = _transform(both, size, strength, generator)
    above, masks = both[:, :-1], both[:, -1:]
    _change_contrast(above, top, strength, generator)
    _apply_bias_field(above, strength, generator)
    images = _gain_and_offset(above, background, strength, generator)
    _blur(images, min(1.0, size / side), strength, generator)
    _add_noise(images, strength, generator)
    return _drop_sequences(images, sequences, generator), masks


# --- a slice and its neighbours ----------------------------------------------------------------


def _by_slice(images: Tensor, sequences: Sequence[str]) -> Tensor:
    """The channels by slice and sequence: (n, 2 * neighbours + 1, sequences, h, h)."""
    return images.reshape(len(images), -1, len(sequences), *images.shape[2:])


def _for_all(values: Tensor, channels: int) -> Tensor:
    """Values of the sequences, (n, sequences, 1, 1), repeated for the slice and its neighbours."""
    return values.repeat(1, channels // values.shape[1], 1, 1)


# --- random numbers ----------------------------------------------------------------------------


def _random(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Uniform numbers between -1 and 1, on the CPU."""
    import torch

    return 2 * torch.rand(shape, generator=generator) - 1


def _some(n: int, share: float, generator: torch.Generator) -> Tensor:
    """Indices of random slices, each chosen with probability ``share``."""
    import torch

    return (torch.rand(n, generator=generator) < share).nonzero()[:, 0]


def _smooth_field(coarse: Tensor, size: int) -> Tensor:
    """A coarse field, (m, c, points, points), interpolated (bicubic) to (m, c, size, size)."""
    from torch.nn.functional import interpolate

    return interpolate(coarse, size=(size, size), mode="bicubic", align_corners=True)


# --- geometry ----------------------------------------------------------------------------------


def _transform(both: Tensor, size: int, strength: float, generator: torch.Generator) -> Tensor:
    """Images above their background with masks, (n, c + 1, h, h), sampled on random grids of ``size``."""
    import torch

    affine = _random_affine(len(both), strength, generator).to(both)
    # Version 0.1.0 chose slices to crop here: drawing as many numbers keeps what a seed gives.
    torch.rand(len(both), generator=generator)
    grid = _sampling_grid(affine, size, strength, generator)
    # Resample first: a grid coarser than the pixels would alias.
    return _sample(resample(both, size) if size < both.shape[-1] else both, grid)


def _random_affine(n: int, strength: float, generator: torch.Generator) -> Tensor:
    """Flip, rotation, scale, stretch and shift, (n, 2, 3): from output to input coordinates (-1 to 1)."""
    import torch

    angle = strength * ROTATION * _random((n,), generator)
    scale = torch.exp(strength * SCALE * _random((n,), generator))
    stretch = torch.exp(strength * 0.4 * SCALE * _random((n,), generator))
    flip = torch.sign(_random((n,), generator))
    shift = strength * SHIFT * 2 * _random((n, 2), generator)
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    return torch.stack(
        [
            torch.stack([cos * stretch * flip, -sin * stretch, shift[:, 0]], dim=1),
            torch.stack([sin * flip / stretch, cos / stretch, shift[:, 1]], dim=1),
        ],
        dim=1,
    )


def _sampling_grid(affine: Tensor, size: int, strength: float, generator: torch.Generator) -> Tensor:
    """Input coordinates of each output pixel, (n, size, size, 2): affine, and elastic for some slices."""
    import torch
    from torch.nn.functional import affine_grid

    n = len(affine)
    grid = affine_grid(affine, [n, 1, size, size], align_corners=False)
    chosen = _some(n, strength * ELASTIC_SHARE, generator)
    if len(chosen):
        m = len(chosen)
        each = strength * 2 * ELASTIC * torch.rand((m, 1, 1, 1), generator=generator)
        coarse = each * torch.randn((m, 2, ELASTIC_POINTS, ELASTIC_POINTS), generator=generator)
        # The field is scaled with the slice, so that it deforms the anatomy equally at any zoom.
        (a, b), (c, d) = affine[chosen, :, :2].permute(1, 2, 0)
        zoom = (a * d - b * c).abs().sqrt()[:, None, None, None]
        grid[chosen] += zoom * _smooth_field(coarse.to(affine), size).permute(0, 2, 3, 1)
    return grid


def _sample(both: Tensor, grid: Tensor) -> Tensor:
    from torch.nn.functional import grid_sample

    return grid_sample(both, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


# --- intensities: in place unless a tensor is returned -------------------------------------------


def _change_contrast(above: Tensor, top: Tensor, strength: float, generator: torch.Generator) -> None:
    """Gamma curve on values above the background, from 0 to ``top``, (n, sequences, 1, 1)."""
    import torch

    chosen = _some(len(above), strength * GAMMA_SHARE, generator)
    if len(chosen):
        channels = above.shape[1]
        largest = strength * math.log(GAMMA)
        exponent = torch.exp(largest * _random((len(chosen), top.shape[1], 1, 1), generator))
        top = _for_all(top[chosen].clamp(min=1e-6), channels)
        above[chosen] = top * (above[chosen] / top) ** _for_all(exponent.to(above), channels)


def _apply_bias_field(above: Tensor, strength: float, generator: torch.Generator) -> None:
    """Multiply values above the background by a smooth field, as a coil's sensitivity does."""
    import torch

    chosen = _some(len(above), strength * BIAS_SHARE, generator)
    if len(chosen):
        m = len(chosen)
        each = strength * BIAS * torch.rand((m, 1, 1, 1), generator=generator)
        coarse = each * torch.randn((m, 1, BIAS_POINTS, BIAS_POINTS), generator=generator)
        above[chosen] *= torch.exp(_smooth_field(coarse.to(above), above.shape[-1]))


def _gain_and_offset(
    above: Tensor, background: Tensor, strength: float, generator: torch.Generator
) -> Tensor:
    """Add the background again and apply a gain and an offset to each sequence."""
    import torch

    shape = tuple(background.shape)
    gain = 1 + strength * GAIN * torch.randn(shape, generator=generator).to(above)
    offset = strength * OFFSET * torch.randn(shape, generator=generator).to(above)
    channels = above.shape[1]
    return torch.addcmul(_for_all(background * gain + offset, channels), above, _for_all(gain, channels))


def _blur(images: Tensor, zoom: float, strength: float, generator: torch.Generator) -> None:
    """Gaussian blur of a random width per slice: a depthwise convolution along each axis.

    The widths are multiplied by ``zoom``, the output size divided by the input size.
    """
    import torch
    from torch.nn.functional import conv2d, pad

    chosen = _some(len(images), strength * BLUR_SHARE, generator)
    if not len(chosen):
        return
    m, (channels, height, width) = len(chosen), images.shape[1:]
    narrow, wide = (zoom * sigma for sigma in BLUR)
    widths = narrow + (wide - narrow) * torch.rand((m, 1), generator=generator)
    radius = math.ceil(2.5 * wide)
    weights = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / widths) ** 2)
    weights = (weights / weights.sum(1, keepdim=True)).repeat_interleave(channels, 0).to(images)
    flat = images[chosen].reshape(1, m * channels, height, width)
    flat = pad(flat, (radius,) * 4, mode="replicate")
    flat = conv2d(flat, weights[:, None, :, None], groups=m * channels)
    flat = conv2d(flat, weights[:, None, None, :], groups=m * channels)
    images[chosen] = flat.reshape(m, channels, height, width)


def _add_noise(images: Tensor, strength: float, generator: torch.Generator) -> None:
    import torch

    chosen = _some(len(images), strength * NOISE_SHARE, generator)
    if len(chosen):
        noise = torch.randn((len(chosen), *images.shape[1:]), generator=generator)
        each = strength * NOISE * torch.rand((len(chosen), 1, 1, 1), generator=generator)
        images[chosen] += (each * noise).to(images)


def _drop_sequences(images: Tensor, sequences: Sequence[str], generator: torch.Generator) -> Tensor:
    """Replace missing sequences by FLAIR; done last, so that both are identical, as in the dataset."""
    import torch

    pre, flair, post = (torch.tensor([name == known for name in sequences]) for known in SEQUENCES)
    missing = torch.rand((len(images), 2, 1), generator=generator) < MISSING
    # Patients without pre-contrast lack post-contrast too.
    missing[:, 1] |= missing[:, 0]
    drop = (missing[:, 0] & pre) | (missing[:, 1] & post)
    if not flair.any() or not drop.any():
        return images
    slices = _by_slice(images, sequences)
    source = slices[:, :, flair.nonzero()[0]]
    return torch.where(drop[:, None, :, None, None].to(images.device), source, slices).flatten(1, 2)
