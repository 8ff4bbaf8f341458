from __future__ import annotations

import os
import shutil
import threading

import numpy as np
import pytest
import tifffile
from npe2 import PluginManager
from qtpy.QtCore import Qt, QThreadPool
from qtpy.QtWidgets import QApplication, QLineEdit, QMessageBox, QShortcut, QTableView

from napari_lgg_seg import api
from napari_lgg_seg.core.cohort import autosave as recovery
from napari_lgg_seg.core.cohort import sources as case_sources
from napari_lgg_seg.core.cohort import summary_cache as summary_cache
from napari_lgg_seg.core.cohort import unfinished
from napari_lgg_seg.core.cohort.results import CohortResults
from napari_lgg_seg.core.data.label_files import LabelMap
from napari_lgg_seg.core.data.patients import SEQUENCES, read_patient
from napari_lgg_seg.core.evaluation.compare_folders import evaluate_folders
from napari_lgg_seg.core.evaluation.metrics import dice
from napari_lgg_seg.layers import described, patients_in
from napari_lgg_seg.widgets.cohort import jobs as cohort_jobs
from napari_lgg_seg.widgets.cohort import widget as browser_module
from napari_lgg_seg.widgets.cohort.messages import NO_BROWSER
from napari_lgg_seg.widgets.cohort.widget import CohortBrowser
from napari_lgg_seg.widgets.review.autosave import keep_edits

FIRST, SECOND, THIRD = NAMES = ("TCGA_DU_0001_19990101", "TCGA_HT_0002_20000202", "TCGA_CS_0003_20010303")
IN_ORDER = sorted(NAMES)
BROKEN = "TCGA_FG_0004_20020404"

pytestmark = pytest.mark.filterwarnings("error:Private attribute access:FutureWarning")


def threads_done():
    return QThreadPool.globalInstance().activeThreadCount() == 0


def assert_sentence(text):
    assert text.endswith("."), text
    assert "\n" not in text
    assert "Traceback" not in text


# --- what a user sees and does ---------------------------------------------------------------------


@pytest.fixture
def cohort(patient_on_disk):
    """A folder of three patients that differ, and one that is broken; returns the folder."""
    for seed, name in enumerate(NAMES):
        patient_on_disk(name, seed=seed, shape=(6 + seed, 64, 64))
    folder = patient_on_disk(BROKEN)
    (folder / f"{BROKEN}_3.tif").unlink()
    return folder.parent


@pytest.fixture(autouse=True)
def cache_file(tmp_path, monkeypatch):
    """The cache of this test alone."""
    path = tmp_path / "cache" / "patients.sqlite"
    monkeypatch.setattr(browser_module, "default_cache_file", lambda: path)
    return path


@pytest.fixture(autouse=True)
def notes(tmp_path, monkeypatch):
    """Where sessions note what is being corrected, of this test alone."""
    folder = tmp_path / "sessions"
    monkeypatch.setattr(unfinished, "default_folder", lambda: folder)
    return folder


@pytest.fixture
def all_read(wait_until):
    """Factory: wait until a browser has looked at all patients."""

    def wait(widget):
        wait_until(lambda: found(widget)[0].isdigit() and "Reading" not in found(widget))

    return wait


@pytest.fixture
def browse(viewer, small_model, all_read, cohort):
    """Factory: dock the browser and open the cohort in it."""

    def browse_(folder=cohort, results=None):
        _, widget = viewer.window.add_plugin_dock_widget("napari-lgg-seg", "Cohort")
        widget.controls.model.offer(small_model)
        widget.open_dataset(folder, results)
        all_read(widget)
        return widget

    return browse_


@pytest.fixture
def open_pair(viewer, wait_until):
    """Factory: double click a patient, and wait until it is open."""

    def open_(widget, name):
        table = table_of(widget)
        index = next(i for i in names_cells(table) if i.data() == name)
        table.doubleClicked.emit(index)
        wait_until(lambda: open_patients(viewer) == [name])

    return open_


@pytest.fixture
def segmented(browse, click, wait_until):
    """Factory: a browser in which all patients are segmented."""

    def segmented_():
        widget = browse()
        run_to_end(widget, click, wait_until)
        return widget

    return segmented_


@pytest.fixture
def answer(monkeypatch):
    """Factory: what the user answers to questions; returns the questions asked."""
    asked = []

    def answer_(button):
        def question(parent, title, text, *_, **__):
            asked.append(text)
            return getattr(QMessageBox.StandardButton, button)

        monkeypatch.setattr(QMessageBox, "question", question)
        return asked

    return answer_


@pytest.fixture
def full_disk(monkeypatch):
    """Factory: from now on nothing can be written (or it can again)."""
    write = tifffile.imwrite

    def refuse(*_, **__):
        raise OSError(28, "No space left on device")

    return lambda full=True: monkeypatch.setattr(tifffile, "imwrite", refuse if full else write)


def run_to_end(widget, click, wait_until, button="Segment all"):
    widget.controls.run_status.value = ""
    click(widget, button)  # which first keeps what was painted
    wait_until(lambda: run_status(widget) != "" and not running(widget))


def running(widget):
    return widget.controls.cancel.native.isVisibleTo(widget.native)


def found(widget):
    return widget.controls.found.value


def status(widget):
    return widget.controls.status.value


def run_status(widget):
    return widget.controls.run_status.value


def table_of(widget):
    (table,) = widget.native.findChildren(QTableView)
    return table


def names_cells(table):
    return [table.model().index(row, 0) for row in range(table.model().rowCount())]


def shown(widget):
    """Names in the table, top to bottom."""
    return [index.data() for index in names_cells(table_of(widget))]


def cell(widget, name, title, role=Qt.ItemDataRole.DisplayRole):
    """What a cell shows, by the patient and the column's title."""
    model = table_of(widget).model()
    titles = [model.headerData(i, Qt.Orientation.Horizontal) for i in range(model.columnCount())]
    return model.index(shown(widget).index(name), titles.index(title)).data(role)


def states(widget):
    return {name: cell(widget, name, "State") for name in shown(widget)}


