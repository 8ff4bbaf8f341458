"""The pages in docs/ agree with the scripts that write them and with the stored results."""

from __future__ import annotations

import shutil

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("monai")

import plots
import write_report


@pytest.fixture
def figures(tmp_path, monkeypatch):
    """Figures are drawn into this folder."""
    draw = plots.figure
    monkeypatch.setattr(
        plots, "figure", lambda path, *args, **kwargs: draw(tmp_path / path.name, *args, **kwargs)
    )
    return tmp_path


def test_pages_and_figures_are_those_that_the_script_writes(figures, tmp_path):
    parts = write_report.make_parts()
    unused = set(parts)
    for page in write_report.PAGES:
        copy = tmp_path / page.name
        shutil.copy(page, copy)
        write_report.fill_page(copy, parts)
        text = copy.read_text(encoding="utf-8")
        assert text == page.read_text(encoding="utf-8"), f"{page} is out of date: run write_report.py"
        unused -= {name for name in parts if f"<!-- {name} -->" in text}
    assert unused == {"folds-short"}  # for the README
    stored = {path.name for path in write_report.FIGURES.glob("*.png")}
    assert {path.name for path in figures.glob("*.png")} == stored - {"failures.png"}


def test_every_figure_is_on_a_page():
    text = "".join(page.read_text(encoding="utf-8") for page in write_report.PAGES)
    for figure in write_report.FIGURES.glob("*.png"):
        assert f"(figures/{figure.name})" in text


def test_a_page_without_a_marker_is_refused(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- loop -->\nold\n<!-- end of loop -->\n")
    write_report.fill(page, {"loop": "new"})
    assert page.read_text() == "<!-- loop -->\nnew\n<!-- end of loop -->\n"
    with pytest.raises(ValueError, match="has no part folds"):
        write_report.fill(page, {"folds": "new"})
