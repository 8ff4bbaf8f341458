"""Grayscale slices on disk."""

from __future__ import annotations

import pytest
import tifffile


@pytest.fixture
def write_grayscale(write_slices):
    """Factory: write slices with grayscale images; returns all images and all masks."""

    def write(folder, name="p", numbers=3, **options):
        numbers = range(1, numbers + 1) if isinstance(numbers, int) else numbers
        image, mask = write_slices(folder, name, numbers, **options)
        for number, pixels in zip(numbers, image, strict=True):
            tifffile.imwrite(folder / f"{name}_{number}.tif", pixels[..., 1], photometric="minisblack")
        return image[..., 1], mask

    return write