def select(widget, *names):
    widget.table.select(list(names))


def open_patients(viewer):
    return patients_in(viewer.layers)


def roles(viewer):
    return [info["role"] for layer in viewer.layers if (info := described(layer)) is not None]


def tumour_of(viewer, name):
    return viewer.layers[f"{name} tumour"]


def results_of(cohort):
    return CohortResults(cohort.parent / f"{cohort.name}-results")


# --- the table -----------------------------------------------------------------------------------


def test_menu_docks_it(viewer, menu_action, wait_until):
    menu_action("Layers", "Segment", "Cohort").trigger()
    wait_until(lambda: any(isinstance(w, CohortBrowser) for w in viewer.window.dock_widgets.values()))


def test_without_a_folder_it_says_what_to_do(viewer):
    _, widget = viewer.window.add_plugin_dock_widget("napari-lgg-seg", "Cohort")
    assert_sentence(found(widget))
    assert "Choose the folder" in found(widget)
    assert not widget.controls.segment_all.enabled
    widget.step(1)


def test_table_says_what_is_known(browse, cohort):
    widget = browse()
    assert shown(widget) == sorted([*NAMES, BROKEN])
    assert found(widget) == "4 patients: 3 new, 1 cannot be read."
    for name in NAMES:
        patient = read_patient(cohort / name)
        assert cell(widget, name, "State") == "new"
        assert cell(widget, name, "Institution") == name[5:7]
        assert cell(widget, name, "Slices\nin all") == str(len(patient.truth))
        assert cell(widget, name, "Slices\ntrue") == str(patient.truth.any(axis=(1, 2)).sum())
        assert cell(widget, name, "Volume\ntrue") == f"{patient.truth.sum():,}"
        assert cell(widget, name, "Missing") == ""
        assert cell(widget, name, "Dice") is None
        assert not cell(widget, name, "Patient", Qt.ItemDataRole.DecorationRole).isNull()
    assert widget.controls.results.value == cohort.parent / "patients-results"
    assert not widget.controls.results.value.exists(), "looking must write nothing"


def test_broken_patients_are_listed_with_the_sentence(browse):
    widget = browse()
    assert cell(widget, BROKEN, "State") == "cannot be read"
    tooltip = cell(widget, BROKEN, "State", Qt.ItemDataRole.ToolTipRole)
    assert f"{BROKEN}_3.tif" in tooltip
    assert_sentence(tooltip)
    assert cell(widget, BROKEN, "Volume\ntrue") is None


def test_names_come_before_the_files_are_read(viewer, cohort, wait_until, monkeypatch, all_read):
    go_on, look_at = threading.Event(), cohort_jobs.cached_summary
    monkeypatch.setattr(cohort_jobs, "cached_summary", lambda *args: (go_on.wait(60), look_at(*args))[1])
    _, widget = viewer.window.add_plugin_dock_widget("napari-lgg-seg", "Cohort")
    widget.open_dataset(cohort)
    wait_until(lambda: len(shown(widget)) == 4)
    assert "Reading 4 more" in found(widget)
    assert cell(widget, FIRST, "Slices\nin all") is None
    go_on.set()
    all_read(widget)
    assert cell(widget, FIRST, "Slices\nin all") == "6"


def test_second_opening_reads_no_images(browse, all_read, cohort, monkeypatch):
    shutil.rmtree(cohort / BROKEN)  # what is broken is looked at each time
    widget = browse()
    read = []
    monkeypatch.setattr(summary_cache, "read_summary", lambda folder, _: read.append(folder.name))
    widget.open_dataset(cohort)
    all_read(widget)
    assert read == []
    assert cell(widget, SECOND, "Slices\nin all") == "7"
    assert not cell(widget, SECOND, "Patient", Qt.ItemDataRole.DecorationRole).isNull()


def test_files_read_late_do_not_replace_what_is_newer(
    viewer, cohort, small_model, wait_until, monkeypatch, all_read, click
):
    go_on, look_at = threading.Event(), cohort_jobs.cached_summary
    monkeypatch.setattr(cohort_jobs, "cached_summary", lambda *args: (look_at(*args), go_on.wait(60))[0])
    _, widget = viewer.window.add_plugin_dock_widget("napari-lgg-seg", "Cohort")
    widget.controls.model.offer(small_model)
    widget.open_dataset(cohort)
    wait_until(lambda: len(shown(widget)) == 4)
    first = shown(widget)[0]
    select(widget, first)
    run_to_end(widget, click, wait_until, "Segment selected")
    dice_before = cell(widget, first, "Dice")
    assert dice_before is not None
    go_on.set()
    all_read(widget)
    assert cell(widget, first, "Dice") == dice_before


@pytest.mark.parametrize(
    ("title", "descending", "expected"),
    [
        ("Patient", True, sorted([*NAMES, BROKEN], reverse=True)),
        ("Slices\nin all", False, [FIRST, SECOND, THIRD, BROKEN]),
        ("Slices\nin all", True, [THIRD, SECOND, FIRST, BROKEN]),
        ("Institution", False, [THIRD, FIRST, BROKEN, SECOND]),
        ("State", True, [BROKEN, THIRD, FIRST, SECOND]),
    ],
)
def test_sorting_puts_what_is_not_known_last(browse, title, descending, expected):
    widget = browse()
    table = table_of(widget)
    model = table.model()
    column = [model.headerData(i, Qt.Orientation.Horizontal) for i in range(model.columnCount())].index(title)
    table.sortByColumn(column, Qt.SortOrder.DescendingOrder if descending else Qt.SortOrder.AscendingOrder)
    assert shown(widget) == expected


def test_filters(browse, qtbot):
    widget = browse()
    (field,) = [e for e in widget.native.findChildren(QLineEdit) if e.placeholderText()]
    qtbot.keyClicks(field, "ht tcga")
    assert shown(widget) == [SECOND]
    assert "1 shown" in found(widget)
    field.clear()
    widget.controls.state.value = "cannot be read"
    assert shown(widget) == [BROKEN]
    widget.controls.state.value = "All states"
    assert len(shown(widget)) == 4


