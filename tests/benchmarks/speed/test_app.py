"""The commands: results are stored by section, and files of version 0.1.0 are read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from speed import app

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


def test_the_folder_is_a_program():
    command = [sys.executable, str(BENCHMARKS / "speed"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "measure" in done.stdout


def test_results_are_stored_section_by_section(tmp_path, monkeypatch):
    monkeypatch.setattr(app.Settings, "prepare", lambda _: {"threads": 2})
    monkeypatch.setattr(app, "_busy", lambda: 0.0)
    monkeypatch.setattr(app, "tables", lambda sections: {name: name for name in sections})
    run = {"dataset": None, "rounds": 1, "patients": 1, "quick": True, "full": False, "file": tmp_path / "f"}
    for name in ("window", "parts"):
        monkeypatch.setitem(app.SECTIONS, name, lambda settings: {"slices": 1 / 3, "quick": settings.quick})
        app.measure(only=name, **run)
    stored = app.read_sections(tmp_path / "f")
    assert list(stored) == ["parts", "window"]
    assert stored["parts"]["slices"] == 0.33333
    assert stored["parts"]["about"]["patients"] == "synthetic"
    with pytest.raises(app.typer.BadParameter, match="speed is not a section"):
        app.measure(only="speed", **run)


def test_files_of_version_0_1_0_are_read(tmp_path):
    old = {
        "network": {
            "about": {"patients": "made"},
            "ways": {"torch windows": {"seconds": [1.0]}, "torch seen": {"problem": "no memory"}},
        }
    }
    (tmp_path / "old.json").write_text(json.dumps(old))
    assert app.read_sections(tmp_path / "old.json") == {
        "network": {
            "about": {"patients": "synthetic"},
            "methods": {
                "torch full-resolution": {"seconds": [1.0]},
                "torch coarse-to-fine": {"problem": "no memory"},
            },
        }
    }


def test_the_page_has_the_tables_of_the_stored_results():
    for name, table in app.tables(app.read_sections(app.FILE)).items():
        assert f"<!-- {name} -->\n{table}\n<!-- end of {name} -->" in app.DOCUMENT.read_text(encoding="utf-8")
