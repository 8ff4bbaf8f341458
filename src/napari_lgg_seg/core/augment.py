"""Random changes to training slices, on whatever device they are, a whole batch at once."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .patients import FLAIR, SEQUENCES

if TYPE_CHECKING:
    import torch
    from torch import Tensor

#: Largest rotation (radians), change of scale, and shift (share of the side), each way.
ROTATION, SCALE, SHIFT = math.radians(18), 0.12, 0.04
#: Standard deviations of gain and offset of each sequence, in standard deviations of the sequence.
GAIN, OFFSET = 0.12, 0.12
#: Largest standard deviation of added noise, in standard deviations of the sequence.
NOISE = 0.08
#: How often pre- or post-contrast is replaced by FLAIR, as in the dataset's patients that lack it.
MISSING = 0.06


def augment(images: Tensor, masks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Flip, turn, scale and shift slices with their masks; change intensities; drop sequences.

    Parameters
    ----------
    images : Tensor
        Shape (n, 3, h, h), normalised.
    masks : Tensor
        Shape (n, 1, h, h), 0 to 1.
    generator : torch.Generator
        On the CPU; decides everything, so that a seed repeats a batch.

    Returns
    -------
    images, masks : Tensor
        Same shapes; masks stay between 0 and 1 (soft edges).
    """
    images, masks = _move(images, masks, generator)
    images = _drop_sequences(images, generator)
    return _change_intensity(images, generator), masks


def _random(shape: tuple[int, ...], generator: torch.Generator, like: Tensor) -> Tensor:
    """Uniform numbers between -1 and 1."""
    import torch

    return (2 * torch.rand(shape, generator=generator) - 1).to(like)


def _move(images: Tensor, masks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    import torch
    from torch.nn.functional import affine_grid, grid_sample

    n = len(images)
    angle = ROTATION * _random((n,), generator, images)
    scale = torch.exp(SCALE * _random((n,), generator, images))
    stretch = torch.exp(0.4 * SCALE * _random((n,), generator, images))
    flip = torch.sign(_random((n,), generator, images))
    shift = SHIFT * 2 * _random((n, 2), generator, images)
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    rows = torch.stack(
        [
            torch.stack([cos * stretch * flip, -sin * stretch, shift[:, 0]], dim=1),
            torch.stack([sin * flip / stretch, cos / stretch, shift[:, 1]], dim=1),
        ],
        dim=1,
    )
    # What lies outside of a slice is background: the smallest value of each sequence.
    background = images.amin(dim=(2, 3), keepdim=True)
    grid = affine_grid(rows, list(images.shape), align_corners=False)
    both = torch.cat([images - background, masks], dim=1)
    moved = grid_sample(both, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return moved[:, :-1] + background, moved[:, -1:]


def _drop_sequences(images: Tensor, generator: torch.Generator) -> Tensor:
    import torch

    flair = images[:, FLAIR : FLAIR + 1]
    drop = (torch.rand((len(images), len(SEQUENCES), 1, 1), generator=generator) < MISSING).to(images.device)
    # Patients without pre-contrast lack post-contrast too.
    drop[:, 2] |= drop[:, 0]
    drop[:, FLAIR] = False
    return torch.where(drop, flair, images)


def _change_intensity(images: Tensor, generator: torch.Generator) -> Tensor:
    import torch

    n, channels = images.shape[:2]

    def normal() -> Tensor:
        return torch.randn((n, channels, 1, 1), generator=generator).to(images)

    noise = torch.randn(images.shape, generator=generator).to(images)
    strength = NOISE * _random((n, 1, 1, 1), generator, images).clamp(min=0)
    return images * (1 + GAIN * normal()) + OFFSET * normal() + strength * noise
