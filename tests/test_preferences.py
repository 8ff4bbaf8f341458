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
from napari_lgg_seg.preferences import PLUGIN, SECTIONS, Preferences, preferences, remember
from napari_lgg_seg.widgets.shared.known_models import known_models, preferred_model

pytest.importorskip("napari.settings", reason="napari keeps no settings of plugins")


@pytest.fixture(autouse=True)
def _registered(plugin_settings: Any, npe2pm: Any) -> None:
    manifest = npe2.PluginManifest.from_file(Path(prefs.__file__).parent / "napari.yaml")
    npe2pm.register(manifest)


def test_defaults_are_those_of_the_manifest() -> None:
    assert preferences() == Preferences()


def test_every_preference_is_in_one_section() -> None:
    names = [name for section in SECTIONS.values() for name in section]
    assert sorted(names) == sorted(field.name for field in dataclasses.fields(Preferences))


def test_what_is_set_in_napari_is_preferred() -> None:
    from napari.settings import get_plugin_settings

    settings = get_plugin_settings(PLUGIN)
    settings.segmentation.device = "cpu"
    settings.display.tumour_colour = "blue"
    assert preferences().device == "cpu"
    assert tumour_properties("A")["colormap"][1] == prefs.COLOURS["blue"]


def test_a_wrong_value_is_refused() -> None:
    with pytest.raises(ValueError, match="tumour_colour"):
        remember("tumour_colour", "something else")


def test_remembered_for_the_next_session(tmp_path: Path) -> None:
    remember("dataset_folder", str(tmp_path))
    assert prefs.dataset_folder() == str(tmp_path)
    assert any("dataset_folder" in file.read_text() for file in tmp_path.rglob("*.yaml"))


def test_a_folder_that_is_gone_is_not_proposed(tmp_path: Path) -> None:
    remember("dataset_folder", str(tmp_path / "gone"))
    assert prefs.dataset_folder() == ""


def test_the_preferred_model_is_in_every_list(tmp_path: Path) -> None:
    path = write_flair_model(tmp_path / "mine.safetensors")
    remember("model", str(path))
    assert preferred_model() == (path, "")
    assert ("mine", path) in known_models.known()
    known_models.clear()


@pytest.mark.parametrize("content", [None, b"no model"])
def test_a_preferred_model_that_is_none_is_a_sentence(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "mine.safetensors"
    if content is not None:
        path.write_bytes(content)
    remember("model", str(path))
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
