"""A cohort's results: what is stored, whose it is, what may replace it, and where results must not go."""

from __future__ import annotations

import dataclasses
import json
import os
import unicodedata
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile
from label_writing import write_labels

import napari_lgg_seg as lgg
from napari_lgg_seg.core.atomic import locked
from napari_lgg_seg.core.cohort.status import PatientStatus
from napari_lgg_seg.core.cohort.store import ResultStore, default_results_folder
from napari_lgg_seg.core.data.discover import find_by_name
from napari_lgg_seg.core.data.label_files import LabelMap, label_files, write_tiff
from napari_lgg_seg.core.data.label_reading import read_labels
from napari_lgg_seg.core.data.masks import write_patient
from napari_lgg_seg.core.data.provenance import Provenance
from napari_lgg_seg.core.errors import (
    BusyError,
    ChangedError,
    CorrectedError,
    ExistingMasksError,
    ExportError,
    PatientError,
    ResultsError,
)
from napari_lgg_seg.core.evaluation.measurements import measure_labels
from napari_lgg_seg.core.inference.segmentation import Segmentation
from napari_lgg_seg.core.inference.uncertainty import expected_dice, mean_entropy
from napari_lgg_seg.core.options import SegmentOptions

NAME = "TCGA_DU_0001_19990101"
SHAPE = (4, 6, 5)
FORMATS = ("masks", "tiff", "nifti")
RUN = Provenance("01234567", "a model", {"threshold": None}, "0.1.0")
OTHER_RUN = Provenance("01234567", "a model", {"threshold": 0.3}, "0.1.0")


def label_map(labels, **made_with):
    return LabelMap(NAME, labels, tuple(range(1, len(labels) + 1)), made_with=made_with)


@pytest.fixture
def patient(results):
    """The results of one patient."""
    return results.patient(NAME)


@pytest.fixture
def predict(patient, labels, probability):
    """Store a prediction with its probability, as the cohort browser does."""

    def predict_(labels=labels, file_format="tiff", **options):
        options = {"provenance": RUN, "probability": probability, "keep_probability": True, **options}
        return patient.write_prediction(label_map(labels, model="m"), file_format, **options)

    return predict_


def labels_file(patient) -> Path:
    return patient.folder / f"{NAME}_tumour.tif"


def visible(folder) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def change_elsewhere(path):
    """Change a label file as another program would."""
    if path.name.endswith(".gz"):
        path.write_bytes(path.read_bytes() + b"\0")
    else:
        pages = tifffile.imread(path)
        tifffile.imwrite(path, np.zeros_like(pages))


# --- predictions ---------------------------------------------------------------------------------


def test_a_prediction_is_read_back(results, predict, labels, probability):
    status = predict()
    assert (status.state, status.by_hand, status.nothing_found) == ("segmented", False, False)
    assert status.uncertainty == mean_entropy(probability, labels)
    assert status.expected_dice == expected_dice(probability, labels)
    assert status.made_with == {"model": "m"}
    stored = ResultStore(results.folder).patient(NAME).read(SHAPE)
    np.testing.assert_array_equal(stored.labels, labels)
    np.testing.assert_allclose(stored.probability, probability, atol=0.5 / 255 + 1e-6)
    assert stored.probability.dtype == np.float32
    assert stored.status == status
    # What the stored probability says at the model's threshold is what was found.
    np.testing.assert_array_equal(stored.probability >= 0.5, labels)


def test_files_are_compressed_and_found_as_labels(results, patient, predict, labels):
    predict()
    file = labels_file(patient)
    assert find_by_name("labels", results.folder).patients == {NAME: file}
    np.testing.assert_array_equal(read_labels(file), labels)
    assert visible(patient.folder) == {file.name, f"{NAME}_probability.tif"}
    for path in patient.folder.glob("*.tif"):
        with tifffile.TiffFile(path) as tiff:
            assert tiff.is_ome
            assert tiff.pages.first.compression == tifffile.COMPRESSION.ADOBE_DEFLATE
            assert tiff.pages.first.dtype == np.uint8


def test_there_is_no_result_at_first(results, patient):
    assert patient.read() is None
    assert results.statuses([NAME]).found == {NAME: PatientStatus()}
    assert not results.folder.exists()


