"""Tables of what :mod:`speed_sections` measured: medians, ratios, and the goals beside what was found."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from results import as_table
from speed_sections import AUTOMATIC_ENGINES, ENGINES, PATIENT_ENGINES, SIZE, WORKING_SIZE

from napari_lgg_seg.core.devices import ENGINE_NAMES, INT8_ENGINE
from napari_lgg_seg.core.training.options import TrainOptions

Section = Mapping[str, Any]
Ways = Mapping[str, Mapping[str, Any]]

#: What ways are called in tables; {batch} slices, the others pixels.
NETWORK = {
    "keras one": "Keras, one slice at a time",
    "keras batch": "Keras, batches of {batch}",
    "torch one": "PyTorch, fp32, one at a time",
    "torch batch": "PyTorch, fp32, batches of {batch}",
    "study one": "original study's network, PyTorch, fp32, one at a time",
    "study batch": "original study's network, PyTorch, fp32, batches of {batch}",
    "onnx one": "ONNX Runtime, one at a time",
    "onnx batch": "ONNX Runtime, batches of {batch}",
}
for _engine in ENGINES:
    _name = f"**ours**, {ENGINE_NAMES[_engine]}"
    NETWORK |= {
        f"{_engine} whole": f"{_name}, whole slices of {{size}}",
        f"{_engine} working": f"{_name}, whole slices at the working size of {{working_size}}",
        f"{_engine} windows": f"{_name}, what it sees of patients in a thorough look",
        f"{_engine} seen": f"{_name}, what it sees of patients",
    }
PROGRAMS = {
    "keras": "Keras, one slice at a time",
    "study": "original study's network and preprocessing, PyTorch",
    **{engine: f"**ours**, {ENGINE_NAMES[engine]}" for engine in PATIENT_ENGINES},
}
START = {
    "python": "Python alone",
    "package": "`import napari_lgg_seg`",
    "program": "`napari-lgg-seg --help`",
    "torch": "`import torch`, which only a run needs",
}
PARTS = {
    "tifffile": "reading a patient's images, tifffile",
    "read": "**ours**: reading a patient, masks as well, everything checked",
    "clean-up": "automatic threshold and clean-up of {slices} slices",
    "threshold": "a new threshold for {slices} slices",
}


def typical(way: Mapping[str, Any] | None, figure: str = "seconds") -> float | None:
    """Median over the turns of a way, or its one figure; None where it failed or was not measured."""
    values = None if way is None or "problem" in way else way.get(figure)
    if values is None or values == []:
        return None
    return float(statistics.median(values)) if isinstance(values, list) else float(values)


def ratio(slow: Mapping[str, Any] | None, quick: Mapping[str, Any] | None) -> float | None:
    """How many times as fast the second is: the median over turns that followed each other."""
    if typical(slow) is None or typical(quick) is None:
        return None
    assert slow is not None
    assert quick is not None
    pairs = zip(slow["seconds"], quick["seconds"], strict=False)
    return statistics.median(a / b for a, b in pairs)


def number(value: float | None, unit: str = "", digits: int = 3) -> str:
    """A figure with so many digits that count; empty where there is none."""
    if value is None:
        return ""
    magnitude = f"{value:.{digits}g}"
    text = f"{float(magnitude):,.0f}" if abs(value) >= 10 ** (digits - 1) else f"{float(magnitude):g}"
    return f"{text} {unit}".rstrip()


def times(value: float | None) -> str:
    """A ratio for a table."""
    return "" if value is None else f"{value:.2f}"


def percent(value: float | None) -> str:
    """A share for a table."""
    return "" if value is None else f"{100 * value:.1f} %"


def _labelled(
    ways: Ways, labels: Mapping[str, str], columns: Callable[[str], list[str]], **words: Any
) -> list[list[str]]:
    """A row for each way that was tried: its figures, or why there are none."""
    rows = []
    for name, label in labels.items():
        if name not in ways:
            continue
        problem = ways[name].get("problem")
        row = columns(name)
        rows.append([label.format(**words), *([f"not measured: {problem}", *row[1:]] if problem else row)])
    return rows


# --- a table for each section ------------------------------------------------------------------


def network_tables(section: Section) -> dict[str, str]:
    """The network alone, and what the processor can do."""
    ways: Ways = section["ways"]
    keras = ways["keras batch"]
    best = typical(ways["bf16 product"], "gflops")

    def columns(name: str) -> list[str]:
        rate = network_rate(section, name)
        share = rate / best if rate is not None and best else None
        return [
            number(typical(ways[name])),
            times(ratio(keras, ways[name])),
            number(rate),
            percent(share),
        ]

    words = {key: section[key] for key in ("batch", "size", "working_size")}
    header = ["network alone", "s a slice", "times Keras in batches", "GFLOP/s", "of the bf16 product's rate"]
    table = as_table(header, _labelled(ways, NETWORK, columns, **words))
    slowest = max(keras.get("slowest", ()), default=None)
    if slowest is not None:
        table += f"\n\nThe slowest of Keras's batches: {number(slowest)} s a slice."
    return {"speed-network": table, "speed-limit": _limit(section)}


def network_rate(section: Section, name: str) -> float | None:
    """GFLOP/s of a way to compute the network, by the operations that it does."""
    seconds = typical(section["ways"].get(name))
    if seconds is None:
        return None
    counts = section["gflop"]["buda" if name.startswith("study") else "unet"]
    share = typical(section["ways"][name], "share_of_pixels")
    # What is seen of patients is counted by its share of whole slices of the shipped model's working size.
    sizes = {"working": section["working_size"], "windows": WORKING_SIZE, "seen": WORKING_SIZE}
    size = sizes.get(name.split()[1], section["size"])
    return counts[str(size)] * (1 if share is None else share) / seconds


def _limit(section: Section) -> str:
    processor, ways = section["processor"], section["ways"]
    rows = []
    for name in ("fp32", "bf16", "int8"):
        measured = typical(ways.get(f"{name} product"), "gflops")
        instruction = processor["instructions"].get(name)
        if instruction or measured:
            used = f"`{instruction}`" if instruction else "none of its own"
            rows.append([name, used, number(processor["gflops"].get(name)), number(measured)])
    table = as_table(
        ["", "widest instructions", "G operations/s at most, at the clock given", "matrix product, PyTorch"],
        rows,
    )
    clock = f"{processor['ghz']:.2f} GHz" if processor["ghz"] else "a clock that the system does not name"
    return f"{processor['name']}, {processor['cores']} cores, {clock}.\n\n{table}"


def patient_tables(section: Section) -> dict[str, str]:
    """A patient from folder to mask files."""
    warm, cold = section["warm"], section["cold"]

    def columns(name: str) -> list[str]:
        failed = cold.get(name, {}).get("problem")
        return [
            number(typical(warm[name])),
            times(ratio(warm["keras"], warm[name])),
            percent(typical(warm[name], "outside")),
            f"not measured: {failed}" if failed else number(typical(cold.get(name))),
            times(ratio(cold.get("keras"), cold.get(name))),
        ]

    header = ["folder to mask files", "warm, s a patient", "times Keras", "outside of the network"]
    header += ["cold start, s", "times Keras"]
    table = as_table(header, _labelled(warm, PROGRAMS, columns))
    first = section["first run ever"]
    words = f"not measured: {first['problem']}" if "problem" in first else number(typical(first), "s")
    slices = ", ".join(str(count) for count in section["slices"])
    note = f"Slices of the patients: {slices}; the cold start is of the first. First run ever: {words}."
    return {"speed-patient": f"{table}\n\n{note}"}


def cohort_tables(section: Section) -> dict[str, str]:
    """Several patients, start-up counted."""
    programs = section["programs"]

    def columns(name: str) -> list[str]:
        seconds = typical(programs[name])
        each = None if seconds is None else seconds / len(section["slices"])
        return [
            number(seconds),
            number(each),
            times(ratio(programs["keras"], programs[name])),
            number(typical(programs[name], "peak_mb")),
        ]

    name = f"{len(section['slices'])} patients, {sum(section['slices'])} slices"
    header = [name, "s", "s a patient", "times Keras", "peak memory, MB"]
    return {"speed-cohort": as_table(header, _labelled(programs, PROGRAMS, columns))}


def training_tables(section: Section) -> dict[str, str]:
    """Training steps, and a training's memory."""
    ways = section["ways"]
    rows = []
    for size, batch in section["steps"]:
        keras, ours = ways[f"keras {size} {batch}"], ways[f"ours {size} {batch}"]
        cells = [
            f"not measured: {way['problem']}" if "problem" in way else number(typical(way))
            for way in (keras, ours)
        ]
        rows.append([str(size), str(batch), *cells, times(ratio(keras, ours))])
    header = ["size", "batch", "Keras, s a slice", "**ours**, s a slice", "times Keras"]
    cohorts = [
        [
            count,
            *(
                [f"not measured: {found['problem']}", "", "", ""]
                if "problem" in found
                else [
                    str(found["slices"]),
                    number(found["data_mb"]),
                    number(found.get("peak_mb")),
                    percent(found["waiting"]),
                ]
            ),
        ]
        for count, found in section["cohorts"].items()
    ]
    columns = ["patients", "training slices", "their bytes, MB", "peak memory, MB", "waiting for data"]
    return {"speed-training": as_table(header, rows), "speed-training-memory": as_table(columns, cohorts)}


