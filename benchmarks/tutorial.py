"""Do every step of docs/tutorial.md in the real window, by what it names, and make its pictures.

    python benchmarks/tutorial.py docs/tutorial

Needs a display (for instance under ``xvfb-run -s '-screen 0 1600x1000x24'``). The corrections that a person
would paint are copied from the truth. Results, recovery files and preferences go to a folder of their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = (1500, 900)


def main(pictures: Path) -> None:
    """Go through the tutorial."""
    pictures.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for kind in ("DATA", "CACHE", "CONFIG"):
            os.environ[f"XDG_{kind}_HOME"] = str(Path(folder) / kind.lower())
        _command("sample", "cohort", "--patients", "8")
        Tutorial(Path(folder), pictures).run()


class Tutorial:
    """A window in which the steps are done one after the other."""

    def __init__(self, folder: Path, pictures: Path) -> None:
        import napari

        self.folder, self.pictures = folder, pictures
        self.viewer = napari.Viewer(title="napari-lgg-seg")
        self.viewer.window.resize(*SIZE)

    def run(self) -> None:
        """All steps."""
        self._list_patients()
        self._segment_all()
        self._open_most_uncertain()
        self._correct()
        self._compare()
        self._fine_tune()
        self._segment_the_rest()
        self._report()
        self.viewer.close()

    def _list_patients(self) -> None:
        self.cohort = self._dock("Cohort")
        self.cohort.controls.dataset.value = self.folder / "cohort"
        rows = self.cohort.patients
        _wait(lambda: len(rows.rows) == 8 and all(row.details is not None for row in rows.rows))
        self._picture("1-cohort")

    def _segment_all(self) -> None:
        self.cohort.controls.segment_all.native.click()
        _wait(lambda: not self.cohort.runs.is_running)
        self._picture("2-segmented")

    def _open_most_uncertain(self) -> None:
        self.cohort.controls.uncertain_first.native.click()
        first = self.cohort.table.neighbour(None, 1, lambda _: True)
        self.cohort.table.wanted.emit(first)
        _wait(lambda: self.cohort.open_name == first)
        self._picture("3-most-uncertain")

    def _correct(self) -> None:
        widget = self._dock("Correct")
        for number in range(4):
            widget.start_button.native.click()
            tumour, truth = widget.layer.data, self.viewer.layers["truth"].data
            wrong = np.nonzero((tumour > 0) != (truth > 0))
            widget.layer.data_setitem(wrong, truth[wrong])
            if number == 0:
                self._picture("4-correct")
            widget.accept_button.native.click()
            _wait(lambda: "corrected" in widget.status.value)
            print(widget.status.value)
            if number < 3:
                before = self.cohort.open_name
                self.cohort.controls.following.native.click()
                _wait(lambda before=before: self.cohort.open_name not in (before, None))
                _wait(lambda: False, seconds=0.5)

    def _compare(self) -> None:
        self.cohort.controls.following.native.click()
        _wait(lambda: False, seconds=3)
        widget = self._dock("Compare")
        widget.button.native.click()
        _wait(lambda: widget.button.text == "Compare" and widget.button.enabled)
        _wait(lambda: False, seconds=2)
        self._picture("5-compare")

    def _fine_tune(self) -> None:
        from napari_lgg_seg.widgets.finetune_controls import CORRECTED

        widget = self._dock("Fine-tune")
        c = widget.controls
        c.source.value = CORRECTED
        c.output.value = self.folder / "tuned.safetensors"
        c.epochs.value, c.slices_per_epoch.value = 2, 64
        _wait(lambda: c.button.enabled)
        c.button.native.click()
        _wait(lambda: c.status.value.startswith("Epoch 2"), seconds=900)
        self._picture("6-fine-tune")
        _wait(lambda: c.button.text == "Start", seconds=900)
        print(c.status.value)

    def _segment_the_rest(self) -> None:
        c = self.cohort.controls
        c.model.combo.value = self.folder / "tuned.safetensors"
        c.segment_all.native.click()
        _wait(lambda: not self.cohort.runs.is_running)
        c.state.value = "segmented"
        c.uncertain_first.native.click()
        print(c.run_status.value, c.found.value)
        self._picture("7-the-rest")

    def _report(self) -> None:
        _command("report", "cohort-results", "--truth", "cohort", "--output", "report")

    # --- the window ----------------------------------------------------------------------------

    def _dock(self, name: str) -> Any:
        _, widget = self.viewer.window.add_plugin_dock_widget("napari-lgg-seg", name)
        _wait(lambda: False, seconds=2)
        return widget

    def _picture(self, name: str) -> None:
        _wait(lambda: False, seconds=1.5)
        self.viewer.window.resize(*SIZE)
        shown = Image.fromarray(self.viewer.screenshot(canvas_only=False)).convert("RGB")
        # A third of the size, and nothing lost that can be seen.
        shown.quantize(256).save(self.pictures / f"{name}.png", optimize=True)
        print(name, flush=True)


def _command(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "napari_lgg_seg", *words], check=True)


def _wait(done: Callable[[], bool], seconds: float = 300) -> None:
    """Let the window work until something holds."""
    from qtpy.QtWidgets import QApplication

    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.01)


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