def test_a_folder_that_holds_no_cohort_is_a_sentence(browse, cohort, wait_until, tmp_path):
    widget = browse()
    for folder, part in ((cohort / FIRST, "patient's own"), (tmp_path / "gone", "cannot be opened")):
        widget.open_dataset(folder)
        wait_until(lambda part=part: part in found(widget))
        assert_sentence(found(widget))
        assert shown(widget) == []
        assert not widget.controls.segment_all.enabled


def test_results_among_images_are_refused(browse, cohort, wait_until):
    widget = browse()
    for folder in (cohort, cohort / FIRST):
        widget.open_dataset(cohort, folder)
        wait_until(lambda: "another folder for the results" in found(widget))
        assert shown(widget) == []


def test_a_damaged_index_is_a_sentence_and_stays(browse, cohort, wait_until):
    widget = browse()
    index = results_of(cohort).folder / "cohort.json"
    index.parent.mkdir()
    index.write_text("{")
    widget.open_dataset(cohort)
    wait_until(lambda: "cohort.json cannot be read" in found(widget))
    assert_sentence(found(widget))
    assert index.read_text() == "{"


# --- going from patient to patient -----------------------------------------------------------------


def test_double_click_opens_in_place(viewer, browse, open_pair):
    widget = browse()
    for name in (FIRST, SECOND):
        open_pair(widget, name)
        assert [layer.name for layer in viewer.layers] == [*SEQUENCES, "truth"]
        assert [layer.visible for layer in viewer.layers] == [False, True, False, True]
        assert status(widget).startswith(f"{name}: new.")
        assert viewer.layers.selection.active == viewer.layers["FLAIR"], "the truth would be painted in"
        assert cell(widget, name, "Patient", Qt.ItemDataRole.FontRole).bold()
    truth = viewer.layers["truth"].data
    assert viewer.dims.current_step[0] == truth.sum(axis=(1, 2)).argmax()


def test_next_and_previous_follow_the_table_and_pass_over_the_broken(viewer, browse, click, wait_until):
    widget = browse()
    table_of(widget).sortByColumn(0, Qt.SortOrder.DescendingOrder)
    order = [name for name in shown(widget) if name != BROKEN]
    for name in order:
        click(widget, "Next >")
        wait_until(lambda name=name: open_patients(viewer) == [name])
    click(widget, "Next >")
    assert "last patient" in status(widget)
    assert open_patients(viewer) == order[-1:]
    for name in order[-2::-1]:
        click(widget, "< Previous")
        wait_until(lambda name=name: open_patients(viewer) == [name])
    click(widget, "< Previous")
    assert "first patient" in status(widget)


def test_clicking_on_while_a_patient_is_read_goes_on(viewer, browse, click, wait_until):
    widget = browse()
    for _ in range(3):
        click(widget, "Next >")
    wait_until(lambda: open_patients(viewer) == [[n for n in shown(widget) if n != BROKEN][2]])


def test_keys_and_commands_do_the_same(viewer, browse, wait_until, qtbot):
    widget = browse()
    first, second = IN_ORDER[:2]
    manifest = PluginManager.instance().get_manifest("napari-lgg-seg").contributions
    keys = {binding.command: binding.key for binding in manifest.keybindings}
    bound = {s.key().toString(): s for s in widget.native.window().findChildren(QShortcut)}
    for command, name in (("next", first), ("next", second), ("previous", first)):
        in_napari = keys[f"napari-lgg-seg.{command}_patient"]
        bound[in_napari.replace("Page", "Pg")].activated.emit()
        wait_until(lambda name=name: open_patients(viewer) == [name])
    for command, name in (("next", second), ("previous", first)):
        PluginManager.instance().commands.execute(f"napari-lgg-seg.{command}_patient")
        wait_until(lambda name=name: open_patients(viewer) == [name])


def test_commands_without_the_browser_say_where_it_is(viewer, notices):
    PluginManager.instance().commands.execute("napari-lgg-seg.next_patient")
    assert notices == [NO_BROWSER]


def test_broken_patient_leaves_the_open_one(viewer, browse, open_pair, wait_until):
    widget = browse()
    open_pair(widget, FIRST)
    widget.open_patient(BROKEN)
    wait_until(lambda: f"{BROKEN}_3.tif" in status(widget))
    assert_sentence(status(widget))
    assert open_patients(viewer) == [FIRST]


def test_other_layers_stay(viewer, browse, wait_until):
    mine = viewer.add_image(np.zeros((6, 64, 64)), metadata={"lgg": {"patient": "x", "role": "FLAIR"}})
    widget = browse()
    for name in (FIRST, SECOND):
        widget.open_patient(name)
        wait_until(lambda name=name: open_patients(viewer) == ["x", name])
    assert mine in viewer.layers


def test_what_was_shown_of_one_patient_is_shown_of_the_next(viewer, browse, open_pair):
    widget = browse()
    open_pair(widget, FIRST)
    viewer.layers["post-contrast"].visible = True
    viewer.layers["truth"].visible = False
    open_pair(widget, SECOND)
    assert viewer.layers["post-contrast"].visible
    assert not viewer.layers["truth"].visible


# --- nothing that somebody did is lost -------------------------------------------------------------


def test_edits_are_kept_when_the_patient_is_left(viewer, segmented, open_pair, cohort, all_read):
    widget = segmented()
    open_pair(widget, FIRST)
    layer = tumour_of(viewer, FIRST)
    assert viewer.layers.selection.active == layer
    layer.paint((2, 5, 5), 1)
    layer.paint((3, 60, 3), 2)
    painted = layer.data.copy()
    open_pair(widget, SECOND)
    assert states(widget)[FIRST] == "corrected"
    assert cell(widget, FIRST, "Volume\nfound") == f"{np.count_nonzero(painted):,}"
    truth = read_patient(cohort / FIRST).truth
    assert cell(widget, FIRST, "Dice") == f"{dice(painted, truth):.3f}"
    assert states(widget)[SECOND] == "segmented", "nobody touched it"
    open_pair(widget, FIRST)
    np.testing.assert_array_equal(tumour_of(viewer, FIRST).data, painted)
    # The next session knows it, too.
    widget.open_dataset(cohort)
    all_read(widget)
    assert states(widget)[FIRST] == "corrected"
    assert viewer.layers == []
    scores, _, _ = evaluate_folders(results_of(cohort).folder, cohort)
    assert scores[FIRST] == pytest.approx(dice(painted, truth))


