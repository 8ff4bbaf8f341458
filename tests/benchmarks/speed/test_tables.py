"""The tables and targets, from results like those of a run."""

from __future__ import annotations

import re
import shutil

import pytest
from results import fill
from speed.app import DOCUMENT
from speed.tables import tables
from speed.targets import targets_table

_FAILED = {"problem": "keras is not installed"}


def _measured(*seconds, **others):
    return {"seconds": list(seconds), **others}


def _network_section():
    gflop = {"unet": {"256": 83.0, "192": 47.0}, "buda": {"256": 24.0, "192": 13.5}}
    names = ("torch one", "torch batch", "study one", "study batch", "torch whole", "torch working")
    methods = {name: _measured(0.4, 0.5) for name in names} | {
        "keras one": _measured(0.4, 0.8),
        "keras batch": {**_measured(0.31, 0.62), "slowest": [0.33, 0.65]},
        "onnx one": {"problem": "onnx is not installed"},
        "onnx batch": {"problem": "onnx is not installed"},
        "openvino whole": _measured(0.1, 0.2),
        "openvino working": _measured(0.05, 0.1),
        "torch coarse-to-fine": _measured(0.1, 0.2, share_of_pixels=[0.6, 0.6]),
        "openvino coarse-to-fine": _measured(0.03, 0.06, share_of_pixels=[0.6, 0.6]),
        "openvino-int8 coarse-to-fine": _measured(0.02, 0.04, share_of_pixels=[0.6, 0.6]),
        "fp32 product": _measured(1, gflops=[300.0]),
        "bf16 product": _measured(1, gflops=[600.0, 660.0]),
    }
    processor = {
        "name": "X",
        "cores": 2,
        "ghz": 2.6,
    }
    sizes = {"size": 256, "working_size": 192, "one": 4, "batch": 16}
    return {**sizes, "gflop": gflop, "processor": processor, "methods": methods}


@pytest.fixture
def sections():
    """Results as a run stores them."""
    about = {
        "date": "2026-01-01",
        "patients": "synthetic",
        "busy": 0.01,
        "busy_after": 0.02,
        "versions": {"a": "1"},
    }
    programs = {
        "keras": _FAILED,
        "study": _measured(9.0),
        "torch": _measured(4.0),
        "openvino": _measured(2.0, peak_mb=[900.0]),
    }
    run = {"first_sign": 0.5, "first_slices": 1.5, "seconds": 4.0, "stall": 0.2}
    cohort = {"seconds": 9.0, "peak_mb": 900.0, "slices": 30}
    found = {
        "network": _network_section(),
        "patient": {
            "slices": [30, 32],
            "warm": {**programs, "openvino": _measured(2.0, outside=[0.1])},
            "cold": programs,
            "first run ever": {"seconds": 5.0},
        },
        "cohort": {"slices": [30, 30], "programs": programs},
        "training": {
            "steps": [[128, 8], [192, 8], [256, 8]],
            "methods": {
                **{"keras 128 8": _measured(0.2), "ours 128 8": _measured(0.1)},
                **{"keras 192 8": _measured(0.9), "ours 192 8": _measured(0.2)},
                **{"keras 256 8": _measured(1.6), "ours 256 8": _measured(0.4)},
            },
            "cohorts": {"4": {**cohort, "data_mb": 13.0, "waiting": 0.01}, "20": _FAILED},
        },
        "parts": {
            "slices": 30,
            "threshold_slices": 60,
            "methods": {name: _measured(0.01) for name in ("tifffile", "read", "clean-up", "threshold")},
        },
        "start": {
            "programs": {name: _measured(0.1) for name in ("python", "package", "program", "torch")},
            "napari": {"with": [2.02, 2.03], "without": [2.0, 2.0]},
            "plugin": _measured(0.01),
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


def test_targets_are_compared_with_what_was_measured(sections):
    table = targets_table(sections)
    assert _row(table, "network alone, whole slices: speed-up")[1:] == [">= 3.00", "3.10", "met"]
    assert _row(table, "network alone, coarse to fine")[1:] == [">= 8.00", "10.33", "met"]
    assert _row(table, "network alone, whole slices: rate")[2:] == ["87.8 %", "met"]
    eight_bits = [line for line in table.splitlines() if line.startswith("| the same in 8 bits")]
    assert [line.split("|")[3].strip() for line in eight_bits] == ["", "15.50", ""]
    assert _row(table, "cohort from folders")[2:] == ["", "not measured"]  # Keras is missing
    assert _row(table, "one patient, warm")[2:] == ["10.0 %", "met"]
    assert _row(table, "training step, ours on the head at 192")[2:] == ["8.00", "met"]
    assert _row(table, "training step at equal sizes")[2:] == ["2.00", "**not met**"]
    # 0.65 of the slices are small.
    assert _row(table, "training from scratch")[2:] == ["6.67", "met"]
    assert _row(table, "window: longest freeze")[1:] == ["< 50 ms", "40 ms", "met"]
    assert _row(table, "time that the plugin adds")[1:] == ["< 30 ms", "25 ms", "met"]
    assert _row(table, "peak memory of `segment`, largest cohort")[2:] == ["1.05", "met"]
    assert _row(table, "the same relative to one patient")[2:] == ["1.10", "**not met**"]
    assert {_row(targets_table({}), "window: time to the first slices")[3]} == {"not measured"}


def test_failures_are_reported_in_their_row(sections):
    found = tables(sections)
    assert _row(found["speed-network"], "ONNX Runtime, one")[1] == "not measured: onnx is not installed"
    assert _row(found["speed-network"], "**ours**, OpenVINO, whole slices of 256")[2] == "3.10"
    assert _row(found["speed-cohort"], "Keras")[1] == "not measured: keras is not installed"
    assert _row(found["speed-training-memory"], "20")[1] == "not measured: keras is not installed"
    without_display = {"window": {**sections["window"], "problem": "there is no display"}}
    assert "there is no display" in tables(without_display)["speed-window"]


def test_methods_that_no_longer_exist_are_left_out(sections):
    methods = sections["network"]["methods"]
    methods["torch-compile whole"] = methods["torch whole"]
    assert "ompile" not in tables(sections)["speed-network"]


def test_the_slowest_keras_batch_is_reported(sections):
    assert "slowest of the Keras batches: 0.65 s per slice" in tables(sections)["speed-network"]


def test_the_matrix_product_and_the_processor_are_reported(sections):
    table = tables(sections)["speed-processor"]
    assert table.startswith("X, 2 cores, 2.60 GHz.")
    assert _row(table, "bf16")[1] == "630"


def test_every_table_has_its_marker_in_the_page(sections, tmp_path):
    copy = tmp_path / "speed.md"
    shutil.copy(DOCUMENT, copy)
    found = tables(sections)
    fill(copy, found)
    marks = re.findall(r"<!-- (speed-[a-z-]+) -->", copy.read_text())
    assert sorted(marks) == sorted(found)
