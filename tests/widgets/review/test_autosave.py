"""Edits survive a crash and are offered at the next start."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_lgg_seg.core.cohort import autosave as edit_files
from napari_lgg_seg.core.cohort.store import ResultStore
from napari_lgg_seg.core.data.label_files import LabelMap
from napari_lgg_seg.core.data.patients import read_patient
from napari_lgg_seg.layers import describe, described, subject_of
from napari_lgg_seg.widgets.review.autosave import EditAutosaver, autosaver_of, enable_autosave, window_of
from napari_lgg_seg.widgets.review.restore import offer, restore

PATIENT = "TCGA_DU_0001_19990101"


@pytest.fixture
def autosaved(viewer: Any) -> Iterator[Callable[[], list[edit_files.Edit]]]:
    """Factory: the edits that are autosaved now, by any session."""
    enable_autosave(viewer)
    yield lambda: [edit_files.read(path) for path in sorted(edit_files.recovery_folder().glob("*.npz"))]
    for path in edit_files.recovery_folder().glob("*.npz"):
        path.unlink()


@pytest.fixture
def truth(viewer: Any, patient_on_disk: Callable[..., Path]) -> Any:
    """The ground truth of an open patient, to paint in."""
    viewer.open(str(patient_on_disk()), plugin="napari-lgg-seg")
    return viewer.layers["ground truth"]


def _leave_behind(folder: Path, more: str = "") -> None:
    """Run a session that autosaves an edit of the patient and is killed."""
    program = textwrap.dedent(
        f"""
        import os, signal, numpy as np
        from napari_lgg_seg.core.cohort import autosave as edit_files
        from napari_lgg_seg.core.data.patients import read_patient
        from napari_lgg_seg.layers import describe
        patient = read_patient({str(folder)!r})
        labels = np.zeros(patient.truth.shape, np.uint8); labels[1, :4, :5] = 1
        about = {{**describe(patient.name, "tumour", patient.slice_numbers, folder={str(folder)!r})}}
        about |= {{"scale": [1, 1, 1], "translate": [0, 0, 0], "units": ["pixel"] * 3}}
        title = patient.name + " tumour{more}"
        edit_files.save(edit_files.Edit(patient.name, title, labels, {str(folder)!r}, about))
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL


def _press(box: Any, text: str) -> None:
    (button,) = [button for button in box.buttons() if button.text().replace("&", "") == text]
    button.click()


def test_a_stroke_is_autosaved_a_few_seconds_later(truth: Any, autosaved: Any, wait_until: Any) -> None:
    truth.paint((1, 3, 3), 2)
    wait_until(lambda: len(autosaved()) == 1)
    (edit,) = autosaved()
    assert (edit.patient, edit.title) == (PATIENT, "ground truth")
    np.testing.assert_array_equal(edit.labels, truth.data)


def test_the_next_stroke_replaces_the_file(truth: Any, autosaved: Any, wait_until: Any) -> None:
    truth.paint((1, 3, 3), 2)
    wait_until(lambda: len(autosaved()) == 1)
    truth.paint((0, 8, 8), 3)
    wait_until(lambda: bool((autosaved()[0].labels == 3).any()))
    assert len(autosaved()) == 1


def test_saved_edits_are_no_longer_autosaved(
    truth: Any, autosaved: Any, wait_until: Any, viewer: Any, tmp_path: Path
) -> None:
    truth.paint((1, 3, 3), 2)
    wait_until(lambda: len(autosaved()) == 1)
    truth.save(str(tmp_path / "mine.tif"), plugin="napari-lgg-seg")
    wait_until(lambda: autosaved() == [])


def test_edits_of_a_removed_layer_are_autosaved(truth: Any, autosaved: Any, viewer: Any) -> None:
    truth.paint((1, 3, 3), 2)
    viewer.layers.remove(truth)
    assert (autosaved()[0].labels == 2).any()


def test_edits_are_autosaved_whatever_other_plugins_do_with_the_metadata(
    truth: Any, autosaved: Any, viewer: Any
) -> None:
    truth.metadata["lgg"]["theirs"] = {"layer": truth, "nan": float("nan")}
    truth.paint((1, 3, 3), 2)
    autosaver_of(viewer).save_now()
    (edit,) = autosaved()
    assert edit.about["lgg"]["patient"] == PATIENT
    truth.metadata["lgg"] = "theirs"
    truth.data[0, 0, 0] = 3
    autosaver_of(viewer).save_now()
    assert any((edit.labels == 3).any() for edit in autosaved())


def test_labels_of_no_patient_are_not_autosaved(viewer: Any, autosaved: Any, qtbot: Any) -> None:
    layer = viewer.add_labels(np.zeros((3, 16, 16), np.uint8))
    layer.paint((1, 3, 3), 2)
    autosaver_of(viewer).save_now()
    assert autosaved() == []


def test_a_viewer_has_one_autosaver(viewer: Any, autosaved: Any) -> None:
    enable_autosave(viewer)
    assert len(window_of(viewer).findChildren(EditAutosaver)) == 1


