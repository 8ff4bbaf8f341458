"""The command ``demo --window``."""

from __future__ import annotations

import napari
import pytest
from window import threads_done

from napari_lgg_seg.cli import app

pytestmark = pytest.mark.real_window


@pytest.fixture
def viewer(make_napari_viewer):
    """A viewer whose window is shown."""
    return make_napari_viewer(show=True)


def test_demo_and_menu_share_one_segment_widget(viewer, menu_action, monkeypatch, wait_until):
    monkeypatch.setattr(napari, "Viewer", lambda **_: viewer)
    monkeypatch.setattr(napari, "run", lambda: None)
    app._open_window()
    assert "ground truth" in viewer.layers
    assert list(viewer.window.dock_widgets) == ["Segment (LGG segmentation)"]
    widget = viewer.window.dock_widgets["Segment (LGG segmentation)"].native
    wait_until(widget.isVisible)
    action = menu_action("Layers", "Segment", "Segment")
    action.trigger()
    wait_until(lambda: not widget.isVisible())
    action.trigger()
    wait_until(widget.isVisible)
    assert list(viewer.window.dock_widgets) == ["Segment (LGG segmentation)"]
    wait_until(threads_done)