@pytest.mark.parametrize("file_format", FORMATS)
def test_the_same_run_finds_its_prediction_finished(patient, predict, file_format):
    predict(file_format=file_format)
    assert patient.status(RUN, file_format, (1, 2, 3, 4), verify=True).standing == "finished"
    others = [other for other in FORMATS if other != file_format]
    assert [patient.status(RUN, other).standing for other in others] == ["new", "new"]
    status = patient.status(OTHER_RUN, file_format)
    assert status.standing == "in the way"
    assert "with another threshold;" in status.sentence


def test_predictions_of_other_settings_need_permission(predict, labels, patient):
    predict()
    with pytest.raises(ExistingMasksError, match="another threshold"):
        predict(1 - labels, provenance=OTHER_RUN)
    predict(1 - labels, provenance=OTHER_RUN, overwrite=True)
    np.testing.assert_array_equal(patient.read_labels(), 1 - labels)


def test_all_formats_of_a_patient_hold_the_same_labels(patient, predict, labels):
    for file_format in FORMATS:
        predict(file_format=file_format)
    predict(1 - labels, "masks", provenance=OTHER_RUN, overwrite=True)
    for path in (labels_file(patient), patient.folder / f"{NAME}_tumour.nii.gz", patient.folder):
        np.testing.assert_array_equal(read_labels(path), 1 - labels)
    patient.write_edits(label_map(labels))
    for path in (labels_file(patient), patient.folder / f"{NAME}_tumour.nii.gz", patient.folder):
        np.testing.assert_array_equal(read_labels(path), labels)
    assert {patient.status(RUN, f).standing for f in FORMATS} == {"corrected"}


def test_a_prediction_without_its_probability_leaves_none_of_another_run(patient, predict, labels):
    predict()
    status = predict(1 - labels, provenance=OTHER_RUN, overwrite=True, probability=None)
    assert (status.uncertainty, status.expected_dice) == (None, None)
    assert patient.read().probability is None
    assert visible(patient.folder) == {labels_file(patient).name}


def test_a_probability_of_another_run_is_not_shown(patient, predict):
    predict()
    change_elsewhere(patient.folder / f"{NAME}_probability.tif")
    assert patient.read().probability is None


def test_masks_with_other_slice_numbers_replace_all_masks(patient, predict, labels):
    predict(file_format="masks")
    moved = LabelMap(NAME, labels, (3, 4, 5, 6))
    patient.write_prediction(moved, "masks", provenance=OTHER_RUN, overwrite=True)
    assert visible(patient.folder) == {f"{NAME}_{n}_mask.tif" for n in (3, 4, 5, 6)}


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_failed_write_changes_nothing(patient, predict, labels, monkeypatch, file_format):
    predict(file_format=file_format)
    before = {path: path.read_bytes() for path in patient.folder.iterdir()}

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tifffile, "imwrite", full)
    with pytest.raises(ExportError, match="No space left"):
        patient.write_edits(label_map(1 - labels))
    assert {path: path.read_bytes() for path in patient.folder.iterdir()} == before
    assert patient.status(verify=True).state == "segmented"


def test_a_single_slice_is_read_back(patient):
    labels = np.ones((1, 6, 5), np.uint8)
    patient.write_prediction(label_map(labels), probability=labels.astype(np.float32), keep_probability=True)
    stored = patient.read((1, 6, 5))
    assert stored.labels.shape == stored.probability.shape == (1, 6, 5)


def test_another_shape_is_reported(patient, predict):
    predict()
    with pytest.raises(PatientError, match="4 x 6 x 5"):
        patient.read((4, 6, 6))


def test_a_broken_file_is_reported(patient, predict):
    predict()
    labels_file(patient).write_bytes(b"no TIFF")
    with pytest.raises(PatientError, match=labels_file(patient).name) as error:
        patient.read(SHAPE)
    assert "\n" not in str(error.value)


# --- corrections -----------------------------------------------------------------------------------


