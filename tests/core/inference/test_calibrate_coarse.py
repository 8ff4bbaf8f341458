"""Calibration of the candidate threshold for coarse-to-fine inference."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from noted_network import Noted, model_of
from torch import nn

from napari_lgg_seg.core.data.patients import Patient
from napari_lgg_seg.core.inference.calibrate_coarse import THRESHOLDS, calibrate

SIZE, HALF = 192, 96


class HalfBlind(nn.Module):
    """At half resolution, the probability of tumour is only ``faint``."""

    faint = 0.002

    def forward(self, slices):
        bright = slices[:, 1:2] > 3
        high = 4.0 if slices.shape[-1] > HALF or slices.shape[-2] > HALF else math.log(self.faint)
        return torch.where(bright, high, -12.0)


class Doubtful(nn.Module):
    """Every voxel is a candidate."""

    def forward(self, slices):
        return torch.where(slices[:, 1:2] > 3, 4.0, -2.0)


def in_memory(large_volume, name="TCGA_DU_0001_19990101"):
    volume, truth = large_volume
    return Patient(name, Path(name), volume, truth, tuple(range(1, len(volume) + 1)))


def test_the_first_acceptable_threshold_is_the_last_one_tried(large_volume):
    """Here this is the first one."""
    found = list(calibrate(model_of(Noted(above=3), SIZE), [in_memory(large_volume)], "cpu"))
    assert [result.threshold for result in found] == list(THRESHOLDS[:1])
    assert found[0].acceptable
    assert found[0].overall == found[0].worst == 1
    assert found[0].pixel_share < 0.5


def test_thresholds_that_lose_tumour_are_not_acceptable(large_volume):
    """The tumour is a candidate only below a certain threshold."""
    blind = HalfBlind()
    found = list(calibrate(model_of(blind, SIZE), [in_memory(large_volume)], "cpu"))
    assert not any(result.acceptable for result in found[:-1])
    assert found[0].worst < 0.9
    assert found[-1].acceptable == (found[-1].threshold <= blind.faint)
    assert found[-1].threshold == max(threshold for threshold in THRESHOLDS if threshold <= blind.faint)


def test_no_lower_threshold_is_tried_if_nothing_can_be_saved(large_volume):
    found = list(calibrate(model_of(Doubtful(), SIZE), [in_memory(large_volume)], "cpu"))
    assert [result.threshold for result in found] == list(THRESHOLDS[:1])
    assert found[0].pixel_share > 1
    assert not found[0].acceptable
