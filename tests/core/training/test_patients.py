"""Patients that a training reads: in memory, in folders, or unusable."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from training_runs import about, notices, of, start, step_losses, until

from napari_lgg_seg.core.data.masks import write_patient
from napari_lgg_seg.core.errors import PatientError, TrainingError
from napari_lgg_seg.core.model.checkpoint import read_card
from napari_lgg_seg.core.training.events import PatientRead, StepDone
from napari_lgg_seg.core.training.patients import load_patient, source_name

pytestmark = pytest.mark.usefixtures("narrow")


class Files:
    """A patient whose files are read on demand."""

    def __init__(self, patient):
        self.name, self._patient = patient.name, patient

    def read(self):
        return self._patient


@pytest.mark.parametrize("kind", ["memory", "folder", "files"])
def test_a_patient_is_loaded_from_any_source(make_patient, tmp_path, kind):
    patient = make_patient("first", shape=(3, 32, 32))
    write_patient(tmp_path / "first", patient)
    source = {"memory": patient, "folder": tmp_path / "first", "files": Files(patient)}[kind]
    assert source_name(source) == "first"
    loaded = load_patient(source)
    np.testing.assert_array_equal(loaded.volume, patient.volume)
    np.testing.assert_array_equal(loaded.truth, patient.truth)


@pytest.mark.parametrize("missing", ["truth", "volume"])
def test_a_patient_without_masks_or_images_cannot_be_loaded(make_patient, missing):
    patient = dataclasses.replace(make_patient("first"), **{missing: None})
    with pytest.raises(PatientError, match=r"^first has no images or no masks; .*\.$"):
        load_patient(patient)
    with pytest.raises(PatientError, match=r"^first has no images or no masks; .*\.$"):
        load_patient(Files(patient))


def test_a_patient_in_both_sets_is_refused(patients, output):
    training, validation = patients
    with pytest.raises(TrainingError, match=r"^first is in both training and validation; .*\.$"):
        next(start((training, validation + training), output))
    assert not output.exists()


@pytest.mark.parametrize("where", [0, 1])
def test_a_patient_that_occurs_twice_is_refused(patients, output, where):
    sets = list(patients)
    sets[where] = 2 * sets[where]
    with pytest.raises(TrainingError, match=rf"^{sets[where][0].name} occurs twice; .*\.$"):
        next(start(sets, output))


@pytest.mark.parametrize("empty", [0, 1])
def test_an_empty_set_is_refused(patients, output, empty):
    sets = list(patients)
    sets[empty] = []
    with pytest.raises(TrainingError, match="at least one patient"):
        next(start(sets, output))


@pytest.mark.parametrize("missing", ["truth", "volume"])
@pytest.mark.parametrize("where", [0, 1])
def test_a_patient_without_masks_or_images_is_left_out(patients, output, where, missing, make_patient):
    sets = [list(patients[0]), list(patients[1])]
    sets[where].append(dataclasses.replace(make_patient("third"), **{missing: None}))
    events = list(start(sets, output, epochs=1, slices_per_epoch=4))
    [text] = notices(events)
    assert text.startswith("Left out: third has no images or no masks")
    assert set(read_card(output).results["validation"]) == {"second"}
    assert read_card(output).training_patients == ("first",)


@pytest.mark.parametrize("where", [0, 1])
def test_a_set_without_usable_patients_is_refused(patients, output, where):
    sets = list(patients)
    sets[where] = [dataclasses.replace(sets[where][0], truth=None)]
    with pytest.raises(TrainingError, match=r"patient could be read; .*\.$"):
        list(start(sets, output, epochs=1, slices_per_epoch=4))


def test_folders_are_read_and_damaged_ones_left_out(patients, output, make_patient, tmp_path, whole_run):
    damaged = make_patient("third", shape=(3, 32, 32))
    for patient in (*patients[0], *patients[1], damaged):
        write_patient(tmp_path / patient.name, patient)
    bad = tmp_path / "third" / "third_2.tif"
    bad.write_bytes(bad.read_bytes()[:-50])
    sets = [tmp_path / "third", tmp_path / "first"], [tmp_path / "second"]
    events = until(start(sets, output), StepDone)
    [text] = notices(events)
    assert text.startswith("Left out: ")
    assert str(bad) in text
    assert [(e.name, e.done, e.total) for e in of(events, PatientRead)] == [("third", 1, 2), ("first", 2, 2)]
    # The same as with patients in memory.
    assert step_losses(events) == about(step_losses(whole_run[0])[:1])
    assert read_card(output).training_patients == ("first",)
