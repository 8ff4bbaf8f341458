"""Options of segmentations and trainings: limits, help, defaults, and their effect on labels."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from napari_lgg_seg.core.choices import OptionsError
from napari_lgg_seg.core.inference.postprocess import postprocess
from napari_lgg_seg.core.model.checkpoint import ModelCard
from napari_lgg_seg.core.options import SegmentOptions, label_options, option_help
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
    [name] = wrong
    label = name.replace("_", " ")
    with pytest.raises(OptionsError, match=rf"(?i)^(a )?{label} .*; choose .*\.$"):
        SegmentOptions(**wrong)


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(SegmentOptions)])
def test_each_option_says_what_it_does(field: str) -> None:
    assert option_help(field).endswith(".")


@pytest.fixture
def probability() -> np.ndarray:
    """A ring of 32 voxels with a hole, a separate component of 4, and a voxel of low probability."""
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


def test_options_that_are_not_set_are_the_models_own(probability: np.ndarray) -> None:
    card = ModelCard("model", threshold=0.85, clean_up="largest")
    assert int(postprocess(probability, card.complete(SegmentOptions())).sum()) == 32
    chosen = card.complete(SegmentOptions(threshold=0.2, clean_up="off"))
    assert int(postprocess(probability, chosen).sum()) == 37
    assert ModelCard("model", threshold="auto").complete(SegmentOptions()).threshold == "auto"


def test_components_that_touch_at_a_corner_or_across_slices_are_one() -> None:
    probability = np.zeros((2, 4, 4), np.float32)
    probability[0, 0, 0] = probability[1, 1, 1] = 1
    labels = postprocess(probability, SegmentOptions(clean_up="largest"))
    assert int(labels.sum()) == 2


def test_minor_components_are_those_below_a_quarter_of_the_largest() -> None:
    probability = np.zeros((2, 12, 12), np.float32)
    probability[0, :4, :10] = 1
    probability[0, 8, :10] = 1
    probability[0, 11, :9] = 1
    labels = postprocess(probability, SegmentOptions(clean_up="minor"))
    assert int(labels.sum()) == 50


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"device": "cpu", "batch_size": 3, "engine": "openvino"}, {}),
        ({"engine": "openvino-int8"}, {"engine": "openvino-int8"}),
        ({"full_resolution": True}, {"look": "thorough"}),
        ({"thorough": True}, {"look": "thorough"}),
        ({"thorough": False}, {}),
        ({"threshold": 0.4, "tta": True}, {"threshold": 0.4, "tta": True}),
    ],
    ids=str,
)
def test_options_that_decide_the_labels(options: dict[str, object], expected: dict[str, object]) -> None:
    """Also of version 0.1.0, whose option was called thorough."""
    assert label_options(options) == expected


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
        {"small_share": 2},
        {"warm_up": 1.5},
        {"average_decay": 1},
        {"augmentation": -0.5},
        {"small_size": 8},
        {"loss": "bce+tversky"},
        {"threshold": 0},
        {"clean_up": "x"},
        {"network": "resnet"},
        {"sequences": "t2"},
        {"neighbouring_slices": -1},
        {"neighbouring_slices": 4},
        {"optimiser": "sgd"},
    ],
    ids=str,
)
def test_values_of_a_training_outside_their_limits_are_refused(wrong: dict[str, object]) -> None:
    [name] = wrong
    label = name.replace("_", " ")
    with pytest.raises(OptionsError, match=rf"(?i)^(a )?{label} .*; choose .*\.$"):
        TrainOptions(**wrong)


@pytest.mark.parametrize(
    "right",
    [
        {"patience": 0, "learning_rate": 0, "weight_decay": 0, "max_minutes": 0, "warm_up": 0},
        {"tumour_share": 0, "small_share": 1, "warm_up": 1},
        {"average_decay": 0, "small_size": 16, "epochs": 1, "slices_per_epoch": 1, "batch_size": 1},
        {"loss": "bce+dice", "network": "buda", "sequences": "flair", "seed": 0},
        {"neighbouring_slices": 0, "augmentation": 0},
        {"neighbouring_slices": 3},
    ],
    ids=str,
)
def test_values_at_their_limits_are_allowed(right: dict[str, object]) -> None:
    assert {name: getattr(TrainOptions(**right), name) for name in right} == right


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(TrainOptions)])
def test_each_option_of_a_training_says_what_it_does(field: str) -> None:
    assert option_help(field, TrainOptions).endswith(".")


@pytest.mark.parametrize("name", ["crop_share", "draw", "freeze_encoder"])
def test_removed_options_are_no_fields(name: str) -> None:
    with pytest.raises(TypeError, match=name):
        TrainOptions(**{name: 0})


#: Options without a default: they are the initial model's, or None has a meaning.
WITHOUT_DEFAULT = {"init", "network", "sequences", "neighbouring_slices", "max_minutes"}

#: Options whose default is the initial model's in fine-tuning.
FROM_THE_MODEL = {"threshold", "clean_up"}


@pytest.mark.parametrize("fine_tuning", [True, False])
def test_complete_options_have_all_defaults(fine_tuning: bool) -> None:
    complete = TrainOptions().complete(fine_tuning=fine_tuning)
    missing = WITHOUT_DEFAULT | FROM_THE_MODEL if fine_tuning else WITHOUT_DEFAULT
    assert {name for name, value in vars(complete).items() if value is None} == missing
    if not fine_tuning:
        assert complete.complete(fine_tuning=True) == complete


@pytest.mark.parametrize(
    ("fine_tuning", "expected"),
    [
        (
            True,
            {
                "optimiser": "adamw",
                "epochs": 10,
                "slices_per_epoch": 160,
                "learning_rate": 1e-3,
                "average_decay": 0.995,
                "small_share": 0.0,
                "validate_every": 1,
            },
        ),
        (
            False,
            {
                "optimiser": "muon",
                "epochs": 12,
                "slices_per_epoch": 1280,
                "learning_rate": 2e-3,
                "average_decay": 0.998,
                "small_share": 0.65,
                "validate_every": 2,
                "threshold": "auto",
                "clean_up": "minor",
            },
        ),
    ],
)
def test_defaults_are_those_of_version_0_1_0(fine_tuning: bool, expected: dict[str, object]) -> None:
    complete = TrainOptions().complete(fine_tuning=fine_tuning)
    assert {name: getattr(complete, name) for name in expected} == expected


@pytest.mark.parametrize("fine_tuning", [True, False])
def test_chosen_values_stay(fine_tuning: bool) -> None:
    chosen = {"epochs": 7, "slices_per_epoch": 8, "learning_rate": 0, "small_share": 0, "validate_every": 3}
    complete = TrainOptions(**chosen).complete(fine_tuning=fine_tuning)
    assert {name: getattr(complete, name) for name in chosen} == chosen


@pytest.mark.parametrize(
    ("name", "summary"),
    [
        ("epochs", "By default 10 for fine-tuning, 12 from scratch."),
        ("optimiser", "By default adamw for fine-tuning, muon from scratch."),
        ("learning_rate", "By default 0.001 for fine-tuning, 0.002 from scratch."),
        ("batch_size", "By default 8."),
        ("loss", "By default bce."),
        ("init", ""),
        ("clean_up", ""),
        ("max_minutes", ""),
    ],
)
def test_summary_of_a_default(name: str, summary: str) -> None:
    assert default_summary(name) == summary


def test_the_help_names_each_default() -> None:
    """Where there is no summary, the help says what happens by default, or the option is off."""
    for field in dataclasses.fields(TrainOptions):
        described = default_summary(field.name) or "default" in option_help(field.name, TrainOptions)
        assert described or field.name == "max_minutes"
