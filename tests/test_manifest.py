"""The npe2 manifest, and the metadata of the distribution."""

from __future__ import annotations

import dataclasses
import fnmatch
import importlib
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from npe2 import PluginManifest

import napari_lgg_seg
from napari_lgg_seg.preferences import AUTOMATIC, COLOURS, FIXED, MODELS_OWN, Preferences

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
def test_every_command_can_be_imported(python_name):
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


def test_reader_is_offered_for_every_slice_file_of_the_dataset():
    (reader,) = MANIFEST.contributions.readers
    assert reader.accepts_directories
    # napari lowers the patterns but not the names, so a pattern such as TCGA_*.tif would never match.
    for name in ("TCGA_DU_0001_19990101_1.tif", "TCGA_DU_0001_19990101_1_mask.tif", "patient_1.tiff"):
        assert any(fnmatch.fnmatchcase(name, pattern.lower()) for pattern in reader.filename_patterns), name


def test_stored_preferences_keep_their_keys_and_values():
    """Renaming one of them would silently reset the user's preference."""
    properties = {
        key: value
        for configuration in MANIFEST.contributions.configurations.values()
        for key, value in configuration.properties.items()
    }
    assert {*properties} == {field.name for field in dataclasses.fields(Preferences)}
    assert properties["threshold"].enum == [MODELS_OWN, AUTOMATIC, FIXED]
    for key in ("tumour_colour", "truth_colour"):
        assert properties[key].enum == list(COLOURS)


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


def test_weights_have_their_own_licence_file(distribution):
    assert distribution.metadata["License-Expression"] == "BSD-3-Clause AND CC-BY-NC-SA-4.0"
    files = distribution.metadata.get_all("License-File")
    assert sorted(files) == ["LICENSE", "src/napari_lgg_seg/models/LICENSE-WEIGHTS.md"]
    assert "NonCommercial" in (FOLDER / "models" / "LICENSE-WEIGHTS.md").read_text(encoding="utf-8")


def test_base_dependencies_include_no_qt_binding(distribution):
    base = [r for r in distribution.requires if "extra ==" not in r]
    assert not [r for r in base if r.lower().startswith(("pyqt", "pyside", "napari["))]
    assert any(
        "napari[pyqt6]" in r and "extra == 'all'" in r.replace('"', "'") for r in distribution.requires
    )