def parts_tables(section: Section) -> dict[str, str]:
    """What is around the network."""
    ways = section["ways"]

    def columns(name: str) -> list[str]:
        seconds = typical(ways[name])
        return [number(None if seconds is None else 1000 * seconds)]

    header = [f"a patient of {section['slices']} slices", "ms"]
    return {
        "speed-parts": as_table(header, _labelled(ways, PARTS, columns, slices=section["threshold_slices"]))
    }


def start_tables(section: Section) -> dict[str, str]:
    """Imports and napari's start."""
    programs = section["programs"]

    def columns(name: str) -> list[str]:
        seconds = typical(programs[name])
        return [number(None if seconds is None else 1000 * seconds)]

    rows = _labelled(programs, START, columns)
    napari = section["napari"]
    if "problem" in napari:
        rows.append(["napari until the viewer is there", f"not measured: {napari['problem']}"])
    else:
        for word, seconds in napari.items():
            text = f"napari until the viewer is there, {word} the plugin"
            rows.append([text, number(1000 * statistics.median(seconds))])
    plugin = section["plugin"]
    seconds = typical(plugin)
    cell = f"not measured: {plugin['problem']}" if "problem" in plugin else number(1000 * (seconds or 0))
    rows.append(["of that, reading and registering the manifest", cell])
    return {"speed-start": as_table(["", "ms"], rows)}