def test_edits_are_restored_over_the_patients_images(
    viewer: Any, autosaved: Any, patient_on_disk: Callable[..., Path], wait_until: Any
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
    assert edit_files.leftovers() == []
    assert len(autosaved()) == 1, "this session autosaves what is not saved yet"


def test_restored_edits_join_the_patient_of_their_folder(
    viewer: Any, autosaved: Any, patient_on_disk: Callable[..., Path], wait_until: Any, tmp_path: Path
) -> None:
    folder = patient_on_disk()
    namesake = tmp_path / "elsewhere" / PATIENT
    shutil.copytree(folder, namesake)
    viewer.open(str(namesake), plugin="napari-lgg-seg")
    _leave_behind(folder)
    _press(offer(viewer), "Restore")
    wait_until(lambda: len(viewer.layers) == 9)
    of_folder = [layer for layer in viewer.layers if described(layer)["folder"] == str(folder)]
    assert len(of_folder) == 5
    assert {subject_of(layer) for layer in of_folder} == {subject_of(viewer.layers[-1])}
    assert subject_of(viewer.layers[0]) != subject_of(viewer.layers[-1])


def test_restoring_twice_adds_the_suffix_once(
    viewer: Any, autosaved: Any, patient_on_disk: Callable[..., Path], wait_until: Any
) -> None:
    _leave_behind(patient_on_disk(), " (restored)")
    _press(offer(viewer), "Restore")
    wait_until(lambda: len(viewer.layers) == 5)
    assert viewer.layers[-1].name == f"{PATIENT} tumour (restored)"


def test_edits_are_restored_alone_if_the_images_are_gone(
    viewer: Any, autosaved: Any, patient_on_disk: Callable[..., Path]
) -> None:
    folder = patient_on_disk()
    _leave_behind(folder)
    folder.rename(folder.with_name("elsewhere"))
    _press(offer(viewer), "Restore")
    (layer,) = viewer.layers
    assert layer.data[1, :4, :5].all()


def test_edits_of_version_0_1_0_are_restored(
    viewer: Any, autosaved: Any, patient_on_disk: Callable[..., Path]
) -> None:
    folder = patient_on_disk()
    patient = read_patient(folder)
    about = describe(PATIENT, "truth", patient.slice_numbers, ["pre-contrast"], folder=str(folder))
    about["lgg"]["copies"] = about["lgg"].pop("filled_sequences")
    about |= {"scale": [1, 1, 1], "translate": [0, 0, 0], "units": ["pixel"] * 3}
    labels = np.ones((6, 64, 64), np.uint8)
    path = edit_files.save(edit_files.Edit(PATIENT, "truth", labels, "", about))
    restore(viewer, [edit_files.Leftover(path, PATIENT, "truth", "", 0.0)])
    (layer,) = viewer.layers
    assert layer.name == "truth (restored)"
    assert described(layer)["filled_sequences"] == ["pre-contrast"]
    np.testing.assert_array_equal(layer.data, labels)


@pytest.mark.parametrize(("answer", "left"), [("Discard", 0), ("Later", 1)])
def test_edits_are_discarded_or_offered_again(
    viewer: Any, autosaved: Any, patient_on_disk: Callable[..., Path], answer: str, left: int
) -> None:
    _leave_behind(patient_on_disk())
    _press(offer(viewer), answer)
    assert len(edit_files.leftovers()) == left
    assert len(viewer.layers) == 0


def _write(name: str = "edits", labels: Any = None, **about: Any) -> Path:
    """Write a file of a session that has ended."""
    if labels is None:
        labels = np.ones((3, 16, 16), np.uint8)
    path = edit_files.save(edit_files.Edit(name, f"{name} tumour", labels, "", about))
    with np.load(path) as file:
        header = json.loads(str(file["header"]))
    header["process"] = [2**31 - 1, 1.0]
    path.unlink()
    path = path.with_name(f"{name}.npz")
    np.savez_compressed(path, header=np.array(json.dumps(header)), labels=labels)
    return path


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was shown to the user."""
    shown: list[str] = []
    for name in ("show_warning", "show_error"):
        monkeypatch.setattr(f"napari_lgg_seg.widgets.review.restore.{name}", shown.append)
    return shown


def test_a_damaged_file_hides_no_other_edits(viewer: Any, autosaved: Any, warnings: list[str]) -> None:
    damaged, labels_damaged = _write("damaged"), _write("halfway")
    _write("good", **describe("good", "tumour", [1, 2, 3]))
    content = damaged.read_bytes()
    header = content.index(b"header.npy") + 20
    damaged.write_bytes(content[:header] + bytes(20) + content[header + 20 :])
    content = labels_damaged.read_bytes()
    middle = content.index(b"labels.npy") + 30
    labels_damaged.write_bytes(content[:middle] + bytes(20) + content[middle + 20 :])
    box = offer(viewer)
    assert box is not None
    assert sorted(line.split()[0] for line in box.informativeText().splitlines()) == ["good", "halfway"]
    _press(box, "Restore")
    assert [layer.name for layer in viewer.layers] == ["good tumour (restored)"]
    assert [text.split(" does not contain")[0] for text in warnings] == [str(damaged), str(labels_damaged)]
    for text, path in zip(warnings, (damaged, labels_damaged), strict=True):
        kept = path.with_name(f"{path.name}.damaged1")
        assert text.endswith(f"; it is kept as {kept.name}, and not offered again.")
        assert kept.exists()
        kept.unlink()
    assert offer(viewer) is None
    assert len(warnings) == 2


GRID = {"scale": [3.0, 1.0, 1.0], "translate": [0.0, 1.0, 2.0], "units": ["mm", "mm", "mm"]}


def test_edits_are_restored_on_their_grid(viewer: Any, autosaved: Any) -> None:
    _write(**describe("edits", "tumour", [1, 2, 3]), **GRID)
    _press(offer(viewer), "Restore")
    (layer,) = viewer.layers
    assert layer.scale.tolist() == [3, 1, 1]
    assert layer.translate.tolist() == [0, 1, 2]
    assert [str(unit) for unit in layer.units] == ["millimeter"] * 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"scale": [1.0, 1.0]},
        {"scale": [0, 1, 1]},
        {"scale": "111"},
        {"translate": None},
        {"units": ["no unit"] * 3},
        {"units": ["furlongs per ("] * 3},
        {"units": [1, 2, 3]},
    ],
)
def test_edits_with_an_invalid_grid_are_restored(viewer: Any, autosaved: Any, wrong: Any) -> None:
    _write(**describe("edits", "tumour", [1, 2, 3]), **(GRID | wrong))
    _press(offer(viewer), "Restore")
    (layer,) = viewer.layers
    assert layer.scale.tolist() == [1, 1, 1]
    assert layer.data.all()


@pytest.mark.parametrize("info", [None, 3, {"patient": "A"}, {"patient": None, "role": "tumour"}])
def test_edits_with_invalid_metadata_are_restored_and_kept(
    viewer: Any, autosaved: Any, warnings: list[str], info: Any
) -> None:
    path = _write(lgg=info)
    _press(offer(viewer), "Restore")
    (layer,) = viewer.layers
    assert layer.data.all()
    assert described(layer) is None
    (text,) = warnings
    assert "does not say where its edits belong" in text
    path.with_name(f"{path.name}.damaged1").unlink()
    assert offer(viewer) is None


def test_no_question_if_there_is_nothing_to_restore(viewer: Any, autosaved: Any) -> None:
    assert offer(viewer) is None


_SESSION = """
import sys, napari
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication, QMessageBox
viewer = napari.Viewer()
viewer.open({folder!r}, plugin="napari-lgg-seg")

def paint():
    viewer.layers["ground truth"].paint((1, 3, 3), 2)
    QTimer.singleShot(6000, lambda: print("painted", flush=True))

def restore():
    boxes = [w for w in QApplication.topLevelWidgets() if isinstance(w, QMessageBox) and w.isVisible()]
    if not boxes:
        QTimer.singleShot(300, restore)
        return
    [b for b in boxes[0].buttons() if b.text().replace("&", "") == "Restore"][0].click()
    print("restored", (viewer.layers["ground truth (restored)"].data == 2).any(), flush=True)

QTimer.singleShot(1000, {act})
napari.run()
"""


@pytest.mark.real_window
def test_edits_of_a_killed_window_are_restored(patient_on_disk: Callable[..., Path], tmp_path: Path) -> None:
    folder = str(patient_on_disk())
    environment = {**os.environ, "XDG_DATA_HOME": str(tmp_path / "home")}
    for act, expected in (("paint", "painted"), ("restore", "restored True")):
        process = subprocess.Popen(
            [sys.executable, "-c", _SESSION.format(folder=folder, act=act)],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert process.stdout is not None
        try:
            assert process.stdout.readline().strip() == expected
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
    print(len(boxes()), "questions;", cohort.resume_banner.button.text, flush=True)
    cohort.resume_banner.button.native.click()
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
def test_a_killed_review_is_offered_to_be_resumed_once(
    patient_on_disk: Callable[..., Path], tmp_path: Path
) -> None:
    folder = patient_on_disk()
    patient = read_patient(folder)
    results = ResultStore(tmp_path / "results")
    assert patient.truth is not None
    label_map = LabelMap(PATIENT, patient.truth, patient.slice_numbers)
    results.patient(PATIENT).write_prediction(
        label_map, probability=patient.truth.astype(np.float32), keep_probability=True
    )
    places = {"dataset": str(folder.parent), "results": str(results.folder), "patient": PATIENT}
    environment = {**os.environ, "XDG_DATA_HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path)}
    for act, expected in (("review", ["painted"]), ("look", [f"0 questions; Resume {PATIENT}", "True"])):
        process = subprocess.Popen(
            [sys.executable, "-c", _REVIEW.format(act=act, **places)],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert process.stdout is not None
        try:
            assert [process.stdout.readline().strip() for _ in expected] == expected
        finally:
            process.kill()
            process.wait()
