"""What somebody paints survives a crash, and is offered at the next start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_lgg_seg.core.cohort import autosave as recovery
from napari_lgg_seg.core.cohort.results import CohortResults
from napari_lgg_seg.core.data.label_files import LabelMap
from napari_lgg_seg.core.data.patients import read_patient
from napari_lgg_seg.layers import described
from napari_lgg_seg.widgets.review.autosave import EditAutosaver, autosaver_of, keep_edits, window_of
from napari_lgg_seg.widgets.review.restore import offer

PATIENT = "TCGA_DU_0001_19990101"


@pytest.fixture
def kept(viewer: Any) -> Iterator[Callable[[], list[recovery.Edit]]]:
    """What is kept at the moment, by whichever session."""
    keep_edits(viewer)
    yield lambda: [recovery.read(path) for path in sorted(recovery.recovery_folder().glob("*.npz"))]
    for path in recovery.recovery_folder().glob("*.npz"):
        path.unlink()


@pytest.fixture
def truth(viewer: Any, patient_on_disk: Callable[..., Path]) -> Any:
    """The open patient's truth, in which it can be painted."""
    viewer.open(str(patient_on_disk()), plugin="napari-lgg-seg")
    return viewer.layers["truth"]


def _leave_behind(folder: Path, more: str = "") -> None:
    """A session that kept an edit of the patient and was killed."""
    program = textwrap.dedent(
        f"""
        import os, signal, numpy as np
        from napari_lgg_seg.core.cohort import autosave as recovery
        from napari_lgg_seg.core.data.patients import read_patient
        from napari_lgg_seg.layers import describe
        patient = read_patient({str(folder)!r})
        labels = np.zeros(patient.truth.shape, np.uint8); labels[1, :4, :5] = 1
        about = {{**describe(patient.name, "tumour", patient.slice_numbers, folder={str(folder)!r})}}
        about |= {{"scale": [1, 1, 1], "translate": [0, 0, 0], "units": ["pixel"] * 3}}
        title = patient.name + " tumour{more}"
        recovery.save(recovery.Edit(patient.name, title, labels, {str(folder)!r}, about))
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL


def _press(box: Any, text: str) -> None:
    (button,) = [button for button in box.buttons() if button.text().replace("&", "") == text]
    button.click()


def test_a_stroke_is_kept_a_few_seconds_later(truth: Any, kept: Any, wait_until: Any) -> None:
    truth.paint((1, 3, 3), 2)
    wait_until(lambda: len(kept()) == 1)
    (edit,) = kept()
    assert (edit.patient, edit.title) == (PATIENT, "truth")
    np.testing.assert_array_equal(edit.labels, truth.data)


def test_the_next_stroke_replaces_the_file(truth: Any, kept: Any, wait_until: Any) -> None:
    truth.paint((1, 3, 3), 2)
    wait_until(lambda: len(kept()) == 1)
    truth.paint((0, 8, 8), 3)
    wait_until(lambda: bool((kept()[0].labels == 3).any()))
    assert len(kept()) == 1


def test_saved_edits_are_kept_no_longer(
    truth: Any, kept: Any, wait_until: Any, viewer: Any, tmp_path: Path
) -> None:
    truth.paint((1, 3, 3), 2)
    wait_until(lambda: len(kept()) == 1)
    truth.save(str(tmp_path / "mine.tif"), plugin="napari-lgg-seg")
    wait_until(lambda: kept() == [])


def test_a_removed_layer_leaves_its_edits_behind(truth: Any, kept: Any, viewer: Any) -> None:
    truth.paint((1, 3, 3), 2)
    viewer.layers.remove(truth)
    assert (kept()[0].labels == 2).any()


def test_labels_of_nobody_are_left_alone(viewer: Any, kept: Any, qtbot: Any) -> None:
    layer = viewer.add_labels(np.zeros((3, 16, 16), np.uint8))
    layer.paint((1, 3, 3), 2)
    autosaver_of(viewer).keep_now()
    assert kept() == []


def test_a_viewer_has_one_keeper(viewer: Any, kept: Any) -> None:
    keep_edits(viewer)
    assert len(window_of(viewer).findChildren(EditAutosaver)) == 1


def test_restored_over_the_patients_images(
    viewer: Any, kept: Any, patient_on_disk: Callable[..., Path], wait_until: Any
) -> None:
    folder = patient_on_disk()
    _leave_behind(folder)
    box = offer(viewer)
    assert box is not None
    assert f"{PATIENT} tumour" in box.informativeText()
    _press(box, "Restore")
    wait_until(lambda: len(viewer.layers) == 5)
    layer = viewer.layers[-1]
    assert layer.name == f"{PATIENT} tumour (restored)"
    assert layer.data[1, :4, :5].all()
    assert described(layer)["patient"] == PATIENT
    assert recovery.leftovers() == []
    assert len(kept()) == 1, "this session keeps what is not saved yet"


def test_restored_twice_has_no_longer_name(
    viewer: Any, kept: Any, patient_on_disk: Callable[..., Path], wait_until: Any
) -> None:
    _leave_behind(patient_on_disk(), " (restored)")
    _press(offer(viewer), "Restore")
    wait_until(lambda: len(viewer.layers) == 5)
    assert viewer.layers[-1].name == f"{PATIENT} tumour (restored)"


def test_restored_alone_where_the_images_are_gone(
    viewer: Any, kept: Any, patient_on_disk: Callable[..., Path]
) -> None:
    folder = patient_on_disk()
    _leave_behind(folder)
    folder.rename(folder.with_name("elsewhere"))
    _press(offer(viewer), "Restore")
    (layer,) = viewer.layers
    assert layer.data[1, :4, :5].all()


@pytest.mark.parametrize(("answer", "left"), [("Discard", 0), ("Later", 1)])
def test_discarded_or_asked_again(
    viewer: Any, kept: Any, patient_on_disk: Callable[..., Path], answer: str, left: int
) -> None:
    _leave_behind(patient_on_disk())
    _press(offer(viewer), answer)
    assert len(recovery.leftovers()) == left
    assert len(viewer.layers) == 0


def test_nothing_to_restore_asks_nothing(viewer: Any, kept: Any) -> None:
    assert offer(viewer) is None


_SESSION = """
import sys, napari
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication, QMessageBox
viewer = napari.Viewer()
viewer.open({folder!r}, plugin="napari-lgg-seg")

def paint():
    viewer.layers["truth"].paint((1, 3, 3), 2)
    QTimer.singleShot(6000, lambda: print("painted", flush=True))

def restore():
    boxes = [w for w in QApplication.topLevelWidgets() if isinstance(w, QMessageBox) and w.isVisible()]
    if not boxes:
        QTimer.singleShot(300, restore)
        return
    [b for b in boxes[0].buttons() if b.text().replace("&", "") == "Restore"][0].click()
    print("restored", (viewer.layers["truth (restored)"].data == 2).any(), flush=True)

QTimer.singleShot(1000, {act})
napari.run()
"""


@pytest.mark.real_window
def test_a_killed_window_loses_nothing(patient_on_disk: Callable[..., Path], tmp_path: Path) -> None:
    folder = str(patient_on_disk())
    environment = {**os.environ, "XDG_DATA_HOME": str(tmp_path / "home")}
    for act, said in (("paint", "painted"), ("restore", "restored True")):
        process = subprocess.Popen(
            [sys.executable, "-c", _SESSION.format(folder=folder, act=act)],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert process.stdout is not None
        try:
            assert process.stdout.readline().strip() == said
        finally:
            process.kill()
            process.wait()


_REVIEW = """
import sys, napari
from pathlib import Path
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication, QMessageBox
viewer = napari.Viewer()
_, cohort = viewer.window.add_plugin_dock_widget("napari-lgg-seg", "Cohort")

def boxes():
    return [w for w in QApplication.topLevelWidgets() if isinstance(w, QMessageBox) and w.isVisible()]

def review():
    cohort.open_dataset(Path({dataset!r}), Path({results!r}), {patient!r})
    paint()

def paint():
    if {patient!r} + " tumour" not in viewer.layers:
        QTimer.singleShot(300, paint)
        return
    viewer.layers[{patient!r} + " tumour"].paint((1, 3, 3), 1)
    QTimer.singleShot(8000, lambda: print("painted", flush=True))

def look():
    print(len(boxes()), "questions;", cohort.go_on.button.text, flush=True)
    cohort.go_on.button.native.click()
    show()

def show():
    if {patient!r} + " tumour" not in viewer.layers:
        QTimer.singleShot(300, show)
        return
    print(bool(viewer.layers[{patient!r} + " tumour"].data[1, 3, 3] == 1), flush=True)

QTimer.singleShot(4000, {act})
napari.run()
"""


@pytest.mark.real_window
def test_a_killed_review_of_a_cohort_is_offered_once(
    patient_on_disk: Callable[..., Path], tmp_path: Path
) -> None:
    folder = patient_on_disk()
    patient = read_patient(folder)
    results = CohortResults(tmp_path / "results")
    assert patient.truth is not None
    label_map = LabelMap(PATIENT, patient.truth, patient.slice_numbers)
    results.write_prediction(PATIENT, label_map, patient.truth.astype(np.float32))
    places = {"dataset": str(folder.parent), "results": str(results.folder), "patient": PATIENT}
    environment = {**os.environ, "XDG_DATA_HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path)}
    for act, said in (("review", ["painted"]), ("look", [f"0 questions; Go on with {PATIENT}", "True"])):
        process = subprocess.Popen(
            [sys.executable, "-c", _REVIEW.format(act=act, **places)],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert process.stdout is not None
        try:
            assert [process.stdout.readline().strip() for _ in said] == said
        finally:
            process.kill()
            process.wait()
