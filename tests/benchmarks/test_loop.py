"""The script that plays the user, on a few made patients: it is the program's own parts that it uses."""

from __future__ import annotations

import json

import pytest
from flair_model import write_flair_model

pytest.importorskip("monai")

from napari_lgg_seg.core.data.masks import write_patient
from napari_lgg_seg.core.model.checkpoint import read_card
from napari_lgg_seg.core.training import train

NEW = [f"TCGA_DU_000{n}_19990101" for n in range(6)]
OLD = [f"TCGA_HT_000{n}_20000202" for n in range(5)]


@pytest.fixture(scope="module")
def loop(benchmarks):
    """The script as a module."""
    import loop as script

    return script


@pytest.fixture
def given(tmp_path, make_patient):
    """Dataset, folds and model; the model knows the old patients, the fold is the new ones."""
    for seed, name in enumerate([*NEW, *OLD]):
        head = {"shape": (2, 64, 64), "seed": seed}
        write_patient(tmp_path / "data" / name, make_patient(name, **head))
    (tmp_path / "folds.json").write_text(json.dumps([OLD, NEW]))
    model = write_flair_model(tmp_path / "base.safetensors", training_patients=tuple(OLD))
    return tmp_path / "data", tmp_path / "folds.json", model


@pytest.fixture
def play(loop, given, tmp_path):
    """Factory: play two short rounds; gives the rows of the file."""
    dataset, folds, model = given
    file = tmp_path / "loop.json"

    def play_(**options):
        short = {"per_round": 2, "rounds": 2, "share": 0.5, "epochs": 1, "slices_per_epoch": 2, "seed": 0}
        fold = {"fold": 1, "folds": folds, "file": file, "work": tmp_path / "work"}
        loop.play(dataset, model, **{**fold, **short, **options})
        return json.loads(file.read_text())["rows"]

    return play_


def test_rounds_are_as_a_user_would_have_played_them(play, loop, tmp_path):
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
        doubts = row["uncertainty"]
        assert set(row["chosen"]) <= set(doubts)
        others = [doubts[name] for name in doubts if name not in row["chosen"]]
        assert all(doubts[name] >= other for name in row["chosen"] for other in others)
    # Where all of the pool are corrected, the order does not matter: nothing is trained twice.
    assert rows[5]["dice"] == rows[2]["dice"]
    assert not (tmp_path / "work" / "by-chance" / "round-2.safetensors").exists()
    card = read_card(tmp_path / "work" / "most-uncertain-first" / "round-2.safetensors")
    assert set(card.validation_patients) <= set(plan["pool"])
    assert len(set(card.training_patients) & set(OLD)) == 2
    assert not {*card.training_patients, *card.validation_patients} & set(plan["untouched"])


def test_it_goes_on_where_it_was_stopped(play, loop, monkeypatch, tmp_path):
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
    # What is done is not done again.
    monkeypatch.setattr(loop, "train", lambda *_, **__: pytest.fail("trained again"))
    monkeypatch.setattr(loop, "score", lambda *_: pytest.fail("measured again"))
    assert play() == rows


def test_a_file_of_another_plan_is_left_alone(play, loop, tmp_path):
    play(rounds=1)
    before = (tmp_path / "loop.json").read_text()
    with pytest.raises(loop.typer.BadParameter, match=r"loop\.json is of another plan"):
        play(seed=1)
    assert (tmp_path / "loop.json").read_text() == before


def test_a_model_that_has_seen_the_fold_is_refused(play, loop):
    with pytest.raises(loop.typer.BadParameter, match="has seen TCGA_HT"):
        play(fold=0)


def test_without_a_fold_all_unseen_patients_take_part(loop, given):
    dataset, _, model = given
    options = train.TrainOptions(init=str(model))
    plan = loop.make_plan(dataset, model, None, 4, 2, 1, 0.5, options)
    assert sorted(plan.pool + plan.untouched) == NEW
    assert len(plan.pool) == 4


def test_where_nothing_was_found_comes_first(loop, given):
    dataset, _, model = given
    options = train.TrainOptions(init=str(model))
    plan = loop.make_plan(dataset, model, NEW, None, 2, 1, 0.5, options)
    status = loop.PatientStatus
    statuses = {
        "a": status(expected_dice=0.8),
        "b": status(expected_dice=0.4),
        "c": status(expected_dice=0.9, nothing_found=True),
    }
    assert loop.choose(plan, ["a", "b", "c"], statuses) == ["c", "b"]


def test_figures_are_drawn(play, loop, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    play(rounds=1)
    loop.show(tmp_path / "loop.json", tmp_path / "loop.png")
    assert (tmp_path / "loop.png").stat().st_size > 1000
    out = capsys.readouterr().out
    assert "by chance, 2 corrected: mean Dice" in out
    assert "| by chance | 2 | 1 | 1 | 1 |" in out  # of the table: who trained, who validated, old patients
    assert "| most uncertain first | 0 |  |  |  |" in out


def test_the_pool_is_segmented_as_the_widget_proposes_it(play, loop, monkeypatch):
    asked = []
    predictor_for = loop.predictor_for
    monkeypatch.setattr(
        loop, "predictor_for", lambda m, options: asked.append(options) or predictor_for(m, options)
    )
    play(rounds=1)
    assert [options.tta for options in asked] == [True]


def test_a_model_s_own_threshold_and_clean_up_go_through_all_rounds(play, loop, tmp_path, given):
    _, _, model = given
    write_flair_model(model, training_patients=tuple(OLD), threshold="auto", clean_up="minor")
    rows = play()
    assert len(rows) == 6
    card = read_card(tmp_path / "work" / "most-uncertain-first" / "round-2.safetensors")
    assert (card.threshold, card.clean_up) == ("auto", "minor")


def test_the_page_says_the_same_as_the_script(play, loop, monkeypatch, tmp_path):
    pytest.importorskip("matplotlib")
    import write_report

    play(rounds=1)
    for script, name in ((loop, "loop"), (write_report.uncertainty, "uncertainty")):
        monkeypatch.setattr(script, "FILE", tmp_path / f"{name}.json")
        monkeypatch.setattr(script, "FIGURE", tmp_path / f"{name}.png")
    parts = write_report.review()
    assert list(parts) == ["loop"]  # nobody measured the other
    assert parts["loop"] == loop.table(json.loads((tmp_path / "loop.json").read_text()))
    page = tmp_path / "page.md"
    page.write_text((write_report.DOCS / "review-loop.md").read_text())
    write_report.fill(page, parts)
    assert parts["loop"] in page.read_text()
    assert (tmp_path / "loop.png").stat().st_size > 1000
