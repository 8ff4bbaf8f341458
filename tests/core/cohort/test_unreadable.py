"""One patient's folder or results that the system refuses are that patient's failure, and no one else's."""

from __future__ import annotations

import builtins
import errno
import io
import os
from pathlib import Path

import numpy as np
import pytest

import napari_lgg_seg as lgg
from napari_lgg_seg.core.atomic import check_name
from napari_lgg_seg.core.cohort.corrected import find_corrected
from napari_lgg_seg.core.cohort.patient_job import PatientFailed, PatientSegmented
from napari_lgg_seg.core.cohort.store import ResultStore
from napari_lgg_seg.core.data.label_files import LabelMap
from napari_lgg_seg.core.data.listing import list_patients
from napari_lgg_seg.core.data.masks import write_patient
from napari_lgg_seg.core.errors import ExportError
from napari_lgg_seg.core.options import SegmentOptions

NAMES = ("TCGA_CS_0003_20000303", "TCGA_DU_0001_19990101", "TCGA_HT_0002_20000202")
BAD = NAMES[1]
#: Which functions of the system fail, and how.
FAULTS = [
    (("scandir", "listdir"), errno.EACCES),
    (("scandir", "listdir", "stat"), errno.ESTALE),
    (("scandir", "listdir", "stat", "open"), errno.EIO),
    (("stat", "open"), errno.EACCES),
    (("open",), errno.EIO),
]


@pytest.fixture
def breaks(monkeypatch):
    """Function that lets the system refuse a folder and whatever is in it."""

    def break_(folder: Path, functions: tuple[str, ...], code: int) -> None:
        def refusing(original, inside_only):
            def refuse(path=".", *args, **kwargs):
                if not isinstance(path, int):
                    found = Path(os.fsdecode(path))
                    if folder in found.parents or (found == folder and not inside_only):
                        raise OSError(code, os.strerror(code), str(path))
                return original(path, *args, **kwargs)

            return refuse

        for name in functions:
            if name == "open":
                opening = refusing(builtins.open, False)
                monkeypatch.setattr(builtins, "open", opening)
                monkeypatch.setattr(io, "open", opening)
            else:
                # What is in a folder cannot be asked for if the folder cannot; the folder itself can.
                monkeypatch.setattr(os, name, refusing(getattr(os, name), name == "stat"))

    return break_


def outcomes(events) -> dict[str, type]:
    return {e.folder.name: type(e) for e in events if isinstance(e, PatientSegmented | PatientFailed)}


def sentences(events) -> list[str]:
    return [event.sentence for event in events if isinstance(event, PatientFailed)]


EXPECTED = {name: PatientFailed if name == BAD else PatientSegmented for name in NAMES}


@pytest.mark.parametrize(("functions", "code"), FAULTS)
def test_a_patient_folder_that_cannot_be_read_fails_alone(cohort, model, tmp_path, breaks, functions, code):
    breaks(cohort / BAD, functions, code)
    events = list(lgg.segment_cohort(cohort, tmp_path / "out", model, SegmentOptions(device="cpu")))
    assert outcomes(events) == EXPECTED
    (sentence,) = sentences(events)
    assert str(cohort / BAD) in sentence
    assert os.strerror(code) in sentence


@pytest.mark.parametrize("file_format", ["masks", "tiff"])
@pytest.mark.parametrize(("functions", "code"), FAULTS[:4])
def test_results_that_cannot_be_read_fail_alone(
    cohort, model, tmp_path, breaks, functions, code, file_format
):
    out, options = tmp_path / "out", SegmentOptions(device="cpu")
    list(lgg.segment_cohort(cohort, out, model, options, file_format))
    breaks(out / BAD, functions, code)
    events = list(lgg.segment_cohort(cohort, out, model, options, file_format, overwrite=True))
    assert outcomes(events) == EXPECTED
    (sentence,) = sentences(events)
    assert str(out / BAD) in sentence
    assert "could not be read" in sentence or "was made or changed by another program" in sentence
    assert "free space" not in sentence


@pytest.mark.parametrize(("functions", "code"), FAULTS[:3])
def test_statuses_and_corrected_labels_of_the_others_are_read(cohort, tmp_path, breaks, functions, code):
    results = ResultStore(tmp_path / "results")
    for name in NAMES:
        results.patient(name).write_edits(LabelMap(name, np.zeros((4, 64, 64), np.uint8), (1, 2, 3, 4)))
    breaks(results.folder / BAD, functions, code)
    statuses = results.statuses(NAMES)
    assert list(statuses.found) == [NAMES[0], NAMES[2]]
    assert list(statuses.problems) == [BAD]
    found = find_corrected(cohort, results.folder)
    assert list(found.patients) == [NAMES[0], NAMES[2]]
    (problem,) = found.problems
    assert problem == statuses.problems[BAD]
    assert f"{results.folder / BAD} could not be read ({os.strerror(code)})" in problem


@pytest.mark.parametrize(("functions", "code"), FAULTS[:2])
def test_a_table_lists_a_folder_that_cannot_be_read(cohort, tmp_path, breaks, functions, code):
    breaks(cohort / BAD, functions, code)
    listed = list_patients(cohort, tmp_path / "results")
    assert list(listed.folders) == list(NAMES)
    assert list(listed.problems) == [BAD]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
@pytest.mark.parametrize("file_format", ["masks", "tiff", "nifti"])
@pytest.mark.parametrize("name", ["A:B", "A\\B", "A?", "A\udcff"])
def test_a_name_is_refused_in_every_format_or_in_none(
    cohort, model, make_patient, tmp_path, file_format, name
):
    folder = cohort / "named"
    write_patient(folder, make_patient("NAME", shape=(4, 64, 64)))
    for file in folder.iterdir():
        file.rename(folder / file.name.replace("NAME", name))
    out = tmp_path / "out"
    events = list(lgg.segment_cohort(cohort, out, model, SegmentOptions(device="cpu"), file_format))
    assert outcomes(events) == {**dict.fromkeys(NAMES, PatientSegmented), "named": PatientFailed}
    assert "rename" in sentences(events)[0]
    assert sorted(path.name for path in out.iterdir()) == sorted(NAMES)


def test_labels_that_are_too_large_are_not_called_negative(tmp_path):
    results = ResultStore(tmp_path).patient("A")
    for value, expected in ((10**12, "must not be larger than"), (-1, "must not be negative")):
        with pytest.raises(ExportError, match=expected):
            results.write_edits(LabelMap("A", np.full((1, 2, 2), value)))
    check_name("A")
