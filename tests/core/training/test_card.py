"""The card of a trained model says how it was made and how well it did."""

from __future__ import annotations

import importlib.metadata
import platform
import sys

import pytest
import torch
from training_runs import OPTIONS, PREPROCESS, of, start, until

from napari_lgg_seg.core.errors import TrainingError
from napari_lgg_seg.core.model.checkpoint import load_model, read_card
from napari_lgg_seg.core.training import card as module
from napari_lgg_seg.core.training.events import Ended, EpochDone, StepDone

pytestmark = pytest.mark.usefixtures("narrow")


def test_card_says_how_the_model_was_made(whole_run):
    events, path = whole_run
    model = load_model(path)
    card = model.card
    assert card == read_card(path)
    assert (card.name, card.architecture) == ("whole", "unet")
    assert (card.threshold, card.clean_up) == ("auto", "minor")
    assert (card.training_patients, card.validation_patients) == (("first",), ("second",))
    assert card.earlier_patients == ()
    assert card.preprocess == PREPROCESS
    wanted = {**vars(OPTIONS.complete(fine_tuning=False)), "device": "CPU"}
    assert {name: card.training[name] for name in wanted} == wanted
    assert card.training["initial_model"] is None
    assert card.training["versions"]["python"] == platform.python_version()
    assert card.training["versions"]["torch"] == importlib.metadata.version("torch")
    first = of(events, EpochDone)[0]
    assert card.training["history"][0]["dice_mean"] == first.validation.mean
    assert card.training["history"][0]["loss"] == first.loss
    assert card.created
    assert all(torch.isfinite(tensor).all() for tensor in model.network.state_dict().values())


def test_card_has_the_results_of_the_best_epoch(whole_run):
    events, path = whole_run
    results = read_card(path).results
    assert results["validation"] == {"second": pytest.approx(events[-2].best)}
    assert results["summary"]["mean"] == pytest.approx(events[-2].best)
    assert (results["before"], results["seen_before"]) == ({}, [])


def test_a_model_that_was_never_validated_has_no_results(patients, output):
    until(start(patients, output), StepDone, 2)
    card = load_model(output).card
    assert card.results == {}
    assert (card.training["step"], card.training["epoch"]) == (2, 0)
    # The first validation is better than none.
    list(start(patients, output, resume=True, epochs=1))
    assert set(read_card(output).results["validation"]) == {"second"}


# --- without MONAI -----------------------------------------------------------------------------


@pytest.fixture
def without_monai(monkeypatch):
    """Neither the import nor the installed package is there."""

    def version(name):
        if name == "monai":
            raise importlib.metadata.PackageNotFoundError(name)
        return importlib.metadata.version(name)

    for name in [name for name in sys.modules if name.partition(".")[0] == "monai"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "monai", None)
    monkeypatch.setattr(module, "version", version)


@pytest.mark.usefixtures("without_monai")
def test_cross_entropy_trains_without_monai(patients, output):
    events = list(start(patients, output, loss="bce", epochs=1, slices_per_epoch=4))
    assert events[-1] == Ended("All 1 epochs are done.")
    versions = read_card(output).training["versions"]
    assert "monai" not in versions
    assert {"python", "torch", "numpy"} <= set(versions)


@pytest.mark.usefixtures("without_monai")
@pytest.mark.parametrize("loss", ["dice", "bce+dice"])
def test_a_loss_with_dice_needs_monai(patients, output, loss):
    with pytest.raises(TrainingError, match=r"^A loss with Dice needs MONAI; install it with [^.]*\.$"):
        list(start(patients, output, loss=loss))
    assert not output.exists()
