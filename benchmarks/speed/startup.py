"""What the plugin adds to napari's start-up, measured in a process that starts a viewer.

    python -m speed.startup with|without BEGAN

prints the seconds from BEGAN (``time.time()`` of the parent process) until the viewer exists. "without" hides
the plugin from napari, as if it were not installed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Any

PLUGIN = "napari-lgg-seg"


def main(plugin: str, began: str) -> None:
    """Start a viewer and print how long that took."""
    if plugin == "without":
        hide(PLUGIN)
    import napari
    from qtpy.QtWidgets import QApplication

    viewer = napari.Viewer(show=False)
    QApplication.processEvents()
    print(time.time() - float(began))
    viewer.close()


def hide(name: str) -> None:
    """Hide an installed package from ``importlib.metadata`` in this process."""
    found = metadata.distributions

    def others(**context: Any) -> Iterator[metadata.Distribution]:
        return (package for package in found(**context) if package.name != name)

    metadata.distributions = others


def plugin_methods() -> list[Callable[[], dict[str, float]]]:
    """Seconds that npe2 spends on the plugin at napari's start-up, and how many of its modules are loaded."""
    from npe2 import PluginManager, PluginManifest

    def register() -> dict[str, float]:
        manager = PluginManager()
        began = time.perf_counter()
        manager.register(PluginManifest.from_distribution(PLUGIN), warn_disabled=False)
        seconds = time.perf_counter() - began
        return {"seconds": seconds, "modules": sum(n.startswith("napari_lgg_seg") for n in sys.modules)}

    return [register]


if __name__ == "__main__":
    main(*sys.argv[1:])