def test_looking_changes_nothing(viewer, segmented, open_pair, cohort):
    widget = segmented()
    files = {f: (f.stat().st_mtime_ns, f.read_bytes()) for f in results_of(cohort).folder.rglob("*.*")}
    for name in (FIRST, SECOND, FIRST):
        open_pair(widget, name)
    assert {f: (f.stat().st_mtime_ns, f.read_bytes()) for f in files} == files
    assert set(states(widget).values()) == {"segmented", "cannot be read"}


def test_images_are_never_touched(viewer, segmented, open_pair, cohort, click, wait_until):
    before = {f: f.read_bytes() for f in cohort.rglob("*") if f.is_file()}
    widget = segmented()
    open_pair(widget, FIRST)
    tumour_of(viewer, FIRST).paint((2, 5, 5), 1)
    viewer.layers["truth"].paint((2, 5, 5), 1)
    open_pair(widget, SECOND)
    click(widget, "Accept")
    wait_until(lambda: states(widget)[SECOND] == "corrected")
    assert {f: f.read_bytes() for f in cohort.rglob("*") if f.is_file()} == before


@pytest.mark.parametrize("leave", ["double click", "next", "folder"])
def test_a_failure_to_write_keeps_the_patient_open(
    viewer, segmented, open_pair, cohort, wait_until, full_disk, click, leave, tmp_path
):
    widget = segmented()
    open_pair(widget, IN_ORDER[0])
    layer = tumour_of(viewer, IN_ORDER[0])
    layer.paint((2, 5, 5), 1)
    painted = layer.data.copy()
    full_disk()
    if leave == "double click":
        widget.open_patient(SECOND)
    elif leave == "next":
        click(widget, "Next >")
    else:
        widget.open_dataset(tmp_path)
    wait_until(lambda: "No space left" in status(widget))
    assert_sentence(status(widget))
    assert f"{IN_ORDER[0]} stays open" in status(widget)
    assert open_patients(viewer) == [IN_ORDER[0]]
    np.testing.assert_array_equal(layer.data, painted)
    assert widget.controls.dataset.value == cohort, "the table is that of the old folder"
    assert len(shown(widget)) == 4
    full_disk(False)
    open_pair(widget, SECOND)
    np.testing.assert_array_equal(results_of(cohort).read_labels(IN_ORDER[0]), painted)


def test_painting_while_it_is_written_is_kept_as_well(
    viewer, segmented, open_pair, cohort, wait_until, monkeypatch
):
    keep, layers = case_sources.save_edits, []

    def keep_and_paint(name, work, results):
        kept = keep(name, work, results)
        if not layers:
            layers.append(tumour_of(viewer, FIRST))
            layers[0].data[4, 1, :9] = 1  # what a quick hand does before the layers go
        return kept

    widget = segmented()
    open_pair(widget, FIRST)
    monkeypatch.setattr(case_sources, "save_edits", keep_and_paint)
    tumour_of(viewer, FIRST).paint((2, 5, 5), 1)
    open_pair(widget, SECOND)
    kept = results_of(cohort).read_labels(FIRST)
    np.testing.assert_array_equal(kept, layers[0].data)
    assert kept[4, 1, :9].all()


def test_edits_of_the_truth_and_labels_of_ones_own_are_kept(viewer, segmented, open_pair, cohort, wait_until):
    widget = segmented()
    open_pair(widget, FIRST)
    truth = viewer.layers["truth"]
    truth.paint((2, 5, 5), 1)
    mine = viewer.add_labels(np.zeros_like(truth.data), name="second look")
    mine.paint((1, 9, 9), 3)
    tumour_of(viewer, FIRST).paint((3, 9, 9), 1)
    open_pair(widget, SECOND)
    folder = results_of(cohort).folder / FIRST
    np.testing.assert_array_equal(tifffile.imread(folder / f"{FIRST}_truth edited.tif"), truth.data)
    np.testing.assert_array_equal(tifffile.imread(folder / f"{FIRST}_second look edited.tif"), mine.data)
    assert "truth edited.tif" in status(widget)
    assert_sentence(status(widget))


def test_labels_drawn_for_a_patient_without_any_become_its_result(viewer, browse, open_pair, cohort):
    widget = browse()
    open_pair(widget, FIRST)
    mine = viewer.add_labels(np.zeros((6, 64, 64), np.uint8), name="Labels")
    mine.paint((1, 30, 30), 1)
    open_pair(widget, SECOND)
    assert states(widget)[FIRST] == "corrected"
    np.testing.assert_array_equal(results_of(cohort).read_labels(FIRST), mine.data)
    open_pair(widget, FIRST)
    np.testing.assert_array_equal(tumour_of(viewer, FIRST).data, mine.data)


def test_a_result_of_the_segment_widget_is_kept(viewer, browse, open_pair, dock, run, cohort):
    widget = browse()
    open_pair(widget, FIRST)
    run(dock())
    predicted = tumour_of(viewer, FIRST).data.copy()
    open_pair(widget, SECOND)
    assert states(widget)[FIRST] == "segmented"
    stored = results_of(cohort).read(FIRST)
    np.testing.assert_array_equal(stored.labels, predicted)
    assert stored.status.uncertainty is not None
    assert stored.status.made_with["model"] == "bright FLAIR"


