"""The experiments: folds, and the options of stored runs."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("monai")

import experiment
from results import EXPERIMENTS, load


def test_the_folds_are_those_that_are_stored():
    stored = json.loads(experiment.FOLDS.read_text(encoding="utf-8"))
    names = [name for fold in stored for name in fold]
    assert len(names) == len(set(names)) == 90
    assert experiment.make_folds(names) == stored


@pytest.mark.parametrize("name", {**experiment.QUESTIONS, **experiment.RECIPE, **experiment.FOLD})
def test_every_stored_run_can_be_repeated(name):
    runs = load(name).runs
    assert runs
    for run in runs:
        options = experiment.training_options(run["options"])
        assert (options.seed, options.loss) == (run["fold"], run["options"]["loss"])


def test_a_run_that_needs_an_option_that_was_removed_is_refused():
    stored = {"epochs": 3, "crop_share": 0.0, "freeze_encoder": False, "draw": "slices"}
    assert experiment.training_options(stored).epochs == 3
    with pytest.raises(experiment.typer.BadParameter, match="option frozen was removed; repeat"):
        experiment.training_options({"frozen": True})


def test_a_plan_leaves_finished_runs_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "DOCS", tmp_path)
    (tmp_path / "experiments").mkdir()
    finished = tmp_path / "experiments" / "baseline-fold0.json"
    finished.write_text('{"patients": []}')
    experiment.plan()
    assert finished.read_text() == '{"patients": []}'
    planned = {path.name for path in (tmp_path / "experiments").iterdir()}
    assert planned <= {path.name for path in EXPERIMENTS.iterdir()}
    assert json.loads((tmp_path / "experiments" / "fold-fold3.json").read_text())["options"]["seed"] == 3