def test_corrected_labels_keep_their_values_and_are_protected(patient, predict, labels):
    predict()
    corrected = labels.copy()
    corrected[0, 0] = 7
    status = patient.write_edits(label_map(corrected))
    assert (status.state, status.by_hand, status.standing) == ("corrected", True, "corrected")
    before = labels_file(patient).read_bytes()
    for file_format in FORMATS:
        with pytest.raises(CorrectedError, match=r"--replace-corrected") as error:
            predict(file_format=file_format, overwrite=True)
        assert NAME in str(error.value)
    assert labels_file(patient).read_bytes() == before
    np.testing.assert_array_equal(patient.read().labels, corrected)
    # They stay protected when exported.
    status = patient.mark_exported()
    assert (status.state, status.by_hand) == ("exported", True)
    with pytest.raises(CorrectedError):
        predict(overwrite=True)
    status = predict(replace_corrected=True)
    assert (status.state, status.by_hand) == ("segmented", False)
    np.testing.assert_array_equal(patient.read().labels, labels)


def test_the_record_of_corrected_labels_says_that_a_person_made_them(patient, predict, labels):
    predict()
    patient.write_edits(label_map(1 - labels))
    record = json.loads((patient.folder / ".lgg-tiff.json").read_text())
    assert (record["made_by"], record["provenance"]) == ("person", None)


def test_a_prediction_keeps_its_uncertainty_and_probability_when_it_is_corrected(patient, predict, labels):
    before = predict()
    after = patient.write_edits(label_map(1 - labels))
    assert (after.uncertainty, after.made_with) == (before.uncertainty, before.made_with)
    assert patient.read().probability is not None


def test_accepted_labels_are_a_persons(patient, predict, labels):
    predict()
    predict(file_format="masks")
    before = {path: path.stat().st_mtime_ns for path in patient.folder.glob("*.tif")}
    status = patient.accept(patient.read().revision)
    assert (status.state, status.by_hand) == ("corrected", True)
    assert {path: path.stat().st_mtime_ns for path in patient.folder.glob("*.tif")} == before
    assert patient.read().probability is not None
    for file_format in FORMATS:
        with pytest.raises(CorrectedError):
            predict(file_format=file_format, overwrite=True)


def test_there_must_be_something_to_accept(patient):
    with pytest.raises(ResultsError, match="segment it first"):
        patient.accept()


@pytest.mark.parametrize("change", ["edits", "elsewhere", "accepted"])
def test_what_was_changed_since_it_was_read_is_not_replaced(patient, predict, labels, change):
    predict()
    revision = patient.read().revision
    {
        "edits": lambda: patient.write_edits(label_map(np.ones_like(labels))),
        "elsewhere": lambda: change_elsewhere(labels_file(patient)),
        "accepted": patient.accept,
    }[change]()
    before = labels_file(patient).read_bytes()
    with pytest.raises(ChangedError, match=NAME):
        patient.write_edits(label_map(1 - labels), revision=revision)
    with pytest.raises(ChangedError, match=NAME):
        patient.accept(revision)
    assert labels_file(patient).read_bytes() == before
    patient.write_edits(label_map(1 - labels), revision=patient.revision())


def test_edits_replace_a_prediction_that_was_made_since_but_it_is_not_accepted_unseen(
    patient, predict, labels
):
    revision = patient.revision()
    predict()
    with pytest.raises(ChangedError):
        patient.accept(revision)
    patient.write_edits(label_map(1 - labels), revision=revision)
    np.testing.assert_array_equal(patient.read_labels(), 1 - labels)


def test_labels_that_were_corrected_since_the_patient_was_new_are_not_replaced(patient, labels):
    revision = patient.revision()
    patient.write_edits(label_map(labels))
    with pytest.raises(ChangedError):
        patient.write_edits(label_map(1 - labels), revision=revision)


def test_labels_of_another_grid_are_refused_before_anything_is_written(patient, predict, labels):
    predict()
    before = {path: path.read_bytes() for path in patient.folder.iterdir()}
    with pytest.raises(ResultsError, match="2 x 6 x 5"):
        patient.write_edits(label_map(labels[:2]), shape=SHAPE)
    assert {path: path.read_bytes() for path in patient.folder.iterdir()} == before


def test_exporting_is_noted_in_the_state_only(patient, predict):
    predict()
    revision = patient.revision()
    assert patient.mark_exported().state == "exported"
    assert patient.revision() == revision
    assert patient.status(RUN, "tiff").standing == "finished"
    assert predict(provenance=OTHER_RUN, overwrite=True).state == "segmented"


