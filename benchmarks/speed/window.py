"""The window: how long it freezes during a run, and how soon it shows something.

:mod:`speed.sections` calls this in a process of its own, with a display. A timer in the window's thread fires
every few milliseconds; when it fires late, that thread was busy and the window was frozen.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

#: Milliseconds between two ticks of the timer.
TICK_MS = 5
_THRESHOLDS = (0.35, 0.62, 0.41, 0.57, 0.46, 0.66, 0.38)


class FreezeMeter:
    """Runs the event loop and measures the longest time during which the window was frozen."""

    def __init__(self) -> None:
        from qtpy.QtCore import QEventLoop, Qt, QTimer

        self._loop, self._timer = QEventLoop(), QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.setInterval(TICK_MS)
        self._timer.timeout.connect(self._tick)
        self._last = self._longest = self._end = 0.0
        self._done: Callable[[], bool] = lambda: True

    def wait_until(self, done: Callable[[], bool], seconds: float = 300) -> float:
        """Run the event loop until a condition holds; returns the longest freeze in seconds.

        Raises
        ------
        TimeoutError
            If the condition does not hold in time.
        """
        self._done, self._longest = done, 0.0
        self._last = time.perf_counter()
        self._end = self._last + seconds
        self._timer.start()
        self._loop.exec()
        self._timer.stop()
        if not done() and time.perf_counter() > self._end:
            raise TimeoutError("The window did not finish in time")
        return self._longest

    def wait(self, seconds: float) -> float:
        """Run the event loop for a while; returns the longest freeze in seconds."""
        end = time.perf_counter() + seconds
        return self.wait_until(lambda: time.perf_counter() > end)

    def _tick(self) -> None:
        now = time.perf_counter()
        self._longest = max(self._longest, now - self._last - TICK_MS / 1000)
        self._last = now
        if now > self._end or self._done():
            self._loop.quit()


def measure(folder: str, runs: int) -> dict[str, Any]:
    """Segment the sample patient ``runs`` times, then a longer patient, and change that one's threshold.

    Parameters
    ----------
    folder : str
        Folder of the longer patient.
    runs : int
        Runs on the sample patient.

    Returns
    -------
    dict
        ``runs``: the times of each run; ``threshold``: seconds from a step of the slider to new labels, and
        until they are drawn; ``slices``: number of slices of the longer patient.
    """
    import napari

    viewer = napari.Viewer(title="napari-lgg-seg")
    meter = FreezeMeter()
    viewer.open_sample("napari-lgg-seg", "sample_patient")
    _, widget = viewer.window.add_plugin_dock_widget("napari-lgg-seg", "Segment")
    meter.wait(3)
    found: dict[str, Any] = {"runs": [_run(widget, meter) for _ in range(runs)]}
    viewer.layers.clear()
    (flair, *_) = viewer.open(folder, plugin="napari-lgg-seg")
    meter.wait(1)
    _run(widget, meter)
    steps = [_set_threshold(widget, viewer, value) for value in _THRESHOLDS]
    found |= {"slices": len(flair.data), "threshold": {k: [s[k] for s in steps] for k in steps[0]}}
    viewer.close()
    return found


def _run(widget: Any, meter: FreezeMeter) -> dict[str, float]:
    """Click Segment once: seconds to the first message, the first slices and the end; the longest freeze."""
    seen: dict[str, float] = {}
    began = time.perf_counter()

    def done() -> bool:
        now = time.perf_counter() - began
        if " slices" in widget.status.value:
            seen.setdefault("first_sign", now)
        if widget.progress.visible and widget.progress.value > 0:
            seen.setdefault("first_slices", now)
        return bool(widget.button.text == "Segment")

    widget.button.native.click()
    freeze = meter.wait_until(done)
    seconds = time.perf_counter() - began
    # The result is drawn after the run, and a short run may end between two ticks.
    freeze = max(freeze, meter.wait(0.5))
    return {"first_sign": seconds, "first_slices": seconds} | seen | {"seconds": seconds, "stall": freeze}


def _set_threshold(widget: Any, viewer: Any, value: float) -> dict[str, float]:
    """Seconds from a step of the slider until the layer has its new labels, and until they are drawn."""
    from qtpy.QtWidgets import QApplication

    (tumour,) = [layer for layer in viewer.layers if layer.name.endswith(" tumour")]
    before = np.asarray(tumour.data).copy()
    QApplication.processEvents()
    began = time.perf_counter()
    widget.controls.threshold.value = value
    labels = time.perf_counter() - began
    QApplication.processEvents()
    drawn = time.perf_counter() - began
    changed = int((np.asarray(tumour.data) != before).sum())
    return {"labels": labels, "drawn": drawn, "changed_voxels": changed}
