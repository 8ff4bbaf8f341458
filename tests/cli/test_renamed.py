"""Commands and options of version 0.1.0 still work, and say what they are called now."""

from __future__ import annotations

import pytest
from program import NAME, OTHER

from napari_lgg_seg.cli.renamed import translated
from napari_lgg_seg.core.training import train
from napari_lgg_seg.core.training.events import Ended
from napari_lgg_seg.core.training.options import TrainOptions


@pytest.fixture
def cohort_of_two(write, dataset):
    """A dataset of two patients."""
    write(NAME)
    write(OTHER)
    return dataset


@pytest.fixture
def options_given(monkeypatch) -> list[TrainOptions]:
    """Let nothing be trained; holds the options of each training that would have been."""
    given: list[TrainOptions] = []

    def train_(training, validation, output, options, **keywords):
        given.append(options)
        yield Ended("All is done.")

    monkeypatch.setattr(train, "train", train_)
    return given


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ("segment a --output b", "segment a --output b"),
        ("segment a --thorough --output b", "segment a --full-resolution --output b"),
        ("segment a --engine torch-compile", "segment a --engine torch"),
        ("segment a --engine=torch-compile", "segment a --engine torch"),
        ("segment a --engine openvino", "segment a --engine openvino"),
        ("segment -- --thorough", "segment -- --thorough"),
        ("train a --tumour-share 0.3 --epochs 2", "train a --set tumour_share=0.3 --epochs 2"),
        ("train a --neighbouring-slices=2", "train a --set neighbouring_slices=2"),
        ("train a --freeze-encoder --resume", "train a --resume"),
        ("train --crop-share 0.5 --draw patients a", "train a"),
        ("train --draw=patients a", "train a"),
        ("quick-look m a --device cpu", "calibrate-coarse m a --device cpu"),
        ("evaluate --thorough a", "evaluate --thorough a"),
        ("", ""),
    ],
)
def test_earlier_arguments_become_todays(before, now):
    arguments, warnings = translated(before.split())
    assert arguments == now.split()
    assert bool(warnings) is (before != now)


def test_each_renamed_option_of_a_training_is_a_setting(run, cohort_of_two, options_given, output):
    old = {
        "neighbouring-slices": 1,
        "slices-per-epoch": 4,
        "optimiser": "adamw",
        "validate-every": 3,
        "average-decay": 0.5,
        "tumour-share": 0.4,
        "small-size": 64,
        "small-share": 0.2,
        "augmentation": 0.5,
    }
    words = [word for name, value in old.items() for word in (f"--{name}", value)]
    done = run("train", cohort_of_two, "--output", output, "--init", "scratch", *words)
    assert done.code == 0, done.err
    expected = {name.replace("-", "_"): value for name, value in old.items()}
    assert options_given == [TrainOptions(init="scratch", **expected)]
    for name, value in old.items():
        assert f"Warning: --{name} {value} is now --set {name.replace('-', '_')}={value}." in done.err


def test_removed_options_are_named(run, cohort_of_two, options_given, output):
    done = run("train", cohort_of_two, "--output", output, "--freeze-encoder", "--crop-share", 0.5)
    assert done.code == 0, done.err
    assert "Warning: --freeze-encoder was removed and has no effect." in done.err
    assert "Warning: --crop-share was removed and has no effect." in done.err
    assert options_given == [TrainOptions()]


def test_segment_at_full_resolution_by_its_old_name(segment, write, dataset, masks):
    done = segment(write(), "--thorough")
    assert done.code == 0, done.err
    assert "Warning: --thorough is now --full-resolution." in done.err
    assert len(list(masks.rglob("*_mask.tif"))) == 6
    again = segment(dataset / NAME, "--full-resolution")
    assert "already finished" in again.err