# --- labels of other programs ------------------------------------------------------------------------


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("by", ["model", "person"])
def test_labels_that_another_program_changed_are_the_users(patient, predict, labels, file_format, by):
    predict(file_format=file_format)
    if by == "person":
        patient.accept()
    changed = label_files(patient.folder, NAME, file_format)[-1]
    change_elsewhere(changed)
    before = changed.read_bytes()
    for verify in (False, True):
        status = patient.status(RUN, file_format, verify=verify)
        assert (status.state, status.by_hand, status.standing) == ("foreign", True, "corrected")
    with pytest.raises(CorrectedError, match=changed.name):
        predict(file_format=file_format, overwrite=True)
    assert changed.read_bytes() == before
    predict(file_format=file_format, replace_corrected=True)
    assert patient.status(RUN, file_format).standing == "finished"


def test_a_change_that_keeps_size_and_time_is_noticed_before_it_is_replaced(patient, predict):
    predict()
    path = labels_file(patient)
    stat, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(CorrectedError, match=path.name):
        predict(overwrite=True)
    assert patient.read().status.state == "foreign"


@pytest.mark.parametrize("file_format", FORMATS)
def test_labels_without_a_record_are_the_users(results, patient, predict, labels, file_format):
    files = write_labels(results.folder, label_map(1 - labels), file_format)
    status = patient.status(RUN, file_format)
    assert (status.state, status.standing) == ("foreign", "corrected")
    np.testing.assert_array_equal(patient.read().labels, 1 - labels)
    with pytest.raises(CorrectedError, match=files[0].name):
        predict(file_format=file_format, overwrite=True)
    assert patient.accept().state == "corrected"


def test_a_copied_folder_keeps_its_meaning(results, patient, predict, tmp_path):
    predict()
    for path in patient.folder.iterdir():  # with new times, as most programs copy
        copy = tmp_path / "copy" / NAME / path.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    copied = ResultStore(tmp_path / "copy").patient(NAME)
    assert copied.status(RUN, "tiff").standing == "finished"
    assert copied.read().probability is not None


def test_removed_masks_make_a_result_incomplete(patient, predict):
    predict(file_format="masks")
    label_files(patient.folder, NAME, "masks")[1].unlink()
    assert patient.status(RUN, "masks").standing == "in the way"
    predict(file_format="masks", overwrite=True)
    assert patient.status(RUN, "masks").standing == "finished"


def test_removed_labels_are_computed_again(patient, predict):
    predict()
    labels_file(patient).unlink()
    assert patient.status(RUN, "tiff").state == "new"
    assert predict().state == "segmented"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": 2}', '{"schema": 99, "made_by": "model"}'])
def test_labels_with_a_damaged_record_are_the_users(patient, predict, content):
    predict()
    (patient.folder / ".lgg-tiff.json").write_text(content)
    assert patient.status(RUN, "tiff").state == "foreign"
    with pytest.raises(CorrectedError):
        predict(overwrite=True)


@pytest.mark.parametrize("name", [f"{NAME}_tumour.tif", f"{NAME}_probability.tif", ".lgg-tiff.json"])
def test_a_folder_in_place_of_a_file_is_refused_before_anything_changes(patient, labels, predict, name):
    (patient.folder / name / "mine").mkdir(parents=True)
    with pytest.raises(ExportError, match="is a folder"):
        predict()
    assert [path.name for path in patient.folder.iterdir()] == [name]
    with pytest.raises(ExportError, match="is a folder"):
        patient.write_edits(label_map(labels))


def test_a_folder_that_is_reached_by_a_link_has_one_lock(results, patient, predict, tmp_path):
    predict()
    link = tmp_path / "link"
    try:
        link.symlink_to(patient.folder, target_is_directory=True)
    except OSError:
        pytest.skip("no links here")

    def take():
        with locked(link, timeout=0):
            return True

    with ThreadPoolExecutor(1) as other, locked(patient.folder), pytest.raises(BusyError):
        other.submit(take).result()


