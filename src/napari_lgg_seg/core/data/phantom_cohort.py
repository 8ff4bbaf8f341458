"""A cohort of made patients: heads as the sample patient's, with other folds and gliomas elsewhere."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .patients import Patient
from .phantom import SEED, Lesion, Point, draw_patient

#: Names of a cohort are in the dataset's manner, with institutions that it does not have.
COHORT_NAME, INSTITUTIONS = "TCGA_{institution}_{number:04d}_20000101", ("XA", "XB")
#: Where the gliomas of a cohort are, on either side: centres and radii.
LESION_PLACES: tuple[tuple[Point, Point], ...] = (
    ((29, -31, 31), (18, 20, 24)),  # upper frontal lobe
    ((30, 28, 36), (16, 18, 18)),  # parietal
    ((45, -2, -14), (12, 19, 13)),  # temporal
    ((24, -52, 8), (14, 15, 15)),  # lower frontal
    ((25, 56, 16), (13, 15, 14)),  # occipital
)
#: Their sizes, and how far from those places they are, in mm.
LESION_SIZES, LESION_WANDERS_MM = (0.65, 1.05), 4.0


def make_sample_patients(count: int) -> Iterator[Patient]:
    """Draw a cohort: heads as the sample patient's that differ in their folds, with gliomas elsewhere.

    Parameters
    ----------
    count : int
        How many. The first ones of a larger cohort are those of a smaller one.

    Yields
    ------
    Patient
        Named in the dataset's manner; otherwise as from :func:`make_sample_patient`.
    """
    for number in range(1, count + 1):
        institution = INSTITUTIONS[number % len(INSTITUTIONS)]
        name = COHORT_NAME.format(institution=institution, number=number)
        yield draw_patient(name, SEED + number, _draw_lesion(number))


def _draw_lesion(number: int) -> Lesion:
    """The glioma of a cohort's patient: one place after the other, on a side and of a size by chance."""
    rng = np.random.default_rng(number)
    centre, radii = LESION_PLACES[(number - 1) % len(LESION_PLACES)]
    side = -1 if rng.random() < 0.5 else 1
    x, y, z = (c + LESION_WANDERS_MM * (2 * r - 1) for c, r in zip(centre, rng.random(3), strict=True))
    low, high = LESION_SIZES
    size = low + (high - low) * rng.random()
    a, b, c = (size * radius for radius in radii)
    return Lesion((side * x, y, z), (a, b, c), (side * (x - a / 4), y + b / 4, z))
