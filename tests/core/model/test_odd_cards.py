"""Model cards that were damaged or made by something else: each wrong value is refused in a sentence."""

from __future__ import annotations

import copy
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from napari_lgg_seg.core.errors import ModelError
from napari_lgg_seg.core.model.checkpoint import ModelCard

PATH = Path("model.safetensors")
ROW = {"epoch": 1, "step": 2, "loss": 0.5, "learning_rate": 0.1, "minutes": 0.5, "waiting": 0.1}
CARD: dict[str, Any] = {
    "name": "a model",
    "architecture": "buda",
    "sequences": ["FLAIR"],
    "neighbouring_slices": 1,
    "preprocess": {"working_size": 160, "clip_percentile": 99.0, "head_threshold": 0.2, "margin": 3},
    "threshold": 0.4,
    "clean_up": "minor",
    "coarse_threshold": 0.01,
    "training_patients": ["a"],
    "validation_patients": ["b"],
    "earlier_patients": ["c"],
    "training": {
        "epoch": 1,
        "step": 2,
        "history": [{**ROW, "dice_mean": 0.5, "dice_median": 0.5, "below_half": 0, "missed": 0}],
    },
    "results": {
        "validation": {"b": 0.5},
        "before": {"b": 0.5},
        "seen_before": ["b"],
        "summary": {"patients": 1, "mean": 0.5, "median": 0.5, "below_half": ["b"], "missed": ["b"]},
    },
    "data": "text",
    "licence": "text",
    "created": "2025-01-01",
    "package_version": "0.1.0",
    "intended_use": "text",
    "schema_version": 1,
}
#: Values that are wrong in most places; ``is_plausible`` says where one of them may stand.
NUMBERS = [-1, 7, 1.5, 2**70, 1e308, float("nan"), float("inf")]
ODD = [*NUMBERS, True, "", "x", "\ud800", [], [1], [""], {"a": "x"}]
FREE = {"training", "results"}
TEXTS = {"name", "data", "licence", "created", "package_version", "intended_use"}
COUNTS = {"epoch", "step", "below_half", "missed", "patients"}
MEASURED = {"learning_rate", "minutes", "waiting"}


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all values within a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, inner in items for place in places(inner, (*path, key)))]


def changed(path: tuple[Any, ...], value: Any) -> str:
    card = copy.deepcopy(CARD)
    inner: Any = card
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return json.dumps(card)


def is_plausible(path: tuple[Any, ...], value: Any) -> bool:
    """Whether a value may stand in a place of the card."""
    name, *_ = [key for key in reversed(path) if isinstance(key, str)]
    before: Any = CARD
    for key in path:
        before = before[key]
    if isinstance(before, str):
        if "sequences" in path or name in ("architecture", "clean_up"):
            return False
        return value == "x" or (value == "" and name in TEXTS - {"name"})
    if isinstance(value, bool) or isinstance(before, dict):
        return value == {"a": "x"} and (name in FREE or isinstance(path[-1], int))
    if isinstance(before, list):
        return value == [] and name != "sequences"
    if value == 7:
        return name in {*COUNTS, *MEASURED, "loss", "margin", "clip_percentile"}
    if value in (1.5, 1e308):
        return name in {*MEASURED, "loss"} or (value == 1.5 and name == "clip_percentile")
    return value == -1 and name == "loss"


def card_of(text: str) -> ModelCard | None:
    """A card if it can be used; a refusal must be one sentence."""
    problem = ""
    try:
        card = ModelCard.from_json(text, PATH)
    except ModelError as error:
        problem = str(error)
    if problem:
        assert re.fullmatch(r"model\.safetensors .*\.", problem)  # without a line break
        return None
    assert ModelCard.from_json(card.to_json(), PATH) == card
    card.summary().encode()
    return card


def test_the_card_itself_is_read():
    assert card_of(json.dumps(CARD)) is not None


@pytest.mark.parametrize("path", places(CARD)[1:], ids=lambda path: ".".join(map(str, path)))
def test_only_plausible_values_are_accepted(path):
    wrong = [v for v in ODD if (card_of(changed(path, v)) is not None) != is_plausible(path, v)]
    assert wrong == []


def test_no_damage_causes_another_error():
    good = json.dumps(CARD)
    generator = random.Random(0)
    for _ in range(1000):
        place, length = generator.randrange(len(good)), generator.randrange(20)
        insert = chr(generator.randrange(1, 256)) * generator.randrange(3)
        card_of(good[:place] + insert + good[place + length :])


@pytest.mark.parametrize(
    "text",
    [
        "[" * 2000,
        "[" * 2000 + "]" * 2000,
        '{"training": ' * 2000 + "1" + "}" * 2000,
        "9" * 5000,
        '{"name": "a", "name": "b"}',
        "\ufeff{}",
        "\0",
    ],
    ids=["open lists", "lists", "objects", "large number", "a field twice", "byte order mark", "nul"],
)
def test_unusual_json_is_refused(text):
    assert card_of(text) is None
    assert card_of(f'{json.dumps(CARD)[:-1]}, "training": {{"x": {text}}}}}') is None


@pytest.mark.parametrize("name", sorted(CARD))
def test_a_field_may_not_appear_twice(name):
    assert card_of(f'{json.dumps(CARD)[:-1]}, "{name}": {json.dumps(CARD[name])}}}') is None
