"""The script that plays the user, on a few synthetic patients; it uses the program's own parts."""

from __future__ import annotations

import json

import pytest
from flair_model import write_flair_model

pytest.importorskip("monai")

import loop

from napari_lgg_seg.core.model.checkpoint import read_card
from napari_lgg_seg.core.training.options import TrainOptions

NEW = [f"TCGA_DU_000{n}_19990101" for n in range(6)]
OLD = [f"TCGA_HT_000{n}_20000202" for n in range(5)]


@pytest.fixture
def given(tmp_path, write_cohort):
    """Dataset, folds and model; the model has seen the old patients, and the new ones are a fold."""
    dataset = write_cohort([*NEW, *OLD], slices=3)
    (tmp_path / "folds.json").write_text(json.dumps([OLD, NEW]))
    model = write_flair_model(tmp_path / "base.safetensors", training_patients=tuple(OLD))
    return dataset, tmp_path / "folds.json", model


@pytest.fixture
def play(given, tmp_path):
    """Factory: play two short rounds; returns the rows of the file."""
    dataset, folds, model = given
    file = tmp_path / "loop.json"

    def play_(**options):
        short = {"per_round": 2, "rounds": 2, "share": 0.5, "epochs": 1, "slices_per_epoch": 2, "seed": 0}
        fold = {"fold": 1, "folds": folds, "file": file, "work": tmp_path / "work"}
        loop.play(dataset, model, **{**fold, **short, **options})
        return json.loads(file.read_text())["rows"]

    return play_


def test_rounds_are_played_as_a_user_would(play, tmp_path):
    rows = play()
    assert [(row["order"], row["round"]) for row in rows] == [
        (order, number) for order in (loop.UNCERTAIN, loop.RANDOM) for number in range(3)
    ]
    plan = json.loads((tmp_path / "loop.json").read_text())["plan"]
    assert sorted(plan["pool"] + plan["untouched"]) == NEW
    assert plan["old"] == OLD
    for row in rows:
        assert sorted(row["dice"]) == sorted(plan["untouched"])
        assert len(row["corrected"]) == min(2 * row["round"], 3)
        assert set(row["corrected"]) <= set(plan["pool"])
    for row in rows[1:3]:
        uncertainty = row["uncertainty"]
        assert set(row["chosen"]) <= set(uncertainty)
        others = [uncertainty[name] for name in uncertainty if name not in row["chosen"]]
        assert all(uncertainty[name] >= other for name in row["chosen"] for other in others)
    # With the whole pool corrected, the order does not matter: nothing is trained twice.
    assert rows[5]["dice"] == rows[2]["dice"]
    assert not (tmp_path / "work" / "by-chance" / "round-2.safetensors").exists()
    card = read_card(tmp_path / "work" / "most-uncertain-first" / "round-2.safetensors")
    assert set(card.validation_patients) <= set(plan["pool"])
    assert len(set(card.training_patients) & set(OLD)) == 2
    assert not {*card.training_patients, *card.validation_patients} & set(plan["untouched"])


def test_it_resumes_where_it_was_stopped(play, monkeypatch, tmp_path):
    whole = play()
    file = tmp_path / "loop.json"
    content = json.loads(file.read_text())
    content["rows"] = content["rows"][:2] + content["rows"][3:4]
    file.write_text(json.dumps(content))
    (tmp_path / "work" / "most-uncertain-first" / "round-2.safetensors").unlink()
    rows = play()
    order = lambda row: (row["order"], row["round"])  # noqa: E731
    for before, after in zip(sorted(whole, key=order), sorted(rows, key=order), strict=True):
        assert before["corrected"] == after["corrected"]
        assert before["dice"] == pytest.approx(after["dice"], abs=0.02)
    # Finished rounds are not repeated.
    monkeypatch.setattr(loop, "train", lambda *_, **__: pytest.fail("trained again"))
    monkeypatch.setattr(loop, "score", lambda *_: pytest.fail("measured again"))
    assert play() == rows


def test_a_file_of_another_plan_is_not_changed(play, tmp_path):
    play(rounds=1)
    before = (tmp_path / "loop.json").read_text()
    with pytest.raises(loop.typer.BadParameter, match=r"loop\.json belongs to another plan"):
        play(seed=1)
    assert (tmp_path / "loop.json").read_text() == before


def test_a_model_that_has_seen_the_fold_is_refused(play):
    with pytest.raises(loop.typer.BadParameter, match="has seen TCGA_HT"):
        play(fold=0)


def test_without_a_fold_all_unseen_patients_take_part(given):
    dataset, _, model = given
    options = TrainOptions(init=str(model))
    plan = loop.make_plan(dataset, model, None, 4, 2, 1, 0.5, options)
    assert sorted(plan.pool + plan.untouched) == NEW
    assert len(plan.pool) == 4


def test_patients_without_any_tumour_found_come_first(given):
    dataset, _, model = given
    options = TrainOptions(init=str(model))
    plan = loop.make_plan(dataset, model, NEW, None, 2, 1, 0.5, options)
    status = loop.PatientStatus
    statuses = {
        "a": status(expected_dice=0.8),
        "b": status(expected_dice=0.4),
        "c": status(expected_dice=0.9, nothing_found=True),
    }
    assert loop.choose(plan, ["a", "b", "c"], statuses) == ["c", "b"]


def test_the_table_is_printed_and_the_figure_is_drawn(play, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    play(rounds=1)
    loop.show(tmp_path / "loop.json", tmp_path / "loop.png")
    assert (tmp_path / "loop.png").stat().st_size > 1000
    out = capsys.readouterr().out
    assert "random order, 2 corrected: mean Dice" in out
    # Corrected patients, of them for training and for validation, and old patients.
    assert "| random order | 2 | 1 | 1 | 1 |" in out
    assert "| most uncertain first | 0 |  |  |  |" in out


def test_the_pool_is_segmented_with_test_time_augmentation(play, monkeypatch):
    asked = []
    segment_cohort = loop.segment_cohort

    def noted(folders, output, model, options, *arguments, **keywords):
        asked.append(options)
        return segment_cohort(folders, output, model, options, *arguments, **keywords)

    monkeypatch.setattr(loop, "segment_cohort", noted)
    play(rounds=1)
    assert [options.tta for options in asked] == [True]


def test_a_model_s_own_threshold_and_clean_up_go_through_all_rounds(play, tmp_path, given):
    _, _, model = given
    write_flair_model(model, training_patients=tuple(OLD), threshold="auto", clean_up="minor")
    rows = play()
    assert len(rows) == 6
    card = read_card(tmp_path / "work" / "most-uncertain-first" / "round-2.safetensors")
    assert (card.threshold, card.clean_up) == ("auto", "minor")


def test_files_of_version_0_1_0_are_resumed(play, tmp_path):
    rows = play(rounds=1)
    content = json.loads((tmp_path / "loop.json").read_text())
    content["plan"]["options"]["an_option_that_was_removed"] = False
    (tmp_path / "loop.json").write_text(json.dumps(content))
    assert play(rounds=1) == rows
