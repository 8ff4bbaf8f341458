"""Segmenting one patient: the result's fields and the files written from it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from flair_model import write_flair_model

from napari_lgg_seg.core.errors import ImageError
from napari_lgg_seg.core.evaluation.metrics import dice
from napari_lgg_seg.core.inference.predict import Predictor
from napari_lgg_seg.core.inference.segmentation import segment
from napari_lgg_seg.core.inference.uncertainty import expected_dice, mean_entropy, voxel_entropy
from napari_lgg_seg.core.model.checkpoint import load_model
from napari_lgg_seg.core.options import SegmentOptions

OPTIONS = SegmentOptions(device="cpu")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(write_flair_model(tmp_path_factory.mktemp("models") / "bright FLAIR.safetensors"))


@pytest.fixture(scope="module")
def result(model, make_patient):
    return segment(make_patient(), model, OPTIONS)


def test_labels_and_measurements(result):
    assert dice(result.labels, result.patient.truth) > 0.8
    assert result.measurements.voxels == int(result.labels.sum())
    assert result.measurements.slices == int(result.labels.any(axis=(1, 2)).sum())


def test_uncertainty_is_computed_from_the_probability(result):
    np.testing.assert_array_equal(result.uncertainty, voxel_entropy(result.probability))
    assert result.mean_uncertainty == mean_entropy(result.probability, result.labels)
    assert result.expected_dice == expected_dice(result.probability, result.labels)


def test_an_automatic_threshold_is_reported_as_a_number(model, make_patient):
    result = segment(make_patient(), model, dataclasses.replace(OPTIONS, threshold="auto"))
    assert result.options.threshold == "auto"
    assert 0 < result.threshold <= 1
    np.testing.assert_array_equal(result.labels, result.probability >= result.threshold)
    assert result.made_with()["threshold"] == result.threshold


def test_a_predictor_is_used_instead_of_loading_the_model(model, make_patient, result):
    again = segment(make_patient(), options=OPTIONS, predictor=Predictor(model, "cpu"))
    np.testing.assert_array_equal(again.labels, result.labels)
    assert again.model == "bright FLAIR"


def test_a_patient_without_images_is_refused(make_patient):
    masks = dataclasses.replace(make_patient(), volume=None)
    with pytest.raises(ImageError, match="masks only"):
        segment(masks)
