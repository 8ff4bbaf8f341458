from __future__ import annotations

import pytest
from label_writing import write_labels, write_masks

from napari_lgg_seg.core.data.label_files import LabelMap
from napari_lgg_seg.core.data.masks import write_patient
from napari_lgg_seg.core.errors import ComparisonError, PatientError
from napari_lgg_seg.core.evaluation.compare_folders import PairsFound, compare_folders

FIRST, SECOND, THIRD, FOURTH = (f"TCGA_DU_000{n}_19990101" for n in range(1, 5))


@pytest.fixture
def cohort(tmp_path, make_patient):
    """Ground truth of three patients, and predictions of the first two and of a fourth, one per format."""
    for seed, name in enumerate((FIRST, SECOND, THIRD)):
        write_patient(tmp_path / "truth" / name, make_patient(name, seed=seed))
    truth = make_patient(FIRST).truth
    write_labels(tmp_path / "out", LabelMap(FIRST, truth), "tiff")
    write_masks(tmp_path / "out" / SECOND, SECOND, truth)
    write_labels(tmp_path / "out", LabelMap(FOURTH, truth), "nifti")
    return tmp_path


def test_all_patients_in_both_folders(cohort):
    found, *done = compare_folders(cohort / "out", cohort / "truth")
    assert isinstance(found, PairsFound)
    assert [pair.name for pair in found.pairs] == [FIRST, SECOND]
    assert (found.without_prediction, found.without_truth, found.problems) == ((THIRD,), (FOURTH,), ())
    assert [one.pair for one in done] == list(found.pairs)
    assert [one.metrics.agreement.dice for one in done] == [1, 1]
    assert all(one.pair.images is not None and one.problem == "" for one in done)


@pytest.mark.parametrize("file_format", ["masks", "tiff", "nifti"])
def test_labels_of_every_format_are_compared(tmp_path, make_patient, file_format):
    labels = make_patient(FIRST).truth
    half = labels.copy()
    half[: len(half) // 2] = 0
    for name, mine in ((FIRST, labels), (SECOND, half)):
        write_labels(tmp_path / "truth", LabelMap(name, labels))
        write_labels(tmp_path / "out", LabelMap(name, mine), file_format)
    _, *done = compare_folders(tmp_path / "out", tmp_path / "truth")
    expected = 2 * half.sum() / (half.sum() + labels.sum())
    assert [one.metrics.agreement.dice for one in done] == pytest.approx([1, expected])


def test_a_second_folder_of_a_patient_is_named(cohort, make_patient):
    write_masks(cohort / "out" / "again", SECOND, make_patient(FIRST).truth)
    found, *done = compare_folders(cohort / "out", cohort / "truth")
    (problem,) = found.problems
    assert str(cohort / "out" / "again") in problem
    assert str(cohort / "out" / SECOND) in problem
    assert [one.pair.labels.name for one in done] == [f"{FIRST}_tumour.tif", SECOND]


def test_a_bad_patient_does_not_stop_the_others(cohort):
    (cohort / "out" / FIRST / f"{FIRST}_tumour.tif").write_bytes(b"no TIFF")
    _, bad, good = compare_folders(cohort / "out", cohort / "truth")
    assert bad.metrics is None
    assert bad.problem.endswith(".")
    assert f"{FIRST}_tumour.tif" in bad.problem
    assert good.metrics.agreement.dice == 1


def test_slice_numbers_are_those_of_the_images(tmp_path, write_slices, make_patient):
    write_slices(tmp_path / "images" / FIRST, FIRST, range(9, 12), masks=False)
    mask = make_patient(shape=(3, 12, 10)).truth
    for folder in ("truth", "out"):
        write_labels(tmp_path / folder, LabelMap(FIRST, mask), "tiff")
    _, done = compare_folders(tmp_path / "out", tmp_path / "truth", tmp_path / "images")
    assert set(done.metrics.agreement.slice_dice) <= {9, 10, 11}


def test_files_removed_in_the_meantime(cohort):
    events = compare_folders(cohort / "out", cohort / "truth")
    next(events)
    (cohort / "out" / FIRST / f"{FIRST}_tumour.tif").unlink()
    assert f"{FIRST}_tumour.tif" in next(events).problem
    assert next(events).metrics is not None


@pytest.mark.parametrize("missing", ["out", "truth", "images"])
def test_a_path_that_is_not_a_folder_is_refused(cohort, missing):
    folders = {"out": cohort / "out", "truth": cohort / "truth", "images": cohort / "truth"}
    folders[missing] = cohort / "nowhere"
    with pytest.raises(ComparisonError, match="nowhere is not a folder"):
        next(compare_folders(*folders.values()))


def test_folders_that_do_not_match_are_refused(cohort, make_patient):
    for name in (THIRD, FOURTH):
        write_patient(cohort / "others" / name, make_patient(name))
    with pytest.raises(ComparisonError, match="No patient is in both"):
        next(compare_folders(cohort / "others", cohort / "out" / SECOND))
    (cohort / "empty").mkdir()
    with pytest.raises(PatientError, match="empty contains no patient's labels"):
        next(compare_folders(cohort / "empty", cohort / "truth"))
