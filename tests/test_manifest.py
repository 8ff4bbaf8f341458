from __future__ import annotations

import importlib
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from npe2 import PluginManifest

import napari_lgg_seg

PACKAGE = "napari-lgg-seg"
FOLDER = Path(napari_lgg_seg.__file__).parent
MANIFEST = PluginManifest.from_file(FOLDER / "napari.yaml")
COMMANDS = {command.id: command.python_name for command in MANIFEST.contributions.commands}


def test_npe2_accepts_the_manifest():
    command = [sys.executable, "-m", "npe2", "validate", PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Manifest for 'LGG segmentation' valid" in done.stdout


@pytest.mark.parametrize("python_name", COMMANDS.values(), ids=COMMANDS)
def test_command_is_there_to_be_called(python_name):
    module, _, name = python_name.partition(":")
    assert callable(getattr(importlib.import_module(module), name))


def test_contributions_refer_to_commands():
    contributions = MANIFEST.contributions
    named = [
        c.command
        for kind in ("readers", "writers", "sample_data", "widgets")
        for c in getattr(contributions, kind)
    ]
    named += [binding.command for binding in contributions.keybindings]
    named += [item.command for items in contributions.menus.values() for item in items]
    assert set(named) == set(COMMANDS)


def test_manifest_keeps_clear_of_what_npe2_0_9_refuses():
    text = (FOLDER / "napari.yaml").read_text(encoding="utf-8")
    assert "default_dock_area" not in text
    assert "tabify" not in text


def test_reader_takes_folders_and_leaves_other_files_alone():
    (reader,) = MANIFEST.contributions.readers
    assert reader.accepts_directories
    assert all(
        pattern.islower() and pattern.endswith((".tif", ".tiff")) for pattern in reader.filename_patterns
    )


# --- what the napari hub and installers read -------------------------------------------------------


@pytest.fixture(scope="module")
def distribution() -> metadata.Distribution:
    return metadata.distribution(PACKAGE)


def test_entry_points_name_manifest_and_program(distribution):
    found = {(entry.group, entry.name): entry.value for entry in distribution.entry_points}
    assert found["napari.manifest", PACKAGE] == "napari_lgg_seg:napari.yaml"
    assert found["console_scripts", PACKAGE] == "napari_lgg_seg.cli.app:main"


def test_metadata_has_classifier_links_and_version(distribution):
    classifiers = distribution.metadata.get_all("Classifier")
    assert "Framework :: napari" in classifiers
    links = {link.partition(",")[0] for link in distribution.metadata.get_all("Project-URL")}
    assert {"Bug Tracker", "Documentation", "Source Code", "User Support"} <= links
    assert distribution.version == napari_lgg_seg.__version__
    assert distribution.metadata["Requires-Python"] == ">=3.11"


def test_weights_have_a_licence_of_their_own_beside_them(distribution):
    assert distribution.metadata["License-Expression"] == "BSD-3-Clause AND CC-BY-NC-SA-4.0"
    files = distribution.metadata.get_all("License-File")
    assert sorted(files) == ["LICENSE", "src/napari_lgg_seg/models/LICENSE-WEIGHTS.md"]
    assert "NonCommercial" in (FOLDER / "models" / "LICENSE-WEIGHTS.md").read_text(encoding="utf-8")


def test_no_qt_binding_among_the_base_dependencies(distribution):
    base = [r for r in distribution.requires if "extra ==" not in r]
    assert not [r for r in base if r.lower().startswith(("pyqt", "pyside", "napari["))]
    assert any(
        "napari[pyqt6]" in r and "extra == 'all'" in r.replace('"', "'") for r in distribution.requires
    )
