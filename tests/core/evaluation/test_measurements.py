"""Volume, slices and diameter of labels with known measurements."""

from __future__ import annotations

import numpy as np
import pytest

from napari_lgg_seg.core.evaluation.measurements import measure_labels


def box(depth: int = 2, height: int = 3, width: int = 4) -> np.ndarray:
    labels = np.zeros((5, 10, 12), np.uint8)
    labels[1 : 1 + depth, 2 : 2 + height, 3 : 3 + width] = 1
    return labels


def test_a_box_in_pixels() -> None:
    measurements = measure_labels(box())
    assert (measurements.voxels, measurements.slices, measurements.of_slices) == (24, 2, 5)
    assert measurements.diameter == pytest.approx(5.0)  # the diagonal of 3 x 4 pixels, edges included
    assert measurements.millilitres is None
    assert "24 voxels in 2 of 5 slices" in measurements.summary()
    assert "ml" not in measurements.summary()


def test_a_box_in_millimetres() -> None:
    measurements = measure_labels(box(), spacing=(5.0, 2.0, 1.0))
    assert measurements.millilitres == pytest.approx(24 * 10 / 1000)
    assert measurements.diameter == pytest.approx(np.hypot(3 * 2, 4))
    assert "0.2 ml" in measurements.summary()


def test_diameter_of_a_disc() -> None:
    y, x = np.mgrid[:101, :101]
    disc = ((y - 50) ** 2 + (x - 50) ** 2 <= 30**2).astype(np.uint8)[None]
    assert measure_labels(disc).diameter == pytest.approx(61, abs=1)


def test_diameter_of_separate_components_is_from_end_to_end() -> None:
    labels = np.zeros((1, 20, 20), np.uint8)
    labels[0, 0, 0] = labels[0, 0, 19] = 1
    assert measure_labels(labels).diameter == pytest.approx(np.hypot(20, 1))


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 7), (2, 5, 1)])
def test_diameter_of_the_smallest_volumes(shape: tuple[int, int, int]) -> None:
    assert measure_labels(np.ones(shape, np.uint8)).diameter == pytest.approx(np.hypot(*shape[1:]))


def test_empty_labels() -> None:
    measurements = measure_labels(np.zeros((3, 4, 5), np.uint8))
    assert measurements.voxels == measurements.slices == measurements.diameter == 0
    assert measurements.summary() == "No tumour found."