def test_a_read_only_folder_can_be_read(results, patient, predict):
    predict()
    folders = (results.folder, patient.folder)
    for folder in folders:
        folder.chmod(0o500)
    try:
        assert patient.read(SHAPE).status.state == "segmented"
        change_elsewhere(labels_file(patient))
        assert patient.status(verify=True).state == "foreign"
    finally:
        for folder in folders:
            folder.chmod(0o700)


@pytest.mark.parametrize("ending", [".tiff", ".tif"])
def test_labels_of_others_that_were_not_shown_are_not_replaced_by_edits(patient, labels, predict, ending):
    if ending == ".tif":
        patient.write_prediction(label_map(labels), "masks", provenance=RUN)
        patient.accept()
    else:
        predict()
    foreign = patient.folder / f"{NAME}_tumour{ending}"
    tifffile.imwrite(foreign, np.full(SHAPE, 5, np.uint8))
    before, revision = foreign.read_bytes(), patient.read(SHAPE).revision
    if ending == ".tif":
        with pytest.raises(ChangedError):
            patient.write_edits(label_map(1 - labels), revision=revision)
    else:
        patient.write_edits(label_map(1 - labels), revision=revision)
    assert foreign.read_bytes() == before
    predict(replace_corrected=True)
    assert patient.status(RUN, "tiff").standing == "finished"


def test_edits_of_one_run_do_not_get_the_probability_of_another(patient, predict, labels, probability):
    predict()
    revision = patient.revision()
    predict(1 - labels, provenance=OTHER_RUN, overwrite=True, probability=1 - probability)
    patient.write_edits(label_map(labels), revision=revision)
    stored = patient.read(SHAPE)
    assert stored.probability is None
    assert stored.status.uncertainty is None


def test_what_another_program_saved_after_a_crash_is_kept(patient, predict, labels):
    predict()
    committed = patient.folder / ".lgg-committed"
    committed.mkdir()
    (committed / labels_file(patient).name).write_bytes(labels_file(patient).read_bytes())
    change_elsewhere(labels_file(patient))
    before = labels_file(patient).read_bytes()
    assert patient.status().state == "foreign"
    assert labels_file(patient).read_bytes() == before
    assert not committed.exists()


@pytest.mark.parametrize("content", ["{", "[1]", "5", "[" * 5000, '["a\\u0000b"]', '[".."]'])
def test_a_damaged_list_of_removed_files_is_ignored(patient, predict, content):
    predict()
    committed = patient.folder / ".lgg-committed"
    committed.mkdir()
    (committed / ".removed.json").write_text(content)
    assert patient.status(RUN, "tiff").standing == "finished"
    assert not committed.exists()


def test_a_link_in_place_of_committed_files_is_not_followed(patient, predict, tmp_path):
    predict()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("mine")
    try:
        (patient.folder / ".lgg-committed").symlink_to(tmp_path / "mine", target_is_directory=True)
    except OSError:
        pytest.skip("no links here")
    assert patient.read(SHAPE) is not None
    assert (tmp_path / "mine" / "file").read_text() == "mine"


def test_noting_an_export_does_not_make_a_result_complete(patient, predict):
    predict(file_format="masks")
    label_files(patient.folder, NAME, "masks")[1].unlink()
    patient.mark_exported()
    assert patient.status(RUN, "masks").standing == "in the way"


# --- copies for the user -----------------------------------------------------------------------------


@pytest.mark.parametrize("by_hand", [False, True])
def test_exported_labels_carry_who_made_them(tmp_path, labels, by_hand):
    copy = ResultStore(tmp_path / "export").patient(NAME)
    files = copy.write_copy(label_map(labels), "masks", by_hand=by_hand)
    assert [path.name for path in files] == [f"{NAME}_{n}_mask.tif" for n in (1, 2, 3, 4)]
    assert copy.status().by_hand is by_hand
    with pytest.raises(ExistingMasksError):
        copy.write_copy(label_map(1 - labels), "masks", by_hand=by_hand)
    copy.write_copy(label_map(1 - labels), "masks", by_hand=by_hand, overwrite=True)
    np.testing.assert_array_equal(read_labels(copy.folder), 1 - labels)


