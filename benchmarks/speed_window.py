"""The window: how long its thread stalls during a run, and how soon it shows something.

Started by :mod:`speed_sections` in a process of its own, with a display. A timer in the window's thread
beats every few milliseconds; when it is late, the thread was busy and the window stood still.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

#: Milliseconds between two beats.
BEAT_MS = 5
_STEPS = (0.35, 0.62, 0.41, 0.57, 0.46, 0.66, 0.38)


class Heartbeat:
    """Lets the window work, and knows the longest time for which it stood still meanwhile."""

    def __init__(self) -> None:
        from qtpy.QtCore import QEventLoop, Qt, QTimer

        self._loop, self._timer = QEventLoop(), QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.setInterval(BEAT_MS)
        self._timer.timeout.connect(self._beat)
        self._last = self._longest = self._end = 0.0
        self._over: Callable[[], bool] = lambda: True

    def until(self, over: Callable[[], bool], seconds: float = 300) -> float:
        """Let the window work until something holds; returns the longest stall in seconds.

        Raises
        ------
        TimeoutError
            If it does not hold in time.
        """
        self._over, self._longest = over, 0.0
        self._last = time.perf_counter()
        self._end = self._last + seconds
        self._timer.start()
        self._loop.exec()
        self._timer.stop()
        if not over() and time.perf_counter() > self._end:
            raise TimeoutError("The window did not come to an end")
        return self._longest

    def rest(self, seconds: float) -> None:
        """Let the window work for a while."""
        end = time.perf_counter() + seconds
        self.until(lambda: time.perf_counter() > end)

    def _beat(self) -> None:
        now = time.perf_counter()
        self._longest = max(self._longest, now - self._last - BEAT_MS / 1000)
        self._last = now
        if now > self._end or self._over():
            self._loop.quit()


def measure(folder: str, runs: int) -> dict[str, Any]:
    """Segment the sample patient ``runs`` times, then a longer patient, whose threshold is moved.

    Parameters
    ----------
    folder : str
        The longer patient's.
    runs : int
        Of the sample patient.

    Returns
    -------
    dict
        ``runs``: what each took; ``threshold``: seconds from a step of the slider to new labels, and until
        they are drawn; ``slices``: of the longer patient.
    """
    import napari

    viewer = napari.Viewer(title="napari-lgg-seg")
    heartbeat = Heartbeat()
    viewer.open_sample("napari-lgg-seg", "sample_patient")
    _, widget = viewer.window.add_plugin_dock_widget("napari-lgg-seg", "Segment")
    heartbeat.rest(3)
    found: dict[str, Any] = {"runs": [_run(widget, heartbeat) for _ in range(runs)]}
    viewer.layers.clear()
    (flair, *_) = viewer.open(folder, plugin="napari-lgg-seg")
    heartbeat.rest(1)
    _run(widget, heartbeat)
    steps = [_move_threshold(widget, viewer, value) for value in _STEPS]
    found |= {"slices": len(flair.data), "threshold": {k: [s[k] for s in steps] for k in steps[0]}}
    viewer.close()
    return found


def _run(widget: Any, heartbeat: Heartbeat) -> dict[str, float]:
    """One click on Segment: seconds to the first sign, the first slices and the end; the longest stall."""
    seen: dict[str, float] = {}
    began = time.perf_counter()

    def over() -> bool:
        now = time.perf_counter() - began
        if " slices" in widget.status.value:
            seen.setdefault("first_sign", now)
        if widget.progress.visible and widget.progress.value > 0:
            seen.setdefault("first_slices", now)
        return bool(widget.button.text == "Segment")

    widget.button.native.click()
    stall = heartbeat.until(over)
    seconds = time.perf_counter() - began
    # A run may be over between two beats.
    stall = max(stall, _drawing(heartbeat))
    return {"first_sign": seconds, "first_slices": seconds} | seen | {"seconds": seconds, "stall": stall}


def _drawing(heartbeat: Heartbeat) -> float:
    """The longest stall in the moment after, when what is new is drawn."""
    end = time.perf_counter() + 0.5
    return heartbeat.until(lambda: time.perf_counter() > end)


def _move_threshold(widget: Any, viewer: Any, value: float) -> dict[str, float]:
    """Seconds from a step of the slider until the layer has its labels, and until they are drawn."""
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
