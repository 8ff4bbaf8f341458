"""How Sphinx builds the site: ``tox run -e docs``, then open build/site/index.html."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer
from typer.cli import get_docs_for_click

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
napoleon_use_rtype = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings have types, with shapes and units

html_theme = "pydata_sphinx_theme"  # has its fonts and icons with it: pages need no network
html_title = "napari-lgg-seg"
html_show_sourcelink = False
html_theme_options: dict[str, Any] = {
    "github_url": "https://github.com/napari-lgg-seg/napari-lgg-seg",
    "navbar_end": ["theme-switcher", "navbar-icon-links"],
    "secondary_sidebar_items": ["page-toc"],
    "navigation_with_keys": False,
}
copybutton_exclude = ".linenos, .gp, .go"


def _write_command_reference(*_: object) -> None:
    """Write the help of all commands and options as Markdown, which reference/commands.md includes."""
    group: Any = typer.main.get_command(command_line)
    group.commands = {name: command for name, command in group.commands.items() if not command.hidden}
    context = typer.Context(group)
    text = get_docs_for_click(obj=group, ctx=context, name="napari-lgg-seg", title="Command reference")
    (ROOT / "build").mkdir(exist_ok=True)
    (ROOT / "build" / "commands.md").write_text(text, encoding="utf-8")


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("config-inited", _write_command_reference)
