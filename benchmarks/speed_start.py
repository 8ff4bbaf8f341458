"""What the plugin adds to napari's start, measured in a process that starts a viewer.

    python benchmarks/speed_start.py with|without BEGAN

prints seconds since BEGAN (``time.time()`` of who started it) until the viewer is there. "without" hides the
plugin from napari, as if it were not installed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Any

PLUGIN = "napari-lgg-seg"


def main(word: str, began: str) -> None:
    """Start a viewer and say how long it took."""
    hide(PLUGIN if word == "without" else "no such plugin")
    import napari
    from qtpy.QtWidgets import QApplication

    viewer = napari.Viewer(show=False)
    QApplication.processEvents()
    print(time.time() - float(began))
    viewer.close()


def hide(name: str) -> None:
    """Let this process not find an installed package."""
    found = metadata.distributions

    def others(**context: Any) -> Iterator[metadata.Distribution]:
        return (package for package in found(**context) if package.name != name)

    metadata.distributions = others


def plugin_ways() -> list[Callable[[], dict[str, float]]]:
    """Seconds in what npe2 does for the plugin at napari's start, and how many of its modules are there."""
    from npe2 import PluginManager, PluginManifest

    def read() -> dict[str, float]:
        manager = PluginManager()
        began = time.perf_counter()
        manager.register(PluginManifest.from_distribution(PLUGIN), warn_disabled=False)
        seconds = time.perf_counter() - began
        return {"seconds": seconds, "modules": sum(n.startswith("napari_lgg_seg") for n in sys.modules)}

    return [read]


if __name__ == "__main__":
    main(*sys.argv[1:])
