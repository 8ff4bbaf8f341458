"""Validation during a training: Dice of each validation patient over the whole volume."""

from __future__ import annotations

import time
from collections.abc import Generator

import numpy as np

from ..errors import PatientError, TrainingError
from ..evaluation.metrics import dice
from ..inference.postprocess import postprocess
from ..inference.predict import Notice, Predictor
from ..model.checkpoint import Model
from ..options import SegmentOptions
from .card import model_card
from .events import PatientValidated, TrainEvent
from .patients import load_patient
from .run import Run


def validate(run: Run) -> Generator[TrainEvent, None, None]:
    """Segment the validation patients with the averaged weights; add their Dice to the history.

    Several processes share the patients.

    Yields
    ------
    SlicesDone, PatientValidated or Notice
        A notice for each patient that cannot be read, and once if no patient shows tumour.

    Raises
    ------
    TrainingError
        If no patient can be read.
    """
    began = time.monotonic()
    model = Model(run.averaged, model_card(run), run.output)
    # Other engines would have to convert the weights for each validation.
    predictor = Predictor(model, run.options.device, engine="torch")
    options = model.card.complete(SegmentOptions())
    own, scores, shows_tumour = run.processes.share(run.validation), {}, False
    for number, source in enumerate(own, 1):
        try:
            patient = load_patient(source)
        except PatientError as error:
            yield Notice(f"Left out: {error}")
            continue
        assert patient.volume is not None
        assert patient.truth is not None
        shows_tumour = shows_tumour or bool(patient.truth.any())
        labels = postprocess((yield from predictor.predict(patient.volume)), options)
        if patient.slices_without_mask:
            labels[np.isin(patient.slice_numbers, patient.slices_without_mask)] = 0
        scores[patient.name] = dice(labels, patient.truth)
        yield PatientValidated(patient.name, scores[patient.name], labels, number, len(own))
    scores = run.processes.merged(scores)
    if not scores:
        raise TrainingError("No validation patient could be read; see the notice about each.")
    if not run.processes.any(shows_tumour, run.device) and not any(record.scores for record in run.history):
        yield Notice(
            "No mask of the validation patients marks tumour, so their Dice says nothing about tumours: "
            "it is 1 if nothing is found."
        )
    run.add_validation(scores, seconds=time.monotonic() - began)