def test_the_segment_widget_does_not_replace_corrections(viewer, segmented, open_pair, dock, run, cohort):
    widget = segmented()
    open_pair(widget, FIRST)
    tumour_of(viewer, FIRST).paint((2, 5, 5), 1)
    open_pair(widget, SECOND)
    open_pair(widget, FIRST)
    corrected = tumour_of(viewer, FIRST).data.copy()
    run(dock())
    assert roles(viewer).count("tumour") == 2
    open_pair(widget, SECOND)
    assert states(widget)[FIRST] == "corrected"
    np.testing.assert_array_equal(results_of(cohort).read_labels(FIRST), corrected)


def test_what_was_painted_is_saved_after_the_stroke(viewer, segmented, open_pair, cohort, wait_until, prefer):
    prefer(autosave_seconds=1)
    widget = segmented()
    open_pair(widget, FIRST)
    layer = tumour_of(viewer, FIRST)
    layer.paint((2, 5, 5), 1)
    wait_until(lambda: states(widget)[FIRST] == "corrected")
    wait_until(lambda: np.array_equal(results_of(cohort).read_labels(FIRST), layer.data))
    assert open_patients(viewer) == [FIRST]
    assert layer in viewer.layers


def test_undoing_is_saved_as_well(viewer, segmented, open_pair, cohort, wait_until, prefer):
    prefer(autosave_seconds=1)
    widget = segmented()
    open_pair(widget, FIRST)
    layer = tumour_of(viewer, FIRST)
    layer.paint((2, 5, 5), 1)
    layer.paint((2, 40, 40), 1)
    wait_until(lambda: np.array_equal(results_of(cohort).read_labels(FIRST), layer.data))
    layer.undo()
    wait_until(lambda: np.array_equal(results_of(cohort).read_labels(FIRST), layer.data))


def test_what_a_crash_interrupted_is_offered(viewer, segmented, open_pair, wait_until, prefer, click, notes):
    prefer(autosave_seconds=1)
    widget = segmented()
    assert not widget.go_on.row.native.isVisibleTo(widget.native)
    open_pair(widget, FIRST)
    layer = tumour_of(viewer, FIRST)
    layer.paint((2, 5, 5), 1)
    painted = layer.data.copy()
    wait_until(lambda: any(notes.glob("*.json")))
    (note,) = notes.glob("*.json")
    of_dead = note.read_text().replace(f'"process": [{os.getpid()}, ', '"process": [999999999, ')
    viewer.window.remove_dock_widget(widget.native)  # which leaves nothing to go on with ...
    assert not list(notes.glob("*.json"))
    viewer.layers.clear()
    (notes / "999999999.json").write_text(of_dead)  # ... as if it had been killed instead
    _, again = viewer.window.add_plugin_dock_widget("napari-lgg-seg", "Cohort")
    assert FIRST in again.go_on.text.value
    assert_sentence(again.go_on.text.value)
    click(again, f"Go on with {FIRST}")
    wait_until(lambda: f"{FIRST} tumour" in viewer.layers)
    np.testing.assert_array_equal(tumour_of(viewer, FIRST).data, painted)
    assert states(again)[FIRST] == "corrected"
    assert not again.go_on.row.native.isVisibleTo(again.native)


def kept_from_a_crash():
    """Names of the labels in the recovery folder."""
    return [recovery.read(file).title for file in recovery.recovery_folder().glob("*.npz")]


def test_edits_are_either_among_the_results_or_kept_from_a_crash(
    viewer, segmented, open_pair, cohort, wait_until, prefer, qtbot, patient_on_disk
):
    keep_edits(viewer)
    prefer(autosave_seconds=1)
    widget = segmented()
    open_pair(widget, FIRST)
    layer = tumour_of(viewer, FIRST)
    layer.paint((2, 5, 5), 1)
    wait_until(lambda: np.array_equal(results_of(cohort).read_labels(FIRST), layer.data))
    qtbot.wait(1500)  # whoever else keeps edits had the time to
    assert kept_from_a_crash() == []
    layer.undo()
    wait_until(lambda: np.array_equal(results_of(cohort).read_labels(FIRST), layer.data))
    qtbot.wait(1500)
    assert kept_from_a_crash() == []
    # Of a patient that the results do not know, nobody else keeps them.
    folder = cohort.parent / "elsewhere" / "TCGA_EZ_0009_20090909"
    shutil.copytree(patient_on_disk(folder.name), folder)
    viewer.open(str(folder), plugin="napari-lgg-seg")
    viewer.layers[f"{folder.name} truth"].paint((1, 3, 3), 2)
    wait_until(lambda: kept_from_a_crash() == [f"{folder.name} truth"])


@pytest.mark.parametrize("first", ["layer", "dock"])
def test_edits_that_are_among_the_results_at_the_last_moment_are_not_kept_twice(
    viewer, segmented, open_pair, cohort, first, wait_until
):
    keep_edits(viewer)
    widget = segmented()
    open_pair(widget, FIRST)
    layer = tumour_of(viewer, FIRST)
    layer.paint((2, 5, 5), 1)
    if first == "layer":
        viewer.layers.remove(layer)
    else:
        viewer.window.remove_dock_widget(widget.native)
    np.testing.assert_array_equal(results_of(cohort).read_labels(FIRST), layer.data)
    wait_until(threads_done)
    assert kept_from_a_crash() == []


def test_a_patient_whose_layers_were_removed_opens_again(viewer, segmented, open_pair):
    widget = segmented()
    open_pair(widget, FIRST)
    shown = roles(viewer)
    viewer.layers.clear()
    open_pair(widget, FIRST)
    assert roles(viewer) == shown


def test_a_patient_that_was_left_is_not_offered(viewer, segmented, open_pair, wait_until, prefer, notes):
    prefer(autosave_seconds=1)
    widget = segmented()
    open_pair(widget, FIRST)
    tumour_of(viewer, FIRST).paint((2, 5, 5), 1)
    wait_until(lambda: any(notes.glob("*.json")))
    open_pair(widget, SECOND)
    wait_until(lambda: not list(notes.glob("*.json")))


