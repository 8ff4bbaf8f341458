"""Options: limits, help, what is left open, and what post-processing does with them."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from napari_lgg_seg.core.choices import OptionsError, parse_threshold
from napari_lgg_seg.core.inference.postprocess import postprocess
from napari_lgg_seg.core.model.checkpoint import ModelCard
from napari_lgg_seg.core.options import SegmentOptions, option_help
from napari_lgg_seg.core.training.options import TrainOptions, default_summary


@pytest.mark.parametrize(
    "wrong",
    [
        {"threshold": 0},
        {"threshold": 1.2},
        {"threshold": "high"},
        {"clean_up": "x"},
        {"smallest_volume": 0},
        {"batch_size": 0},
        {"engine": "x"},
    ],
)
def test_values_outside_their_limits_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(OptionsError, match="choose"):
        SegmentOptions(**wrong)


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(SegmentOptions)])
def test_each_option_says_what_it_does(field: str) -> None:
    assert option_help(field).endswith(".")


@pytest.fixture
def probability() -> np.ndarray:
    """A ring of 32 voxels with a hole, a piece of 4 that touches nothing, and a faint voxel."""
    volume = np.zeros((3, 12, 12), np.float32)
    volume[1, 1:7, 1:7] = 0.9
    volume[1, 3:5, 3:5] = 0.1
    volume[1, 9:11, 9:11] = 0.8
    volume[2, 0, 0] = 0.3
    return volume


@pytest.mark.parametrize(
    ("options", "voxels"),
    [
        ({}, 36),
        ({"threshold": 0.2}, 37),
        ({"threshold": 0.85}, 32),
        ({"clean_up": "largest"}, 32),
        ({"clean_up": "small", "smallest_volume": 5}, 32),
        ({"clean_up": "small", "smallest_volume": 4}, 36),
        ({"clean_up": "minor"}, 32),
        ({"clean_up": "minor", "threshold": 0.95}, 0),
        ({"fill_holes": True}, 40),
        ({"clean_up": "largest", "fill_holes": True}, 36),
        ({"threshold": 0.95, "clean_up": "largest", "fill_holes": True}, 0),
    ],
)
def test_options_change_labels(probability: np.ndarray, options: dict[str, object], voxels: int) -> None:
    labels = postprocess(probability, SegmentOptions(**options))
    assert labels.dtype == np.uint8
    assert int(labels.sum()) == voxels


def test_what_is_left_open_is_the_models_own(probability: np.ndarray) -> None:
    card = ModelCard("model", threshold=0.85, clean_up="largest")
    assert int(postprocess(probability, card.complete(SegmentOptions())).sum()) == 32
    chosen = card.complete(SegmentOptions(threshold=0.2, clean_up="off"))
    assert int(postprocess(probability, chosen).sum()) == 37
    assert ModelCard("model", threshold="auto").complete(SegmentOptions()).threshold == "auto"


@pytest.mark.parametrize(("text", "threshold"), [("auto", "auto"), ("0.35", 0.35), ("1", 1.0)])
def test_a_threshold_as_it_is_typed(text: str, threshold: float | str) -> None:
    assert parse_threshold(text) == threshold


@pytest.mark.parametrize("text", ["half", "", "0", "1.5", "nan", "Auto"])
def test_what_is_no_threshold_is_refused(text: str) -> None:
    with pytest.raises(OptionsError, match=r"^A threshold of .*; choose for instance 0\.5, or 'auto'\.$"):
        parse_threshold(text)


def test_pieces_that_touch_by_a_corner_or_across_slices_are_one() -> None:
    probability = np.zeros((2, 4, 4), np.float32)
    probability[0, 0, 0] = probability[1, 1, 1] = 1
    labels = postprocess(probability, SegmentOptions(clean_up="largest"))
    assert int(labels.sum()) == 2


def test_minor_pieces_are_those_below_a_quarter_of_the_largest() -> None:
    probability = np.zeros((2, 12, 12), np.float32)
    probability[0, :4, :10] = 1
    probability[0, 8, :10] = 1
    probability[0, 11, :9] = 1
    labels = postprocess(probability, SegmentOptions(clean_up="minor"))
    assert int(labels.sum()) == 50


# --- training ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"slices_per_epoch": 0},
        {"batch_size": 0},
        {"validate_every": 0},
        {"patience": -1},
        {"learning_rate": -1e-9},
        {"learning_rate": math.nan},
        {"weight_decay": -1},
        {"max_minutes": -1},
        {"tumour_share": 1.1},
        {"crop_share": -0.1},
        {"small_share": 2},
        {"warm_up": 1.5},
        {"average_decay": 1},
        {"augmentation": -0.5},
        {"small_size": 8},
        {"loss": "focal"},
        {"threshold": 0},
        {"clean_up": "x"},
        {"network": "resnet"},
        {"sequences": "t2"},
        {"neighbouring_slices": -1},
        {"neighbouring_slices": 4},
    ],
    ids=str,
)
def test_values_of_a_training_outside_their_limits_are_refused(wrong: dict[str, object]) -> None:
    [name] = wrong
    with pytest.raises(OptionsError, match=rf"^An? {name.replace('_', '.')} .*choose .*\.$"):
        TrainOptions(**wrong)


@pytest.mark.parametrize(
    "right",
    [
        {"patience": 0, "learning_rate": 0, "weight_decay": 0, "max_minutes": 0, "warm_up": 0},
        {"tumour_share": 0, "crop_share": 1, "small_share": 1, "warm_up": 1},
        {"average_decay": 0, "small_size": 16, "epochs": 1, "slices_per_epoch": 1, "batch_size": 1},
        {"loss": "bce+tversky", "network": "buda", "sequences": "flair", "seed": -3},
        {"neighbouring_slices": 0, "augmentation": 0},
        {"neighbouring_slices": 3},
    ],
    ids=str,
)
def test_values_at_their_limits_are_taken(right: dict[str, object]) -> None:
    assert {name: getattr(TrainOptions(**right), name) for name in right} == right


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(TrainOptions)])
def test_each_option_of_a_training_says_what_it_does(field: str) -> None:
    assert option_help(field, TrainOptions).endswith(".")


#: Options that mean something where they are not given.
OPEN = {"init", "network", "sequences", "neighbouring_slices", "max_minutes"}

#: Options that fine-tuning takes from the initial model.
FROM_THE_MODEL = {"threshold", "clean_up"}


@pytest.mark.parametrize("fine_tuning", [True, False])
def test_complete_options_leave_nothing_open(fine_tuning: bool) -> None:
    complete = TrainOptions().complete(fine_tuning=fine_tuning)
    still_open = OPEN | FROM_THE_MODEL if fine_tuning else OPEN
    assert {name for name, value in vars(complete).items() if value is None} == still_open
    if not fine_tuning:
        assert complete.complete(fine_tuning=True) == complete


def test_fine_tuning_takes_fewer_and_smaller_steps() -> None:
    tuning, scratch = (TrainOptions().complete(fine_tuning=f) for f in (True, False))
    assert tuning.epochs * tuning.slices_per_epoch < scratch.epochs * scratch.slices_per_epoch
    assert tuning.learning_rate < scratch.learning_rate
    assert tuning.small_share == 0


@pytest.mark.parametrize("fine_tuning", [True, False])
def test_what_is_chosen_stays(fine_tuning: bool) -> None:
    chosen = {"epochs": 7, "slices_per_epoch": 8, "learning_rate": 0, "small_share": 0, "validate_every": 3}
    complete = TrainOptions(**chosen).complete(fine_tuning=fine_tuning)
    assert {name: getattr(complete, name) for name in chosen} == chosen


def test_help_names_both_defaults() -> None:
    left_open = {name for name, value in vars(TrainOptions()).items() if value is None}
    for name in left_open - OPEN - FROM_THE_MODEL:
        tuning, scratch = (getattr(TrainOptions().complete(fine_tuning=f), name) for f in (True, False))
        shown = [v if isinstance(v, str) else f"{v:g}" for v in (tuning, scratch)]
        assert default_summary(name) == f"By default {shown[0]} from a model, {shown[1]} from scratch."
