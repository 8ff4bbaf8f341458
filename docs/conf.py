"""How Sphinx builds the site: ``tox run -e docs``, then open build/site/index.html."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import typer
from typer.cli import get_docs_for_click
from typer.core import MARKUP_MODE_KEY

from napari_lgg_seg import __version__
from napari_lgg_seg.cli.app import app as command_line

ROOT = Path(__file__).parents[1]

project = "napari-lgg-seg"
author = "The napari-lgg-seg developers"
copyright = f"{author}, BSD 3-Clause"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["experiments"]
myst_heading_anchors = 3

napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True  # DEFAULT_MODEL, not where it lies on this machine
autodoc_typehints = "none"  # the docstrings have types, with shapes and units

html_theme = "furo"  # has fonts and icons with it: pages need no network
html_title = "napari-lgg-seg"
html_copy_source = False
html_theme_options = {
    "source_repository": "https://github.com/napari-lgg-seg/napari-lgg-seg/",
    "source_branch": "main",
    "source_directory": "docs/",
}


def _write_command_reference(*_: object) -> None:
    """Write the help of all commands and options as Markdown, which reference/commands.md includes."""
    group: Any = typer.main.get_command(command_line)
    group.commands = {name: command for name, command in group.commands.items() if not command.hidden}
    context = typer.Context(group, obj={MARKUP_MODE_KEY: "rich"})
    text = get_docs_for_click(obj=group, ctx=context, name="napari-lgg-seg", title="Command reference")
    (ROOT / "build").mkdir(exist_ok=True)
    (ROOT / "build" / "commands.md").write_text(text, encoding="utf-8")


def _add_help_of_options(_app: Any, _what: str, _name: str, found: Any, _: Any, lines: list[str]) -> None:
    """Document the fields of options by their help texts."""
    if isinstance(found, type) and dataclasses.is_dataclass(found):
        helps = {field.name: field.metadata.get("help") for field in dataclasses.fields(found)}
        lines += [f":ivar {name}: {text}" for name, text in helps.items() if text]


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("config-inited", _write_command_reference)
    app.connect("autodoc-process-docstring", _add_help_of_options, priority=900)  # after napoleon