@pytest.mark.parametrize("close", ["viewer", "window", "dock", "layer"])
def test_closing_keeps_edits(viewer, segmented, open_pair, cohort, close, wait_until, notes):
    widget = segmented()
    open_pair(widget, FIRST)
    layer = tumour_of(viewer, FIRST)
    layer.paint((2, 5, 5), 1)
    painted = layer.data.copy()
    if close == "viewer":
        viewer.close()
    elif close == "window":
        assert widget.native.window().close()
    elif close == "layer":
        viewer.layers.remove(layer)
    else:
        viewer.window.remove_dock_widget(widget.native)
        assert layer in viewer.layers
    wait_until(threads_done)
    np.testing.assert_array_equal(results_of(cohort).read_labels(FIRST), painted)
    assert results_of(cohort).status(FIRST).by_hand
    assert close == "layer" or not list(notes.glob("*.json"))
    if close == "layer":
        assert cell(widget, FIRST, "Volume\nfound") == f"{np.count_nonzero(painted):,}"
        assert states(widget)[FIRST] == "corrected"


def test_closing_is_not_undone_by_what_is_written_late(
    viewer, segmented, open_pair, cohort, wait_until, monkeypatch
):
    go_on, keep = threading.Event(), case_sources.save_edits
    monkeypatch.setattr(case_sources, "save_edits", lambda *args: (go_on.wait(3), keep(*args))[1])
    widget = segmented()
    open_pair(widget, FIRST)
    layer = tumour_of(viewer, FIRST)
    layer.paint((2, 5, 5), 1)
    widget.open_patient(SECOND)  # its worker has taken what is painted, and waits
    layer.paint((3, 40, 40), 1)
    painted = layer.data.copy()
    viewer.close()
    go_on.set()
    wait_until(threads_done)
    np.testing.assert_array_equal(results_of(cohort).read_labels(FIRST), painted)


def test_closing_asks_where_edits_cannot_be_kept(viewer, segmented, open_pair, full_disk, answer):
    widget = segmented()
    open_pair(widget, FIRST)
    tumour_of(viewer, FIRST).paint((2, 5, 5), 1)
    full_disk()
    window = widget.native.window()
    asked = answer("No")
    assert not window.close()
    assert "No space left" in asked[0]
    assert FIRST in asked[0]
    assert open_patients(viewer) == [FIRST]
    answer("Yes")
    assert window.close()
    assert len(asked) == 2


# --- accept --------------------------------------------------------------------------------------


def test_accept_marks_the_open_patient_corrected(viewer, segmented, open_pair, click, wait_until, cohort):
    widget = segmented()
    assert not widget.controls.accept.enabled
    open_pair(widget, FIRST)
    click(widget, "Accept")
    wait_until(lambda: states(widget)[FIRST] == "corrected")
    assert FIRST in status(widget)
    assert "1 patient is corrected so far" in status(widget)
    assert results_of(cohort).status(FIRST).by_hand
    run_to_end(widget, click, wait_until)
    assert states(widget)[FIRST] == "corrected"


def test_accept_in_correct_does_the_same(viewer, segmented, open_pair, click, wait_until, cohort):
    widget = segmented()
    results_of(cohort).write_corrected(SECOND, LabelMap(SECOND, np.ones((7, 64, 64), np.uint8), range(1, 8)))
    open_pair(widget, FIRST)
    _, correct = viewer.window.add_plugin_dock_widget("napari-lgg-seg", "Correct")
    correct.menu.value = tumour_of(viewer, FIRST)
    click(correct, "Accept")
    wait_until(lambda: states(widget)[FIRST] == "corrected")
    assert correct.status.value.startswith(f"{FIRST}: ")
    assert "2 patients are corrected so far; Fine-tune can learn from them." in correct.status.value
    assert results_of(cohort).status(FIRST).by_hand
    # What the browser would not accept is not accepted here.
    correct.menu.value = truth_of(viewer)
    click(correct, "Accept")
    assert f"'{FIRST} tumour'" in correct.status.value


def truth_of(viewer):
    (layer,) = [x for x in viewer.layers if (info := described(x)) is not None and info["role"] == "truth"]
    return layer


def test_accept_without_labels_says_so(viewer, browse, open_pair, click):
    widget = browse()
    open_pair(widget, FIRST)
    click(widget, "Accept")
    assert "no labels" in status(widget)
    assert states(widget)[FIRST] == "new"


# --- segmenting ------------------------------------------------------------------------------------


def test_segment_all_does_what_a_plain_run_does_and_goes_on_after_a_bad_one(
    browse, click, wait_until, cohort, small_model
):
    widget = browse()
    click(widget, "Segment all")
    wait_until(lambda: " of 4: " in run_status(widget))
    wait_until(lambda: not running(widget))
    assert run_status(widget).startswith("3 patients segmented. 1 patient failed:")
    assert f"{BROKEN}_3.tif" in run_status(widget)
    assert_sentence(run_status(widget))
    assert states(widget) == {**dict.fromkeys(NAMES, "segmented"), BROKEN: "cannot be read"}
    for name in NAMES:
        patient = read_patient(cohort / name)
        plain = api.segment(patient, api.load_model(small_model))
        np.testing.assert_array_equal(results_of(cohort).read_labels(name), plain.labels)
        assert cell(widget, name, "Dice") == f"{dice(plain.labels, patient.truth):.3f}"
        assert cell(widget, name, "Volume\nfound") == f"{plain.labels.sum():,}"
        assert 0 <= float(cell(widget, name, "Uncertainty")) <= 1


def test_segment_all_leaves_what_this_model_has_done(browse, click, wait_until, cohort, answer):
    shutil.rmtree(cohort / BROKEN)
    widget = browse()
    run_to_end(widget, click, wait_until)
    files = [results_of(cohort).labels_file(name) for name in NAMES]
    stamps = [f.stat().st_mtime_ns for f in files]
    asked = answer("Yes")
    click(widget, "Segment all")
    assert "nothing to segment: 3 patients segmented with this model already" in run_status(widget)
    assert [f.stat().st_mtime_ns for f in files] == stamps
    # Other options are another run.
    widget.controls.tta.value = False
    run_to_end(widget, click, wait_until)
    assert run_status(widget).startswith("3 patients segmented")
    assert all(f.stat().st_mtime_ns != stamp for f, stamp in zip(files, stamps, strict=True))
    assert asked == []


