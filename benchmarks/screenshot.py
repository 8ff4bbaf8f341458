"""Make the README's picture: the real window with the sample patient and its result.

    python benchmarks/screenshot.py docs/segment.png

Needs a display (for instance under ``xvfb-run``).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable


def main(path: str) -> None:
    """Open the sample patient, click Segment, wait, save the picture."""
    import napari
    from qtpy.QtWidgets import QApplication

    viewer = napari.Viewer(title="napari-lgg-seg")
    viewer.window.resize(1280, 800)
    viewer.open_sample("napari-lgg-seg", "sample_patient")
    _, widget = viewer.window.add_plugin_dock_widget("napari-lgg-seg", "Segment")

    def wait(done: Callable[[], bool], seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while not done() and time.monotonic() < end:
            QApplication.processEvents()
            time.sleep(0.01)

    wait(lambda: False, seconds=3)
    widget.button.native.click()
    wait(lambda: widget.button.text == "Segment")
    wait(lambda: False, seconds=1)
    viewer.screenshot(path, canvas_only=False)
    print(widget.status.value)
    viewer.close()


if __name__ == "__main__":
    main(sys.argv[1])
