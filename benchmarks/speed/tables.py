"""The tables of docs/speed.md, from what :mod:`speed.sections` measured."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping

from results import as_table

from napari_lgg_seg.core.devices import INT8_ENGINE
from speed.formatting import (
    Measurements,
    Section,
    factor,
    labelled_rows,
    median,
    milliseconds,
    not_measured,
    number,
    percent,
    speedup,
)
from speed.sections import ENGINES
from speed.targets import network_rate, targets_table

_ENGINE_LABELS = {
    "torch": "**ours**, PyTorch",
    "openvino": "**ours**, OpenVINO",
    INT8_ENGINE: "**ours**, OpenVINO, 8 bits",
}
#: Labels of the methods of the network alone; {batch} is in slices, the sizes in pixels.
NETWORK = {
    "keras one": "Keras, one slice at a time",
    "keras batch": "Keras, batches of {batch}",
    "torch one": "PyTorch, fp32, one slice at a time",
    "torch batch": "PyTorch, fp32, batches of {batch}",
    "study one": "original study's network, PyTorch, fp32, one slice at a time",
    "study batch": "original study's network, PyTorch, fp32, batches of {batch}",
    "onnx one": "ONNX Runtime, one slice at a time",
    "onnx batch": "ONNX Runtime, batches of {batch}",
}
for _engine in ENGINES:
    _label = _ENGINE_LABELS[_engine]
    NETWORK |= {
        f"{_engine} whole": f"{_label}, whole slices of {{size}} x {{size}}",
        f"{_engine} working": f"{_label}, whole slices of {{working_size}} x {{working_size}}",
        f"{_engine} full-resolution": f"{_label}, full resolution everywhere",
        f"{_engine} coarse-to-fine": f"{_label}, coarse to fine",
    }
PROGRAMS = {
    "keras": "Keras, one slice at a time",
    "study": "original study's network and preprocessing, PyTorch",
    **{engine: _ENGINE_LABELS[engine] for engine in ENGINES},
}
START = {
    "python": "Python alone",
    "package": "`import napari_lgg_seg`",
    "program": "`napari-lgg-seg --help`",
    "torch": "`import torch`, needed only for a run",
}
PARTS = {
    "tifffile": "reading a patient's images with tifffile",
    "read": "**ours**: reading a patient with its masks, everything checked",
    "clean-up": "automatic threshold and clean-up of {slices} slices",
    "threshold": "a new threshold for {slices} slices",
}


# --- a table for each section ------------------------------------------------------------------


def network_tables(section: Section) -> dict[str, str]:
    """The network alone, and the processor."""
    methods: Measurements = section["methods"]
    keras = methods["keras batch"]
    best = median(methods["bf16 product"], "gflops")

    def columns(name: str) -> list[str]:
        rate = network_rate(section, name)
        share = rate / best if rate is not None and best else None
        return [
            number(median(methods[name])),
            factor(speedup(keras, methods[name])),
            number(rate),
            percent(share),
        ]

    words = {key: section[key] for key in ("batch", "size", "working_size")}
    header = ["network alone", "s per slice", "speed-up over Keras in batches", "GFLOP/s"]
    header += ["relative to the bf16 matrix product"]
    table = as_table(header, labelled_rows(methods, NETWORK, columns, **words))
    slowest = max(keras.get("slowest", ()), default=None)
    if slowest is not None:
        table += f"\n\nThe slowest of the Keras batches: {number(slowest)} s per slice."
    return {"speed-network": table, "speed-processor": _processor(section)}


def _processor(section: Section) -> str:
    processor, methods = section["processor"], section["methods"]
    rates = {name: median(methods.get(f"{name} product"), "gflops") for name in ("fp32", "bf16")}
    table = as_table(["matrix product, PyTorch", "GFLOP/s"], [[k, number(v)] for k, v in rates.items()])
    clock = f", {processor['ghz']:.2f} GHz" if processor["ghz"] else ""
    return f"{processor['name']}, {processor['cores']} cores{clock}.\n\n{table}"


def patient_tables(section: Section) -> dict[str, str]:
    """One patient from folder to mask files."""
    warm, cold = section["warm"], section["cold"]

    def columns(name: str) -> list[str]:
        return [
            number(median(warm[name])),
            factor(speedup(warm["keras"], warm[name])),
            percent(median(warm[name], "outside")),
            not_measured(cold.get(name, {})) or number(median(cold.get(name))),
            factor(speedup(cold.get("keras"), cold.get(name))),
        ]

    header = ["folder to mask files", "warm, s per patient", "speed-up over Keras", "outside the network"]
    header += ["cold start, s", "speed-up over Keras"]
    table = as_table(header, labelled_rows(warm, PROGRAMS, columns))
    first = section["first run ever"]
    seconds = not_measured(first) or number(median(first), "s")
    slices = ", ".join(str(count) for count in section["slices"])
    note = f"Slices of the patients: {slices}; the cold start is that of the first one. "
    return {"speed-patient": f"{table}\n\n{note}First run ever: {seconds}."}


def cohort_tables(section: Section) -> dict[str, str]:
    """Several patients, start-up included."""
    programs = section["programs"]
    patients, slices = len(section["slices"]), sum(section["slices"])

    def columns(name: str) -> list[str]:
        seconds = median(programs[name])
        return [
            number(seconds),
            number(None if seconds is None else seconds / patients),
            factor(speedup(programs["keras"], programs[name])),
            number(median(programs[name], "peak_mb")),
        ]

    header = [f"{patients} patients, {slices} slices", "s", "s per patient", "speed-up over Keras"]
    header += ["peak memory, MB"]
    return {"speed-cohort": as_table(header, labelled_rows(programs, PROGRAMS, columns))}


def growth_tables(section: Section) -> dict[str, str]:
    """Time and memory with growing cohorts."""
    named = {f"{n} patient{'s' * (n != '1')}": found for n, found in section["cohorts"].items()}
    named["the largest of these patients alone"] = section["alone"]
    named["the largest patient of all"] = section["largest"]
    rows = []
    for name, found in named.items():
        if "problem" in found:
            rows.append([name, "", not_measured(found), "", ""])
            continue
        cells = [number(found["seconds"]), number(found["seconds"] / found["slices"])]
        rows.append([name, str(found["slices"]), *cells, number(found.get("peak_mb"))])
    return {"speed-growth": as_table(["`segment`", "slices", "s", "s per slice", "peak memory, MB"], rows)}


def training_tables(section: Section) -> dict[str, str]:
    """Training steps, and the memory of a training."""
    rows = []
    for size, batch in section["steps"]:
        keras, ours = (section["methods"][f"{name} {size} {batch}"] for name in ("keras", "ours"))
        cells = [not_measured(method) or number(median(method)) for method in (keras, ours)]
        rows.append([str(size), str(batch), *cells, factor(speedup(keras, ours))])
    header = ["size, pixels", "batch", "Keras, s per slice", "**ours**, s per slice", "speed-up over Keras"]
    cohorts = []
    for count, found in section["cohorts"].items():
        if "problem" in found:
            cohorts.append([count, not_measured(found), "", "", ""])
            continue
        cells = [str(found["slices"]), number(found["data_mb"]), number(found.get("peak_mb"))]
        cohorts.append([count, *cells, percent(found["waiting"])])
    columns = ["patients", "training slices", "size of these, MB", "peak memory, MB", "waiting for data"]
    return {"speed-training": as_table(header, rows), "speed-training-memory": as_table(columns, cohorts)}


def parts_tables(section: Section) -> dict[str, str]:
    """The work around the network."""
    methods = section["methods"]

    def columns(name: str) -> list[str]:
        return [milliseconds(median(methods[name]), "")]

    header = [f"a patient of {section['slices']} slices", "ms"]
    rows = labelled_rows(methods, PARTS, columns, slices=section["threshold_slices"])
    return {"speed-parts": as_table(header, rows)}


def start_tables(section: Section) -> dict[str, str]:
    """Imports and napari's start-up."""
    programs, napari, plugin = section["programs"], section["napari"], section["plugin"]

    def columns(name: str) -> list[str]:
        return [milliseconds(median(programs[name]), "")]

    rows = labelled_rows(programs, START, columns)
    label = "napari until the viewer exists"
    if "problem" in napari:
        rows.append([label, not_measured(napari)])
    else:
        for word, seconds in napari.items():
            rows.append([f"{label}, {word} the plugin", milliseconds(statistics.median(seconds), "")])
    cell = not_measured(plugin) or milliseconds(median(plugin), "")
    rows.append(["of which reading and registering the manifest", cell])
    return {"speed-start": as_table(["", "ms"], rows)}


