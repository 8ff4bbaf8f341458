"""Do every step of docs/tutorial.md in the real window, by what it names, and make its pictures.

    python benchmarks/tutorial.py docs/tutorial

Needs a display (for instance under ``xvfb-run -s '-screen 0 1600x1000x24'``). The corrections that a person
would paint are copied from the ground truth. Results, autosaved edits and preferences go to a folder of
their own.
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
        self._take_the_masks()
        self.viewer.close()

    def _list_patients(self) -> None:
        self.cohort = self._dock("Cohort")
        self._type("Patients", str(self.folder / "cohort"))
        rows = self.cohort.patients
        _wait(lambda: len(rows.rows) == 8 and all(row.summary is not None for row in rows.rows))
        self._picture("1-cohort")

    def _segment_all(self) -> None:
        self._click("Segment all")
        _wait(lambda: not self.cohort.runs.is_running)
        self._picture("2-segmented")

    def _open_most_uncertain(self) -> None:
        self._click("Most uncertain first")
        first = self._double_click_first_row()
        _wait(lambda: self.cohort.open_name == first)
        self._picture("3-most-uncertain")

    def _correct(self) -> None:
        widget = self._dock("Correct")
        for number in range(4):
            self._click("Correct")
            tumour, truth = widget.layer.data, self.viewer.layers["ground truth"].data
            wrong = np.nonzero((tumour > 0) != (truth > 0))
            widget.layer.data_setitem(wrong, truth[wrong])
            if number == 0:
                self._picture("4-correct")
            self._click("Accept", widget)
            _wait(lambda: "corrected" in widget.status.value)
            print(widget.status.value)
            if number < 3:
                self._next()

    def _compare(self) -> None:
        self._next()
        widget = self._dock("Compare")
        self._click("Compare")
        _wait(lambda: widget.button.text == "Compare" and widget.button.enabled)
        _rest(2)
        self._picture("5-compare")

    def _fine_tune(self) -> None:
        from napari_lgg_seg.widgets.finetune.controls import CORRECTED

        c = self._dock("Fine-tune").controls
        c.source.value = CORRECTED
        c.output.value = self.folder / "tuned.safetensors"
        c.epochs.value, c.slices_per_epoch.value = 2, 64
        _wait(lambda: c.button.enabled)
        self._click("Start")
        _wait(lambda: c.status.value.startswith("Epoch 2"), seconds=900)
        self._picture("6-fine-tune")
        _wait(lambda: c.button.text == "Start", seconds=900)
        print(c.status.value)

    def _segment_the_rest(self) -> None:
        c = self.cohort.controls
        c.model.combo.value = self.folder / "tuned.safetensors"
        self._click("Segment all")
        _wait(lambda: not self.cohort.runs.is_running)
        c.state.value = "segmented"
        self._click("Most uncertain first")
        print(c.run_status.value, c.found.value)
        self._picture("7-the-rest")

    def _take_the_masks(self) -> None:
        from qtpy.QtWidgets import QFileDialog

        masks = self.folder / "masks"
        masks.mkdir()
        self.cohort.controls.state.value = "All states"
        self.cohort.table.selectAll()
        choose, QFileDialog.getExistingDirectory = QFileDialog.getExistingDirectory, lambda *_: str(masks)
        self._click("Export masks...", self.cohort)
        QFileDialog.getExistingDirectory = choose
        _wait(lambda: len(list(masks.iterdir())) == 8 and not self.cohort.runs.is_running)
        print(self.cohort.controls.run_status.value)
        _command("report", "cohort-results", "--truth", "cohort", "--output", "report")

    # --- the window ----------------------------------------------------------------------------

    def _dock(self, name: str) -> Any:
        """What ``Layers > Segment > <name> (LGG segmentation)`` docks."""
        actions, names = self.viewer.window.main_menu.actions(), ["Layers", "Segment"]
        for title in names:
            menu = next(a for a in actions if a.text().replace("&", "") == title).menu()
            menu.aboutToShow.emit()
            actions = menu.actions()
        title = f"{name} (LGG segmentation)"
        next(action for action in actions if action.text() == title).trigger()
        _rest(2)
        return next(w for t, w in self.viewer.window.dock_widgets.items() if t == title)

    def _click(self, text: str, within: Any = None) -> None:
        """Click a button that is seen; ``within`` tells two of the same name apart."""
        from qtpy.QtCore import Qt
        from qtpy.QtTest import QTest
        from qtpy.QtWidgets import QPushButton

        where = within.native if within is not None else self.viewer.window.main_menu.window()
        found = [b for b in where.findChildren(QPushButton) if b.text() == text and b.isVisible()]
        if len(found) != 1 or not found[0].isEnabled():
            raise RuntimeError(f"{len(found)} buttons {text!r} can be seen, or it cannot be clicked")
        QTest.mouseClick(found[0], Qt.MouseButton.LeftButton)

    def _type(self, label: str, text: str) -> None:
        """Type into the field with a label."""
        from qtpy.QtWidgets import QFormLayout, QLineEdit

        window = self.viewer.window.main_menu.window()
        for form in window.findChildren(QFormLayout):
            for line in window.findChildren(QLineEdit):
                found = form.labelForField(line.parentWidget())
                if found is not None and found.text() == label:
                    line.setText(text)
                    return
        raise RuntimeError(f"there is no field {label!r}")

    def _double_click_first_row(self) -> str:
        from qtpy.QtCore import Qt
        from qtpy.QtTest import QTest

        table = self.cohort.table
        place = table.visualRect(table.model().index(0, 1)).center()
        for click in (QTest.mouseClick, QTest.mouseDClick):  # as a hand does it: once, then again
            click(table.viewport(), Qt.MouseButton.LeftButton, pos=place)
        return table.sorted.names()[0]

    def _next(self) -> None:
        before = self.cohort.open_name
        self._click("Next >")
        _wait(lambda: self.cohort.open_name not in (before, None))
        _rest(0.5)

    def _picture(self, name: str) -> None:
        _rest(1.5)
        self.viewer.window.resize(*SIZE)
        shown = Image.fromarray(self.viewer.screenshot(canvas_only=False)).convert("RGB")
        # A third of the size, and nothing lost that can be seen.
        shown.quantize(256).save(self.pictures / f"{name}.png", optimize=True)
        print(name, flush=True)


def _command(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "napari_lgg_seg", *words], check=True)


def _wait(done: Callable[[], bool], seconds: float = 600) -> None:
    """Let the window work until something holds."""
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            raise TimeoutError(f"a step of the tutorial was not done in {seconds:.0f} s")
        _work()


def _rest(seconds: float) -> None:
    """Let the window work for a while."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        _work()


def _work() -> None:
    from qtpy.QtWidgets import QApplication

    QApplication.processEvents()
    time.sleep(0.01)


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
