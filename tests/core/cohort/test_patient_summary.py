from __future__ import annotations

import os
import sqlite3

import numpy as np
import pytest

from napari_lgg_seg.core.cohort import summary_cache as summary_cache
from napari_lgg_seg.core.cohort.patient_summary import (
    THUMBNAIL_SIZE,
    PatientSummary,
    TumourExtent,
    read_summary,
    shrink,
    signature,
    slice_to_show,
)
from napari_lgg_seg.core.cohort.results import CohortResults
from napari_lgg_seg.core.cohort.summary_cache import SummaryCache, cached_summary
from napari_lgg_seg.core.data.discover import list_patients
from napari_lgg_seg.core.data.label_files import LabelMap
from napari_lgg_seg.core.data.masks import write_patient
from napari_lgg_seg.core.errors import PatientError
from napari_lgg_seg.core.evaluation.metrics import dice

NAME = "TCGA_DU_0001_19990101"


@pytest.fixture
def patient(make_patient):
    return make_patient(NAME)


@pytest.fixture
def folder(tmp_path, patient):
    write_patient(tmp_path / "cohort" / NAME, patient)
    return tmp_path / "cohort" / NAME


@pytest.fixture
def results(tmp_path):
    return CohortResults(tmp_path / "results")


# --- details -------------------------------------------------------------------------------------


def test_figures_of_truth_and_labels(folder, patient):
    labels = np.roll(patient.truth, 2, axis=2)
    details = read_summary(folder, labels)
    truth = TumourExtent(int(patient.truth.sum()), int(patient.truth.any(axis=(1, 2)).sum()))
    assert details.truth == truth == details.predicted
    assert details.dice == dice(labels, patient.truth)
    assert 0 < details.dice < 1
    assert (details.slices, details.missing, details.problem) == (6, (), "")
    assert read_summary(folder, None).predicted is None
    assert read_summary(folder, None).dice is None


def test_sequences_that_are_flair_once_more_are_missing(tmp_path, make_patient):
    patient = make_patient(NAME)
    patient.volume[..., 2] = patient.volume[..., 1]
    write_patient(tmp_path / NAME, patient)
    assert read_summary(tmp_path / NAME, None).missing == ("post-contrast",)


def test_no_dice_where_nobody_said_what_a_slice_holds(folder, patient):
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


def test_masks_alone_have_no_picture(tmp_path, write_slices):
    write_slices(tmp_path / NAME, NAME, images=False)
    details = read_summary(tmp_path / NAME, None)
    assert details.thumbnail is None
    assert details.truth is not None
    assert details.problem == ""


def test_what_is_broken_is_told_not_raised(folder, patient):
    assert "voxels" in read_summary(folder, patient.truth[:-1]).problem
    (folder / f"{NAME}_3.tif").write_bytes(b"no TIFF")
    details = read_summary(folder, None)
    assert f"{NAME}_3.tif" in details.problem
    assert details.problem.endswith(".")


# --- listing -------------------------------------------------------------------------------------


def test_all_folders_are_listed_broken_ones_too_but_not_the_results(folder, results):
    dataset = folder.parent
    for name in ("empty", "A", ".hidden", "results"):
        (dataset / name).mkdir()
    (dataset / "data.csv").write_text("")
    assert [f.name for f in list_patients(dataset, dataset / "results")] == ["A", NAME, "empty"]


def test_folders_without_patients_are_a_sentence(folder, tmp_path):
    (tmp_path / "nothing").mkdir()
    for wrong, what in (
        (folder, "patient's own"),
        (tmp_path / "nothing", "no folders"),
        (tmp_path / "x", "x"),
    ):
        with pytest.raises(PatientError, match=what):
            list_patients(wrong)


# --- the cache -----------------------------------------------------------------------------------


@pytest.fixture
def reads(monkeypatch):
    """Folders of the patients that were read from disk."""
    read, seen = summary_cache.read_summary, []

    def spy(folder, labels):
        seen.append(folder.name)
        return read(folder, labels)

    monkeypatch.setattr(summary_cache, "read_summary", spy)
    return seen


def look(folder, results, path):
    with SummaryCache(path) as cache:
        return cached_summary(folder, results, cache)


def assert_same(one, other):
    for name in PatientSummary.__dataclass_fields__:
        np.testing.assert_equal(getattr(one, name), getattr(other, name))


def test_unchanged_files_are_read_once(folder, results, tmp_path, reads):
    first = look(folder, results, tmp_path / "deep" / "cache")
    second = look(folder, results, tmp_path / "deep" / "cache")
    assert reads == [NAME]
    assert_same(first, second)
    assert second.thumbnail is not None


@pytest.mark.parametrize("change", ["touch", "rewrite", "add", "remove", "labels"])
def test_changed_files_are_read_again(folder, results, tmp_path, reads, patient, change):
    look(folder, results, tmp_path / "cache")
    file = folder / f"{NAME}_6.tif"
    if change == "touch":
        os.utime(file, ns=(1, 1))
    elif change == "rewrite":
        file.write_bytes(file.read_bytes() + b"0")
    elif change == "add":
        (folder / f"{NAME}_8.tif").write_bytes(file.read_bytes())
    elif change == "remove":
        file.unlink()
    else:
        results.write_corrected(NAME, LabelMap(NAME, patient.truth))
    details = look(folder, results, tmp_path / "cache")
    assert reads == [NAME, NAME]
    assert (details.dice == 1) == (change == "labels")


def test_what_was_broken_is_looked_at_again(folder, results, tmp_path, reads):
    (folder / f"{NAME}_3.tif").unlink()
    for _ in range(2):
        assert look(folder, results, tmp_path / "cache").problem
    assert reads == [NAME, NAME]


def test_broken_labels_are_a_problem(folder, results, tmp_path):
    results.labels_file(NAME).parent.mkdir(parents=True)
    results.labels_file(NAME).write_bytes(b"no TIFF")
    assert results.labels_file(NAME).name in look(folder, results, tmp_path / "cache").problem


def test_kept_details_are_found(folder, results, tmp_path, reads):
    details = read_summary(folder, None)
    with SummaryCache(tmp_path / "cache") as cache:
        cache.update(folder, results, details)
    assert_same(look(folder, results, tmp_path / "cache"), details)
    assert reads == []


def test_a_damaged_cache_is_made_anew(folder, results, tmp_path, reads):
    path = tmp_path / "cache"
    path.write_bytes(b"no database, but long enough to be taken for one" * 100)
    for _ in range(2):
        assert look(folder, results, path).slices == 6
    assert reads == [NAME]


def test_without_a_cache_everything_works(folder, results, tmp_path, reads):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "cache", tmp_path):
        assert look(folder, results, path).slices == 6
    # Another window that holds it for long.
    look(folder, results, tmp_path / "cache")
    other = sqlite3.connect(tmp_path / "cache", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    assert look(folder, results, tmp_path / "cache").slices == 6
    other.close()


def test_signature_depends_on_slices_and_labels_only(folder, tmp_path):
    before = signature(folder, tmp_path / "labels.tif")
    (folder / "notes.txt").write_text("no slice")
    assert signature(folder, tmp_path / "labels.tif") == before
    (tmp_path / "labels.tif").write_text("labels")
    assert signature(folder, tmp_path / "labels.tif") != before
    assert signature(tmp_path / "gone", tmp_path / "x")
