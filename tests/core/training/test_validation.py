"""Validation of a training: the Dice of each validation patient over the whole volume."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from training_runs import of, start, until

from napari_lgg_seg.core.evaluation.metrics import dice
from napari_lgg_seg.core.training import validation
from napari_lgg_seg.core.training.events import EpochDone, PatientValidated

pytestmark = pytest.mark.usefixtures("narrow")


def test_slices_without_a_mask_do_not_count(patients, output, monkeypatch):
    training, [patient] = patients
    truth = patient.truth.copy()
    truth[1:] = 0
    patient = dataclasses.replace(patient, truth=truth, slices_without_mask=patient.slice_numbers[1:])
    monkeypatch.setattr(
        validation, "postprocess", lambda probability, options: np.ones(probability.shape, np.uint8)
    )
    events = until(start((training, [patient]), output, epochs=1, slices_per_epoch=4), PatientValidated)
    assert events[-1].labels[0].all()
    assert not events[-1].labels[1:].any()
    assert events[-1].dice == dice(np.ones_like(truth[0]), truth[0])


def test_the_mean_is_over_patients(patients, output, make_patient, scores):
    scores(0.2, 0.8)
    sets = patients[0], [*patients[1], make_patient("third", shape=(2, 64, 64), seed=2)]
    events = list(start(sets, output, epochs=1, slices_per_epoch=4))
    found = [(event.name, event.dice, event.done, event.total) for event in of(events, PatientValidated)]
    assert found == [("second", 0.2, 1, 2), ("third", 0.8, 2, 2)]
    [epoch] = of(events, EpochDone)
    assert epoch.validation.mean == pytest.approx(0.5)
    assert epoch.validation.below_half == ("second",)
