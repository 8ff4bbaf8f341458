"""The speed suite's parts at tiny sizes, without the packages that it compares with."""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from pathlib import Path

import pytest

from napari_lgg_seg.core.data.masks import write_patient

DOCUMENT = Path(__file__).parents[2] / "docs" / "speed.md"

pytestmark = pytest.mark.usefixtures("benchmarks")


@pytest.fixture
def folders(tmp_path, make_patient):
    """Two patients on disk."""
    names = ["TCGA_DU_0001_19990101", "TCGA_DU_0002_19990101"]
    for seed, name in enumerate(names):
        write_patient(tmp_path / "patients" / name, make_patient(name, shape=(4, 64, 64), seed=seed))
    return [str(tmp_path / "patients" / name) for name in names]


# --- turns -------------------------------------------------------------------------------------

_WAYS = """
from pathlib import Path

def ways(letters, log):
    def way(letter):
        def work():
            with Path(log).open("a") as file:
                file.write(letter)
            if letter == "x" and Path(log).read_text().count("x") > 2:
                raise ValueError("x is broken")
            print("noise of a library")
            return {"seconds": 1.0, "letter": letter}
        return work
    return [way(letter) for letter in letters]

def missing():
    import a_package_that_is_not_there
"""


@pytest.fixture
def ways(tmp_path, monkeypatch):
    """A module with ways for other processes to serve; gives the file in which they note their turns."""
    (tmp_path / "tiny_ways.py").write_text(_WAYS)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, sys.path)]))
    return tmp_path / "log"


def test_ways_take_turns_and_failures_are_sentences(ways):
    from speed_turns import Group, take_turns

    groups = [
        Group(("A", "B"), "tiny_ways:ways", {"letters": "ab", "log": str(ways)}),
        Group(("not there",), "tiny_ways:missing"),
        Group(("X",), "tiny_ways:ways", {"letters": "x", "log": str(ways)}),
    ]
    found = take_turns(groups, 3)
    assert ways.read_text() == "abx" + "abx" + "abx" + "ab"  # once before it counts; x fails in its third
    assert found["A"] == {"seconds": [1.0] * 3, "letter": ["a"] * 3}
    assert found["B"]["letter"] == ["b"] * 3
    assert found["not there"] == {"problem": "a_package_that_is_not_there is not installed"}
    assert found["X"]["problem"] == "ValueError: x is broken"


def test_programs_are_measured_from_start_to_end():
    from speed_turns import programs_in_turn

    work = "import sys, time; block = b'1' * 200_000_000; time.sleep(0.2); assert 'speed' in sys.argv[1]"
    large = b"1" * 1_000_000_000  # must not count: it is not the program's
    found = programs_in_turn(
        {
            "good": lambda output: [sys.executable, "-c", work, f"speed {output}"],
            "bad": lambda _: [sys.executable, "-c", "raise SystemExit('no such patient')"],
        },
        2,
    )
    assert found["bad"] == {"problem": "no such patient"}
    assert all(seconds > 0.2 for seconds in found["good"]["seconds"])
    if hasattr(os, "wait4"):
        assert all(200 < peak < 500 for peak in found["good"]["peak_mb"])
    assert len(large)


# --- ways --------------------------------------------------------------------------------------


def _seconds(ways):
    found = [way() for way in ways]
    assert all(figures["seconds"] > 0 for figures in found)
    return found


def test_operations_are_those_of_the_networks():
    from speed_ways import count_operations

    found = count_operations([64, 256])
    assert found["unet"]["256"] == pytest.approx(83, abs=1)
    assert found["buda"]["256"] == pytest.approx(24, abs=1)
    assert found["unet"]["64"] == pytest.approx(found["unet"]["256"] / 16)


