"""The synthetic sample patient: a head with a glioma, drawn when needed, without any real data.

The head is described by smooth functions of position in mm, such as the depth below the skin or the distance
to a fissure. Tissues are painted over one another on thin planes, planes are averaged to thick slices, and
coil shading, blur and noise simulate the acquisition. Positions and tissue fractions are computed from sums,
products and square roots only, which are rounded equally on all platforms.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from .patients import Patient
from .phantom_anatomy import COLUMNS, FOLDS_MM, ROWS, SIZE, TEXTURES_MM, Lesion, draw_plane
from .phantom_shapes import Field, Texture

NAME, SEED = "LGG_sample", 3
LESION = Lesion((-29, -31, 31), (18, 20, 24), (-24, -26, 31))
#: Number of slices, their distance, and the position of the lowest one.
SLICES, SLICE_MM, LOWEST_MM = 30, 4.8, -51.0
#: Thin planes averaged to one slice, as offsets from its centre; this creates partial volume effects.
PLANE_OFFSETS_MM = (-1.2, 1.2)
#: Fraction of lesion from which a voxel belongs to the ground truth: annotators outline gliomas to where they
#: fade.
TRUTH_SHARE = 0.35


def make_sample_patient() -> Patient:
    """Draw the synthetic sample patient: a head with a frontal glioma.

    Returns
    -------
    Patient
        ``volume`` (30, 256, 256, 3) and ``truth`` (30, 256, 256), both uint8; the same at every call.
    """
    return draw_patient(NAME, SEED, LESION)


def draw_patient(name: str, seed: int, lesion: Lesion) -> Patient:
    """Draw a synthetic patient.

    Parameters
    ----------
    name : str
        Name of the patient.
    seed : int
        Seed for folds, grain and noise.
    lesion : Lesion
        The glioma.

    Returns
    -------
    Patient
        ``volume`` (30, 256, 256, 3) and ``truth`` (30, 256, 256), both uint8.
    """
    rng = np.random.default_rng(seed)
    textures = [Texture(rng, spacing, regular=spacing == FOLDS_MM) for spacing in TEXTURES_MM]
    slices = np.zeros((SLICES, 4, SIZE, SIZE), np.float32)
    for index, z in enumerate(LOWEST_MM + SLICE_MM * np.arange(SLICES)):
        planes = [draw_plane(float(z) + offset, textures, lesion) for offset in PLANE_OFFSETS_MM]
        slices[index, :, ROWS, COLUMNS] = sum(planes) / np.float32(len(planes))
    return Patient(
        name=name,
        folder=Path(name),
        volume=_acquire(slices[:, :3], rng),
        truth=_largest_component(slices[:, 3] > TRUTH_SHARE),
        slice_numbers=tuple(range(1, SLICES + 1)),
    )


def _acquire(slices: Field, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Simulate coil shading, blur and noise: intensities (z, 3, y, x) -> pixels (z, y, x, 3)."""
    y, x = np.meshgrid(*[np.linspace(-1, 1, SIZE, dtype=np.float32)] * 2, indexing="ij")
    volume = np.empty((len(slices), SIZE, SIZE, 3), np.uint8)
    for channel, (blur, noise) in enumerate(((0.7, 1.5), (0.8, 2.0), (0.65, 2.0))):
        shading = 1 + (0.06 - 0.03 * channel) * x + 0.1 * y + 0.12 * (x * x + y * y)
        for index, picture in enumerate(slices[:, channel]):
            signal = ndimage.gaussian_filter(picture, blur) * shading
            real, imaginary = noise * rng.standard_normal((2, SIZE, SIZE), np.float32)
            magnitude = np.sqrt((signal + real) ** 2 + imaginary**2)  # Rician noise
            volume[index, ..., channel] = np.clip(np.rint(magnitude - noise), 0, 255)
    return volume


def _largest_component(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    labels, _ = ndimage.label(mask)
    return np.asarray(labels == 1 + np.bincount(labels.ravel())[1:].argmax(), np.uint8)
