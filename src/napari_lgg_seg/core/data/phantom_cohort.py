"""A cohort of synthetic patients, which differ in cortical folds and gliomas."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .patients import Patient
from .phantom import SEED, draw_patient
from .phantom_anatomy import Lesion
from .phantom_shapes import Point

#: Names follow the dataset's pattern, with institutions that do not exist in it.
COHORT_NAME, INSTITUTIONS = "TCGA_{institution}_{number:04d}_20000101", ("XA", "XB")
#: Centres and radii of the gliomas, which may be on either side.
LESION_PLACES: tuple[tuple[Point, Point], ...] = (
    ((29, -31, 31), (18, 20, 24)),  # upper frontal lobe
    ((30, 28, 36), (16, 18, 18)),  # parietal
    ((45, -2, -14), (12, 19, 13)),  # temporal
    ((24, -52, 8), (14, 15, 15)),  # lower frontal
    ((25, 56, 16), (13, 15, 14)),  # occipital
)
#: Range of their relative sizes, and their maximum displacement along each axis in mm.
LESION_SIZES, LESION_WANDERS_MM = (0.65, 1.05), 4.0


def make_sample_patients(count: int) -> Iterator[Patient]:
    """Draw a cohort of synthetic patients that differ in cortical folds and gliomas.

    Parameters
    ----------
    count : int
        Number of patients. A larger cohort begins with the patients of a smaller one.

    Yields
    ------
    Patient
        Named like patients of the dataset; otherwise as from :func:`.phantom.make_sample_patient`.
    """
    for number in range(1, count + 1):
        institution = INSTITUTIONS[number % len(INSTITUTIONS)]
        name = COHORT_NAME.format(institution=institution, number=number)
        yield draw_patient(name, SEED + number, _draw_lesion(number))


def _draw_lesion(number: int) -> Lesion:
    """The glioma of a patient: locations in turn, with random side, size and displacement."""
    rng = np.random.default_rng(number)
    centre, radii = LESION_PLACES[(number - 1) % len(LESION_PLACES)]
    side = -1 if rng.random() < 0.5 else 1
    x, y, z = (c + LESION_WANDERS_MM * (2 * r - 1) for c, r in zip(centre, rng.random(3), strict=True))
    low, high = LESION_SIZES
    size = low + (high - low) * rng.random()
    a, b, c = (size * radius for radius in radii)
    return Lesion((side * x, y, z), (a, b, c), (side * (x - a / 4), y + b / 4, z))
