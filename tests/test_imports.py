from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from npe2 import PluginManifest

import napari_lgg_seg

FOLDER = Path(napari_lgg_seg.__file__).parent


def modules_after(*imports: str) -> set[str]:
    """Names of the modules loaded in a fresh Python after some imports."""
    lines = [f"import {name}" for name in imports]
    code = "\n".join(["import json, sys", *lines, "print(json.dumps(sorted(sys.modules)))"])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_package_manifest_commands_and_widgets_leave_torch_alone():
    commands = PluginManifest.from_file(FOLDER / "napari.yaml").contributions.commands
    widgets = [
        ".".join(["napari_lgg_seg", *file.relative_to(FOLDER).with_suffix("").parts])
        for file in sorted((FOLDER / "widgets").rglob("[a-z]*.py"))
    ]
    names = {"napari_lgg_seg", *(command.python_name.partition(":")[0] for command in commands), *widgets}
    assert "napari_lgg_seg.widgets.segment.widget" in names
    loaded = modules_after(*sorted(names))
    assert names <= loaded
    assert not {"torch", "monai"} & loaded


@pytest.mark.parametrize("module", ["napari_lgg_seg.cli", "napari_lgg_seg.cli.app"])
def test_command_line_starts_without_anything_heavy(module):
    loaded = modules_after(module)
    assert module in loaded
    assert not {"numpy", "torch", "monai", "napari", "qtpy", "scipy", "distributed", "dask"} & loaded