def test_exported_labels_of_unknown_origin_stay_that(tmp_path, labels):
    copy = ResultStore(tmp_path / "export").patient(NAME)
    copy.write_copy(label_map(labels), "masks", by_hand=None)
    assert copy.status().state == "foreign"
    copy.write_copy(label_map(labels), "masks", by_hand=True, overwrite=True)
    assert copy.status().state == "corrected"
    copy.write_copy(label_map(labels), "masks", by_hand=None, overwrite=True)
    assert copy.status().state == "foreign"


def test_further_labels_get_files_of_their_own(results, patient, labels):
    files = [patient.write_more("a/b_1", label_map(labels)) for _ in range(2)]
    assert len(set(files)) == 2
    assert patient.status().state == "new"
    patient.write_edits(label_map(labels))
    assert find_by_name("labels", results.folder).patients == {NAME: labels_file(patient)}


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
            ResultStore(bad).check(dataset)
        assert str(bad) in str(error.value)
    for good in (tmp_path / "elsewhere", dataset / "results", default_results_folder(dataset)):
        ResultStore(good).check(dataset)


@pytest.mark.parametrize("file_format", FORMATS)
def test_labels_are_not_written_among_images(tmp_path, make_patient, labels, file_format):
    write_patient(tmp_path / NAME, make_patient(NAME))
    before = sorted(tmp_path.rglob("*"))
    patient = ResultStore(tmp_path).patient(NAME)
    for write in (
        lambda: patient.write_prediction(label_map(labels), file_format, replace_corrected=True),
        lambda: patient.write_edits(label_map(labels)),
        lambda: patient.write_copy(label_map(labels), file_format, by_hand=True, overwrite=True),
        lambda: patient.write_more("truth", label_map(labels)),
    ):
        with pytest.raises(ExportError, match=NAME):
            write()
    assert sorted(tmp_path.rglob("*")) == before


def test_masks_of_another_patient_are_left_alone(tmp_path, labels):
    other = ResultStore(tmp_path).patient(NAME)
    write_labels(tmp_path / "x", LabelMap("another", labels))
    (tmp_path / "x" / "another").rename(tmp_path / NAME)
    with pytest.raises(ExportError, match="another patient"):
        other.write_prediction(label_map(labels), "masks", replace_corrected=True)


def test_results_under_a_decomposed_name_are_those_of_the_patient(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "Zoë") for form in ("NFC", "NFD"))
    labels = np.zeros((2, 6, 6), np.uint8)
    labels[1, 2:4, 2:4] = 1
    folder = tmp_path / decomposed
    folder.mkdir()
    write_tiff(folder / f"{decomposed}_tumour.tif", LabelMap(decomposed, labels))
    results = ResultStore(tmp_path).patient(composed)
    assert results.status().state == "foreign"
    np.testing.assert_array_equal(results.read_labels(), labels)
    results.write_prediction(LabelMap(composed, labels * 0), overwrite=True, replace_corrected=True)
    assert [file.name for file in folder.iterdir() if file.name[0] != "."] == [f"{composed}_tumour.tif"]
    assert not results.read_labels().any()


@pytest.mark.parametrize("name", ["", "..", "../up", "a/b", ".hidden", "p ", "p.", "CON", "nul.x", "a:b"])
def test_labels_are_not_written_under_names_that_lead_elsewhere(tmp_path, make_patient, name):
    patient = dataclasses.replace(make_patient(NAME), name=name)
    labels = np.zeros(patient.shape, np.uint8)
    measured, options = measure_labels(labels), SegmentOptions()
    result = Segmentation(patient, labels, labels * np.float32(1), options, 0.5, "m", "torch", measured)
    with pytest.raises(ExportError, match="cannot be used in file names"):
        lgg.write_labels(tmp_path / "out", result)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("numbers", [(1, 150), (3, 255), (1, 2, 1000)])
@pytest.mark.parametrize("file_format", ["tiff", "nifti"])
def test_label_numbers_of_the_user_are_never_taken_for_shades_of_gray(tmp_path, numbers, file_format):
    labels = np.zeros((2, 6, 6), np.uint16)
    labels[1, 2, : len(numbers)] = numbers
    results = ResultStore(tmp_path).patient(NAME)
    results.write_copy(LabelMap(NAME, labels), file_format, by_hand=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(results.read_labels(), labels)
