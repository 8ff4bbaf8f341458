"""Volumes, exact number formats, and a stand-in for another device."""

from __future__ import annotations

import numpy as np
import pytest

from napari_lgg_seg.core import devices


@pytest.fixture(scope="session")
def uneven(make_head):
    """A volume whose slices all differ in FLAIR, some with tumour."""
    volume, _ = make_head((9, 48, 48))
    volume[..., 1] += (np.arange(9, dtype=np.uint8) * 3)[:, None, None] * (volume[..., 1] > 0)
    return volume


@pytest.fixture(scope="session")
def large_volume(make_head):
    """Volume and ground truth: 20 slices of 200 x 200, tumour in z 8 to 12, air at both ends."""
    volume, truth = make_head((20, 200, 200), tumour=False)
    lesion = np.zeros_like(truth)
    lesion[8:13, 100:130, 110:140] = 1
    volume[..., 1] += 110 * lesion
    volume[[0, -1]] = 0
    return volume, lesion


@pytest.fixture
def other_device(monkeypatch):
    """Make "auto" choose a device other than the CPU: torch's device without memory stands in for a GPU."""
    import torch

    monkeypatch.setattr(
        devices,
        "choose_device",
        lambda name="auto", engine="auto": torch.device("meta" if name == "auto" else "cpu"),
    )


@pytest.fixture
def exact(monkeypatch):
    """Let all engines compute in fp32 so that their results can be compared closely."""
    monkeypatch.setattr(devices, "_cpu_has_bf16", lambda: False)


@pytest.fixture
def conversions(openvino, monkeypatch):
    """Grows by one with each conversion from PyTorch to OpenVINO."""
    done, convert = [], openvino.convert_model

    def recorded(*arguments, **options):
        done.append(1)
        return convert(*arguments, **options)

    monkeypatch.setattr(openvino, "convert_model", recorded)
    return done