def test_networks_alone(folders):
    import speed_ways

    assert len(_seconds(speed_ways.torch_ways("unet", 16, 1, 2))) == 2
    assert len(_seconds(speed_ways.engine_ways("torch", [16, 32], 2))) == 2
    (windows,) = _seconds(speed_ways.window_ways("torch", folders, full_resolution=True))
    (seen,) = _seconds(speed_ways.window_ways("torch", folders, full_resolution=False))
    assert 0 < windows["share_of_pixels"] <= 1
    assert 0 < seen["share_of_pixels"] <= 1.25
    fp32, bf16 = _seconds(speed_ways.multiplication_ways(64))
    assert min(fp32["gflops"], bf16["gflops"]) > 0


def test_patients_from_folder_to_masks(folders, tmp_path):
    import speed_study
    import speed_ways

    for name, ways in {
        "ours": speed_ways.patient_ways("torch", folders, str(tmp_path / "ours")),
        "study": speed_study.patient_ways(folders, str(tmp_path / "study")),
    }.items():
        (found,) = _seconds(ways)
        assert 0 < found["outside"] < 1
        masks = list((tmp_path / name).glob("*/*_mask.tif"))
        assert len(masks) == 2 * (4 if name == "ours" else 2)  # the study drops first and last


def test_the_study_prepares_as_it_was_published(folders):
    import numpy as np
    from speed_study import prepare

    from napari_lgg_seg.core.data.patients import read_patient

    slices = prepare(read_patient(folders[0]).volume, size=32)
    assert slices.shape == (2, 3, 32, 32)
    np.testing.assert_allclose(slices.mean(axis=(0, 2, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(slices.std(axis=(0, 2, 3)), 1, atol=1e-3)
    assert np.isfinite(prepare(np.zeros((3, 8, 6, 3), np.uint8), size=16)).all()


def test_parts_and_training_steps(folders):
    pytest.importorskip("monai")
    import speed_ways

    assert len(_seconds(speed_ways.part_ways(folders[0], 6))) == 4
    assert len(_seconds(speed_ways.training_ways([(32, 2)], folders))) == 1


def test_keras_has_the_same_network_and_reads_slices_in_their_order(folders):
    import speed_keras

    from napari_lgg_seg.core.model.networks import build_network, count_parameters

    assert count_parameters(build_network("unet", 3)) == speed_keras.PARAMETERS
    for number in (10, 11):
        shutil.copy(f"{folders[0]}/{Path(folders[0]).name}_1.tif", f"{folders[0]}/x_{number}.tif")
    numbers = [file.stem.rpartition("_")[2] for file in speed_keras.slice_files(Path(folders[0]))]
    assert numbers == ["1", "2", "3", "4", "10", "11"]


def test_widest_instructions_count():
    from speed_limit import read_flags, widest

    flags = read_flags("model name : X\nflags\t\t: sse2 fma avx512f avx512_bf16 avx512_vnni\n")
    assert widest(flags) == {
        "fp32": ("avx512f", 64),
        "bf16": ("avx512_bf16", 128),
        "int8": ("avx512_vnni", 256),
    }
    assert widest(read_flags("nothing")) == {}


def test_stalls_of_the_window_are_seen(qapp):
    from qtpy.QtCore import QTimer
    from speed_window import Heartbeat

    heartbeat, done = Heartbeat(), []
    QTimer.singleShot(30, lambda: (time.sleep(0.3), done.append(True)))
    assert 0.25 < heartbeat.until(lambda: bool(done)) < 5
    with pytest.raises(TimeoutError):
        heartbeat.until(lambda: False, seconds=0.05)


def test_a_plugin_is_hidden_from_napari(monkeypatch):
    from importlib import metadata

    import speed_start

    monkeypatch.setattr(metadata, "distributions", metadata.distributions)  # put back at the end
    speed_start.hide("npe2")
    names = {package.name for package in metadata.distributions()}
    assert "npe2" not in names
    assert "napari" in names


# --- tables ------------------------------------------------------------------------------------

_BAD = {"problem": "keras is not installed"}


def _way(*seconds, **others):
    return {"seconds": list(seconds), **others}


@pytest.fixture
def sections():
    """Figures as a run leaves them."""
    about = {
        "date": "2026-01-01",
        "patients": "made",
        "busy": 0.01,
        "busy_after": 0.02,
        "versions": {"a": "1"},
    }
    gflop = {"unet": {"256": 83.0, "192": 47.0}, "buda": {"256": 24.0, "192": 13.5}}
    names = ("torch one", "torch batch", "study one", "study batch", "torch whole", "torch working")
    ways = {name: _way(0.4, 0.5) for name in names} | {
        "keras one": _way(0.4, 0.8),
        "keras batch": {**_way(0.31, 0.62), "slowest": [0.33, 0.65]},
        "onnx one": {"problem": "onnx is not installed"},
        "onnx batch": {"problem": "onnx is not installed"},
        "openvino whole": _way(0.1, 0.2),
        "openvino working": _way(0.05, 0.1),
        "torch seen": _way(0.1, 0.2, share_of_pixels=[0.6, 0.6]),
        "openvino seen": _way(0.03, 0.06, share_of_pixels=[0.6, 0.6]),
        "openvino-int8 seen": _way(0.02, 0.04, share_of_pixels=[0.6, 0.6]),
        "fp32 product": _way(1, gflops=[300.0]),
        "bf16 product": _way(1, gflops=[600.0, 660.0]),
    }
    processor = {
        "name": "X",
        "cores": 2,
        "ghz": 2.6,
        "instructions": {"fp32": "avx512f"},
        "gflops": {"fp32": 332.8},
    }
    sizes = {"size": 256, "working_size": 192, "one": 4, "batch": 16}
    programs = {"keras": _BAD, "study": _way(9.0), "torch": _way(4.0), "openvino": _way(2.0, peak_mb=[900.0])}
    run = {"first_sign": 0.5, "first_slices": 1.5, "seconds": 4.0, "stall": 0.2}
    cohort = {"seconds": 9.0, "peak_mb": 900.0, "slices": 30}
    found = {
        "network": {**sizes, "gflop": gflop, "processor": processor, "ways": ways},
        "patient": {
            "slices": [30, 32],
            "warm": {**programs, "openvino": _way(2.0, outside=[0.1])},
            "cold": programs,
            "first run ever": {"seconds": 5.0},
        },
        "cohort": {"slices": [30, 30], "programs": programs},
        "training": {
            "steps": [[128, 8], [192, 8], [256, 8]],
            "ways": {
                **{"keras 128 8": _way(0.2), "ours 128 8": _way(0.1)},
                **{"keras 192 8": _way(0.9), "ours 192 8": _way(0.2)},
                **{"keras 256 8": _way(1.6), "ours 256 8": _way(0.4)},
            },
            "cohorts": {"4": {**cohort, "data_mb": 13.0, "waiting": 0.01}, "20": _BAD},
        },
        "parts": {
            "slices": 30,
            "threshold_slices": 60,
            "ways": {name: _way(0.01) for name in ("tifffile", "read", "clean-up", "threshold")},
        },
        "start": {
            "programs": {name: _way(0.1) for name in ("python", "package", "program", "torch")},
            "napari": {"with": [2.02, 2.03], "without": [2.0, 2.0]},
            "plugin": _way(0.01),
        },
        "window": {
            "runs": [run, {**run, "stall": 0.04}],
            "slices": 60,
            "threshold": {"labels": [0.02], "drawn": [0.03]},
        },
        "growth": {
            "cohorts": {"1": cohort, "90": {**cohort, "peak_mb": 990.5}},
            "alone": {**cohort, "peak_mb": 943},
            "largest": cohort,
        },
    }
    return {name: {"about": about, "minutes": 1.0, **section} for name, section in found.items()}


def _row(table, begins):
    (line,) = [line for line in table.splitlines() if line.startswith(f"| {begins}")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_goals_stand_beside_what_was_measured(sections):
    from speed_tables import goals_table

    table = goals_table(sections)
    assert _row(table, "network alone, whole slices: times")[1:] == [">= 3.00", "3.10", "met"]
    assert _row(table, "network alone, with everything")[1:] == [">= 8.00", "10.33", "met"]
    assert _row(table, "network alone, whole slices: share")[2:] == ["87.8 %", "met"]
    eight_bits = [line for line in table.splitlines() if line.startswith("| the same in 8 bits")]
    assert [line.split("|")[3].strip() for line in eight_bits] == ["", "15.50", ""]
    assert _row(table, "a cohort from folder")[2:] == ["", "not measured"]  # there is no Keras
    assert _row(table, "a patient, warm")[2:] == ["10.0 %", "met"]
    assert _row(table, "training step, ours on the head at 192")[2:] == ["8.00", "met"]
    assert _row(table, "training step at equal sizes")[2:] == ["2.00", "**not met**"]
    # 0.65 of the slices are small.
    assert _row(table, "training from scratch")[2:] == ["6.67", "met"]
    assert _row(table, "window: longest stall")[1:] == ["< 50 ms", "40 ms", "met"]
    assert _row(table, "what the plugin adds")[1:] == ["< 30 ms", "25 ms", "met"]
    assert _row(table, "peak memory of `segment`, largest cohort")[2:] == ["1.05", "met"]
    assert _row(table, "the same: times that of one patient")[2:] == ["1.10", "**not met**"]
    assert {_row(goals_table({}), "window: first slices")[3]} == {"not measured"}


def test_what_failed_is_said_in_its_row(sections):
    from speed_tables import tables

    found = tables(sections)
    assert _row(found["speed-network"], "ONNX Runtime, one")[1] == "not measured: onnx is not installed"
    assert _row(found["speed-network"], "**ours**, OpenVINO, whole slices of 256")[2] == "3.10"
    assert _row(found["speed-cohort"], "Keras")[1] == "not measured: keras is not installed"
    assert _row(found["speed-training-memory"], "20")[1] == "not measured: keras is not installed"
    assert (
        "there is no display"
        in tables({"window": {**sections["window"], "problem": "there is no display"}})["speed-window"]
    )


def test_the_slowest_of_kerass_batches_is_told(sections):
    from speed_tables import tables

    assert "slowest of Keras's batches: 0.65 s a slice" in tables(sections)["speed-network"]


def test_every_table_has_its_place_in_the_document(sections, tmp_path):
    from results import fill
    from speed_tables import tables

    copy = tmp_path / "speed.md"
    shutil.copy(DOCUMENT, copy)
    found = tables(sections)
    fill(copy, found)
    marks = re.findall(r"<!-- (speed-[a-z-]+) -->", copy.read_text())
    assert sorted(marks) == sorted(found)


def test_figures_are_kept_section_by_section(tmp_path, monkeypatch):
    import speed

    monkeypatch.setattr(speed.Settings, "prepare", lambda _: {"threads": 2})
    monkeypatch.setattr(speed, "_busy", lambda: 0.0)
    monkeypatch.setattr(speed, "tables", lambda sections: {name: name for name in sections})
    for name in ("window", "parts"):
        monkeypatch.setitem(speed.SECTIONS, name, lambda settings: {"slices": 1 / 3, "quick": settings.quick})
        speed.measure(
            only=name, dataset=None, rounds=1, patients=1, quick=True, full=False, file=tmp_path / "f"
        )
    kept = speed._read(tmp_path / "f")
    assert list(kept) == ["parts", "window"]
    assert kept["parts"]["slices"] == 0.33333
    with pytest.raises(speed.typer.BadParameter, match="speed is no section"):
        speed.measure(only="speed", dataset=None, rounds=1, patients=1, quick=True, full=False, file=None)
