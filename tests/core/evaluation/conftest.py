"""Fixtures for evaluation: masks made of boxes, and the metrics of patients and cohorts made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt
import pytest

from napari_lgg_seg.core.evaluation.label_pairs import Volumes
from napari_lgg_seg.core.evaluation.patient_metrics import PatientMetrics, measure_patient

UInt8 = npt.NDArray[np.uint8]


@pytest.fixture(scope="session")
def boxes() -> Callable[..., UInt8]:
    """Factory: labels with boxes, each given as (z, y, x, size along z, y and x)."""

    def make(*corners: tuple[int, ...], shape: tuple[int, int, int] = (6, 20, 20)) -> UInt8:
        labels = np.zeros(shape, np.uint8)
        for z, y, x, depth, height, width in corners:
            labels[z : z + depth, y : y + height, x : x + width] = 1
        return labels

    return make


@pytest.fixture(scope="session")
def measured() -> Callable[..., PatientMetrics]:
    """Factory: the metrics of a prediction, with or without ground truth."""

    def measure(
        prediction: UInt8, truth: UInt8 | None = None, name: str = "TCGA_DU_0001_19990101", first: int = 1
    ) -> PatientMetrics:
        numbers = tuple(range(first, first + len(prediction)))
        return measure_patient(Volumes(name, numbers, prediction, truth))

    return measure


@pytest.fixture(scope="session")
def cohort_of(
    boxes: Callable[..., UInt8], measured: Callable[..., PatientMetrics]
) -> Callable[[Iterable[int]], list[PatientMetrics]]:
    """Factory: patients P0, P1, ... in whom so many of the 16 columns of the tumour were found."""

    def make(found: Iterable[int]) -> list[PatientMetrics]:
        truth = boxes((1, 2, 2, 2, 4, 16))
        return [
            measured(boxes((1, 2, 2, 2, 4, columns)), truth, f"P{number}")
            for number, columns in enumerate(found)
        ]

    return make
