"""The docked Compare widget."""

from __future__ import annotations

import pytest


@pytest.fixture
def dock_compare(viewer):
    """Factory: dock the Compare widget."""
    return lambda: viewer.window.add_plugin_dock_widget("napari-lgg-seg", "Compare")[1]