def window_tables(section: Section) -> dict[str, str]:
    """The window during runs."""
    if "problem" in section:
        return {"speed-window": f"Not measured: {section['problem']}."}
    keys = ("first_sign", "first_slices", "seconds")
    rows = [
        [f"run {index}", *(number(run[key]) for key in keys), milliseconds(run["stall"], "")]
        for index, run in enumerate(section["runs"], start=1)
    ]
    header = ["sample patient", "first message, s", "first slices, s", "result, s", "longest freeze, ms"]
    labels, drawn = (milliseconds(median(section["threshold"], key)) for key in ("labels", "drawn"))
    note = f"A step of the threshold slider for {section['slices']} slices: "
    note += f"new labels after {labels}, drawn after {drawn}."
    return {"speed-window": f"{as_table(header, rows)}\n\n{note}"}


_TABLES: dict[str, Callable[[Section], dict[str, str]]] = {
    "network": network_tables,
    "patient": patient_tables,
    "cohort": cohort_tables,
    "training": training_tables,
    "parts": parts_tables,
    "start": start_tables,
    "window": window_tables,
    "growth": growth_tables,
}


def tables(sections: Mapping[str, Section]) -> dict[str, str]:
    """All tables of what was measured, by their markers in docs/speed.md; the targets first."""
    found = {"speed-targets": targets_table(sections), "speed-machine": machine_table(sections)}
    for name, make in _TABLES.items():
        if name in sections:
            found |= make(sections[name])
    return found


def machine_table(sections: Mapping[str, Section]) -> str:
    """When, on what and with which versions each section was measured."""
    rows = []
    for name, section in sections.items():
        about = section["about"]
        versions = ", ".join(f"{k} {v}" for k, v in about["versions"].items())
        cells = [name, about["date"], about["patients"], percent(about["busy"]), percent(about["busy_after"])]
        rows.append([*cells, f"{section['minutes']:.1f}", versions])
    header = ["section", "date", "patients", "processor load before", "after", "minutes", "versions"]
    return as_table(header, rows)