def window_tables(section: Section) -> dict[str, str]:
    """The window during runs."""
    if "problem" in section:
        return {"speed-window": f"Not measured: {section['problem']}."}
    rows = [
        [
            f"run {turn}",
            number(run["first_sign"]),
            number(run["first_slices"]),
            number(run["seconds"]),
            number(1000 * run["stall"]),
        ]
        for turn, run in enumerate(section["runs"], start=1)
    ]
    header = ["sample patient", "first sign, s", "first slices, s", "result, s", "longest stall, ms"]
    slider = [1000 * statistics.median(section["threshold"][what]) for what in ("labels", "drawn")]
    note = f"A step of the threshold slider for {section['slices']} slices: new labels after "
    note += f"{number(slider[0])} ms, drawn after {number(slider[1])} ms."
    return {"speed-window": f"{as_table(header, rows)}\n\n{note}"}


def growth_tables(section: Section) -> dict[str, str]:
    """Time and memory as cohorts grow."""
    named = {f"{n} patient{'s' * (n != '1')}": found for n, found in section["cohorts"].items()}
    named["the largest of these patients alone"] = section["alone"]
    named["the largest patient of all"] = section["largest"]
    rows = []
    for name, found in named.items():
        if "problem" in found:
            rows.append([name, "", f"not measured: {found['problem']}", "", ""])
            continue
        cells = [number(found["seconds"]), number(found["seconds"] / found["slices"])]
        rows.append([name, str(found["slices"]), *cells, number(found.get("peak_mb"))])
    return {"speed-growth": as_table(["`segment`", "slices", "s", "s a slice", "peak memory, MB"], rows)}


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
    """All tables of what was measured, by the names of their marks in docs/speed.md; the goals first."""
    found = {"speed-goals": goals_table(sections), "speed-machine": machine_table(sections)}
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
    header = ["section", "date", "patients", "processor busy before", "after", "minutes", "versions"]
    return as_table(header, rows)


