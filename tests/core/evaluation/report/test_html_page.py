from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from napari_lgg_seg.core.evaluation.patient_metrics import measure_cohort
from napari_lgg_seg.core.evaluation.report.html_page import Entry, write_page


class Parsed(HTMLParser):
    """Tags with their attributes, all text, and tags that were not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "br", "line"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def page_of(tmp_path: Path, patients, **more) -> tuple[str, Parsed]:
    entries = [Entry(metrics, metrics.patient.encode(errors="replace"), (30, 20)) for metrics in patients]
    write_page(tmp_path / "index.html", entries, **more)
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    return text, Parsed(text)


def test_page_is_self_contained(tmp_path, cohort_of):
    text, page = page_of(tmp_path, cohort_of([16, 4, 0]))
    assert not re.search(r"https?:|//[a-z]|@import|url\(", text)
    for _, attributes in page.tags:
        assert attributes.get("href", "#").startswith("#")
        assert attributes.get("src", "data:image/webp;base64,").startswith("data:image/webp;base64,")
    assert page.open == []
    assert [p.name for p in tmp_path.iterdir()] == ["index.html"]


def test_page_shows_every_patient_worst_first(tmp_path, boxes, measured, cohort_of):
    _, page = page_of(tmp_path, [*cohort_of([16, 0, 4]), measured(boxes(), name="without ground truth")])
    pictures = [a["src"].partition(",")[2] for tag, a in page.tags if tag == "img"]
    names = [base64.b64decode(picture).decode() for picture in pictures]
    assert names == ["P1", "P2", "P0", "without ground truth"]
    links = [a["href"] for tag, a in page.tags if tag == "a"]
    sections = [a["id"] for tag, a in page.tags if tag == "section"]
    rows = [a["data-sheet"] for tag, a in page.tags if tag == "tr" and "data-sheet" in a]
    assert rows == sections
    assert {f"#{section}" for section in sections} <= set(links)


def test_page_summarises_the_cohort(tmp_path, cohort_of):
    patients = cohort_of([16, 8, 2, 0])
    _, page = page_of(tmp_path, patients, without_prediction=["left out"], failed=["x is broken."])
    text = " ".join(" ".join(page.text).split())
    low, high = measure_cohort(patients).mean_interval
    assert f"95 % interval {low:.3f} to {high:.3f}" in text
    for words in (
        "4 patients, 4 with ground truth",
        "0.472",
        "2 of 4",
        "1 of 4",
        "Voxels on empty slices",
        "False-positive lesions",
        "left out",
        "x is broken.",
        "not a medical device",
    ):
        assert words in text


def test_page_without_ground_truth_shows_no_metrics_that_need_it(tmp_path, boxes, measured):
    _, page = page_of(tmp_path, [measured(boxes((1, 2, 2, 2, 4, 4)), name=n) for n in ("b", "a")])
    text = " ".join(page.text[page.text.index("LGG segmentation report") :])
    assert "Dice" not in text
    assert "32" in text


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>", 'a" onload="x', "a&b {{ title }} {% x %}", "Zoë 中"]
)
def test_names_are_escaped(tmp_path, boxes, measured, name):
    metrics = measured(boxes((1, 2, 2, 2, 4, 4)), boxes((1, 2, 2, 2, 4, 3)), name)
    _, page = page_of(tmp_path, [metrics], without_prediction=[name], failed=[name])
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert not any("onload" in attributes for _, attributes in page.tags)
    assert next(a["alt"] for tag, a in page.tags if tag == "img") == f"Contact sheet of {name}"
    assert name in page.text


def test_names_that_are_not_unicode_are_written(tmp_path, boxes, measured):
    text, _ = page_of(tmp_path, [measured(boxes(), name="caf\udce9")], failed=["caf\udce9 is broken."])
    assert "caf\\udce9 is broken." in text