def test_segment_all_skips_corrected_labels_and_says_so(
    viewer, segmented, open_pair, click, wait_until, cohort
):
    widget = segmented()
    open_pair(widget, FIRST)
    layer = tumour_of(viewer, FIRST)
    layer.paint((2, 5, 5), 1)  # not even kept yet
    painted = layer.data.copy()
    widget.controls.tta.value = False
    run_to_end(widget, click, wait_until)
    assert "1 patient with corrected labels" in run_status(widget)
    assert states(widget)[FIRST] == "corrected"
    np.testing.assert_array_equal(results_of(cohort).read_labels(FIRST), painted)
    np.testing.assert_array_equal(layer.data, painted)


@pytest.mark.parametrize("button", ["Yes", "No", "Cancel"])
def test_segment_selected_asks_before_corrections_go(
    viewer, segmented, click, wait_until, cohort, answer, open_pair, button
):
    widget = segmented()
    open_pair(widget, FIRST)
    tumour_of(viewer, FIRST).paint((2, 5, 5), 1)
    painted = tumour_of(viewer, FIRST).data.copy()
    open_pair(widget, SECOND)
    stamp = results_of(cohort).labels_file(SECOND).stat().st_mtime_ns
    asked = answer(button)
    select(widget, FIRST, SECOND)
    click(widget, "Segment selected")
    wait_until(lambda: len(asked) == 1 and not running(widget))
    assert FIRST in asked[0]
    corrected_is_there = np.array_equal(results_of(cohort).read_labels(FIRST), painted)
    assert corrected_is_there == (button != "Yes")
    assert states(widget)[FIRST] == ("segmented" if button == "Yes" else "corrected")
    done_anew = results_of(cohort).labels_file(SECOND).stat().st_mtime_ns != stamp
    assert done_anew == (button != "Cancel")


def test_replacing_the_open_patients_corrections_shows_the_new_labels(
    viewer, segmented, click, wait_until, cohort, answer, open_pair
):
    widget = segmented()
    predicted = results_of(cohort).read_labels(FIRST)
    open_pair(widget, FIRST)
    tumour_of(viewer, FIRST).paint((2, 5, 5), 1)
    answer("Yes")
    select(widget, FIRST)
    click(widget, "Segment selected")
    wait_until(lambda: run_status(widget).startswith("1 patient segmented"))
    wait_until(lambda: np.array_equal(tumour_of(viewer, FIRST).data, predicted))
    assert roles(viewer).count("tumour") == 1
    open_pair(widget, SECOND)
    assert states(widget)[FIRST] == "segmented"


def test_segment_selected_without_a_selection_says_so(browse, click):
    widget = browse()
    select(widget)
    click(widget, "Segment selected")
    assert "Select patients" in run_status(widget)
    assert not running(widget)


def test_the_open_patient_shows_its_new_result(viewer, browse, open_pair, click, wait_until, cohort):
    widget = browse()
    open_pair(widget, FIRST)
    run_to_end(widget, click, wait_until)
    wait_until(lambda: f"{FIRST} tumour" in viewer.layers)
    np.testing.assert_array_equal(tumour_of(viewer, FIRST).data, results_of(cohort).read_labels(FIRST))
    assert f"{FIRST} probability" in viewer.layers
    assert "segmented" in status(widget)


def test_painting_during_the_run_is_not_disturbed(viewer, browse, open_pair, click, wait_until, gate, cohort):
    widget = browse()
    open_pair(widget, FIRST)
    select(widget, FIRST)
    click(widget, "Segment selected")
    wait_until(gate.reached.is_set)
    mine = viewer.add_labels(np.zeros((6, 64, 64), np.uint8))
    mine.paint((1, 30, 30), 1)
    painted = mine.data.copy()
    gate.open()
    wait_until(lambda: not running(widget))
    QApplication.processEvents()
    np.testing.assert_array_equal(mine.data, painted)
    open_pair(widget, SECOND)
    np.testing.assert_array_equal(results_of(cohort).read_labels(FIRST), painted)
    assert states(widget)[FIRST] == "corrected"


def test_cancel_keeps_what_is_done(viewer, browse, click, wait_until, gate, cohort):
    widget = browse()
    click(widget, "Segment all")
    wait_until(gate.reached.is_set)
    assert not widget.controls.dataset.enabled
    click(widget, "Cancel")
    gate.open()
    wait_until(lambda: not running(widget))
    assert run_status(widget) == "Cancelled: 0 patients segmented."
    assert "segmented" not in states(widget).values()
    assert widget.controls.dataset.enabled
    wait_until(threads_done)
    run_to_end(widget, click, wait_until)
    assert list(states(widget).values()).count("segmented") == 3


def test_patients_can_be_opened_during_a_run(viewer, browse, click, wait_until, gate, open_pair):
    widget = browse()
    click(widget, "Segment all")
    wait_until(gate.reached.is_set)
    open_pair(widget, SECOND)
    gate.open()
    wait_until(lambda: not running(widget))
    assert open_patients(viewer) == [SECOND]


def test_a_model_that_is_gone_is_a_sentence(browse, click, tmp_path, small_model):
    widget = browse()
    gone = tmp_path / "gone.safetensors"
    shutil.copy(small_model, gone)
    widget.controls.model.offer(gone)
    gone.unlink()
    click(widget, "Segment all")
    assert "gone.safetensors" in run_status(widget)
    assert_sentence(run_status(widget))
    assert not running(widget)


def test_the_window_may_be_closed_during_a_run(viewer, browse, click, wait_until, gate):
    widget = browse()
    click(widget, "Segment all")
    wait_until(gate.reached.is_set)
    viewer.close()
    gate.open()
    wait_until(threads_done)


