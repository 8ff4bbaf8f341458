"""The rows of a cohort's table: extents, Dice, thumbnail, problems."""

from __future__ import annotations

import numpy as np
import pytest

from napari_lgg_seg.core.cohort.patient_summary import (
    THUMBNAIL_SIZE,
    TumourExtent,
    read_summary,
    shrink,
    signature,
    slice_to_show,
)
from napari_lgg_seg.core.data.masks import write_patient
from napari_lgg_seg.core.evaluation.metrics import dice

NAME = "TCGA_DU_0001_19990101"


def test_extents_and_dice_of_ground_truth_and_labels(folder, patient):
    labels = np.roll(patient.truth, 2, axis=2)
    summary = read_summary(folder, labels)
    truth = TumourExtent(int(patient.truth.sum()), int(patient.truth.any(axis=(1, 2)).sum()))
    assert summary.truth == truth == summary.predicted
    assert summary.dice == dice(labels, patient.truth)
    assert 0 < summary.dice < 1
    assert (summary.slices, summary.missing, summary.problem) == (6, (), "")
    assert read_summary(folder, None).predicted is None
    assert read_summary(folder, None).dice is None


def test_sequences_filled_with_flair_are_missing(tmp_path, make_patient):
    patient = make_patient(NAME)
    patient.volume[..., 2] = patient.volume[..., 1]
    write_patient(tmp_path / NAME, patient)
    assert read_summary(tmp_path / NAME, None).missing == ("post-contrast",)


def test_no_dice_if_a_slice_has_no_mask(folder, patient):
    (folder / f"{NAME}_2_mask.tif").unlink()
    assert read_summary(folder, patient.truth).dice is None


def test_thumbnail_is_the_flair_slice_with_the_largest_tumour(tmp_path, write_slices):
    folder = tmp_path / NAME
    image, _ = write_slices(folder, NAME, 5, masks=False, shape=(30, 20))
    labels = np.zeros((5, 30, 20), np.uint8)
    labels[3, :9], labels[1, 0, 0] = 1, 1

    def expected(index):
        return shrink(image[index, ..., 1])

    np.testing.assert_array_equal(read_summary(folder, labels).thumbnail, expected(3))
    np.testing.assert_array_equal(read_summary(folder, None).thumbnail, expected(2))
    assert slice_to_show(5, None, np.zeros_like(labels), labels) == 3


@pytest.mark.parametrize("shape", [(256, 256), (300, 200), (64, 10), (1, 1), (3, 1000)])
def test_thumbnails_are_small_and_bright(shape):
    picture = np.random.default_rng(0).integers(0, 100, shape, np.uint8)
    small = shrink(picture)
    assert max(small.shape) <= THUMBNAIL_SIZE
    assert min(small.shape) >= 1
    assert small.dtype == np.uint8
    assert small.max() > 200
    assert not shrink(np.zeros(shape, np.uint8)).any()


def test_a_folder_of_masks_has_no_thumbnail(tmp_path, write_slices):
    write_slices(tmp_path / NAME, NAME, images=False)
    summary = read_summary(tmp_path / NAME, None)
    assert summary.thumbnail is None
    assert summary.truth is not None
    assert summary.problem == ""


def test_errors_become_the_problem_of_the_summary(folder, patient):
    assert "voxels" in read_summary(folder, patient.truth[:-1]).problem
    (folder / f"{NAME}_3.tif").write_bytes(b"no TIFF")
    summary = read_summary(folder, None)
    assert f"{NAME}_3.tif" in summary.problem
    assert summary.problem.endswith(".")


def test_signature_depends_on_slices_and_labels_only(folder, tmp_path):
    before = signature(folder, [])
    (folder / "notes.txt").write_text("no slice")
    assert signature(folder, []) == before
    assert signature(folder, [("labels.tif", 6, 1)]) != before
    assert signature(tmp_path / "gone", []) != before