# --- goals -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Goal:
    """What shall hold: a figure at least, or at most, as large as a limit."""

    text: str
    section: str
    limit: float
    at_least: bool
    show: Callable[[float], str]
    figure: Callable[[Section], float | None]

    def row(self, sections: Mapping[str, Section]) -> list[str]:
        """The goal beside what was found."""
        found = self.figure(sections[self.section]) if self.section in sections else None
        sign = ">=" if self.at_least else "<"
        row = [self.text, f"{sign} {self.show(self.limit)}"]
        if found is None:
            return [*row, "", "not measured"]
        met = found >= self.limit if self.at_least else found < self.limit
        return [*row, self.show(found), "met" if met else "**not met**"]


def _of_network(what: str, engines: Sequence[str] = AUTOMATIC_ENGINES) -> Callable[[Section], float | None]:
    """Times Keras in batches, of the quicker of some engines."""

    def figure(section: Section) -> float | None:
        ways = section["ways"]
        ours = (ways.get(f"{engine} {what}") for engine in engines)
        found = [r for way in ours if (r := ratio(ways["keras batch"], way)) is not None]
        return max(found, default=None)

    return figure


def _share_of_limit(section: Section) -> float | None:
    product = typical(section["ways"]["bf16 product"], "gflops")
    rates = [network_rate(section, f"{name} whole") for name in AUTOMATIC_ENGINES]
    known = [rate for rate in rates if rate is not None]
    return max(known) / product if known and product else None


def _automatic(ways: Ways) -> Mapping[str, Any] | None:
    """What a user gets who chooses nothing."""
    return next((ways[name] for name in AUTOMATIC_ENGINES if typical(ways.get(name)) is not None), None)


def _worst_step(section: Section) -> float | None:
    names = [f"{size} {batch}" for size, batch in section["steps"]]
    found = [ratio(section["ways"][f"keras {name}"], section["ways"][f"ours {name}"]) for name in names]
    known = [value for value in found if value is not None]
    return min(known, default=None)


def _cropped_step(section: Section) -> float | None:
    """Times Keras, of slices as each sees them: cut to the head, and whole; the worst batch."""
    ways = section["ways"]
    batches = [batch for size, batch in section["steps"] if size == SIZE]
    found = [ratio(ways.get(f"keras {SIZE} {b}"), ways.get(f"ours {WORKING_SIZE} {b}")) for b in batches]
    known = [value for value in found if value is not None]
    return min(known, default=None)


def _whole_training(section: Section) -> float | None:
    """Times Keras, of a slice in a training from scratch with the default options, smaller slices first."""
    options = TrainOptions(init="scratch").complete(fine_tuning=False)
    ways, batch, first = section["ways"], options.batch_size, options.small_share
    keras = ways.get(f"keras {WORKING_SIZE} {batch}")
    small = ways.get(f"ours {options.small_size} {batch}")
    large = ways.get(f"ours {WORKING_SIZE} {batch}")
    if typical(keras) is None or typical(small) is None or typical(large) is None:
        return None
    assert keras is not None
    assert small is not None
    assert large is not None
    assert first is not None
    turns = zip(small["seconds"], large["seconds"], strict=False)
    return ratio(keras, {"seconds": [first * s + (1 - first) * w for s, w in turns]})


def _largest(key: str) -> Callable[[Section], float | None]:
    def figure(section: Section) -> float | None:
        found = [cohort[key] for cohort in section["cohorts"].values() if key in cohort]
        return max(found, default=None)

    return figure


def _growth(beside: Callable[[Section], Mapping[str, Any]]) -> Callable[[Section], float | None]:
    """Peak memory of the largest cohort, times that of something else in the section."""

    def figure(section: Section) -> float | None:
        found = [cohort["peak_mb"] for cohort in section["cohorts"].values() if "peak_mb" in cohort]
        other = beside(section).get("peak_mb")
        return found[-1] / other if len(found) > 1 and other else None

    return figure


