"""Preferences in napari's own settings."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import npe2
import pytest
from flair_model import write_flair_model

from napari_lgg_seg import preferences as prefs
from napari_lgg_seg.layers import tumour_properties
from napari_lgg_seg.preferences import PLUGIN, SECTIONS, Preferences, preferences
from napari_lgg_seg.widgets.shared.known_models import known_models, preferred_model

pytest.importorskip("napari.settings", reason="napari keeps no settings of plugins")


@pytest.fixture(autouse=True)
def _registered(plugin_settings: Any, npe2pm: Any) -> None:
    manifest = npe2.PluginManifest.from_file(Path(prefs.__file__).parent / "napari.yaml")
    npe2pm.register(manifest)


@pytest.fixture
def settings() -> Any:
    """napari's settings of the plugin."""
    from napari.settings import get_plugin_settings

    return get_plugin_settings(PLUGIN)


def test_defaults_are_those_of_the_manifest() -> None:
    assert preferences() == Preferences()


def test_every_preference_is_in_one_section() -> None:
    names = [name for section in SECTIONS.values() for name in section]
    assert sorted(names) == sorted(field.name for field in dataclasses.fields(Preferences))


def test_settings_of_napari_are_used(settings: Any) -> None:
    settings.segmentation.device = "cpu"
    settings.display.tumour_colour = "blue"
    assert preferences().device == "cpu"
    assert tumour_properties("A")["colormap"][1] == prefs.COLOURS["blue"]


def test_an_unknown_colour_is_refused(settings: Any) -> None:
    with pytest.raises(ValueError, match="tumour_colour"):
        settings.display.tumour_colour = "something else"


def test_preferences_are_saved_for_the_next_session(settings: Any, tmp_path: Path) -> None:
    settings.files.dataset_folder = str(tmp_path)
    assert prefs.dataset_folder() == str(tmp_path)
    assert any("dataset_folder" in file.read_text() for file in tmp_path.rglob("*.yaml"))


def test_a_missing_folder_is_not_proposed(settings: Any, tmp_path: Path) -> None:
    settings.files.dataset_folder = str(tmp_path / "gone")
    assert prefs.dataset_folder() == ""


def test_the_preferred_model_is_listed(settings: Any, tmp_path: Path) -> None:
    path = write_flair_model(tmp_path / "mine.safetensors")
    settings.segmentation.model = str(path)
    assert preferred_model() == (path, "")
    assert ("mine", path) in known_models.known()
    known_models.clear()


@pytest.mark.parametrize("content", [None, b"no model"])
def test_a_preferred_model_that_cannot_be_read_is_reported(
    settings: Any, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "mine.safetensors"
    if content is not None:
        path.write_bytes(content)
    settings.segmentation.model = str(path)
    found, problem = preferred_model()
    assert found is None
    assert "shipped" in problem
    assert str(path) in problem
    assert known_models.known() == []


def test_without_the_plugin_the_defaults_hold(npe2pm: Any) -> None:
    from napari.settings import get_plugin_settings

    npe2pm.unregister(PLUGIN)
    with pytest.raises(KeyError):
        get_plugin_settings(PLUGIN)
    assert preferences() == Preferences()
