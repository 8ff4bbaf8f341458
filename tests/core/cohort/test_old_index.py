"""Results of version 0.1.0: what its hidden files said is understood, and nothing of the user's is lost."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from label_writing import write_labels

from napari_lgg_seg.core.cohort.corrected import find_corrected
from napari_lgg_seg.core.cohort.old_index import INDEX_NAME
from napari_lgg_seg.core.data.label_files import LabelMap
from napari_lgg_seg.core.data.masks import write_patient
from napari_lgg_seg.core.data.provenance import Provenance
from napari_lgg_seg.core.errors import CorrectedError, ResultsError

NAME = "TCGA_DU_0001_19990101"
RUN = Provenance("01234567", "a model", {"threshold": None}, "0.1.0")
NUMBERS = (1, 2, 3, 4)


@pytest.fixture
def patient(results):
    return results.patient(NAME)


@pytest.fixture
def write(results, labels):
    """Write labels with the record of a command line, as version 0.1.0 did."""

    def write_(file_format="tiff"):
        files = write_labels(results.folder, LabelMap(NAME, labels, NUMBERS), file_format)
        values = {"images": RUN.images, "model": RUN.model, "options": RUN.options, "version": "0.1.0"}
        path = results.folder / NAME / f".lgg-{file_format}.json"
        path.write_text(json.dumps({**values, "engine": "torch"}))
        return files

    return write_


@pytest.fixture
def index(results):
    """Write ``cohort.json`` as the cohort browser did."""

    def index_(**values):
        results.folder.mkdir(exist_ok=True)
        known = {"state": "segmented", "by_hand": False, "uncertainty": 0.25, "made_with": {"model": "m"}}
        content = {"schema": 1, "patients": {NAME: known | values}}
        (results.folder / INDEX_NAME).write_text(json.dumps(content))

    return index_


@pytest.mark.parametrize("file_format", ["masks", "tiff", "nifti"])
def test_results_of_the_command_line_are_finished(patient, write, file_format):
    write(file_format)
    assert patient.status(RUN, file_format, NUMBERS).standing == "finished"
    assert patient.status(RUN, file_format, (1, 2, 3)).standing == (
        "in the way" if file_format == "masks" else "finished"
    )


@pytest.mark.parametrize("file_format", ["masks", "tiff", "nifti"])
def test_labels_that_were_changed_after_their_record_are_the_users(patient, write, file_format):
    file = write(file_format)[0]
    later = (patient.folder / f".lgg-{file_format}.json").stat().st_mtime_ns + 10_000_000_000
    os.utime(file, ns=(later, later))
    assert patient.status(RUN, file_format, NUMBERS).state == "foreign"


def test_states_of_the_cohort_browser_are_read(results, patient, index, labels):
    write_labels(results.folder, LabelMap(NAME, labels), "tiff")
    for values, state, by_hand in (
        ({}, "segmented", False),
        ({"state": "corrected", "by_hand": True}, "corrected", True),
        ({"state": "exported", "by_hand": True}, "exported", True),
        ({"state": "exported"}, "exported", False),
    ):
        index(**values)
        status = patient.status()
        assert (status.state, status.by_hand, status.uncertainty) == (state, by_hand, 0.25)
        assert status.made_with == {"model": "m"}


def test_corrected_labels_stay_protected_and_are_trained_on(
    results, patient, write, index, labels, tmp_path, make_patient
):
    write()  # the record beside them said that a model made them
    index(state="corrected", by_hand=True)
    write_patient(tmp_path / "cohort" / NAME, make_patient(NAME, shape=(4, 64, 64)))
    assert list(find_corrected(tmp_path / "cohort", results.folder).patients) == [NAME]
    for file_format in ("tiff", "masks"):
        with pytest.raises(CorrectedError):
            patient.write_prediction(
                LabelMap(NAME, labels, NUMBERS), file_format, provenance=RUN, overwrite=True
            )
    status = patient.write_edits(LabelMap(NAME, 1 - labels, NUMBERS))
    assert (status.state, status.uncertainty) == ("corrected", 0.25)
    # From now on, their own record counts.
    index()
    assert patient.status().state == "corrected"


@pytest.mark.parametrize("by_hand", [False, True])
def test_labels_that_are_younger_than_all_records_are_another_programs(
    results, patient, index, labels, by_hand
):
    (file,) = write_labels(results.folder, LabelMap(NAME, labels), "tiff")
    index(by_hand=by_hand)
    later = (results.folder / INDEX_NAME).stat().st_mtime_ns + 10_000_000_000
    os.utime(file, ns=(later, later))
    assert patient.status().state == "foreign"


def test_a_damaged_record_is_not_replaced_by_what_an_older_version_said(patient, index, labels):
    patient.write_edits(LabelMap(NAME, labels, NUMBERS))
    index()
    (patient.folder / ".lgg-tiff.json").write_text("{")
    assert patient.status().state == "foreign"


def test_labels_that_were_removed_are_new(patient, index):
    index(state="corrected", by_hand=True)
    assert patient.status().state == "new"


def of_patient(entry, **others):
    return json.dumps({"schema": 1, "patients": {NAME: entry, **others}})


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "[" * 2000,
        '{"schema": 1}',
        '{"schema": 1, "patients": []}',
        '{"schema": 1, "patients": {}, "patients": {}}',
        of_patient(3),
        of_patient(None),
        of_patient({}),
        of_patient({"state": "lost"}),
        of_patient({"state": "new", "by_hand": 1}),
        of_patient({"state": "new", "nothing_found": "no"}),
        of_patient({"state": "new", "made_with": ["model"]}),
        of_patient({"state": "new", "made_with": {"options": "none"}}),
        of_patient({"state": "new", "uncertainty": "much"}),
        of_patient({"state": "new", "uncertainty": float("nan")}),
        of_patient({"state": "new", "expected_dice": 2}),
    ],
)
def test_a_damaged_file_is_reported_before_anything_is_replaced(results, patient, labels, content):
    (file,) = write_labels(results.folder, LabelMap(NAME, labels), "tiff")
    (results.folder / INDEX_NAME).write_text(content)
    before = file.read_bytes()
    for act in (
        patient.status,
        lambda: patient.write_prediction(LabelMap(NAME, np.zeros_like(labels)), overwrite=True),
    ):
        with pytest.raises(ResultsError, match=r"cohort\.json") as error:
            act()
        assert str(error.value).endswith(".")
        assert "\n" not in str(error.value)
    assert file.read_bytes() == before


def test_a_file_that_is_no_file_is_reported(results, patient, labels):
    write_labels(results.folder, LabelMap(NAME, labels), "tiff")
    (results.folder / INDEX_NAME).mkdir()
    with pytest.raises(ResultsError, match=r"cohort\.json cannot be read for .* \(it is a folder\); .*\.$"):
        patient.status()


def test_a_damaged_entry_concerns_only_its_patient(results, patient, labels):
    write_labels(results.folder, LabelMap(NAME, labels), "tiff")
    content = of_patient({"state": "corrected"}, other={"state": "lost"})
    (results.folder / INDEX_NAME).write_text(content)
    assert patient.status().state == "corrected"


def test_fields_of_later_versions_are_ignored(results, patient, index, labels):
    write_labels(results.folder, LabelMap(NAME, labels), "tiff")
    index(mood="good")
    assert patient.status().state == "segmented"