def _later_runs(key: str) -> Callable[[Section], float | None]:
    return lambda section: max((run[key] for run in section.get("runs", [])[1:]), default=None)


def _first_run(key: str) -> Callable[[Section], float | None]:
    return lambda section: section["runs"][0][key] if section.get("runs") else None


def _slider(section: Section) -> float | None:
    return statistics.median(section["threshold"]["labels"]) if "threshold" in section else None


def _added(section: Section) -> float | None:
    napari = section["napari"]
    if "problem" in napari:
        return None
    return statistics.median(a - b for a, b in zip(napari["with"], napari["without"], strict=True))


def _milliseconds(value: float) -> str:
    return number(1000 * value, "ms")


GOALS = (
    Goal(
        "network alone, whole slices: times Keras in batches",
        "network",
        3,
        True,
        times,
        _of_network("whole"),
    ),
    Goal(
        "the same in 8 bits, which is a choice",
        "network",
        3,
        True,
        times,
        _of_network("whole", [INT8_ENGINE]),
    ),
    Goal(
        "network alone, with everything that saves work: times Keras in batches",
        "network",
        8,
        True,
        times,
        _of_network("seen"),
    ),
    Goal(
        "the same in 8 bits, which is a choice",
        "network",
        8,
        True,
        times,
        _of_network("seen", [INT8_ENGINE]),
    ),
    Goal(
        "network alone, whole slices: share of the rate of PyTorch's bf16 product",
        "network",
        0.85,
        True,
        percent,
        _share_of_limit,
    ),
    Goal(
        "a cohort from folder to mask files, start-up counted: times Keras",
        "cohort",
        6,
        True,
        times,
        lambda s: ratio(s["programs"]["keras"], _automatic(s["programs"])),
    ),
    Goal(
        "the same in 8 bits, which is a choice",
        "cohort",
        6,
        True,
        times,
        lambda s: ratio(s["programs"]["keras"], s["programs"].get(INT8_ENGINE)),
    ),
    Goal(
        "a patient, warm: share of time outside of the network",
        "patient",
        0.15,
        False,
        percent,
        lambda s: typical(_automatic(s["warm"]), "outside"),
    ),
    Goal(
        f"training step, ours on the head at {WORKING_SIZE}, Keras on whole slices of {SIZE}: times Keras",
        "training",
        3,
        True,
        times,
        _cropped_step,
    ),
    Goal(
        "training step at equal sizes, the worst size and batch: times Keras",
        "training",
        3,
        True,
        times,
        _worst_step,
    ),
    Goal(
        "training from scratch, smaller slices first as by default: times Keras",
        "training",
        3,
        True,
        times,
        _whole_training,
    ),
    Goal("training: share of time waiting for data", "training", 0.05, False, percent, _largest("waiting")),
    Goal(
        "window: longest stall from the second run on",
        "window",
        0.05,
        False,
        _milliseconds,
        _later_runs("stall"),
    ),
    Goal(
        "window: first slices are done, first run",
        "window",
        2,
        False,
        _milliseconds,
        _first_run("first_slices"),
    ),
    Goal("window: threshold slider to new labels", "window", 0.05, False, _milliseconds, _slider),
    Goal("what the plugin adds to napari's start", "start", 0.03, False, _milliseconds, _added),
    Goal(
        "peak memory of `segment`, largest patient",
        "growth",
        1500,
        False,
        lambda value: number(value, "MB", 4),
        lambda s: s["largest"].get("peak_mb"),
    ),
    Goal(
        "peak memory of `segment`, largest cohort: times its largest patient's alone",
        "growth",
        1.1,
        False,
        times,
        _growth(lambda s: s["alone"]),
    ),
    Goal(
        "the same: times that of one patient of median size",
        "growth",
        1.1,
        False,
        times,
        _growth(lambda s: next(iter(s["cohorts"].values()))),
    ),
)


def goals_table(sections: Mapping[str, Section]) -> str:
    """Each goal beside what was measured."""
    return as_table(["", "goal", "measured", ""], [goal.row(sections) for goal in GOALS])
