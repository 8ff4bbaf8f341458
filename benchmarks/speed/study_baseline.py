"""The original study's method: its network in plain PyTorch, with the published preprocessing.

    python -m speed.study_baseline PATIENT_FOLDER... OUTPUT

Per volume: the first and last slice are dropped, values below a tenth of the maximum are set to zero, the
volume is cropped to the bounding box, padded to squares, resized to 256, rescaled from the 10th to the 99th
percentile, and each channel is z-scored. Then threshold 0.5 and the largest component, on that grid, as the
study evaluates them. The weights are random, which does not change the run time.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from speed.keras_baseline import Method, slice_files, write_mask

SIZE, BATCH = 256, 16


def load() -> Any:
    """The network, ready for inference."""
    from napari_lgg_seg.core.model.networks import BudaUNet

    return BudaUNet().eval()


def prepare(volume: npt.NDArray[np.uint8], size: int = SIZE) -> npt.NDArray[np.float32]:
    """Preprocess a volume (z, y, x, 3) for the network: (z - 2 or fewer, 3, size, size)."""
    from skimage.exposure import rescale_intensity
    from skimage.transform import resize

    volume = volume[1:-1] if len(volume) > 2 else volume
    volume = np.where(volume < 0.1 * volume.max(), 0, volume)
    inside = np.nonzero(volume.max(axis=-1))
    if len(inside[0]):
        volume = volume[tuple(slice(axis.min(), axis.max() + 1) for axis in inside)]
    height, width = volume.shape[1:3]
    missing = [max(height, width) - side for side in (height, width)]
    pads = [(total // 2, total - total // 2) for total in missing]
    volume = np.pad(volume, ((0, 0), *pads, (0, 0)))
    shape = (len(volume), size, size, volume.shape[-1])
    resized = resize(
        volume, shape, order=2, mode="constant", cval=0, anti_aliasing=False, preserve_range=True
    )
    low, high = np.percentile(resized, (10, 99))
    rescaled = rescale_intensity(resized, in_range=(low, high))
    mean, sd = rescaled.mean(axis=(0, 1, 2)), rescaled.std(axis=(0, 1, 2))
    normalised = (rescaled - mean) / np.where(sd > 0, sd, 1)
    return np.ascontiguousarray(normalised.transpose(0, 3, 1, 2), np.float32)


def segment(network: Any, folder: Path, output: Path) -> float:
    """Segment one patient, from folder to mask files; returns the seconds inside the network."""
    import torch
    from skimage.measure import label

    volume = np.stack([tifffile.imread(file) for file in slice_files(folder)])
    slices = torch.from_numpy(prepare(volume))
    began = time.perf_counter()
    with torch.inference_mode():
        probability = [torch.sigmoid(network(part))[:, 0].numpy() for part in slices.split(BATCH)]
    inside = time.perf_counter() - began
    mask = np.concatenate(probability) > 0.5
    components = label(mask)
    if mask.any():
        mask = components == np.bincount(components.ravel())[1:].argmax() + 1
    (output / folder.name).mkdir(parents=True, exist_ok=True)
    for number, plane in enumerate(mask, start=1):
        write_mask(output / folder.name / f"{folder.name}_{number}_mask.tif", plane)
    return inside


def patient_methods(folders: Sequence[str], output: str) -> list[Method]:
    """Seconds per patient from folder to mask files, with the network already built."""
    network = load()

    def all_patients() -> dict[str, float]:
        began = time.perf_counter()
        inside = sum(segment(network, Path(folder), Path(output)) for folder in folders)
        seconds = time.perf_counter() - began
        return {"seconds": seconds / len(folders), "outside": 1 - inside / seconds}

    return [all_patients]


if __name__ == "__main__":
    *patients, results = sys.argv[1:]
    built = load()
    for patient in patients:
        segment(built, Path(patient), Path(results))
