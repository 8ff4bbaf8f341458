from __future__ import annotations

import numpy as np
import pytest
import tifffile

from napari_lgg_seg.core.cohort.edits import Edits, save_edits
from napari_lgg_seg.core.cohort.index import INDEX_NAME, PatientStatus
from napari_lgg_seg.core.cohort.results import CohortResults, default_results_folder
from napari_lgg_seg.core.data.label_files import LabelMap, find_labels, read_labels, write_labels
from napari_lgg_seg.core.data.masks import write_patient
from napari_lgg_seg.core.errors import CorrectedError, ExportError, PatientError, ResultsError
from napari_lgg_seg.core.inference.uncertainty import expected_dice, mean_entropy

NAME = "TCGA_DU_0001_19990101"
SHAPE = (4, 6, 5)


@pytest.fixture
def results(tmp_path):
    return CohortResults(tmp_path / "cohort-results")


@pytest.fixture
def probability():
    return np.random.default_rng(0).random(SHAPE).astype(np.float32)


@pytest.fixture
def labels(probability):
    return (probability >= 0.5).astype(np.uint8)


def label_map(labels, **made_with):
    return LabelMap(NAME, labels, tuple(range(1, len(labels) + 1)), made_with=made_with)


def test_a_prediction_comes_back(results, labels, probability):
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


def test_files_are_compressed_and_read_by_evaluate(results, labels, probability):
    results.write_prediction(NAME, label_map(labels), probability)
    assert find_labels(results.folder) == {NAME: results.labels_file(NAME)}
    np.testing.assert_array_equal(read_labels(results.labels_file(NAME)), labels)
    for file in (results.labels_file(NAME), results.probability_file(NAME)):
        with tifffile.TiffFile(file) as tiff:
            assert tiff.is_ome
            assert tiff.pages.first.compression == tifffile.COMPRESSION.ADOBE_DEFLATE
            assert tiff.pages.first.dtype == np.uint8


def test_nothing_there_is_none(results):
    assert results.read(NAME) is None
    assert results.statuses([NAME]) == {NAME: PatientStatus("new")}
    assert not results.folder.exists()


def test_corrected_labels_keep_their_values_and_are_not_replaced_unasked(results, labels, probability):
    results.write_prediction(NAME, label_map(labels), probability)
    corrected = labels.copy()
    corrected[0, 0] = 7
    assert results.write_corrected(NAME, label_map(corrected)).state == "corrected"
    before = results.labels_file(NAME).read_bytes()
    with pytest.raises(CorrectedError, match=NAME):
        results.write_prediction(NAME, label_map(labels), probability)
    assert results.labels_file(NAME).read_bytes() == before
    np.testing.assert_array_equal(results.read(NAME).labels, corrected)
    # Exported, they are still somebody's work.
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


def test_failing_to_write_leaves_everything_as_it_was(results, labels, probability, monkeypatch):
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


def test_labels_that_others_put_there_count_as_segmented_and_removed_ones_as_new(
    results, labels, probability
):
    write_labels(results.folder, label_map(labels), "tiff")  # as `segment --format tiff` does
    assert results.status(NAME) == PatientStatus("segmented")
    stored = results.read(NAME, SHAPE)
    assert stored.probability is None
    results.write_corrected(NAME, label_map(labels))
    results.labels_file(NAME).unlink()
    assert results.status(NAME) == PatientStatus("new")


@pytest.mark.parametrize("which", ["labels_file", "probability_file"])
def test_broken_or_foreign_files_are_sentences(results, labels, probability, which):
    results.write_prediction(NAME, label_map(labels), probability)
    with pytest.raises(PatientError, match="4 x 6 x 5"):
        results.read(NAME, (4, 6, 6))
    file = getattr(results, which)(NAME)
    file.write_bytes(b"no TIFF")
    with pytest.raises(PatientError, match=file.name) as error:
        results.read(NAME, SHAPE)
    assert "\n" not in str(error.value)


def test_a_single_slice_comes_back(results):
    labels = np.ones((1, 6, 5), np.uint8)
    results.write_prediction(NAME, label_map(labels), labels.astype(np.float32))
    stored = results.read(NAME, (1, 6, 5))
    assert stored.labels.shape == stored.probability.shape == (1, 6, 5)


# --- where results may go ------------------------------------------------------------------------


def test_default_folder_is_beside_the_dataset(tmp_path):
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


def test_a_folder_with_a_patients_images_gets_no_labels(tmp_path, make_patient, labels, probability):
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


# --- keeping what somebody did -------------------------------------------------------------------


def test_work_by_hand_is_kept_as_corrected(results, labels):
    kept = save_edits(NAME, Edits(label_map(labels), by_hand=True), results)
    assert kept.status.state == "corrected"
    assert kept.sentence == ""
    np.testing.assert_array_equal(results.read_labels(NAME), labels)


def test_a_prediction_of_the_segment_widget_is_kept_unless_there_are_corrections(
    results, labels, probability
):
    work = Edits(label_map(labels), by_hand=False, probability=probability)
    assert save_edits(NAME, work, results).status.state == "segmented"
    results.write_corrected(NAME, label_map(1 - labels))
    kept = save_edits(NAME, work, results)
    assert kept.status.state == "corrected"
    assert "not saved" in kept.sentence
    np.testing.assert_array_equal(results.read_labels(NAME), 1 - labels)


def test_further_labels_get_files_of_their_own_that_are_no_slices(results, labels):
    work = Edits(None, more=(("truth", label_map(labels)), ("a/b_1", label_map(labels))))
    sentences = [save_edits(NAME, work, results).sentence for _ in range(2)]
    files = sorted((results.folder / NAME).iterdir())
    assert len(files) == 4
    assert all(sum(str(file) in sentence for sentence in sentences) == 1 for file in files)
    for file in files:
        np.testing.assert_array_equal(tifffile.imread(file), labels)
    assert results.status(NAME).state == "new"
    # Neither are they taken for slices, which would keep labels away, nor for the patient's result.
    save_edits(NAME, Edits(label_map(labels), by_hand=True), results)
    assert find_labels(results.folder) == {NAME: results.labels_file(NAME)}
    assert {file.name for file in results.folder.iterdir()} == {NAME, INDEX_NAME}