def test_most_uncertain_come_first_after_those_in_whom_nothing_was_found(
    browse, click, cohort, make_head, all_read
):
    results, rng = results_of(cohort), np.random.default_rng(0)
    for name, doubt in ((FIRST, 0.1), (SECOND, 0.4)):
        truth = read_patient(cohort / name).truth
        probability = np.clip(truth + doubt * rng.random(truth.shape), 0, 1 - doubt).astype(np.float32)
        labels = (probability >= 0.5).astype(np.uint8)
        results.write_prediction(name, LabelMap(name, labels), probability)
    shape = read_patient(cohort / THIRD).truth.shape
    nothing = np.zeros(shape, np.uint8)
    results.write_prediction(THIRD, LabelMap(THIRD, nothing), nothing.astype(np.float32))
    widget = browse()
    click(widget, "Most uncertain first")
    assert shown(widget) == [THIRD, SECOND, FIRST, BROKEN]
    assert cell(widget, THIRD, "Uncertainty") == "none found"
    doubts = [float(cell(widget, name, "Uncertainty")) for name in (SECOND, FIRST)]
    assert 1 > doubts[0] > doubts[1] > 0
    for name in (FIRST, SECOND):
        status = results.status(name)
        assert cell(widget, name, "Uncertainty") == f"{1 - status.expected_dice:.3f}"
        assert cell(widget, name, "Mean\nentropy") == f"{status.uncertainty:.3f}"


def test_the_order_of_uncertainty_stays_while_reviewing(viewer, segmented, click, wait_until):
    widget = segmented()
    click(widget, "Most uncertain first")
    order = shown(widget)
    for name in order[:3]:
        click(widget, "Next >")
        wait_until(lambda name=name: open_patients(viewer) == [name])
        click(widget, "Accept")
        wait_until(lambda name=name: states(widget)[name] == "corrected")
        assert shown(widget) == order


def test_next_goes_on_where_a_filter_took_the_patient_away(viewer, segmented, click, wait_until):
    widget = segmented()
    widget.controls.state.value = "segmented"
    for name in shown(widget):
        click(widget, "Next >")
        wait_until(lambda name=name: open_patients(viewer) == [name])
        click(widget, "Accept")
        wait_until(lambda name=name: name not in shown(widget))
    click(widget, "Next >")
    assert "last patient" in status(widget)


# --- exporting -------------------------------------------------------------------------------------


def test_export_writes_masks_of_the_selected_and_marks_them(
    viewer, segmented, open_pair, click, wait_until, choose_folder, tmp_path, cohort
):
    widget = segmented()
    open_pair(widget, FIRST)
    tumour_of(viewer, FIRST).paint((2, 5, 5), 1)  # open, and not kept yet
    painted = tumour_of(viewer, FIRST).data.copy()
    choose_folder(tmp_path / "masks")
    select(widget, FIRST, SECOND, BROKEN)
    click(widget, "Export masks...")
    wait_until(lambda: "exported" in run_status(widget) and not running(widget))
    assert str(tmp_path / "masks") in run_status(widget)
    assert "1 patient failed" in run_status(widget)
    assert states(widget) == {
        FIRST: "exported",
        SECOND: "exported",
        THIRD: "segmented",
        BROKEN: "cannot be read",
    }
    np.testing.assert_array_equal(read_patient(tmp_path / "masks" / FIRST).truth, painted)
    np.testing.assert_array_equal(
        read_patient(tmp_path / "masks" / SECOND).truth, results_of(cohort).read_labels(SECOND)
    )
    assert not (tmp_path / "masks" / BROKEN).exists()
    assert results_of(cohort).status(FIRST).by_hand


def test_exporting_over_masks_asks_first(segmented, click, wait_until, choose_folder, tmp_path, answer):
    widget = segmented()
    choose_folder(tmp_path / "masks")
    select(widget, FIRST)
    click(widget, "Export masks...")
    wait_until(lambda: run_status(widget).startswith("1 patient exported"))
    file = tmp_path / "masks" / FIRST / f"{FIRST}_1_mask.tif"
    file.write_bytes(b"mine")
    asked = answer("No")
    click(widget, "Export masks...")
    wait_until(lambda: len(asked) == 1)
    assert file.read_bytes() == b"mine"
    wait_until(threads_done)
    answer("Yes")
    click(widget, "Export masks...")
    wait_until(lambda: len(asked) == 2 and run_status(widget).startswith("1 patient exported"))
    assert file.read_bytes() != b"mine"


def test_exporting_among_the_images_is_refused(segmented, click, wait_until, choose_folder, cohort):
    widget = segmented()
    before = {f: f.read_bytes() for f in cohort.rglob("*") if f.is_file()}
    choose_folder(cohort)
    select(widget, FIRST)
    click(widget, "Export masks...")
    wait_until(lambda: "failed" in run_status(widget))
    assert {f: f.read_bytes() for f in cohort.rglob("*") if f.is_file()} == before
    assert states(widget)[FIRST] == "segmented"


def test_exporting_nothing(browse, click, choose_folder, wait_until, tmp_path):
    widget = browse()
    select(widget)
    click(widget, "Export masks...")
    assert "Select patients" in run_status(widget)
    select(widget, FIRST)
    choose_folder(None)
    click(widget, "Export masks...")
    assert not running(widget)
    choose_folder(tmp_path / "masks")
    click(widget, "Export masks...")
    wait_until(lambda: "no labels yet" in run_status(widget))
    assert not (tmp_path / "masks").exists()


# --- real patients -----------------------------------------------------------------------------------


@pytest.mark.real_data
def test_the_dataset_opens(viewer, all_read, lgg_dataset, open_pair, tmp_path):
    _, widget = viewer.window.add_plugin_dock_widget("napari-lgg-seg", "Cohort")
    few = tmp_path / "few"
    few.mkdir()
    folders = sorted(f for f in lgg_dataset.iterdir() if f.is_dir())[:5]
    for folder in folders:
        shutil.copytree(folder, few / folder.name)
    widget.open_dataset(few)
    all_read(widget)
    assert found(widget) == "5 patients: 5 new."
    open_pair(widget, folders[2].name)
    assert cell(widget, folders[2].name, "Institution") == folders[2].name.split("_")[1]
