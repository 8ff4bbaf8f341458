"""A cohort's results folder: what is stored, what is protected, and where results must not go."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from napari_lgg_seg.core.cohort.index import PatientStatus
from napari_lgg_seg.core.cohort.results import CohortResults, default_results_folder
from napari_lgg_seg.core.data.discover import find_by_name
from napari_lgg_seg.core.data.label_files import LabelMap, read_labels, write_labels
from napari_lgg_seg.core.data.masks import write_patient
from napari_lgg_seg.core.errors import CorrectedError, ExportError, PatientError, ResultsError
from napari_lgg_seg.core.inference.uncertainty import expected_dice, mean_entropy

NAME = "TCGA_DU_0001_19990101"
SHAPE = (4, 6, 5)


def label_map(labels, **made_with):
    return LabelMap(NAME, labels, tuple(range(1, len(labels) + 1)), made_with=made_with)


def test_a_prediction_is_read_back(results, labels, probability):
    status = results.write_prediction(NAME, label_map(labels, model="m"), probability)
    metrics = mean_entropy(probability, labels), expected_dice(probability, labels)
    assert status == PatientStatus("segmented", False, *metrics, False, {"model": "m"})
    stored = CohortResults(results.folder).read(NAME, SHAPE)
    np.testing.assert_array_equal(stored.labels, labels)
    np.testing.assert_allclose(stored.probability, probability, atol=0.5 / 255 + 1e-6)
    assert stored.probability.dtype == np.float32
    assert stored.status == status
    # What the stored probability says at the model's threshold is what was found.
    np.testing.assert_array_equal(stored.probability >= 0.5, labels)


def test_files_are_compressed_and_found_as_labels(results, labels, probability):
    results.write_prediction(NAME, label_map(labels), probability)
    assert find_by_name("labels", results.folder).patients == {NAME: results.labels_file(NAME)}
    np.testing.assert_array_equal(read_labels(results.labels_file(NAME)), labels)
    for file in (results.labels_file(NAME), results.probability_file(NAME)):
        with tifffile.TiffFile(file) as tiff:
            assert tiff.is_ome
            assert tiff.pages.first.compression == tifffile.COMPRESSION.ADOBE_DEFLATE
            assert tiff.pages.first.dtype == np.uint8


def test_there_is_no_result_at_first(results):
    assert results.read(NAME) is None
    assert results.statuses([NAME]) == {NAME: PatientStatus("new")}
    assert not results.folder.exists()


def test_corrected_labels_keep_their_values_and_are_protected(results, labels, probability):
    results.write_prediction(NAME, label_map(labels), probability)
    corrected = labels.copy()
    corrected[0, 0] = 7
    assert results.write_corrected(NAME, label_map(corrected)).state == "corrected"
    before = results.labels_file(NAME).read_bytes()
    with pytest.raises(CorrectedError, match=NAME):
        results.write_prediction(NAME, label_map(labels), probability)
    assert results.labels_file(NAME).read_bytes() == before
    np.testing.assert_array_equal(results.read(NAME).labels, corrected)
    # They stay protected when exported.
    assert results.mark_exported(NAME).state == "exported"
    with pytest.raises(CorrectedError):
        results.write_prediction(NAME, label_map(labels), probability)
    status = results.write_prediction(NAME, label_map(labels), probability, replace_corrected=True)
    assert (status.state, status.by_hand) == ("segmented", False)
    np.testing.assert_array_equal(results.read(NAME).labels, labels)


def test_a_prediction_keeps_its_uncertainty_when_it_is_corrected(results, labels, probability):
    before = results.write_prediction(NAME, label_map(labels, model="m"), probability)
    after = results.write_corrected(NAME, label_map(1 - labels))
    assert (after.uncertainty, after.made_with) == (before.uncertainty, before.made_with)


def test_a_failed_write_changes_nothing(results, labels, probability, monkeypatch):
    results.write_prediction(NAME, label_map(labels), probability)
    before = results.labels_file(NAME).read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tifffile, "imwrite", full)
    with pytest.raises(ExportError, match="No space left"):
        results.write_corrected(NAME, label_map(1 - labels))
    assert results.labels_file(NAME).read_bytes() == before
    assert results.status(NAME).state == "segmented"
    assert not results.status(NAME).by_hand


def test_statuses_follow_files_that_were_added_or_removed(results, labels, probability):
    write_labels(results.folder, label_map(labels), "tiff")  # as `segment --format tiff` does
    assert results.status(NAME) == PatientStatus("segmented")
    stored = results.read(NAME, SHAPE)
    assert stored.probability is None
    results.write_corrected(NAME, label_map(labels))
    results.labels_file(NAME).unlink()
    assert results.status(NAME) == PatientStatus("new")


@pytest.mark.parametrize("which", ["labels_file", "probability_file"])
def test_broken_files_and_other_shapes_are_reported(results, labels, probability, which):
    results.write_prediction(NAME, label_map(labels), probability)
    with pytest.raises(PatientError, match="4 x 6 x 5"):
        results.read(NAME, (4, 6, 6))
    file = getattr(results, which)(NAME)
    file.write_bytes(b"no TIFF")
    with pytest.raises(PatientError, match=file.name) as error:
        results.read(NAME, SHAPE)
    assert "\n" not in str(error.value)


def test_a_single_slice_is_read_back(results):
    labels = np.ones((1, 6, 5), np.uint8)
    results.write_prediction(NAME, label_map(labels), labels.astype(np.float32))
    stored = results.read(NAME, (1, 6, 5))
    assert stored.labels.shape == stored.probability.shape == (1, 6, 5)


# --- where results may go ------------------------------------------------------------------------


def test_default_folder_is_next_to_the_dataset(tmp_path):
    assert default_results_folder(tmp_path / "kaggle_3m") == tmp_path / "kaggle_3m-results"
    assert default_results_folder(tmp_path / "kaggle_3m" / ".." / "x") == tmp_path / "x-results"


def test_results_never_go_among_images(tmp_path, make_patient):
    dataset = tmp_path / "cohort"
    folder = dataset / NAME
    write_patient(folder, make_patient(NAME))
    (tmp_path / "file").write_text("")
    for bad in (dataset, folder, folder / "deep" / "er", tmp_path / "file"):
        with pytest.raises(ResultsError) as error:
            CohortResults(bad).check(dataset)
        assert str(bad) in str(error.value)
    for good in (tmp_path / "elsewhere", dataset / "results", default_results_folder(dataset)):
        CohortResults(good).check(dataset)


def test_labels_are_not_written_among_images(tmp_path, make_patient, labels, probability):
    write_patient(tmp_path / NAME, make_patient(NAME))
    before = sorted(tmp_path.rglob("*"))
    results = CohortResults(tmp_path)
    for write in (
        lambda: results.write_prediction(NAME, label_map(labels), probability),
        lambda: results.write_corrected(NAME, label_map(labels)),
        lambda: results.write_more(NAME, "truth", label_map(labels)),
    ):
        with pytest.raises(ResultsError, match=NAME):
            write()
    assert sorted(tmp_path.rglob("*")) == before
